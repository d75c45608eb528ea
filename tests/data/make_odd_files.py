"""Owns: AnnData files of every encoding that has to be read, and of every fault that has to be refused, for the reader's tests.

make_odd_files.py FOLDER. Must never need more than h5py and numpy. The names of files that all hold the same matrix go to matrices.txt.
"""
import ctypes
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
N, G = 12, 9
TEXT = h5py.string_dtype("utf-8")


def truth():
    """The matrix of all well-formed files; the tests in C have the same formula. Row 4 is empty."""
    i, j = np.meshgrid(np.arange(N), np.arange(G), indexing="ij")
    k = (31 * i + 17 * j + i * j) % 7
    x = np.where(k < 3, 0, k + 3 * i)
    x[4] = 0
    return x


def path(name):
    return os.path.join(folder, name)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def texts(parent, name, values, **how):
    return encode(parent.create_dataset(name, data=np.array(values, dtype=object), dtype=TEXT, **how), "string-array", "0.2.0")


def array(parent, name, values, **how):
    return encode(parent.create_dataset(name, data=values, **how), "array", "0.2.0")


def categorical(parent, name, codes, categories):
    g = encode(parent.create_group(name), "categorical", "0.2.0")
    g.attrs["ordered"] = False
    array(g, "codes", np.asarray(codes, dtype="i1"))
    if isinstance(categories[0], str):
        texts(g, "categories", categories)
    else:
        array(g, "categories", np.asarray(categories))
    return g


def nullable(parent, name, kind, values, mask):
    g = encode(parent.create_group(name), kind, "0.1.0")
    if kind == "nullable-string-array":
        texts(g, "values", values)
    else:
        array(g, "values", values)
    array(g, "mask", np.asarray(mask, dtype=bool))


def cells():
    return [f"cell{i}" for i in range(N)]


def genes():
    return [f"gene{j}" for j in range(G)]


def frame(f, name, index, key="_index"):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = key
    g.attrs["column-order"] = np.array([], dtype="f8")
    texts(g, key, index)
    return g


def order(g, *names):
    g.attrs["column-order"] = np.array(names, dtype=object)


def create(name, n=N, g=G):
    f = h5py.File(path(name), "w")
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", [f"cell{i}" for i in range(n)], "barcode")
    frame(f, "var", [f"gene{j}" for j in range(g)])
    return f


def parts(x, csc=False):
    """data, indices, indptr of the nonzeros."""
    m = x.T if csc else x
    data, indices, indptr = [], [], [0]
    for row in m:
        at = np.nonzero(row)[0]
        data.extend(row[at])
        indices.extend(at)
        indptr.append(len(data))
    return np.array(data), np.array(indices, dtype="i4"), np.array(indptr, dtype="i4")


def sparse(f, name, data, indices, indptr, kind="csr_matrix", shape=(N, G), dtype="f4", itype="i4", ptype="i4", **how):
    g = encode(f.create_group(name), kind, "0.1.0")
    g.attrs["shape"] = np.array(shape, dtype="i8")
    g.create_dataset("data", data=np.asarray(data).astype(dtype), **how)
    g.create_dataset("indices", data=np.asarray(indices).astype(itype), **how)
    g.create_dataset("indptr", data=np.asarray(indptr).astype(ptype), **how)
    return g


same = []


def good(name):
    same.append(name)
    return create(name)


# ---- Chunks packed by filters that h5py does not have: (number, the bytes of a chunk, filters left out)
def zstd(values):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_compress.restype = lib.ZSTD_compressBound.restype = ctypes.c_size_t
    lib.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
    lib.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    out = ctypes.create_string_buffer(lib.ZSTD_compressBound(values.nbytes))
    n = lib.ZSTD_compress(out, len(out), values.tobytes(), values.nbytes, 3)
    return 32015, out.raw[:n], 0


