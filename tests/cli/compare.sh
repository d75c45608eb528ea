#!/bin/bash
# Owns: what `compare` says of two runs and of two files of predictions: against figures computed anew from what the other commands
# write, where a python3 has h5py; what it refuses. Never judges which run is better.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

small=(--n-latent 16 --n-hidden-encoder 32 --n-hidden-decoder 32 --max-epochs 2 --quiet)
"$CPA_HPC" train "$data" --out a "${small[@]}" || exit 1
"$CPA_HPC" train "$data" --out b "${small[@]}" --seed 5 --doser-type sigm || exit 1
"$CPA_HPC" train "$data" --out wide "${small[@]}" --n-latent 17 || exit 1
"$CPA_HPC" train "$data" --out gauss "${small[@]}" --recon-loss gauss || exit 1
"$CPA_HPC" compare a b --data "$data" --out runs.csv --split test --quiet || fail "two runs"
[ "$(head -1 runs.csv)" = metric,a,b,between ] && [ "$(wc -l <runs.csv)" -eq 8 ] || fail "the rows: $(cat runs.csv)"
for n in 1 3; do
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n $n "$CPA_HPC" compare a b --data "$data" --out many$n.csv </dev/null 2>err || fail "all cells on $n ranks"
    grep -q '1024 of 5000 cells' err || fail "not all cells are looked up, and nobody says so: $(cat err)"
done
cmp many1.csv many3.csv || fail "the comparison differs on 3 ranks"
"$CPA_HPC" compare a a --data "$data" --quiet >same.txt || fail "a run beside itself"
[ "$(grep -Ec '^(r2_mean|r2_var|pearson_basal|pearson_after) .* 1\.000000$' same.txt)" -eq 4 ] && grep -Eq '^dose_mae .* 0\.000000$' same.txt ||
    fail "a run beside itself: $(cat same.txt)"
"$CPA_HPC" compare a wide --data "$data" --split test --quiet --out wide.csv && grep -q '^pearson_basal,,,$' wide.csv ||
    fail "latents of other widths have no correlation"
for run in a b; do
    "$CPA_HPC" predict $run --data "$data" --out $run.h5ad --quiet || fail "predict $run"
    "$CPA_HPC" predict $run --data "$data" --out rec_$run.h5ad --reconstruct --split test --quiet || fail "reconstruct $run"
    "$CPA_HPC" latent $run --data "$data" --out latent_$run.h5ad --split test --quiet || fail "latents of $run"
    "$CPA_HPC" embeddings $run --out doses_$run.h5ad --quiet \
        --dose "$(awk 'BEGIN { for (i = 0; i < 50; i++) printf "%s%.17g", i ? "," : "", 0.2 * i / 49 }')" || fail "embeddings of $run"
done
"$CPA_HPC" compare a.h5ad b.h5ad --out files.csv --quiet || fail "two files"
"$CPA_HPC" compare a.h5ad b.h5ad --quiet >table.txt || fail "two files, shown"
[ "$(wc -l <files.csv)" -eq 3 ] && [ "$(wc -l <table.txt)" -eq 3 ] || fail "the rows of two files: $(cat files.csv table.txt)"

# refuse CODE TEXT ARGUMENTS...: compare ends with CODE, says TEXT and leaves no file.
refuse() {
    local code=$1 text=$2 got
    shift 2
    "$CPA_HPC" compare "$@" --out none.csv >out 2>err
    got=$?
    [ "$got" -eq "$code" ] && [ ! -e none.csv ] && grep -qF -e "$text" err || fail "compare $*: expected $code, got $got: $(cat err)"
}
refuse 64 "two paths" a
refuse 64 "one path too many" a b a
refuse 64 "--data" a b
refuse 64 "two runs, or two files" a b.h5ad --data "$data"
refuse 64 "for runs" a.h5ad b.h5ad --data "$data"
refuse 66 "nowhere" a nowhere --data "$data"
refuse 66 "no.h5ad" a b --data no.h5ad
refuse 65 "gauss" a gauss --data "$data"
refuse 65 "'nothing'" a b --data "$data" --split nothing
refuse 65 "500 rows" a.h5ad rec_a.h5ad
refuse 65 "lacks the columns" "$data" "$data"
"$CPA_HPC" compare a b --data "$data" --out no/folder.csv >out 2>err
[ $? -eq 66 ] || fail "a folder that is not there: $(cat err)"

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: the figures are not computed anew"
    exit $((failures > 0))
