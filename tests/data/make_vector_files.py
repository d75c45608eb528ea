"""Owns: an atlas in which the effect of a perturbation is a linear function of its vector, and files that hold the vectors.

make_vector_files.py FOLDER. Must never need more than h5py and numpy. full.h5ad holds all perturbations, those of the split "ood" in no
other; trained.h5ad is full.h5ad without them. The same vectors (zeros and ones) lie in bits.h5, floats.h5, vectors.h5ad, sparse.h5ad
and vectors.csv; known.h5 has those of trained.h5ad alone, new.h5 the others. The files that begin with bad_ have one fault each.
"""
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
TEXT = h5py.string_dtype("utf-8")
N_DRUGS, N_HELD, CELLS, GENES, BITS, RANK = 84, 12, 24, 60, 30, 3
random = np.random.default_rng(11)
drugs = [f"drug{i:02d}" for i in range(N_DRUGS)]
held = drugs[::7]
known = [d for d in drugs if d not in held]
vectors = (random.random((N_DRUGS, BITS)) < 0.5).astype("f4")


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def texts(parent, name, values):
    encode(parent.create_dataset(name, data=np.array(values, dtype=object), dtype=TEXT), "string-array", "0.2.0")


def frame(f, name, index, columns):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = "_index"
    g.attrs["column-order"] = np.array(list(columns), dtype=object) if columns else np.array([], dtype="f8")
    texts(g, "_index", index)
    for column, values in columns.items():
        texts(g, column, values)


def anndata(name, x, index, genes, columns, sparse):
    with h5py.File(os.path.join(folder, name), "w") as f:
        encode(f, "anndata", "0.1.0")
        frame(f, "obs", index, columns)
        frame(f, "var", genes, {})
        if not sparse:
            encode(f.create_dataset("X", data=x), "array", "0.2.0")
            return
        g = encode(f.create_group("X"), "csr_matrix", "0.1.0")
        g.attrs["shape"] = np.array(x.shape)
        row, column = np.nonzero(x)
        g["data"], g["indices"] = x[row, column], column.astype("i4")
        g["indptr"] = np.searchsorted(row, np.arange(len(x) + 1)).astype("i8")


def atlas():
    """A few directions of the vectors move the genes; the control does not move at all."""
    pull = random.normal(size=(BITS, RANK)) / np.sqrt(BITS)
    effect = (2 * vectors - 1) @ pull @ random.normal(size=(RANK, GENES)) * 0.9
    base = random.normal(size=GENES)
    names = ["ctrl"] * (8 * CELLS) + [d for d in drugs for _ in range(CELLS)]
    logits = base + random.normal(scale=0.2, size=(len(names), GENES))
    logits[8 * CELLS:] += np.repeat(effect, CELLS, axis=0)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    x = random.poisson(share * random.integers(800, 1200, (len(names), 1))).astype("f4")
    split = ["ood" if n in held else "test" if i % 8 == 0 else "train" for i, n in enumerate(names)]
    order = random.permutation(len(names))
    for name, rows in (("full.h5ad", order), ("trained.h5ad", [i for i in order if split[i] != "ood"])):
        columns = {"condition": [names[i] for i in rows], "split": [split[i] for i in rows]}
        anndata(name, x[rows], [f"cell{i}" for i in rows], [f"gene{g}" for g in range(GENES)], columns, True)


def hdf5(name, index, **data):
    with h5py.File(os.path.join(folder, name), "w") as f:
        f.create_dataset("names", data=np.array(index, dtype=object), dtype=TEXT)
        for key, values in data.items():
            f[key] = values
            if key == "bits":
                f[key].attrs["n_bits"] = BITS
    return name


def csv(name, lines):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def tables():
    features = [f"bit{k}" for k in range(BITS)]
    packed = np.packbits(vectors.astype(bool), axis=1)
    index = [drugs.index(d) for d in known]
    hdf5("bits.h5", drugs, bits=packed)
    hdf5("floats.h5", drugs, vectors=vectors)
    hdf5("known.h5", known, bits=packed[index])
    hdf5("new.h5", held, vectors=vectors[[drugs.index(d) for d in held]].astype("f8"))
    anndata("vectors.h5ad", vectors, drugs, features, {}, False)
    anndata("sparse.h5ad", vectors, drugs, features, {}, True)
    lines = [",".join(["drug"] + features)] + [",".join([f'"{d}"'] + [f"{v:g}" for v in row]) for d, row in zip(drugs, vectors)]
    csv("vectors.csv", lines)

    hdf5("bad_missing.h5", drugs[2:], vectors=vectors[2:])
    hdf5("bad_twice.h5", drugs[:-1] + [drugs[3]], vectors=vectors)
    hdf5("bad_width.h5", drugs, vectors=vectors[:, :0])
    hdf5("bad_rows.h5", drugs, vectors=vectors[1:])
    hdf5("bad_neither.h5", drugs)
    hdf5("bad_flat.h5", drugs, vectors=vectors[:, 0])
    hdf5("narrow.h5", held, vectors=vectors[[drugs.index(d) for d in held], :9])
    with h5py.File(os.path.join(folder, hdf5("bad_bits.h5", drugs, bits=packed)), "r+") as f:
        f["bits"].attrs["n_bits"] = 7
    for name, value in (("bad_nan.h5", np.nan), ("bad_inf.h5", 1e300)):
        wrong = vectors.astype("f8")
        wrong[5, 2] = value
        hdf5(name, drugs, vectors=wrong)
    wrong = vectors.copy()
    wrong[5, 2] = np.nan
    anndata("bad_nan.h5ad", wrong, drugs, features, {}, False)
    csv("bad_ragged.csv", lines[:7] + [lines[7] + ",1"] + lines[8:])
    csv("bad_short.csv", lines[:7] + [lines[7][:-2]] + lines[8:])
    csv("bad_text.csv", lines[:7] + [lines[7][:-1] + "many"] + lines[8:])
    csv("bad_nan.csv", lines[:7] + [lines[7][:-1] + "nan"] + lines[8:])
    csv("bad_names.csv", [line.split(",")[0] for line in lines])
    csv("bad_noname.csv", lines[:7] + lines[7:8] + ["," + lines[8].split(",", 1)[1]] + lines[9:])
    csv("bad_empty.csv", lines[:1])


atlas()
tables()