def blosc(values):
    lib = ctypes.CDLL("libblosc.so.1")
    out = ctypes.create_string_buffer(values.nbytes + 16)
    size = ctypes.c_size_t
    n = lib.blosc_compress_ctx(5, 1, size(values.itemsize), size(values.nbytes), values.tobytes(), out, size(len(out)), b"blosclz", size(0), 1)
    assert n > 0
    return 32001, out.raw[:n], 0


def unpacked(values):
    """A chunk that gzip did not make smaller and that is stored as it is."""
    return 1, values.tobytes(), 1


def foreign(group, packed, size=6):
    """Replaces data and indices by arrays whose chunks are packed by `packed`."""
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
            _, stored, mask = packed(chunk)
            d.write_direct_chunk((at,), stored, mask)


# ---- The same matrix in every storage
def matrices():
    x = truth()
    for t in ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">f4", ">f8", ">i2", ">u4", ">i8"]:
        with good(f"csr_{t.replace('>', 'big_')}.h5ad") as f:
            sparse(f, "X", *parts(x), dtype=t)
        with good(f"dense_{t.replace('>', 'big_')}.h5ad") as f:
            array(f, "X", x.astype(t))
    for t in ["i8", "u1", "u2", "u4", "u8", ">i4", ">u8"]:
        with good(f"indices_{t.replace('>', 'big_')}.h5ad") as f:
            sparse(f, "X", *parts(x), itype=t, ptype=t)
    for label, how in {
        "gzip": dict(compression="gzip"), "lzf": dict(compression="lzf"), "shuffle": dict(compression="gzip", shuffle=True),
        "lzf_shuffle": dict(compression="lzf", shuffle=True, fletcher32=True), "chunked": dict(chunks=True),
    }.items():
        tiny = dict(how, chunks=(5,)) if label != "chunked" else how
        with good(f"csr_{label}.h5ad") as f:
            sparse(f, "X", *parts(x), **tiny)
        with good(f"csc_{label}.h5ad") as f:
            sparse(f, "X", *parts(x, csc=True), kind="csc_matrix", **tiny)
        with good(f"dense_{label}.h5ad") as f:
            array(f, "X", x.astype("f4"), **dict(how, chunks=(5, 2)))
    for label, packed in {"zstd": zstd, "blosc": blosc, "unpacked": unpacked}.items():
        with good(f"csr_{label}.h5ad") as f:
            foreign(sparse(f, "X", *parts(x)), packed)
        with good(f"csc_{label}.h5ad") as f:
            foreign(sparse(f, "X", *parts(x, csc=True), kind="csc_matrix"), packed)
    with good("csr_checksum.h5ad") as f:
        sparse(f, "X", *parts(x), fletcher32=True, chunks=(5,))
    with good("csr_odd_chunks.h5ad") as f:  # chunks of `data` and `indices` that do not meet
        sparse(f, "X", *parts(x), compression="gzip", chunks=(7,))
        data = f["X/data"][:]
        del f["X/data"]
        f["X"].create_dataset("data", data=data, compression="gzip", shuffle=True, chunks=(11,))
    with h5py.File(path("csr_v108.h5ad"), "w", libver=("v108", "v108")) as f:
        same.append("csr_v108.h5ad")
        frame(f, "obs", cells())
        frame(f, "var", genes())
        sparse(f, "X", *parts(x), compression="gzip", chunks=(5,), maxshape=(None,))
    with good("dense_one_chunk.h5ad") as f:
        array(f, "X", x.astype("f4"), chunks=(N, G), compression="lzf")
    with good("dense_bare.h5ad") as f:  # anndata 0.7: no encoding
        f.create_dataset("X", data=x.astype("f4"))
    with good("csc.h5ad") as f:
        sparse(f, "X", *parts(x, csc=True), kind="csc_matrix")
    same.append("latest_format.h5ad")
    with h5py.File(path("latest_format.h5ad"), "w", libver="latest") as f:
        frame(f, "obs", cells())
        frame(f, "var", genes())
        sparse(f, "X", *parts(x), compression="gzip", chunks=(5,))
    with good("csr_unsorted.h5ad") as f:
        data, indices, indptr = parts(x)
        for a, b in zip(indptr[:-1], indptr[1:]):
            o = (np.arange(b - a) * 7 + 3) % max(b - a, 1) if (b - a) % 7 else np.arange(b - a)[::-1]
            data[a:b], indices[a:b] = data[a:b][o], indices[a:b][o]
        sparse(f, "X", data, indices, indptr)
    for kind in ["csr", "csc"]:
        with good(f"legacy_{kind}.h5ad") as f:
            g = sparse(f, "X", *parts(x, csc=kind == "csc"))
            for a in list(g.attrs):
                del g.attrs[a]
            g.attrs["h5sparse_format"] = kind
            g.attrs["h5sparse_shape"] = np.array([N, G])


