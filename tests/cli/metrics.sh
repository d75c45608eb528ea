#!/bin/bash
# Owns: the metrics over the whole validation split in history.csv: against a decoder, moments and neighbours computed anew in double
# precision, where a python3 has h5py; the same at any number of ranks. Never judges how good a model is.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

small=(--max-epochs 1 --n-latent 32 --n-hidden-encoder 32 --n-hidden-decoder 64)
train() {
    local run=$1
    shift
    "$CPA_HPC" train "$data" --out "$run" --quiet "${small[@]}" "$@" >out 2>err </dev/null || fail "training $run: $(cat err)"
}

train nb --n-deg-r2 7
train zinb --recon-loss zinb --lanes 4
train gauss --recon-loss gauss
# CPA_MPIRUN is a command line of several words.
# shellcheck disable=SC2086
$CPA_MPIRUN -n 3 "$CPA_HPC" train "$data" --out zinb3 --recon-loss zinb --lanes 4 "${small[@]}" >out 2>err </dev/null ||
    fail "training on 3 ranks: $(cat err)"
cmp zinb/history.csv zinb3/history.csv || fail "the history differs on 3 ranks"
# More validation cells than are looked up.
for n in 1 3; do
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n $n "$CPA_HPC" train "$data" --out many$n --split-key "" --train-size 0.5 --lanes 4 "${small[@]}" >out 2>err </dev/null ||
        fail "training with many validation cells on $n ranks: $(cat err)"
    grep -q 'disnt_after_split of 1024 of 2500 cells' err || fail "$n ranks do not say that they look up some of the cells: $(cat err)"
done
cmp many1/history.csv many3/history.csv || fail "the history of many validation cells differs on 3 ranks"
head -1 nb/history.csv | grep -q '^epoch,mode,recon_loss,KL,disnt_basal,disnt_after,r2_mean,r2_var,adv_loss,penalty_adv,adv_perts,acc_perts,penalty_perts,cpa_metric,adv_patient_id,penalty_patient_id,acc_patient_id,r2_mean_split,r2_var_split,r2_var_pred,r2_mean_deg,r2_var_deg,disnt_basal_split,disnt_after_split$' ||
    fail "the columns: $(head -1 nb/history.csv)"
# Without lists of genes there is nothing to score on them.
train plain --deg-uns-key "" --deg-uns-cat-key ""
tail -1 plain/history.csv | grep -Eq '^0,valid,.*,[-0-9.e]+,[-0-9.e]+,[-0-9.e]+,,,[0-9.]+,[0-9.]+$' || fail "without lists: $(tail -1 plain/history.csv)"

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: the metrics are not computed anew"
    exit $((failures > 0))
fi
for run in nb zinb gauss; do
    "$CPA_HPC" latent $run --data "$data" --out $run.h5ad --split test --quiet || fail "latents of $run"
done
"$python" - "$data" <<'PYTHON' || fail "metrics computed anew"
import csv, sys
import h5py, numpy as np

f = h5py.File(sys.argv[1])
text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda c: np.array([text(f[f"obs/{c}/categories"][:])[k] for k in f[f"obs/{c}/codes"][:]])
x = np.zeros(f["X"].attrs["shape"])
indptr, indices, values = (f["X"][k][:] for k in ("indptr", "indices", "data"))
for i in range(len(x)):
    x[i, indices[indptr[i]:indptr[i + 1]]] = values[indptr[i]:indptr[i + 1]]
valid = factor("split") == "test"
x, condition, patient, key = x[valid], factor("condition")[valid], factor("patient_id")[valid], factor("cov_cond")[valid]
genes = text(f["var/" + f["var"].attrs["_index"]][:])

