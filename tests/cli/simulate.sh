#!/bin/bash
# Owns: what `simulate` writes: the same bytes from the same seed, cells that follow the truth beside them, a model that learns
# it, memory that does not grow with the cells, and the requests that are refused.
# Must never compare a draw with a constant.
set -u
. "$CPA_TESTS/support/refuse.sh"
trap 'umount full 2>/dev/null' EXIT

make() {
    "$CPA_HPC" simulate "$@" --quiet >out 2>err </dev/null || { echo "FAILED: simulate $*: $(cat err)"; exit 1; }
}

# ---- One seed, one file: whatever the threads and ranks
make a.h5ad --cells 3000 --genes 300 --doses 0.1,1.0 --threads 1
make b.h5ad --cells 3000 --genes 300 --doses 0.1,1.0 --threads 3
make other.h5ad --cells 3000 --genes 300 --doses 0.1,1.0 --seed 1
# shellcheck disable=SC2086
$CPA_MPIRUN -n 3 "$CPA_HPC" simulate c.h5ad --cells 3000 --genes 300 --doses 0.1,1.0 --quiet
cmp a.h5ad b.h5ad && cmp a.h5ad c.h5ad || { echo "FAILED: threads or ranks change the file"; failures=$((failures + 1)); }
! cmp -s a.h5ad other.h5ad || { echo "FAILED: another seed gives the same file"; failures=$((failures + 1)); }
make sorted.h5ad --cells 3000 --genes 300 --order sorted --gzip 0 --ood 0
make pairs.h5ad --cells 20000 --genes 400 --combinations 0 --perturbations 4 --cell-types 2 --batches 3 --control 0.4 --density 0.15
for file in a sorted pairs; do
    "$CPA_HPC" check $file.h5ad >out 2>err || { echo "FAILED: check of $file.h5ad: $(cat err)"; failures=$((failures + 1)); }
done

/usr/bin/python3 - <<'PYTHON' || failures=$((failures + 1))
import os, resource, subprocess
import h5py
import numpy as np


def column(f, name):
    c = f["obs/" + name]
    assert c.attrs["encoding-type"] == "categorical"
    return c["categories"].asstr()[:][c["codes"][:]]


def dense(f):
    n, g = f["X"].attrs["shape"]
    x, p, j = np.zeros((n, g)), f["X/indptr"][:], f["X/indices"][:]
    rows = np.repeat(np.arange(n), np.diff(p))
    assert all((np.diff(j[a:b]) > 0).all() for a, b in zip(p, p[1:])), "indices do not ascend"
    assert f["X/data"].dtype == "f4" and f["X/indices"].dtype == "i4" and p.dtype == "i8"
    x[rows, j] = f["X/data"][:]
    assert (f["X/data"][:] > 0).all() and (x == np.rint(x)).all()
    return x


# ---- Columns
f = h5py.File("a.h5ad")
assert list(f["obs"].attrs["column-order"]) == ["condition", "dose", "cell_type", "batch", "split", "cov_cond"]
names = f["obs/_index"].asstr()[:]
assert names[0] == "cell_0000" and len(set(names)) == 3000
condition, dose, split, kind = column(f, "condition"), column(f, "dose"), column(f, "split"), column(f, "cell_type")
assert set(split) == {"train", "test", "ood"} and (column(f, "cov_cond") == np.char.add(np.char.add(kind.astype(str), "_"), condition.astype(str))).all()
assert all(c.count("+") == d.count("+") for c, d in zip(condition, dose))
assert set(dose[condition == "ctrl"]) == {"1.0"} and {"0.1", "1.0", "0.1+1.0"} <= set(dose)
held = set(condition[split == "ood"])
assert len(held) == 2 and all("+" in c for c in held) and not held & set(condition[split != "ood"])
assert 0.16 < (condition == "ctrl").mean() < 0.24 and 0.05 < (split == "test").mean() < 0.12
assert f["X/data"].compression == "gzip" and f["X/data"].shuffle
lists = f["uns/rank_genes_groups_cov"]
assert len(lists) == 3 * 20 and all(len(set(lists[k].asstr()[:])) == 50 for k in lists)
s = h5py.File("sorted.h5ad")
order = np.lexsort((s["obs/condition/codes"][:], s["obs/cell_type/codes"][:], s["obs/batch/codes"][:]))
assert (order == np.arange(3000)).all() and s["X/data"].compression is None and set(column(s, "split")) == {"train", "test"}