def special_matrices():
    x = truth()
    with create("layer_only.h5ad") as f:
        sparse(f.create_group("layers"), "counts", *parts(x), compression="gzip")
        array(f["layers"], "dense", x.astype("u2"))
    with create("duplicates.h5ad") as f:  # every value v as 1, v - 1 and an explicit 0
        data, indices, indptr = parts(x)
        d = np.stack([np.ones_like(data), np.zeros_like(data), data - 1], 1)
        e = np.concatenate([d[a:b].T.ravel() for a, b in zip(indptr[:-1], indptr[1:])])
        i = np.concatenate([np.tile(indices[a:b], 3) for a, b in zip(indptr[:-1], indptr[1:])])
        sparse(f, "X", e, i, 3 * indptr)
    with create("bool.h5ad") as f:
        sparse(f, "X", *parts(x), dtype=bool)
    with create("exactly_65535.h5ad") as f:
        sparse(f, "X", *parts(np.where(x > 0, 65535, 0)), dtype="f8")
    with create("beyond_16_bits.h5ad") as f:
        y = x.copy()
        y[N - 1, np.nonzero(y[N - 1])[0][-1]] = 65536
        sparse(f, "X", *parts(y), dtype="i8")
    with create("sum_beyond_16_bits.h5ad") as f:
        sparse(f, "X", [65535, 1], [3, 3], [0, 2] + [2] * (N - 1), dtype="i4")
    with create("normalised.h5ad") as f:
        sparse(f, "X", *parts(np.log1p(x)), dtype="f8")
        array(f.create_group("layers"), "dense", np.log1p(x))
    with create("no_counts.h5ad") as f:
        sparse(f, "X", *parts(0 * x))
    wide = 70000
    with create("many_genes.h5ad", g=wide) as f:
        sparse(f, "X", [1, 2, 3], [wide - 1, 65536, 0], [0, 3] + [3] * (N - 1), shape=(N, wide))
        d = np.zeros((N, wide), dtype="u1")
        d[0, [0, 65536, wide - 1]] = 3, 2, 1
        array(f.create_group("layers"), "dense", d)
        array(f["layers"], "chunked", d, chunks=(4, 100), compression="gzip")


