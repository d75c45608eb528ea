#!/bin/bash
# Owns: counts and genes that are chosen: --layer raw, --genes by a column or a list, and a model that finds its genes by name.
# Must never compare with anything but a file that holds the chosen counts alone.
set -u
. "$CPA_TESTS/support/refuse.sh"
export OMP_NUM_THREADS=1
tiny=(--max-epochs 2 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --lanes 4 --batch-size 32 --quiet)

quietly() {
    "$CPA_HPC" "$@" >.refuse/out 2>.refuse/err </dev/null || failed "$*"
}
quietly simulate all.h5ad --cells 400 --genes 60 --density 0.3 --perturbations 4 --combinations 2
quietly simulate csc.h5ad --cells 400 --genes 60 --density 0.3 --perturbations 4 --combinations 2 --format csc
/usr/bin/python3 - <<'PYTHON' || { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }
import shutil
import h5py
import numpy as np

r = np.random.default_rng(4)
with h5py.File("all.h5ad") as f:
    x, names = np.zeros((400, 60), "f4"), f["var/_index"].asstr()[:]
    x[np.repeat(np.arange(400), np.diff(f["X/indptr"][:])), f["X/indices"][:]] = f["X/data"][:]
chosen = np.sort(r.choice(60, 35, replace=False))
mixed = r.permutation(60)


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def put(f, path, values):
    encode(f.create_dataset(path, data=values), "array", "0.2.0")


def frame(f, path, names, flag=None):
    d = encode(f.create_group(path), "dataframe", "0.2.0")
    d.attrs["_index"] = "_index"
    encode(d.create_dataset("_index", data=np.array(names, dtype=object), dtype=h5py.string_dtype("utf-8")), "string-array", "0.2.0")
    d.attrs["column-order"] = np.array(["keep", "length"], dtype=object)
    put(d, "keep", np.zeros(len(names), bool) if flag is None else flag)
    put(d, "length", np.arange(len(names)))


def make(out, x, names, flag=None, source="all.h5ad"):
    shutil.copy(source, out)
    f = h5py.File(out, "a")
    if x is not None:
        del f["X"]
        put(f, "X", x)
    del f["var"]
    frame(f, "var", names, flag)
    return f


flag = np.isin(np.arange(60), chosen)
make("alone.h5ad", x[:, chosen], names[chosen]).close()
make("column.h5ad", None, names, flag).close()
make("column_csc.h5ad", None, names, flag, "csc.h5ad").close()
make("column_dense.h5ad", x, names, flag).close()
make("mixed.h5ad", x[:, mixed], names[mixed]).close()
twice = names.copy()
twice[chosen[3]] = twice[chosen[1]]
make("twice.h5ad", None, twice).close()
with make("raw.h5ad", np.log1p(x[:, chosen]), names[chosen]) as f:
    encode(f.create_group("raw"), "raw", "0.1.0")
    frame(f, "raw/var", names, flag)
    put(f, "raw/X", x)
with make("layer.h5ad", None, names) as f:
    encode(f.create_group("raw"), "raw", "0.1.0")
    frame(f, "raw/var", names[:50])
    put(f, "raw/X", 0 * x[:, :50])
    encode(f.create_group("layers"), "dict", "0.1.0")
    put(f, "layers/raw", x)
with make("old.h5ad", np.log1p(x[:, chosen]), names[chosen]) as f:
    f["raw.X"] = x
    frame(f, "raw.var", names)
lines = [names[g] for g in r.permutation(chosen)]
open("list.txt", "w").write("\n".join(lines) + "\n\n")
open("crlf.txt", "w").write("".join(f" {g}\r\n" for g in lines))
open("unknown.txt", "w").write("\n".join(lines + ["no_gene", "nor_this"]))
open("double.txt", "w").write("\n".join(lines + lines[:1]))
open("none.txt", "w").write("\n\n")
PYTHON

# ---- The same model as from a file with these genes alone
quietly train alone.h5ad --out alone "${tiny[@]}"
quietly train column.h5ad --out column "${tiny[@]}" --genes keep
quietly train column_csc.h5ad --out csc "${tiny[@]}" --genes keep
quietly train column_dense.h5ad --out dense "${tiny[@]}" --genes keep
quietly train all.h5ad --out list "${tiny[@]}" --genes list.txt
quietly train all.h5ad --out crlf "${tiny[@]}" --genes crlf.txt
# shellcheck disable=SC2086
$CPA_MPIRUN -n 2 "$CPA_HPC" train all.h5ad --out ranks "${tiny[@]}" --genes list.txt 2>.refuse/err || failed "training on 2 ranks"
for run in column csc dense list crlf ranks; do
    h5diff alone/model.h5 $run/model.h5 || failed "--genes gives another model: $run"
done
grep -q '^genes: "\?list.txt' list/config.yaml || failed "the run does not remember --genes"
"$CPA_HPC" check all.h5ad --genes list.txt >.refuse/out 2>.refuse/err && grep -q '^genes: 35$' .refuse/out || failed "check --genes"

# ---- raw
quietly train all.h5ad --out all "${tiny[@]}"
quietly train raw.h5ad --out raw "${tiny[@]}" --layer raw
quietly train old.h5ad --out old "${tiny[@]}" --layer raw
quietly train layer.h5ad --out layer "${tiny[@]}" --layer raw
quietly train raw.h5ad --out both "${tiny[@]}" --layer raw --genes keep
for run in raw old layer; do
    h5diff all/model.h5 $run/model.h5 /module && h5diff all/model.h5 $run/model.h5 /schema/genes || failed "--layer raw gives another model: $run"
done
h5diff alone/model.h5 both/model.h5 /module || failed "--layer raw --genes gives another model"

# ---- A model finds its genes in other files, in any order, also in raw
for data in alone all mixed column_csc; do
    quietly predict list --data $data.h5ad --out $data.pred.h5ad
    quietly evaluate list --data $data.h5ad --out $data.csv
    h5diff alone.pred.h5ad $data.pred.h5ad /X && h5diff alone.pred.h5ad $data.pred.h5ad /var && cmp alone.csv $data.csv ||
        failed "the model of list predicts otherwise from $data.h5ad"
done
quietly predict both --data raw.h5ad --out both.pred.h5ad
h5diff alone.pred.h5ad both.pred.h5ad /X || failed "the model of raw predicts otherwise"

# ---- Refusals
refuse 65 "all.h5ad|--genes 'keep'|neither" train all.h5ad --out x "${tiny[@]}" --genes keep
refuse 65 "column.h5ad|var/length|booleans" train column.h5ad --out x "${tiny[@]}" --genes length
refuse 65 "mixed.h5ad|var/keep|no gene" train mixed.h5ad --out x "${tiny[@]}" --genes keep
refuse 65 "all.h5ad|lacks 2 of the 37|unknown.txt|'no_gene'" train all.h5ad --out x "${tiny[@]}" --genes unknown.txt
refuse 65 "double.txt|twice" train all.h5ad --out x "${tiny[@]}" --genes double.txt
refuse 65 "none.txt|names no gene" train all.h5ad --out x "${tiny[@]}" --genes none.txt
refuse 65 "twice.h5ad|more than once" train twice.h5ad --out x "${tiny[@]}" --genes list.txt
refuse 65 "all.h5ad|raw/X" train all.h5ad --out x "${tiny[@]}" --layer raw
refuse 65 "all.h5ad|raw/X" check all.h5ad --layer raw
refuse 65 "raw.h5ad|lacks 25 of the 60|'gene_" predict all --data raw.h5ad --out x.h5ad
finish
