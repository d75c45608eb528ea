"""Owns: AnnData files with a CSC matrix of any size for tests of memory: a tenth of the values is not 0.

make_large_csc.py OUT CELLS GENES. Must never hold more than a column.
"""
import sys

import h5py
import numpy as np

out, n, g = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(3)
k = n // 10


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def frame(f, name, size):
    d = encode(f.create_group(name), "dataframe", "0.2.0")
    d.attrs["_index"] = "_index"
    d.attrs["column-order"] = np.array([], dtype="f8")
    encode(d.create_dataset("_index", data=np.array([f"{i:08d}" for i in range(size)], dtype="S8")), "string-array", "0.2.0")


with h5py.File(out, "w") as f:
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", n)
    frame(f, "var", g)
    x = encode(f.create_group("X"), "csc_matrix", "0.1.0")
    x.attrs["shape"] = np.array([n, g])
    data = x.create_dataset("data", (k * g,), "f4", chunks=(1 << 16,))
    indices = x.create_dataset("indices", (k * g,), "i4", chunks=(1 << 16,))
    x.create_dataset("indptr", data=np.arange(0, k * g + 1, k))
    for j in range(g):
        data[j * k : (j + 1) * k] = random.integers(1, 9, size=k)
        indices[j * k : (j + 1) * k] = np.sort(random.choice(n, size=k, replace=False))
