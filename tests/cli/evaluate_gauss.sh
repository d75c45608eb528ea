#!/bin/bash
# Owns: what `evaluate` says of a model of log-normalised values: scores of the values as they are, against scores
# computed anew where a python3 has h5py. The model is tiny; never judges how good it is.
set -euo pipefail
export OMP_NUM_THREADS=1
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -n "$python" ]; then
    "$python" - "$data" <<'PYTHON'
import shutil, sys
import h5py, numpy as np

shutil.copy(sys.argv[1], "log.h5ad")
with h5py.File("log.h5ad", "r+") as f:
    indptr, values = f["X/indptr"][:], f["X/data"][:].astype("f8")
    sums = np.repeat([values[a:b].sum() for a, b in zip(indptr, indptr[1:])], np.diff(indptr))
    attrs = dict(f["X/data"].attrs)
    del f["X/data"]
    f["X"].create_dataset("data", data=np.log1p(values / np.maximum(sums, 1e-9) * 1e4).astype("f4")).attrs.update(attrs)
PYTHON
    data=log.h5ad
fi
"$CPA_HPC" train "$data" --out run --recon-loss gauss --max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 \
    --n-hidden-adv 8 --quiet
"$CPA_HPC" evaluate run --data "$data" --out scores.csv --quiet >/dev/null
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) { at[$i] = i } }
         NR == 2 { exit $at["r2_mean_all"] == "" || $at["pseudobulk_r2_all"] == "" || $at["pearson_delta_top20"] == "" }' scores.csv ||
    { echo "the model has no scores: $(cat scores.csv)"; exit 1; }
if [ -z "$python" ]; then
    echo "no python3 has h5py: the scores are not computed anew"
    exit 0
fi
"$CPA_HPC" predict run --data "$data" --out pred.h5ad --quiet
"$CPA_HPC" predict run --data "$data" --out mean.h5ad --quiet --output mean
"$python" - "$data" <<'PYTHON'
import csv, sys
import h5py, numpy as np

f = h5py.File(sys.argv[1])
text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda c: np.array([text(f[f"obs/{c}/categories"][:])[k] for k in f[f"obs/{c}/codes"][:]])
x = np.zeros(f["X"].attrs["shape"])
indptr, indices, values = (f["X"][k][:] for k in ("indptr", "indices", "data"))
for i in range(len(x)):
    x[i, indices[indptr[i]:indptr[i + 1]]] = values[indptr[i]:indptr[i + 1]]
condition, patient, split = (factor(c) for c in ("condition", "patient_id", "split"))
genes = text(f["var/" + f["var"].attrs["_index"]][:])
top = np.isin(genes, text(f["uns/rank_genes_groups_cov/PW040_panobinostat"][:])[:20])
r2 = lambda a, b: 1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum()
real, control = x[(patient == "PW040") & (split == "ood")], x[(patient == "PW040") & (condition == "ctrl")]
predicted = h5py.File("pred.h5ad")["X"][:].astype("f8")
effects = []
for p in np.unique(patient):
    m = (patient == p) & (condition == "panobinostat") & (split == "train")
    if m.sum() >= 10:
        effects.append(x[m].mean(0) - x[(patient == p) & (condition == "ctrl")].mean(0))
row = next(csv.DictReader(open("scores.csv")))
for label, k in (("all", np.ones(len(genes), bool)), ("top20", top)):
    a, b, c = (v.mean(0)[k] for v in (real, predicted, control))
    expected = {
        f"r2_mean_{label}": r2(a, b),
        f"pseudobulk_r2_{label}": r2(a, b),
        f"r2_var_{label}": r2(real.var(0)[k], predicted.var(0)[k]),
        f"r2_delta_{label}": r2(a - c, b - c),
        f"pearson_delta_{label}": np.corrcoef(a - c, b - c)[0, 1],
        f"pseudobulk_r2_{label}_no_change": r2(a, c),
        f"r2_mean_{label}_additive": r2(a, c + np.mean(effects, 0)[k]),
        f"pseudobulk_r2_{label}_additive": r2(a, c + np.mean(effects, 0)[k]),
    }
    for name, value in expected.items():
        assert abs(float(row[name]) - value) < 1e-4 * max(1, abs(value)), (name, row[name], value)
mean = h5py.File("mean.h5ad")
change = (predicted.mean(0) - control.mean(0)) / np.log(2)  # values are natural logarithms already
assert np.allclose(mean["layers/log_fold_change"][0], change, rtol=1e-4, atol=1e-5), "log fold change"
PYTHON
