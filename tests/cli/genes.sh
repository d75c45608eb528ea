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


def rows(f, path, part, order=None):
    """Leaves of a matrix the cells `part`, and its genes in this order."""
    e = f[path]
    attrs, m = dict(e.attrs), e
    if isinstance(e, h5py.Group):
        m = np.zeros(e.attrs["shape"], "f4")
        m[np.repeat(np.arange(len(m)), np.diff(e["indptr"][:])), e["indices"][:]] = e["data"][:]
    m = m[:][part]
    m = m if order is None else m[:, order]
    del f[path]
    put(f, path, m)


def genes(f, path, order):
    for k in ("_index", "keep", "length"):
        if k in f[path]:
            v = f[f"{path}/{k}"][:]
            f[f"{path}/{k}"][...] = v[order]


def cut(name):
    """name.txt: the cells of name.h5ad in two files, the second with its genes in another order."""
    halves = [np.arange(170), np.arange(170, 400)]
    for i, part in enumerate(halves):
        shutil.copy(f"{name}.h5ad", f"{name}.{i}.h5ad")
        with h5py.File(f"{name}.{i}.h5ad", "a") as f:
            for k, e in f["obs"].items():
                e = f[f"obs/{k}/codes"] if isinstance(e, h5py.Group) else e
                path, attrs, how = e.name, dict(e.attrs), dict(dtype=e.dtype)
                v = e[:][part]
                del f[path]
                f.create_dataset(path, data=v, **how).attrs.update(attrs)
            order = r.permutation(len(f["var/_index"])) if i else None
            for path in ["X"] + [f"layers/{k}" for k in f.get("layers", {})]:
                rows(f, path, part, order)
            if i:
                genes(f, "var", order)
            if "raw" in f:
                order = r.permutation(len(f["raw/var/_index"])) if i else None
                rows(f, "raw/X", part, order)
                if i:
                    genes(f, "raw/var", order)
    open(f"{name}.txt", "w").write(f"{name}.0.h5ad\n{name}.1.h5ad\n")


for name in ("all", "column", "raw", "layer"):
    cut(name)
lines = [names[g] for g in r.permutation(chosen)]
open("list.txt", "w").write("\n".join(lines) + "\n\n")
open("all.genes.txt", "w").write("\n".join(names))
open("crlf.txt", "w", encoding="utf-8-sig").write("".join(f" {g}\r\n" for g in lines))
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

# ---- The same of several files
quietly train all.txt --out list.many "${tiny[@]}" --genes list.txt
grep -qx 'genes: "\?list.txt"\?' list.many/config.yaml || failed "the run does not remember --genes"
quietly train column.txt --out column.many "${tiny[@]}" --genes keep
quietly train raw.txt --out raw.many "${tiny[@]}" --layer raw
quietly train layer.txt --out layer.many "${tiny[@]}" --layer raw
quietly train raw.txt --out both.many "${tiny[@]}" --layer raw --genes keep
quietly train raw.txt --out rawlist.many "${tiny[@]}" --layer raw --genes list.txt
# shellcheck disable=SC2086
$CPA_MPIRUN -n 2 "$CPA_HPC" train raw.txt --out ranks.many "${tiny[@]}" --layer raw --genes list.txt 2>.refuse/err || failed "training on 2 ranks"
for run in list column both rawlist ranks; do
    h5diff alone/model.h5 $run.many/model.h5 /module && h5diff alone/model.h5 $run.many/model.h5 /schema/genes ||
        failed "several files give another model: $run"
done
for run in raw layer; do
    h5diff all/model.h5 $run.many/model.h5 /module && h5diff all/model.h5 $run.many/model.h5 /schema/genes ||
        failed "several files give another model: $run"
done
quietly convert raw.txt raw.one.h5ad
quietly train raw.one.h5ad --out one "${tiny[@]}" --layer raw --genes keep
h5diff alone/model.h5 one/model.h5 /module || failed "converted, several files give another model"
quietly evaluate list --data all.txt --out many.csv
quietly evaluate list --data all.h5ad --out one.csv
cmp one.csv many.csv || failed "the model of list is evaluated otherwise on several files"
quietly check layer.txt --layer raw --genes list.txt
grep -q '^genes: 35$' .refuse/out || failed "check of several files"

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
printf '%s\n' raw.0.h5ad all.1.h5ad >half.txt
refuse 65 "all.1.h5ad|raw/X" train half.txt --out x "${tiny[@]}" --layer raw
printf '%s\n' all.0.h5ad raw.1.h5ad >lacks.txt
refuse 65 "raw.1.h5ad|lacks 25 of the 60|all.0.h5ad" check lacks.txt --genes all.genes.txt
refuse 65 "layer.0.h5ad|'counts'" check layer.txt --layer counts
finish
