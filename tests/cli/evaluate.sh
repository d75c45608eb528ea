#!/bin/bash
# Owns: what `evaluate` writes, against scores computed anew from predictions and counts, where a python3 has h5py.
# Never trains.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

"$CPA_HPC" import "$CPA_TESTS/golden/trained/glioblastoma.h5" --out run --quiet || exit 1
"$CPA_HPC" evaluate run --data "$data" --out scores.csv --quiet >table.txt || fail "evaluate"
[ "$(wc -l <scores.csv)" -eq 2 ] || fail "not one held-out group: $(cat scores.csv)"
grep -q '^PW040_panobinostat,500,500,' scores.csv || fail "the group's row"
grep -q 'PW040_panobinostat: the model beats no change on all genes' table.txt || fail "the verdict: $(cat table.txt)"
for n in 2 3 4; do
    $CPA_MPIRUN -n $n "$CPA_HPC" evaluate run --data "$data" --out ranks.csv --quiet >ranks.txt || fail "evaluate on $n ranks"
    cmp -s scores.csv ranks.csv && cmp -s table.txt ranks.txt || fail "scores differ on $n ranks"
done
"$CPA_HPC" evaluate run --data "$data" --out all.csv --split ood,test --quiet >table.txt || fail "evaluate of two splits"
[ "$(wc -l <all.csv)" -gt 2 ] || fail "two splits give no more groups"

# refuse CODE ARGUMENTS...: evaluate ends with CODE and leaves no file.
refuse() {
    local code=$1 got
    shift
    "$CPA_HPC" evaluate "$@" >out 2>err
    got=$?
    [ "$got" -eq "$code" ] && [ ! -e none.csv ] && [ -s err ] || fail "evaluate $*: expected $code, got $got: $(cat err)"
}
refuse 65 run --data "$data" --out none.csv --split nothing
refuse 65 run --data "$data" --out none.csv --control-group nobody
refuse 66 nowhere --data "$data" --out none.csv
refuse 66 run --data nowhere.h5ad --out none.csv
refuse 66 run --data "$data" --out no/folder.csv

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: the scores are not computed anew"
    exit $((failures > 0))
fi
# The same data with the held-out group at two doses, unequally: its doses weigh by their cells.
"$python" - "$data" <<'PYTHON' || fail "making data with two doses"
import shutil, sys
import h5py, numpy as np

shutil.copy(sys.argv[1], "doses.h5ad")
with h5py.File("doses.h5ad", "r+") as f:
    codes, levels = f["obs/dose/codes"][:], [v.decode() for v in f["obs/dose/categories"][:]]
    split = [v.decode() for v in f["obs/split/categories"][:]]
    held = np.where(f["obs/split/codes"][:] == split.index("ood"))[0]
    codes[held[:100]] = len(levels)
    for name, value in (("codes", codes), ("categories", np.array(levels + ["3"], dtype=object))):
        attrs = dict(f["obs/dose"][name].attrs)
        del f["obs/dose"][name]
        d = f["obs/dose"].create_dataset(name, data=value, dtype=h5py.string_dtype() if name == "categories" else None)
        for k, v in attrs.items():
            d.attrs[k] = v
PYTHON
"$CPA_HPC" evaluate run --data doses.h5ad --out doses.csv --quiet >table.txt || fail "evaluate with two doses"
"$CPA_HPC" predict run --data doses.h5ad --out doses_pred.h5ad --quiet || fail "predict with two doses"
"$CPA_HPC" predict run --data "$data" --out pred.h5ad --quiet || fail "predict"
"$python" - "$data" <<'PYTHON' || fail "scores computed anew"
import csv, sys
import h5py, numpy as np

f = h5py.File(sys.argv[1])
text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda f, c: np.array([text(f[f"obs/{c}/categories"][:])[k] for k in f[f"obs/{c}/codes"][:]])
x = np.zeros(f["X"].attrs["shape"])
indptr, indices, values = (f["X"][k][:] for k in ("indptr", "indices", "data"))
for i in range(len(x)):
    x[i, indices[indptr[i]:indptr[i + 1]]] = values[indptr[i]:indptr[i + 1]]
condition, patient, split = (factor(f, c) for c in ("condition", "patient_id", "split"))
genes = text(f["var/" + f["var"].attrs["_index"]][:])
top = np.isin(genes, text(f["uns/rank_genes_groups_cov/PW040_panobinostat"][:])[:20])
cp = lambda x: x / np.maximum(x.sum(1, keepdims=True), 1e-9) * 1e4
r2 = lambda a, b: 1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum()
bulk, log = (lambda c, w=None: np.log1p(np.average(c, 0, w))), (lambda c, w=None: np.average(np.log1p(c), 0, w))
real, control = cp(x[(patient == "PW040") & (split == "ood")]), cp(x[(patient == "PW040") & (condition == "ctrl")])

def effects(mean):
    out = []
    for p in np.unique(patient):
        m = (patient == p) & (condition == "panobinostat") & (split == "train")
        if m.sum() >= 10:
            out.append(mean(cp(x[m])) - mean(cp(x[(patient == p) & (condition == "ctrl")])))
    return np.mean(out, 0)

for scores, predictions in (("scores.csv", "pred.h5ad"), ("doses.csv", "doses_pred.h5ad")):
    row = next(csv.DictReader(open(scores)))
    p = h5py.File(predictions)
    doses, c = factor(p, "dose"), cp(p["X"][:].astype("f8"))
    share = {"0.2": 400, "3": 100} if scores == "doses.csv" else {"0.2": 500}
    assert set(doses) == set(share)
    w = np.array([share[d] / (doses == d).sum() for d in doses])
    variance = np.average(np.log1p(c) ** 2, 0, w) - log(c, w) ** 2
    for label, k in (("all", np.ones(len(genes), bool)), ("top20", top)):
        expected = {
            f"r2_mean_{label}": r2(log(real)[k], log(c, w)[k]),
            f"r2_var_{label}": r2(np.log1p(real).var(0)[k], variance[k]),
            f"r2_var_{label}_no_change": r2(np.log1p(real).var(0)[k], np.log1p(control).var(0)[k]),
            f"r2_delta_{label}": r2((log(real) - log(control))[k], (log(c, w) - log(control))[k]),
            f"pseudobulk_r2_{label}": r2(bulk(real)[k], bulk(c, w)[k]),
            f"pearson_delta_{label}": np.corrcoef((bulk(real) - bulk(control))[k], (bulk(c, w) - bulk(control))[k])[0, 1],
            f"pseudobulk_r2_{label}_no_change": r2(bulk(real)[k], bulk(control)[k]),
            f"r2_mean_{label}_no_change": r2(log(real)[k], log(control)[k]),
            f"pseudobulk_r2_{label}_additive": r2(bulk(real)[k], (bulk(control) + effects(bulk))[k]),
            f"pseudobulk_r2_{label}_mean_effect": r2(bulk(real)[k], (bulk(control) + effects(bulk))[k]),
            f"r2_mean_{label}_additive": r2(log(real)[k], (log(control) + effects(log))[k]),
            f"pearson_delta_{label}_additive": np.corrcoef((bulk(real) - bulk(control))[k], effects(bulk)[k])[0, 1],
        }
        for name, value in expected.items():
            assert abs(float(row[name]) - value) < 1e-5 * max(1, abs(value)), (scores, name, row[name], value)
        assert row[f"pearson_delta_{label}_no_change"] == "" and row[f"r2_var_{label}_additive"] == ""
PYTHON
exit $((failures > 0))
