"""Owns: small AnnData files that training has to refuse, each with one fault, and good ones beside them.

make_bad_files.py FOLDER. Must never need more than h5py and numpy. All but good.h5ad (48 cells, 12 genes, combinations, doses,
covariate, split) are copies of it with one thing changed.
"""
import os
import shutil
import sys

import h5py
import numpy as np

folder = sys.argv[1]
N, G = 48, 12
ROW, GENE = 7, 5  # where the faulty counts are; every cell has all genes, so value k belongs to cell k // G, gene k % G
TEXT = h5py.string_dtype("utf-8")


def path(name):
    return os.path.join(folder, name)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def texts(parent, name, values):
    data = np.array(values, dtype=object)
    return encode(parent.create_dataset(name, data=data, dtype=TEXT), "string-array", "0.2.0")


def categorical(parent, name, values):
    levels = sorted(set(values))
    g = encode(parent.create_group(name), "categorical", "0.2.0")
    g.attrs["ordered"] = False
    codes = np.array([levels.index(v) for v in values], dtype="i1")
    encode(g.create_dataset("codes", data=codes), "array", "0.2.0")
    texts(g, "categories", levels)


def frame(f, name, key, index, columns):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = key
    g.attrs["column-order"] = np.array(list(columns), dtype=object) if columns else np.array([], dtype="f8")
    texts(g, key, index)
    for column, values in columns.items():
        categorical(g, column, values)


