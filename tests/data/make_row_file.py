"""Owns: the tiny AnnData files of the tests of single rows of docs/semantics.md: what to put into each cell is said in words.

make_row_file.py FILE [genes=8] [seed=0] [kinds=condition,dose,...] [degs=no] SPEC ... with SPEC = 'N CONDITION [DOSE [CELL_TYPE [BATCH [SPLIT]]]]' adds N
cells; what is left out is 1.0 for each component, T, b1, and test for every fifth cell of a SPEC, else train. `kinds` names the obs columns
to write (all five when left out; dose:number for a column of numbers). degs=yes adds a column cov_cond and, in uns, the genes on which each
condition but the control acts. Counts are Poisson, with an effect for each component.
"""
import sys

import h5py
import numpy as np

out, words = sys.argv[1], sys.argv[2:]
options = {"genes": "8", "seed": "0", "kinds": "condition,dose,cell_type,batch,split", "degs": "no"}
while words and "=" in words[0]:
    key, value = words.pop(0).split("=")
    options[key] = value
TEXT = h5py.string_dtype("utf-8")
genes = int(options["genes"])
random = np.random.default_rng(int(options["seed"]))

rows = []
for spec in words:
    n, condition, *rest = spec.split()
    defaults = ["+".join(["1.0"] * (condition.count("+") + 1)), "T", "b1", ""]
    dose, cell_type, batch, split = rest + defaults[len(rest):]
    for i in range(int(n)):
        rows.append((condition, dose, cell_type, batch, split or ("test" if i % 5 == 4 else "train")))

base = 1 + np.arange(genes) % 5
x = np.zeros((len(rows), genes), dtype="f4")
for i, (condition, dose, cell_type, *_) in enumerate(rows):
    rate = base * (1.5 if cell_type == "T" else 1.0)
    for name in condition.split("+"):
        rate = rate * (1 + (np.arange(genes) % 3 == sum(name.encode()) % 3) * (name not in ("ctrl", "control")))
    x[i] = random.poisson(rate)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def frame(f, name, index, columns):
    g = encode(f.create_group(name), "dataframe", "0.2.0")
    g.attrs["_index"] = "_index"
    g.attrs["column-order"] = np.array(list(columns), dtype=object) if columns else np.array([], dtype="f8")
    encode(g.create_dataset("_index", data=np.array(index, dtype=object), dtype=TEXT), "string-array", "0.2.0")
    for column, values in columns.items():
        if isinstance(values[0], str):
            encode(g.create_dataset(column, data=np.array(values, dtype=object), dtype=TEXT), "string-array", "0.2.0")
        else:
            encode(g.create_dataset(column, data=np.array(values)), "array", "0.2.0")


def acted_on(condition):
    return [j for j in range(genes) if any(j % 3 == sum(name.encode()) % 3 for name in condition.split("+"))]


names = ["condition", "dose", "cell_type", "batch", "split"]
columns = {}
for kind in options["kinds"].split(","):
    name, _, number = kind.partition(":")
    values = [r[names.index(name)] for r in rows]
    columns[name] = [float(v) for v in values] if number else values
if options["degs"] == "yes":
    columns["cov_cond"] = [f"{r[2]}_{r[0]}" for r in rows]
with h5py.File(out, "w") as f:
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", [f"cell{i}" for i in range(len(rows))], columns)
    frame(f, "var", [f"gene{j}" for j in range(genes)], {})
    encode(f.create_dataset("X", data=x), "array", "0.2.0")
    if options["degs"] == "yes":
        lists = encode(encode(f.create_group("uns"), "dict", "0.1.0").create_group("rank_genes_groups_cov"), "dict", "0.1.0")
        for condition, _, cell_type, *_ in set(rows):
            if condition not in ("ctrl", "control") and f"{cell_type}_{condition}" not in lists:
                best = np.array([f"gene{j}" for j in acted_on(condition)], dtype=object)
                encode(lists.create_dataset(f"{cell_type}_{condition}", data=best, dtype=TEXT), "string-array", "0.2.0")