def decode(run, z):
    m = h5py.File(f"{run}/model.h5")["module"]
    stack = "decoder.encoder" if run == "gauss" else "decoder.px_decoder"
    p = lambda name: m[name][:].astype("f8")
    for i in range(3):
        z = z @ p(f"{stack}.fc_layers.Layer {i}.0.weight").T + p(f"{stack}.fc_layers.Layer {i}.0.bias")
        n = f"{stack}.fc_layers.Layer {i}.1."
        z = (z - p(n + "running_mean")) / np.sqrt(p(n + "running_var") + 1e-3) * p(n + "weight") + p(n + "bias")
        z = np.maximum(z, 0)
    head = lambda name: z @ p(name + ".weight").T + p(name + ".bias")
    if run == "gauss":
        return head("decoder.mean_encoder"), np.exp(head("decoder.var_encoder")) + 1e-4, None
    logits = head("decoder.px_scale_decoder.0")
    e = np.exp(logits - logits.max(1, keepdims=True))
    mu, theta = e / e.sum(1, keepdims=True) * x.sum(1, keepdims=True), np.exp(p("px_r"))
    left = 1 / (1 + np.exp(head("decoder.px_dropout_decoder"))) if run == "zinb" else np.ones_like(mu)
    mean = left * mu
    return mu, left * (mu + mu ** 2 / theta) + left * (1 - left) * mu ** 2, mean  # its variance, its mean

def purity(z, labels):
    z = z.astype("f8")
    d = ((z[:, None] - z[None]) ** 2).sum(2) if len(z) < 100 else (z ** 2).sum(1)[:, None] + (z ** 2).sum(1) - 2 * z @ z.T
    np.fill_diagonal(d, np.inf)
    near = np.argsort(d, 1, kind="stable")[:, :30]
    share = (labels[near] == labels[:, None]).mean(1)
    return np.mean([share[labels == l].mean() for l in np.unique(labels)])

r2 = lambda real, predicted: 1 - ((real - predicted) ** 2).sum() / ((real - real.mean()) ** 2).sum()
for run, n_deg in (("nb", 7), ("zinb", 10), ("gauss", 10)):
    got = [row for row in csv.DictReader(open(f"{run}/history.csv")) if row["mode"] == "valid"][-1]
    latents = h5py.File(f"{run}.h5ad")["obsm"]
    mean, var, thinned = decode(run, latents["latent_after"][:].astype("f8"))
    scores = {k: [] for k in ("r2_mean_split", "r2_var_split", "r2_var_pred", "r2_mean_deg", "r2_var_deg")}
    for c in np.unique(condition):
        for d in np.unique(patient):
            k = (condition == c) & (patient == d)
            if not k.any():
                continue
            if run == "gauss":
                real, rv, pred, pv = x[k].mean(0), x[k].var(0, ddof=1), mean[k].mean(0), var[k].mean(0)
                rt, pt = rv, pv + mean[k].var(0)
            else:
                l, p = np.log1p(x[k]), np.log1p(mean[k])
                real, rv, pred, pv = l.mean(0), l.var(0, ddof=1), p.mean(0), p.var(0, ddof=1)
                rt, pt = np.log1p(x[k].var(0, ddof=1)), np.log1p(var[k].mean(0) + thinned[k].var(0))
            scores["r2_mean_split"].append(r2(real, pred))
            scores["r2_var_split"].append(r2(rv, pv))
            scores["r2_var_pred"].append(r2(rt, pt))
            lists = f["uns/rank_genes_groups_cov"]
            if key[k][0] in lists:
                deg = np.isin(genes, text(lists[key[k][0]][:])[:n_deg])
                scores["r2_mean_deg"].append(r2(real[deg], pred[deg]))
                scores["r2_var_deg"].append(r2(rv[deg], pv[deg]))
    assert len(scores["r2_mean_split"]) == 9 and len(scores["r2_mean_deg"]) == 4
    for name, value in scores.items():
        value = np.mean(value)

        assert abs(float(got[name]) - value) < 3e-5 * max(1, abs(value)), (run, name, got[name], value)
    for kind in ("basal", "after"):
        z = latents[f"latent_{kind}"][:]
        value = purity(z, condition) + purity(z, patient)

        assert abs(float(got[f"disnt_{kind}_split"]) - value) < 1e-4, (run, kind, got[f"disnt_{kind}_split"], value)
PYTHON
exit $((failures > 0))