fi
"$python" - "$data" <<'PYTHON' || fail "figures computed anew"
import csv, sys
import h5py, numpy as np

text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda f, c: np.array([text(f[f"obs/{c}/categories"][:])[k] for k in f[f"obs/{c}/codes"][:]])
r2 = lambda real, p: 1 - ((real - p) ** 2).sum() / ((real - real.mean()) ** 2).sum()

f = h5py.File(sys.argv[1])
x = np.zeros(f["X"].attrs["shape"])
indptr, indices, values = (f["X"][k][:] for k in ("indptr", "indices", "data"))
for i in range(len(x)):
    x[i, indices[indptr[i]:indptr[i + 1]]] = values[indptr[i]:indptr[i + 1]]
valid = factor(f, "split") == "test"
condition, patient = factor(f, "condition")[valid], factor(f, "patient_id")[valid]
group = np.char.add(np.char.add(patient.astype(str), "_"), condition.astype(str))
log = lambda x: np.log1p(x / np.maximum(x.sum(1, keepdims=True), 1e-9) * 1e4)
real = log(x[valid])
a, b = (log(h5py.File(f"rec_{run}.h5ad")["X"][:].astype("f8")) for run in "ab")
want = {"r2_mean": np.mean([[r2(real[k].mean(0), a[k].mean(0)), r2(real[k].mean(0), b[k].mean(0)), r2(a[k].mean(0), b[k].mean(0))]
                            for k in (group == g for g in np.unique(group))], 0),
        "r2_var": np.mean([[r2(real[k].var(0), a[k].var(0)), r2(real[k].var(0), b[k].var(0)), r2(a[k].var(0), b[k].var(0))]
                           for k in (group == g for g in np.unique(group))], 0)}

def purity(z, labels):
    d = (z ** 2).sum(1)[:, None] + (z ** 2).sum(1) - 2 * z @ z.T
    np.fill_diagonal(d, np.inf)
    share = (labels[np.argsort(d, 1, kind="stable")[:, :30]] == labels[:, None]).mean(1)
    return np.mean([share[labels == l].mean() for l in np.unique(labels)])

for kind in ("basal", "after"):
    z = [h5py.File(f"latent_{run}.h5ad")[f"obsm/latent_{kind}"][:].astype("f8") for run in "ab"]
    want[f"pearson_{kind}"] = [None, None, np.corrcoef(z[0].ravel(), z[1].ravel())[0, 1]]
    want[f"purity_{kind}"] = [purity(z[0], condition) + purity(z[0], patient), purity(z[1], condition) + purity(z[1], patient), None]
length = []
for run in "ab":
    e = h5py.File(f"doses_{run}.h5ad")
    rows = [i for i, n in enumerate(text(e["obs/name"][:])) if n == "panobinostat"]
    assert len(rows) == 50
    length.append(np.linalg.norm(e["X"][:][rows].astype("f8"), axis=1))
want["dose_mae"] = [None, None, np.abs(length[0] - length[1]).mean()]
got = {row["metric"]: row for row in csv.DictReader(open("runs.csv"))}
assert list(got) == ["r2_mean", "r2_var", "pearson_basal", "pearson_after", "purity_basal", "purity_after", "dose_mae"], list(got)
for metric, values in want.items():
    for column, value in zip(("a", "b", "between"), values):
        field = got[metric][column]
        assert (field == "") == (value is None), (metric, column, field)
        assert value is None or abs(float(field) - value) < 1e-4 * max(1, abs(value)) and (metric != "dose_mae" or value > 1e-4), (metric, column, field, value)

mean = [np.log1p(h5py.File(f"{run}.h5ad")["X"][:].astype("f8").mean(0)) for run in "ab"]
got = {row["metric"]: float(row["between"]) for row in csv.DictReader(open("files.csv"))}
assert abs(got["r2_mean"] - r2(*mean)) < 1e-6 * max(1, abs(r2(*mean))) and abs(got["dose_mae"] - np.abs(mean[0] - mean[1]).mean()) < 1e-7, got
PYTHON
exit $((failures > 0))