# ---- Counts follow the truth
f = h5py.File("pairs.h5ad")
x, t = dense(f), f["uns/truth"]
assert abs((x > 0).mean() / 0.15 - 1) < 0.1, (x > 0).mean()
condition, kind, batch = column(f, "condition"), f["obs/cell_type/codes"][:], f["obs/batch/codes"][:]
pair = set(zip(condition[column(f, "split") == "ood"], kind[column(f, "split") == "ood"]))
assert len(pair) == 2 and not pair & set(zip(condition[column(f, "split") != "ood"], kind[column(f, "split") != "ood"]))
basal, change, size = t["basal"][:], t["log_fold_change"][:], np.exp(t["library_log_mean"][()] + t["library_log_sd"][()] ** 2 / 2)
hill = 1 / (1 + t["ec50"][:] ** t["slope"][:])  # at dose 1
theta, spread, n = t["dispersion"][:], np.exp(t["library_log_sd"][()] ** 2), 0
for c in ["ctrl"] + list(t["perturbations"].asstr()[:]):
    for k in range(2):
        for b in range(3):
            cells = x[(condition == c) & (kind == k) & (batch == b)]
            fold = 0 if c == "ctrl" else change[int(c[-1]) - 1] * hill[int(c[-1]) - 1]
            mean = size * basal[k] * np.exp(t["batch"][b] + fold)
            # Library and count vary independently: E[x^2] = E[L^2] (...) (1 + 1 / theta).
            var = mean + mean**2 * (spread * (1 + 1 / theta) - 1)
            z = (cells.mean(0) - mean) / np.sqrt(var / len(cells))
            assert np.abs(z).max() < 7 and abs((z[mean > 0.1] ** 2).mean() - 1) < 0.4, (c, k, b, np.abs(z).max(), (z[mean > 0.1] ** 2).mean())
            n += 1
assert n == 30
top = f["uns/rank_genes_groups_cov/type_1_pert_1"].asstr()[:]
moved = np.abs(change[0][[int(g[5:]) - 1 for g in top]])
assert moved[0] > 0 and moved[:10].mean() > np.abs(change[0][change[0] != 0]).mean() / 2
PYTHON

# ---- Memory: this interpreter must be small itself, for a child begins as its copy.
/usr/bin/python3 - <<'PYTHON' || failures=$((failures + 1))
import os, resource, subprocess


def high(cells):
    """The high-water mark of the largest child so far, in bytes."""
    subprocess.run([os.environ["CPA_HPC"], "simulate", "m.h5ad", "--cells", str(cells), "--genes", "20", "--quiet"], check=True,
                   env=dict(os.environ, ASAN_OPTIONS="quarantine_size_mb=1:detect_leaks=0"))
    os.remove("m.h5ad")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


few = high(50000)
many = high(600000)
print(f"50,000 cells take {few / 1e6:.1f} MB, 600,000 {many / 1e6:.1f} MB")
assert many - few < 550000 * 20, "memory grows with the cells" # the names alone would be more
PYTHON

# ---- CSC holds the same: sorted on disk, and back again by convert.
make csc.h5ad --cells 3000 --genes 300 --doses 0.1,1.0 --format csc
"$CPA_HPC" convert csc.h5ad back.h5ad --quiet 2>.refuse/err && h5diff a.h5ad back.h5ad /X/data && h5diff a.h5ad back.h5ad /X/indices &&
    h5diff a.h5ad back.h5ad /X/indptr && h5diff a.h5ad back.h5ad /uns || failed "CSC holds other counts"

# ---- A model finds the effects of combinations that it never saw
make learn.h5ad --cells 2500 --genes 150 --cell-types 1 --batches 1 --perturbations 4 --combinations 3 --density 0.3 --seed 3
"$CPA_HPC" train learn.h5ad --out run --max-epochs 40 --n-latent 16 --n-hidden-encoder 32 --n-hidden-decoder 32 \
    --n-layers-encoder 2 --n-layers-decoder 2 --adv-steps 1 --reg-adv 0 --lr 2e-3 --doser-lr 2e-3 --quiet >out 2>.refuse/err &&
    "$CPA_HPC" evaluate run --data learn.h5ad --out scores.csv --quiet >out 2>.refuse/err || failed "training on simulated cells"
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) { at[$i] = i } next }
    { n++; delta = $at["pearson_delta_top20"]; r2 = $at["pseudobulk_r2_top20"]; none = $at["pseudobulk_r2_top20_no_change"]
      print $1, "pearson delta", delta, "r2", r2, "no change", none
      if (delta < 0.7 || r2 <= none) { bad = 1 } }
    END { exit bad || n == 0 }' scores.csv || failed "the model does not find the effects"

# ---- Refusals
small=(--cells 100 --genes 20)
refuse 64 "simulate|--cells" simulate x.h5ad --genes 10
refuse 64 "simulate|--genes" simulate x.h5ad --cells 10
refuse 64 "needs a path" simulate "${small[@]}"
refuse 64 "--cells|1 to|'0'" simulate x.h5ad --cells 0 --genes 10
refuse 64 "--cells|'1e6'" simulate x.h5ad --cells 1e6 --genes 10
refuse 64 "--genes|'-3'" simulate x.h5ad --cells 5 --genes -3
refuse 64 "--combinations|3 pairs|4" simulate x.h5ad "${small[@]}" --perturbations 3 --combinations 4
refuse 64 "--doses|'x'" simulate x.h5ad "${small[@]}" --doses 1,x
refuse 64 "--doses|'0'" simulate x.h5ad "${small[@]}" --doses 0
refuse 64 "--doses|same dose" simulate x.h5ad "${small[@]}" --doses 1,1.0
refuse 64 "--density" simulate x.h5ad "${small[@]}" --density 0
refuse 66 "nowhere" simulate nowhere/x.h5ad "${small[@]}"
refuse 78 "'a.h5ad'|not overwritten" simulate a.h5ad "${small[@]}"
mkdir full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
    refuse 74 "full/x.h5ad|No space left" simulate full/x.h5ad --cells 3000 --genes 300
    umount full
fi
finish
