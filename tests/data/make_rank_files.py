"""Owns: well-formed AnnData files for the comparison of runs: one cut of the sample in four layouts, and a wide sparse one.

make_rank_files.py SAMPLE FOLDER. Must never need more than h5py and numpy. csr, csc, dense and unsorted.h5ad hold the same counts
and have no split column; wide.h5ad has 397 cells and 3000 genes.
"""
import os
import sys

import h5py
import numpy as np

sample, folder = sys.argv[1:]
TEXT = h5py.string_dtype("utf-8")
random = np.random.default_rng(7)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def texts(parent, name, values):
    d = parent.create_dataset(name, data=np.array(values, dtype=object), dtype=TEXT)
    encode(d, "string-array", "0.2.0")


def frame(f, name, index, columns):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = "_index"
    g.attrs["column-order"] = np.array(list(columns), dtype=object) if columns else np.array([], dtype="f8")
    texts(g, "_index", index)
    for column, values in columns.items():
        texts(g, column, values)


def sparse(f, kind, shape, parts):
    g = encode(f.create_group("X"), kind, "0.1.0")
    g.attrs["shape"] = np.array(shape)
    for name, values in zip(["data", "indices", "indptr"], parts):
        g.create_dataset(name, data=values, chunks=True, compression="gzip")


def create(name, index, genes, columns):
    f = h5py.File(os.path.join(folder, name), "w")
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", index, columns)
    frame(f, "var", genes, {})
    return f


def parts_of(x):
    """data, indices, indptr of the nonzeros of a dense matrix, row by row."""
    row, col = np.nonzero(x)
    indptr = np.searchsorted(row, np.arange(len(x) + 1))
    return x[row, col], col.astype("i4"), indptr.astype("i8")


def cut_of_sample(n):
    with h5py.File(sample, "r") as f:
        rows = np.sort(random.permutation(f["obs/cell"].shape[0])[:n])
        g = f["X"]
        indptr, indices, data = g["indptr"][:], g["indices"][:], g["data"][:]
        x = np.zeros((n, g.attrs["shape"][1]), dtype="f4")
        for i, r in enumerate(rows):
            x[i, indices[indptr[r]:indptr[r + 1]]] = data[indptr[r]:indptr[r + 1]]

        def text(d):
            return [v.decode() for v in d[:]]

        columns = {}
        for c in ["condition", "dose", "patient_id"]:
            levels = text(f["obs"][c]["categories"])
            columns[c] = [levels[k] for k in f["obs"][c]["codes"][:][rows]]
        names = text(f["obs/cell"])
        return x, [names[r] for r in rows], text(f["var/gene"]), columns


def layouts():
    x, index, genes, columns = cut_of_sample(1201)
    parts = parts_of(x)
    with create("csr.h5ad", index, genes, columns) as f:
        sparse(f, "csr_matrix", x.shape, parts)
    with create("csc.h5ad", index, genes, columns) as f:
        sparse(f, "csc_matrix", x.shape, parts_of(x.T))
    with create("dense.h5ad", index, genes, columns) as f:
        encode(f.create_dataset("X", data=x, chunks=(100, 70), compression="lzf"), "array", "0.2.0")
    with create("unsorted.h5ad", index, genes, columns) as f:
        data, indices, indptr = (p.copy() for p in parts)
        for a, b in zip(indptr[:-1], indptr[1:]):
            order = a + random.permutation(b - a)
            data[a:b], indices[a:b] = data[order], indices[order]
        sparse(f, "csr_matrix", x.shape, (data, indices, indptr))


def wide():
    n, g = 397, 3000
    x = random.poisson(random.gamma(0.2, 0.5, g), (n, g)).astype("f4")
    pert = random.choice(["ctrl", "A", "B", "A+B"], n)
    columns = {
        "condition": list(pert), "dose": [{"A+B": "0.5+2"}.get(p, "1") for p in pert],
        "cell_type": list(random.choice(["T", "B", "NK"], n)), "donor": list(random.choice(["x", "y"], n)),
        "split": list(random.choice(["train", "test", "ood"], n, p=[0.9, 0.07, 0.03])),
    }
    with create("wide.h5ad", [f"cell{i}" for i in range(n)], [f"gene{j}" for j in range(g)], columns) as f:
        sparse(f, "csr_matrix", x.shape, parts_of(x))


layouts()
wide()
