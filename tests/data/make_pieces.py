"""Writes the cells of an AnnData file, its genes and its lists as several files, each stored in another way.

Owns: pieces a.h5ad to d.h5ad with the same genes, m.h5ad in the place of b with them in another order, k.h5ad with c's cells gene by
gene (CSC), f.h5ad in the place of c with genes missing and others added; whole.h5ad and few.h5ad, which are the same cells in
one file; half.h5ad with too few of the genes; many/*.h5ad, 150 pieces. Must never change a count.
usage: make_pieces.py IN FOLDER"""

import os
import sys

import h5py
import numpy as np

source, folder = sys.argv[1:]
r = np.random.default_rng(7)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def strings(f, path, values):
    encode(f.create_dataset(path, data=np.array(values, dtype=object), dtype=h5py.string_dtype("utf-8")), "string-array", "0.2.0")


def column(f, path):
    group = f[path]
    if isinstance(group, h5py.Dataset):
        return group.asstr()[:] if h5py.check_string_dtype(group.dtype) else group[:].astype(str)
    categories = group["categories"]
    return (categories.asstr()[:] if h5py.check_string_dtype(categories.dtype) else categories[:].astype(str))[group["codes"][:]]


with h5py.File(source) as f:
    n_cells, n_genes = f["X"].attrs["shape"] if isinstance(f["X"], h5py.Group) else f["X"].shape
    if isinstance(f["X"], h5py.Group):
        x = np.zeros((n_cells, n_genes), "f4")
        x[np.repeat(np.arange(n_cells), np.diff(f["X/indptr"][:])), f["X/indices"][:]] = f["X/data"][:]
    else:
        x = f["X"][:].astype("f4")
    index = f["var"].attrs["_index"]
    genes = f[f"var/{index}"].asstr()[:]
    names = f[f"obs/{f['obs'].attrs['_index']}"].asstr()[:]
    wanted = list(f["obs"].attrs["column-order"])
    obs = {c: column(f, f"obs/{c}") for c in wanted}
    key = "rank_genes_groups_cov"
    lists = {k: v.asstr()[:] for k, v in f[f"uns/{key}"].items()} if f"uns/{key}" in f else {}


def write_matrix(f, m, layout, **store):
    if layout == "dense":
        encode(f.create_dataset("X", data=m, **store), "array", "0.2.0")
        return
    m = m if layout == "csr" else m.T
    g = encode(f.create_group("X"), f"{layout}_matrix", "0.1.0")
    g.attrs["shape"] = np.array(m.shape if layout == "csr" else m.shape[::-1])
    rows, places = np.nonzero(m)
    g.create_dataset("data", data=m[rows, places], **store)
    g.create_dataset("indices", data=places.astype("i4"), **store)
    g.create_dataset("indptr", data=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m.shape[0]))]))


def write(path, rows, chosen, layout, categorical, part_of_lists, more=(), **store):
    with h5py.File(f"{folder}/{path}", "w") as f:
        encode(f, "anndata", "0.1.0")
        m = np.concatenate([x[rows][:, chosen], np.ones((len(rows), len(more)), "f4")], axis=1)
        write_matrix(f, m, layout, **store)
        var = encode(f.create_group("var"), "dataframe", "0.2.0")
        var.attrs["_index"] = "_index"
        var.attrs["column-order"] = np.array(["first"], dtype=object)
        strings(var, "_index", list(genes[chosen]) + list(more))
        encode(var.create_dataset("first", data=np.arange(m.shape[1]) < 80), "array", "0.2.0")
        frame = encode(f.create_group("obs"), "dataframe", "0.2.0")
        frame.attrs["_index"] = "_index"
        frame.attrs["column-order"] = np.array(wanted, dtype=object)
        strings(frame, "_index", names[rows])
        for c in wanted:
            if not categorical:
                strings(frame, c, obs[c][rows])
                continue
            levels = r.permutation(np.unique(obs[c][rows]))
            g = encode(frame.create_group(c), "categorical", "0.2.0")
            g.attrs["ordered"] = False
            strings(g, "categories", levels)
            code = {v: i for i, v in enumerate(levels)}
            encode(g.create_dataset("codes", data=np.array([code[v] for v in obs[c][rows]], "i1")), "array", "0.2.0")
        uns = encode(encode(f.create_group("uns"), "dict", "0.1.0").create_group(key), "dict", "0.1.0")
        for k in part_of_lists:
            strings(uns, k, lists[k])


cut = [0, n_cells // 3, n_cells // 3 + 3, 2 * n_cells // 3, n_cells]
a, b, c, d = (np.arange(cut[i], cut[i + 1]) for i in range(4))
everything, every = np.arange(n_cells), np.arange(n_genes)
keys = sorted(lists)
packed = dict(compression="gzip", shuffle=True, chunks=(512,))
write("whole.h5ad", everything, every, "csr", True, keys, **packed)
write("a.h5ad", a, every, "csr", True, keys[::2], **packed)
write("b.h5ad", b, every, "csr", False, [])
write("c.h5ad", c, every, "dense", True, keys[1::2], compression="lzf", chunks=(16, (n_genes + 1) // 2))
write("d.h5ad", d, every, "csr", False, keys, compression="lzf", chunks=(1000,))
write("m.h5ad", b, r.permutation(n_genes), "csr", True, [])
write("k.h5ad", c, every, "csc", True, keys[1::2], **packed)
few = np.sort(r.choice(n_genes, n_genes - n_genes // 5, replace=False))
write("f.h5ad", c, r.permutation(few), "csr", True, keys[1::2], [f"new_{i}" for i in range(7)])
write("few.h5ad", everything, few, "csr", True, keys, **packed)
write("half.h5ad", b, every[: n_genes // 3], "csr", True, [], [f"other_{i}" for i in range(n_genes // 2)])
os.mkdir(f"{folder}/many")
for i, rows in enumerate(np.array_split(everything, 150)):
    layout = "dense" if i % 7 == 3 else "csr"
    chunks = dict(compression="gzip", chunks=(4, n_genes) if layout == "dense" else (256,)) if i % 3 else {}
    write(f"many/{i:03}.h5ad", rows, r.permutation(n_genes) if i % 5 == 4 else every, layout, i % 2 == 0, keys if i == 2 else [], **chunks)
