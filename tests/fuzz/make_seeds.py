"""Owns: the small AnnData files that fuzzing starts from, one of every layout, filter and age, and where their values lie.

make_seeds.py FOLDER. Must never need more than h5py, numpy, libzstd and libblosc. Beside FILE.h5ad, FILE.values lists offset and
length of the stored numbers and texts, a pair a line, for mutations that leave HDF5's own structures alone.
"""
import ctypes
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
N, G = 15, 6
TEXT = h5py.string_dtype("utf-8")
rng = np.random.default_rng(5)
X = np.where(rng.random((N, G)) < 0.6, rng.poisson(3, (N, G)) + 1, 0)
CONDITION = [["ctrl", "A", "B", "A+B"][i % 4] for i in range(N)]
COLUMNS = {
    "condition": CONDITION,
    "dose": [{"ctrl": "1", "A": "0.5", "B": "2", "A+B": "0.5+2"}[c] for c in CONDITION],
    "cell_type": [["T", "NK"][i // 4 % 2] for i in range(N)],
    "split": [("ood" if i % 8 == 7 else "test" if i >= 10 else "train") for i in range(N)],
}


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = np.bytes_(kind)
    obj.attrs["encoding-version"] = np.bytes_(version)
    return obj


def texts(parent, name, values, fixed=True):
    data = np.array(values, dtype="S" if fixed else object)
    return encode(parent.create_dataset(name, data=data, dtype=None if fixed else TEXT), "string-array", "0.2.0")


def categorical(parent, name, values, fixed):
    levels = sorted(set(values))
    g = encode(parent.create_group(name), "categorical", "0.2.0")
    g.create_dataset("codes", data=np.array([levels.index(v) for v in values], dtype="i1"))
    texts(g, "categories", levels, fixed)


def frame(f, name, index, columns, fixed):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = np.bytes_("_index")
    g.attrs["column-order"] = np.array(list(columns), dtype="S" if fixed else object) if columns else np.array([], "f8")
    texts(g, "_index", index, fixed)
    for column, values in columns.items():
        categorical(g, column, values, fixed)
    return g


def cells():
    return [f"c{i}" for i in range(N)]


def genes():
    return [f"g{j}" for j in range(G)]


def create(name, fixed=True, columns=COLUMNS, **how):
    f = h5py.File(os.path.join(folder, name + ".h5ad"), "w", **how)
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", cells(), columns, fixed)
    frame(f, "var", genes(), {}, fixed)
    return f


def parts(x):
    data, indices, indptr = [], [], [0]
    for row in x:
        at = np.nonzero(row)[0]
        data.extend(row[at])
        indices.extend(at)
        indptr.append(len(data))
    return np.array(data), np.array(indices), np.array(indptr)


def sparse(f, name="X", csc=False, dtypes=("f4", "i4", "i4"), **how):
    g = encode(f.create_group(name), "csc_matrix" if csc else "csr_matrix", "0.1.0")
    g.attrs["shape"] = np.array([N, G])
    for part, values, dtype in zip(["data", "indices", "indptr"], parts(X.T if csc else X), dtypes):
        g.create_dataset(part, data=values.astype(dtype), **how)
    return g


def zstd(values):
    lib = ctypes.CDLL("libzstd.so.1")
    out = ctypes.create_string_buffer(values.nbytes + 128)
    n = lib.ZSTD_compress(out, ctypes.c_size_t(len(out)), values.tobytes(), ctypes.c_size_t(values.nbytes), 3)
    return 32015, out.raw[:n]


def blosc(values):
    lib = ctypes.CDLL("libblosc.so.1")
    out = ctypes.create_string_buffer(values.nbytes + 16)
    size = ctypes.c_size_t
    n = lib.blosc_compress_ctx(5, 1, size(values.itemsize), size(values.nbytes), values.tobytes(), out, size(len(out)), b"blosclz", size(0), 1)
    return 32001, out.raw[:n]


def foreign(group, packed, size=16):
    """Replaces data and indices by arrays whose chunks are packed by a filter that h5py does not have."""
    for name in ["data", "indices"]:
        values = group[name][:]
        del group[name]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((size,))
        how.set_filter(packed(np.zeros(size, values.dtype))[0], h5py.h5z.FLAG_OPTIONAL, (4,))
        d = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(values.dtype), h5py.h5s.create_simple((len(values),)), how)
        for at in range(0, len(values), size):
            chunk = np.zeros(size, values.dtype)
            chunk[: len(values[at : at + size])] = values[at : at + size]
            d.write_direct_chunk((at,), packed(chunk)[1])


def nullable(parent, name, kind, values):
    g = encode(parent.create_group(name), kind, "0.1.0")
    g.create_dataset("values", data=values, dtype=TEXT if kind == "nullable-string-array" else None)
    g.create_dataset("mask", data=np.zeros(len(values), dtype=bool))


def write_all():
    with create("csr") as f:
        sparse(f)
    with create("csr_text", fixed=False) as f:
        sparse(f)
    with create("csr_gzip") as f:
        sparse(f, compression="gzip", shuffle=True, chunks=(16,))
    with create("csr_latest", libver="latest") as f:
        sparse(f, compression="gzip", chunks=(16,), maxshape=(None,))
    with create("csr_lzf") as f:
        sparse(f, compression="lzf", chunks=(16,))
    with create("csr_checked") as f:
        sparse(f, fletcher32=True, chunks=(16,))
    with create("csr_types") as f:
        sparse(f, dtypes=(">i2", "u1", "i8"))
    with create("csr_half") as f:
        sparse(f, dtypes=("f2", ">i8", ">u4"), chunks=(7,))
    for name, packed in [("csr_zstd", zstd), ("csr_blosc", blosc)]:
        with create(name) as f:
            foreign(sparse(f), packed)
    with create("csc") as f:
        sparse(f, csc=True)
    with create("dense") as f:
        encode(f.create_dataset("X", data=X.astype("f4")), "array", "0.2.0")
    with create("dense_gzip") as f:
        encode(f.create_dataset("X", data=X.astype("u2"), chunks=(5, 4), compression="gzip"), "array", "0.2.0")
    with create("raw") as f:
        encode(f.create_dataset("X", data=np.log1p(X)), "array", "0.2.0")
        raw = encode(f.create_group("raw"), "raw", "0.1.0")
        sparse(raw)
        g = frame(raw, "var", genes(), {}, True)
        g.attrs["column-order"] = np.array([b"highly_variable"])
        encode(g.create_dataset("highly_variable", data=np.arange(G) % 2 == 0), "array", "0.2.0")
    with create("lists", columns={**COLUMNS, "cov_cond": [f"{k}_{c}" for k, c in zip(COLUMNS["cell_type"], CONDITION)]}) as f:
        sparse(f)
        lists = f.create_group("uns").create_group("rank_genes_groups_cov")
        texts(lists, "T_A", ["g1", "g2"])
        texts(lists, "NK_B", ["g0", "g5"], fixed=False)
    with create("pandas3", columns={}) as f:
        sparse(f)
        o = f["obs"]
        for column, values in COLUMNS.items():
            nullable(o, column, "nullable-string-array", np.array(values, dtype=object))
        o.attrs["column-order"] = np.array(list(COLUMNS), dtype="S")
    with h5py.File(os.path.join(folder, "old07.h5ad"), "w") as f:
        for name, index in [("obs", cells()), ("var", genes())]:
            g = encode(f.create_group(name), "dataframe", "0.1.0")
            g.attrs["_index"] = np.bytes_("index")
            g.create_dataset("index", data=np.array(index, "S"))
            g.attrs["column-order"] = np.array([], "f8")
        kinds = f["obs"].create_group("__categories")
        for column, values in COLUMNS.items():
            levels = sorted(set(values))
            c = kinds.create_dataset(column, data=np.array(levels, "S"))
            d = f["obs"].create_dataset(column, data=np.array([levels.index(v) for v in values], "i1"))
            d.attrs["categories"] = c.ref
        f["obs"].attrs["column-order"] = np.array(list(COLUMNS), "S")
        sparse(f)
    with h5py.File(os.path.join(folder, "old06.h5ad"), "w") as f:
        u = f.create_group("uns")
        rows = []
        for column, values in COLUMNS.items():
            levels = sorted(set(values))
            u.create_dataset(f"{column}_categories", data=np.array(levels, "S"))
            rows.append([levels.index(v) for v in values])
        kind = np.dtype([("index", "S4")] + [(c, "i1") for c in COLUMNS])
        f.create_dataset("obs", data=np.array([(c, *codes) for c, codes in zip(cells(), zip(*rows))], dtype=kind))
        f.create_dataset("var", data=np.array([(g,) for g in genes()], dtype=[("index", "S4")]))
        g = f.create_group("X")
        g.attrs["h5sparse_format"] = np.bytes_("csr")
        g.attrs["h5sparse_shape"] = np.array([N, G])
        for part, values in zip(["data", "indices", "indptr"], parts(X)):
            g.create_dataset(part, data=values.astype("i4"))


def write_places(name):
    """Stored numbers and fixed texts by their addresses; texts of variable length where they are found."""
    path = os.path.join(folder, name)
    places = []

    def add(_, d):
        if not isinstance(d, h5py.Dataset) or d.dtype.kind == "O" or d.size == 0:
            return
        if d.chunks is None:
            if d.id.get_offset() is not None:
                places.append((d.id.get_offset(), d.id.get_storage_size()))
        else:
            for k in range(d.id.get_num_chunks()):
                chunk = d.id.get_chunk_info(k)
                places.append((chunk.byte_offset, chunk.size))

    with h5py.File(path) as f:
        f.visititems(add)
    content = open(path, "rb").read()
    if content.find(b"GCOL") >= 0:
        for value in sorted({v for values in COLUMNS.values() for v in values if len(v) > 1}):
            at = content.find(value.encode() + b"\0")
            if at >= 0:
                places.append((at, len(value)))
    with open(path.replace(".h5ad", ".values"), "w") as out:
        out.write("".join(f"{at} {n}\n" for at, n in places))


write_all()
for file in sorted(os.listdir(folder)):
    if file.endswith(".h5ad"):
        write_places(file)
