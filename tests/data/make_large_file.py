"""Owns: AnnData files of any size for tests of memory: sparse counts, a condition with doses, a covariate, a split.

make_large_file.py OUT CELLS GENES. Must never need more than h5py and numpy, nor hold more than a block of cells.
"""
import sys

import h5py
import numpy as np

out, n, g = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
BLOCK = 1000  # cells
TEXT = h5py.string_dtype("utf-8")
random = np.random.default_rng(5)


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
    for column, (codes, levels) in columns.items():
        c = encode(g.create_group(column), "categorical", "0.2.0")
        c.attrs["ordered"] = False
        encode(c.create_dataset("codes", data=codes.astype("i1")), "array", "0.2.0")
        texts(c, "categories", levels)


with h5py.File(out, "w") as f:
    encode(f, "anndata", "0.1.0")
    pert = random.integers(0, 4, n)
    frame(f, "obs", [f"cell{i}" for i in range(n)], {
        "condition": (pert, ["ctrl", "A", "B", "A+B"]), "dose": (pert, ["1", "0.5", "2", "0.5+2"]),
        "cell_type": (random.integers(0, 3, n), ["B", "NK", "T"]),
        "split": (random.choice(3, n, p=[0.05, 0.1, 0.85]), ["ood", "test", "train"]),
    })
    frame(f, "var", [f"gene{j}" for j in range(g)], {})
    x = encode(f.create_group("X"), "csr_matrix", "0.1.0")
    x.attrs["shape"] = np.array([n, g])
    data = x.create_dataset("data", (0,), "f4", maxshape=(None,), chunks=(1 << 15,), compression="gzip", compression_opts=1)
    indices = x.create_dataset("indices", (0,), "i4", maxshape=(None,), chunks=(1 << 15,), compression="gzip", compression_opts=1)
    mean = random.gamma(0.3, 0.6, g)
    indptr = [0]
    for first in range(0, n, BLOCK):
        counts = random.poisson(mean, (min(BLOCK, n - first), g)).astype("f4")
        row, col = np.nonzero(counts)
        indptr.extend(indptr[-1] + np.searchsorted(row, np.arange(1, len(counts) + 1)))
        for d, values in [(data, counts[row, col]), (indices, col)]:
            d.resize((indptr[-1],))
            d[-len(values):] = values
    x.create_dataset("indptr", data=np.array(indptr, dtype="i8"))