def columns():
    condition = [["ctrl", "A", "B", "A+B"][i % 4] for i in range(N)]
    kind = [["T", "B"][i // 4 % 2] for i in range(N)]
    return {
        "condition": condition,
        "dose": [{"ctrl": "1", "A": "0.5", "B": "2", "A+B": "0.5+2"}[c] for c in condition],
        "cell_type": kind,
        "split": [("ood" if i % 8 == 7 else "test" if i >= 40 else "train") for i in range(N)],
        "cov_cond": [f"{k}_{c}" for k, c in zip(kind, condition)],
    }


def good():
    with h5py.File(path("good.h5ad"), "w") as f:
        encode(f, "anndata", "0.1.0")
        frame(f, "obs", "cell", [f"cell{i}" for i in range(N)], columns())
        frame(f, "var", "gene", [f"gene{j}" for j in range(G)], {})
        x = encode(f.create_group("X"), "csr_matrix", "0.1.0")
        x.attrs["shape"] = np.array([N, G])
        counts = np.random.default_rng(1).poisson(4, N * G) + 1
        x.create_dataset("data", data=counts.astype("f4"), chunks=(N * G // 2,), compression="gzip")
        x.create_dataset("indices", data=np.tile(np.arange(G, dtype="i4"), N))
        x.create_dataset("indptr", data=np.arange(0, N * G + 1, G, dtype="i4"))


class Changed:
    """`with Changed(name) as f:` a copy of the good file to be changed."""

    def __init__(self, name):
        shutil.copy(path("good.h5ad"), path(name))
        self.file = h5py.File(path(name), "r+")

    def __enter__(self):
        return self.file

    def __exit__(self, *_):
        self.file.close()


def replace(parent, name, data, **how):
    attrs = dict(parent[name].attrs)
    del parent[name]
    d = parent.create_dataset(name, data=data, **how)
    d.attrs.update(attrs)


def with_column(name, column, change):
    """A file in which change(values) alters what the cells have in an obs column."""
    values = columns()[column]
    change(values)
    with Changed(name) as f:
        del f["obs"][column]
        categorical(f["obs"], column, values)


def with_text(name, column, old, new):
    def change(values):
        values[:] = [new if v == old else v for v in values]

    with_column(name, column, change)


def metadata():
    for column in ["condition", "dose", "cell_type", "split"]:
        with Changed(f"no_{column}.h5ad") as f:
            order = [c for c in f["obs"].attrs["column-order"] if c != column]
            del f["obs"][column]
            f["obs"].attrs["column-order"] = np.array(order, dtype=object)
    with Changed("listed_only.h5ad") as f:
        del f["obs/condition"]
    with_text("no_control.h5ad", "condition", "ctrl", "C")
    with_text("dose_unparsable.h5ad", "dose", "2", "2uM")
    with_text("dose_negative.h5ad", "dose", "2", "-2")
    with_text("dose_nan.h5ad", "dose", "2", "nan")
    with_text("dose_infinite.h5ad", "dose", "2", "inf")
    with_text("dose_too_few.h5ad", "dose", "0.5+2", "2")
    with_text("dose_too_many.h5ad", "dose", "0.5", "0.5+1")
    with_text("twice.h5ad", "condition", "A+B", "A+A")
    with_text("empty_component.h5ad", "condition", "A+B", "A+")
    with_text("no_train.h5ad", "split", "train", "other")
    with Changed("dose_nan_number.h5ad") as f:
        del f["obs/dose"]
        dose = np.where(np.arange(N) == ROW, np.nan, 1.0)
        encode(f["obs"].create_dataset("dose", data=dose), "array", "0.2.0")
    with Changed("missing_condition.h5ad") as f:
        f["obs/condition/codes"][[ROW, ROW + 1]] = -1
    with Changed("missing_split.h5ad") as f:
        f["obs/split/codes"][ROW] = -1
    with Changed("code_high.h5ad") as f:
        f["obs/cell_type/codes"][ROW] = 2
    with Changed("code_low.h5ad") as f:
        f["obs/condition/codes"][ROW] = -3
    with Changed("short_column.h5ad") as f:
        replace(f["obs/cell_type"], "codes", f["obs/cell_type/codes"][:-1])
    with Changed("long_column.h5ad") as f:
        replace(f["obs/cell_type"], "codes", np.append(f["obs/cell_type/codes"], np.int8(0)))
    with Changed("claims.h5ad") as f:  # says that it has a million million rows
        replace(f["obs/cell_type"], "codes", np.zeros(7919, dtype="i2"))
    with open(path("claims.h5ad"), "r+b") as f:
        content = f.read().replace((7919).to_bytes(8, "little"), (10**12).to_bytes(8, "little"))
        f.seek(0)
        f.write(content)
    with Changed("not_utf8.h5ad") as f:
        replace(f["obs/cell_type"], "categories", np.array([b"B", b"caf\xe9"]))
    with Changed("unknown_column.h5ad") as f:
        del f["obs/cell_type/codes"]
        f["obs/cell_type"].attrs["encoding-type"] = "awkward-array"
    with Changed("no_cells.h5ad") as f:
        for name in ["cell"] + [f"{c}/codes" for c in columns()]:
            replace(f["obs"], name, f["obs"][name][:0], dtype=f["obs"][name].dtype)
        x = f["X"]
        x.attrs["shape"] = np.array([0, G])
        for name, n in [("data", 0), ("indices", 0), ("indptr", 1)]:
            replace(x, name, x[name][:n])
    with Changed("no_obs.h5ad") as f:
        del f["obs"]
    with Changed("no_categories.h5ad") as f:
        replace(f["obs/cell_type"], "categories", np.array([], dtype=object), dtype=TEXT)
    with Changed("categories_of_categories.h5ad") as f:
        del f["obs/cell_type/categories"]
        f["obs/cell_type/categories"] = f["obs/cell_type"]
    with Changed("nul.h5ad") as f:
        replace(f["obs/cell_type"], "categories", np.array([b"B", b"T\0B"]))
    for name, what in [("new_file", "/"), ("new_frame", "obs"), ("new_column", "obs/cell_type"), ("new_matrix", "X")]:
        with Changed(f"{name}.h5ad") as f:
            f[what].attrs["encoding-version"] = "0.9.0"
    with Changed("groups_in_groups.h5ad") as f:
        uns = f.create_group("uns")
        uns["uns"] = uns


def unlike_the_good_one():
    """Nothing wrong with these, but a model of the good file cannot be used on them."""
    genes = [f"gene{j}" for j in range(G)]
    with Changed("other_gene.h5ad") as f:
        replace(f["var"], "gene", np.array(genes[:-1] + ["other"], dtype=object), dtype=TEXT)
    with_text("other_cell_type.h5ad", "cell_type", "T", "NK")
    with_text("other_condition.h5ad", "condition", "A+B", "C")
    with_text("no_held_out.h5ad", "split", "ood", "train")


def links():
    """Matrices that are elsewhere: the file they are in is there and would be right, or is not there."""
    with Changed("link_to_nothing.h5ad") as f:
        del f["X"]
        f["X"] = h5py.SoftLink("/layers/counts")
    with Changed("link_to_file.h5ad") as f:
        del f["X"]
        f["X"] = h5py.ExternalLink("good.h5ad", "/X")
    for name, source in [("virtual", "good.h5ad"), ("virtual_gone", "gone.h5ad")]:
        with Changed(f"{name}.h5ad") as f:
            layout = h5py.VirtualLayout(shape=(N * G,), dtype="f4")
            layout[:] = h5py.VirtualSource(source, "X/data", shape=(N * G,))
            del f["X/data"]
            f["X"].create_virtual_dataset("data", layout)
    with h5py.File(path("good.h5ad")) as f:
        f["X/data"][:].astype("f4").tofile(path("values.bin"))
    for name, source in [("external", "values.bin"), ("external_gone", "gone.bin")]:
        with Changed(f"{name}.h5ad") as f:
            replace(f["X"], "data", None, shape=(N * G,), dtype="f4", external=[(os.path.abspath(path(source)), 0, 4 * N * G)])
    with Changed("external_codes.h5ad") as f:
        f["obs/condition/codes"][:].astype("i1").tofile(path("codes.bin"))
        replace(f["obs/condition"], "codes", None, shape=(N,), dtype="i1", external=[(os.path.abspath(path("codes.bin")), 0, N)])


def matrix():
    at = ROW * G + GENE
    for name, part, where, value in [
        ("nan", "data", at, np.nan), ("infinite", "data", at, np.inf), ("negative", "data", at, -2),
        ("late_nan", "data", N * G - 1, np.nan), ("index_high", "indices", at, G), ("index_negative", "indices", at, -1),
        ("indptr_falls", "indptr", ROW + 1, ROW * G - 1), ("indptr_begins", "indptr", 0, 1),
        ("indptr_ends", "indptr", N, N * G + 1), ("indptr_huge", "indptr", ROW + 1, 2**31 - 1),
    ]:
        with Changed(f"{name}.h5ad") as f:
            f["X"][part][where] = value
    with Changed("indptr_short.h5ad") as f:
        replace(f["X"], "indptr", f["X/indptr"][:-1])
    with Changed("parts_differ.h5ad") as f:
        replace(f["X"], "indices", f["X/indices"][:-1])
    with Changed("shape.h5ad") as f:
        f["X"].attrs["shape"] = np.array([N + 1, G])
    with Changed("unknown_encoding.h5ad") as f:
        f["X"].attrs["encoding-type"] = "coo_matrix"
    with Changed("text_counts.h5ad") as f:
        replace(f["X"], "data", np.full(N * G, b"3"))
    with Changed("no_x.h5ad") as f:
        f.move("X", "layers/spliced")
    with Changed("dense_nan.h5ad") as f:
        dense = f["X/data"][:].reshape(N, G)
        dense[ROW, GENE] = np.nan
        del f["X"]
        encode(f.create_dataset("X", data=dense), "array", "0.2.0")
    with Changed("unknown_filter.h5ad") as f:
        del f["X/data"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((N * G,))
        how.set_filter(32026, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 100))
        h5py.h5d.create(f["X"].id, b"data", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((N * G,)), how)
    for part in ["data", "indices", "indptr"]:
        with Changed(f"hole_in_{part}.h5ad") as f:  # a chunk was never written
            values = f["X"][part][:]
            n = len(values) // 4
            replace(f["X"], part, None, shape=values.shape, dtype=values.dtype, chunks=(n,))
            f["X"][part][:n], f["X"][part][2 * n :] = values[:n], values[2 * n :]
    with Changed("indptr_zeros.h5ad") as f:
        f["X/indptr"][N // 2 :] = 0
    with Changed("indptr_negative.h5ad") as f:
        f["X/indptr"][N] = -(2**31)
    with Changed("index_unsigned.h5ad") as f:
        indices = f["X/indices"][:].astype("u8")
        indices[at] = 2**63 + 5
        replace(f["X"], "indices", indices)
    with Changed("no_genes.h5ad") as f:
        replace(f["var"], "gene", f["var/gene"][:0], dtype=TEXT)
        f["X"].attrs["shape"] = np.array([N, 0])
        for part, n in [("data", 0), ("indices", 0)]:
            replace(f["X"], part, f["X"][part][:n])
        f["X/indptr"][:] = 0
    with Changed("checksum.h5ad") as f:
        replace(f["X"], "data", f["X/data"][:], chunks=(N * G // 2,), fletcher32=True)
        chunk = f["X/data"].id.get_chunk_info(1)
    with open(path("checksum.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset + 3)
        f.write(b"\1")
    links()
    with Changed("corrupt.h5ad") as f:
        chunk = f["X/data"].id.get_chunk_info(1)
    with open(path("corrupt.h5ad"), "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * min(40, chunk.size))


def other_files():
    open(path("empty.h5ad"), "w").close()
    with open(path("text.h5ad"), "w") as f:
        f.write("cell,gene,count\n" * 100)
    with open(path("pointer.h5ad"), "w") as f:
        f.write("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with h5py.File(path("cells.loom"), "w") as f:
        f.create_dataset("matrix", data=np.zeros((2, 2)))
        f.create_group("row_attrs")
        f.create_group("col_attrs")
    with Changed("multi.h5mu") as f:
        f.create_group("mod")
    with h5py.File(path("written.h5ad"), "w", libver="latest") as f:  # a copy of a file that is being written
        f.swmr_mode = True
        f.flush()
        shutil.copy(path("written.h5ad"), path("open.h5ad"))
    with h5py.File(path("tenx.h5"), "w") as f:
        f.create_group("matrix").create_dataset("barcodes", data=np.array([b"A"]))
    os.mkdir(path("folder.h5ad"))


good()
metadata()
unlike_the_good_one()
matrix()
other_files()