# ---- Columns in every encoding
def columns():
    codes = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, -1]
    floats = np.array([0.2, 1, 0.1, 10, 1e-5, 1234.5, 1e6, 0.2, 1, -3, 1 / 3, np.nan])
    with create("columns.h5ad") as f:
        o = f["obs"]
        categorical(o, "category", codes, ["zeta", "Ärger", "alpha", "unused"])
        categorical(o, "category_int", codes, [30, 4, 100])
        categorical(o, "category_bool", np.array(codes) % 2, [False, True])
        texts(o, "text", ["b", "a", "c"] * 4)
        encode(o.create_dataset("text_fixed", data=np.array([b"b", b"a", b"long text"] * 4)), "string-array", "0.2.0")
        array(o, "integer", np.array([10, 9, -1] * 4, dtype="i2"))
        array(o, "unsigned", np.array([10, 9, 200] * 4, dtype="u1"))
        array(o, "truth", np.array([True, False, True] * 4))
        array(o, "real", floats)
        array(o, "single", floats.astype("f4"))
        nullable(o, "nullable_integer", "nullable-integer", np.array([5, 7, 6] * 4), [0, 0, 1] * 4)
        nullable(o, "nullable_boolean", "nullable-boolean", np.array([True, False, False] * 4), [0, 0, 1] * 4)
        nullable(o, "nullable_text", "nullable-string-array", ["x", "w", ""] * 4, [0, 0, 1] * 4)
        texts(o, "a/b", ["n"] * N)
        g = encode(o.create_group("category_nullable"), "categorical", "0.2.0")
        array(g, "codes", np.array(codes, dtype="i2"))
        nullable(g, "categories", "nullable-string-array", ["q", "p", "r"], [0, 0, 0])
        order(o, "category", "category_int", "category_bool", "text", "text_fixed", "integer", "unsigned", "truth", "real", "single",
              "nullable_integer", "nullable_boolean", "nullable_text", "a/b", "category_nullable")
        texts(f["var"], "symbol", [f"S{j}" for j in range(G)])
        order(f["var"], "symbol")
        u = encode(f.create_group("uns"), "dict", "0.1.0")
        d = encode(u.create_group("lists"), "dict", "0.1.0")
        texts(d, "A_x+y", ["g2", "g1"])
        texts(d, "B_Ü 1.0", ["g3"])
        texts(d, "nested/name", ["g4", "g5"])
        texts(d, "empty", [])
        d.create_dataset("no_type", data=np.array([], dtype="f8"))
        encode(d.create_dataset("one", data="g6", dtype=TEXT), "string", "0.2.0")
        array(d, "numbers", np.array([3, 1]))
        nullable(d, "nullable", "nullable-string-array", ["g7", "g8"], [0, 0])
        table = u.create_group("rank_genes_groups").create_dataset("names", (2,), dtype=np.dtype([("A", TEXT), ("B", TEXT)]))
        table[0] = ("a1", "b1")
        table[1] = ("a2", "b2")
        array(f, "X", truth())
    with h5py.File(path("nullable_index.h5ad"), "w") as f:  # pandas 3
        for name, index in [("obs", cells()), ("var", genes())]:
            g = encode(f.create_group(name), "dataframe", "0.2.0")
            g.attrs["_index"] = "_index"
            g.attrs["column-order"] = np.array([], dtype="f8")
            nullable(g, "_index", "nullable-string-array", index, [0] * len(index))
        array(f, "X", truth())
    with h5py.File(path("columns07.h5ad"), "w") as f:
        for name, index in [("obs", cells()), ("var", genes())]:
            g = encode(f.create_group(name), "dataframe", "0.1.0")
            g.attrs["_index"] = np.bytes_("index")
            g.create_dataset("index", data=np.array(index, dtype=object), dtype=TEXT)
            g.attrs["column-order"] = np.array([], dtype="f8")
        o = f["obs"]
        kinds = o.create_group("__categories")
        for name, values in [("category", ["zeta", "alpha", "mid"]), ("broken", ["x", "y", "z"])]:
            d = o.create_dataset(name, data=np.array(codes, dtype="i1"))
            c = kinds.create_dataset(name, data=np.array(values, dtype=object), dtype=TEXT)
            d.attrs["categories"] = c.ref if name == "category" else h5py.Reference()
            c.attrs["ordered"] = False
        o.create_dataset("plain", data=np.array(["u", "t", "u"] * 4, dtype=object), dtype=TEXT)
        order(o, "category", "plain", "broken")
        f.create_dataset("X", data=truth())
    with h5py.File(path("columns06.h5ad"), "w") as f:
        kind = np.dtype([("index", "S8"), ("category", "i1"), ("depth", "f4"), ("label", "S6"), ("single", "i1")])
        rows = [(c, codes[i], i / 4, ("red", "blue")[i % 2], 0) for i, c in enumerate(cells())]
        f.create_dataset("obs", data=np.array(rows, dtype=kind))
        f.create_dataset("var", data=np.array([(g,) for g in genes()], dtype=[("index", "S8")]))
        u = f.create_group("uns")
        u.create_dataset("category_categories", data=np.array([b"zeta", b"alpha", b"mid"]))
        u.create_dataset("single_categories", data="only", dtype=TEXT)
        f.create_dataset("X", data=truth())
    with create("no_column_order.h5ad") as f:
        del f["obs"].attrs["column-order"]
        texts(f["obs"], "later", ["v"] * N)
        texts(f["obs"], "early", ["v"] * N)
        array(f, "X", truth())


# ---- Faults
def bad_files():
    x = truth()
    data, indices, indptr = parts(x)

    def broken(name, **change):
        with create(name) as f:
            p = dict(data=data.astype("f4"), indices=indices.copy(), indptr=indptr.copy())
            for key, (at, value) in change.items():
                p[key][at] = value
            sparse(f, "X", **p)

    at = int(indptr[7]) + 1  # second value of row 7
    broken("nan.h5ad", data=(at, np.nan))
    broken("infinite.h5ad", data=(at, np.inf))
    broken("negative.h5ad", data=(at, -2))
    broken("index_too_large.h5ad", indices=(at, G))
    broken("index_negative.h5ad", indices=(at, -1))
    broken("indptr_falls.h5ad", indptr=(8, indptr[7] - 1))
    broken("indptr_begins.h5ad", indptr=(0, 1))
    broken("indptr_ends_short.h5ad", indptr=(N, indptr[N] - 1))
    broken("indptr_ends_long.h5ad", indptr=(N, indptr[N] + 1))
    broken("indptr_overflow.h5ad", indptr=(N, -2147483648))
    with create("nan_dense.h5ad") as f:
        y = x.astype("f4")
        y[7, 4] = np.nan
        array(f, "X", y)
    with create("nan_csc.h5ad") as f:
        d, i, p = parts(x, csc=True)
        d = d.astype("f4")
        d[p[5]] = np.nan
        sparse(f, "X", d, i, p, kind="csc_matrix")
    with create("index_too_large_csc.h5ad") as f:
        d, i, p = parts(x, csc=True)
        i[p[5]] = N
        sparse(f, "X", d, i, p, kind="csc_matrix")
    with create("parts_differ.h5ad") as f:
        sparse(f, "X", data[:-1], indices, indptr)
    with create("indptr_length.h5ad") as f:
        sparse(f, "X", data, indices, indptr[:-1])
    with create("indices_float.h5ad") as f:
        sparse(f, "X", data, indices, indptr, itype="f8")
    with create("shape_wrong.h5ad") as f:
        sparse(f, "X", data, indices, indptr, shape=(N, G + 1))
    with create("shape_wrong_dense.h5ad") as f:
        array(f, "X", x[:-1])
    with create("no_shape.h5ad") as f:
        del sparse(f, "X", data, indices, indptr).attrs["shape"]
    with create("dense_text.h5ad") as f:
        array(f, "X", np.full((N, G), b"3"))
    with create("unknown_encoding.h5ad") as f:
        sparse(f, "X", data, indices, indptr, kind="coo_matrix")
    with create("corrupt_chunk.h5ad") as f:
        sparse(f, "X", data, indices, indptr, compression="gzip")
        chunk = f["X/data"].id.get_chunk_info(0)
    with open(path("corrupt_chunk.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * min(20, chunk.size))
    with create("corrupt_lzf.h5ad") as f:
        sparse(f, "X", np.ones_like(data), indices, indptr, compression="lzf")
        chunk = f["X/data"].id.get_chunk_info(0)
    with open(path("corrupt_lzf.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * min(20, chunk.size))
    with create("corrupt_zstd.h5ad") as f:
        foreign(sparse(f, "X", np.ones_like(data), indices, indptr), zstd)
        chunk = f["X/data"].id.get_chunk_info(1)
    with open(path("corrupt_zstd.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * chunk.size)
    with create("corrupt_checksum.h5ad") as f:
        sparse(f, "X", data, indices, indptr, fletcher32=True, chunks=(5,))
        chunk = f["X/data"].id.get_chunk_info(2)
    with open(path("corrupt_checksum.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset + 3)
        f.write(b"\x01")
    with create("blosc2.h5ad") as f:
        g = sparse(f, "X", data, indices, indptr)
        del g["data"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((len(data),))
        how.set_filter(32026, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 100))
        h5py.h5d.create(g.id, b"data", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((len(data),)), how)
    with create("no_x.h5ad") as f:
        array(f.create_group("layers"), "counts", x)
        array(f["layers"], "spliced", x)
    create("no_cells.h5ad", n=0).close()
    create("no_genes.h5ad", g=0).close()
    with create("columns_bad.h5ad") as f:
        o = f["obs"]
        categorical(o, "codes_high", [0] * 5 + [3] + [0] * (N - 6), ["a", "b", "c"])
        categorical(o, "codes_low", [0] * 5 + [-2] + [0] * (N - 6), ["a", "b", "c"])
        texts(o, "short", ["a"] * (N - 1))
        encode(o.create_group("ragged"), "awkward-array", "0.1.0")
        o.create_dataset("latin", data=np.array([b"a", b"caf\xe9"] * 6))
        array(o, "matrix", np.zeros((N, 2)))
        order(o, "codes_high", "codes_low", "short", "ragged", "latin", "matrix", "listed_only")
    with create("gaps.h5ad") as f:
        del f["obs/barcode"]
        nullable(f["obs"], "barcode", "nullable-string-array", cells(), [0] * 5 + [1] + [0] * (N - 6))


def other_formats():
    with h5py.File(path("tenx.h5"), "w") as f:
        f.create_group("matrix").create_dataset("barcodes", data=np.array([b"A"]))
    with h5py.File(path("cells.loom"), "w") as f:
        f.create_dataset("matrix", data=np.zeros((2, 2)))
        f.create_group("row_attrs")
        f.create_group("col_attrs")
    with create("multi.h5mu") as f:
        f.create_group("mod")
    with h5py.File(path("no_var.h5ad"), "w") as f:
        frame(f, "obs", cells())
    with h5py.File(path("no_index.h5ad"), "w") as f:
        frame(f, "obs", cells())
        frame(f, "var", genes())
        del f["obs/_index"]
    with open(path("text.h5ad"), "w") as f:
        f.write("cell,gene,count\n" * 10)
    open(path("empty.h5ad"), "w").close()
    with open(path("pointer.h5ad"), "w") as f:
        f.write("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    sample = os.path.join(os.path.dirname(os.path.abspath(__file__)), "glioblastoma_panobinostat.h5ad")
    with open(sample, "rb") as f, open(path("truncated.h5ad"), "wb") as g:
        g.write(f.read(500_000))


def large():
    """Three million values, for the memory bound."""
    n, g = 2000, 5000
    r = np.random.default_rng(1)
    x = r.random((n, g), dtype="f4") < 0.3
    row, col = np.nonzero(x)
    with create("large.h5ad", n, g) as f:
        sparse(f, "X", col % 5 + 1, col, np.concatenate([[0], np.cumsum(x.sum(1))]), shape=(n, g), compression="gzip",
               compression_opts=1)


matrices()
special_matrices()
columns()
bad_files()
other_formats()
large()
with open(path("matrices.txt"), "w") as out:
    out.write("".join(f"{name}\n" for name in same))
