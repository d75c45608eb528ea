#!/bin/bash
# Owns: what `predict` writes and refuses; against the predictions that upstream recorded for the same weights, where a python3 has h5py.
# Never trains.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
export_file=$CPA_TESTS/golden/trained/glioblastoma.h5
. "$CPA_TESTS/support/writes.sh"

"$CPA_HPC" import "$export_file" --out run --quiet || exit 1

predict() {
    writes predict "$@"
}

# As spreadsheets write UTF-8: with a byte order mark.
printf '\357\273\27717\n3\n17\n' >cells.txt
printf '\357\273\277perturbation,dose,patient_id\npanobinostat,0.2,\n"panobinostat",0.1,PW030\nctrl,,\n' >grid.csv
predict 0
cp x.h5ad ood.h5ad
predict 0 --split ood
cmp -s x.h5ad ood.h5ad || fail "the held-out groups are not the default"
predict 0 --output mean
cp x.h5ad mean.h5ad
predict 0 --reconstruct --cells cells.txt
cp x.h5ad three.h5ad
predict 0 --perturbation panobinostat --dose 0.1 --set patient_id=PW030 --where patient_id=PW040
cp x.h5ad one.h5ad
predict 0 --grid grid.csv --where patient_id=PW040
cp x.h5ad grid.h5ad

# The same bytes on any number of ranks.
for n in 2 3 4; do
    $CPA_MPIRUN -n $n "$CPA_HPC" predict run --data "$data" --out ranks.h5ad --quiet || fail "predict on $n ranks"
    cmp -s ood.h5ad ranks.h5ad || fail "predictions differ on $n ranks"
    $CPA_MPIRUN -n $n "$CPA_HPC" predict run --data "$data" --out ranks.h5ad --quiet --output mean || fail "means on $n ranks"
    cmp -s mean.h5ad ranks.h5ad || fail "means differ on $n ranks"
done
$CPA_MPIRUN -n 3 "$CPA_HPC" predict run --data "$data" --out never.h5ad --perturbation nothing >out 2>err
[ $? -eq 65 ] && [ ! -e never.h5ad ] && [ "$(grep -c "none of the" err)" -eq 1 ] || fail "an unknown perturbation on 3 ranks: $(cat err)"

# Modes that contradict, and what the model or the data do not have.
predict 78 --reconstruct --perturbation panobinostat
predict 78 --grid grid.csv --perturbation panobinostat
predict 78 --perturbation panobinostat --split ood
predict 78 --perturbation panobinostat --cells cells.txt --where patient_id=PW040
predict 78 --dose 1
says "--perturbation or --grid"
predict 64 --perturbation panobinostat --set patient_id
predict 64 --perturbation panobinostat --set patient_id=PW030 --set patient_id=PW040
says "--set patient_id=PW040: 'patient_id' is set a second time"
predict 65 --perturbation panobinosta
says "panobinostat"
predict 65 --perturbation panobinostat --dose one
predict 65 --perturbation panobinostat --dose 1+1
predict 65 --perturbation panobinostat --set patient_id=PW99
says "PW040"
predict 65 --perturbation panobinostat --set donor=PW040
says "patient_id"
predict 65 --perturbation panobinostat --where patient_id=PW99
predict 65 --split nothing
predict 66 --perturbation panobinostat --cells no_such_file
predict 66 --grid no_such_file
printf '5000\n' >bad.txt
predict 65 --reconstruct --cells bad.txt
says "bad.txt, line 1"
printf 'perturbation,dose\npanobinostat,0.1\nnobody,1\n' >bad.csv
predict 65 --grid bad.csv
says "bad.csv, line 3"
printf 'dose\n1\n' >bad.csv
predict 65 --grid bad.csv
"$CPA_HPC" predict nowhere --data "$data" --out x.h5ad >out 2>err
[ $? -eq 66 ] || fail "a run that is not there: $(cat err)"
"$CPA_HPC" predict run --data "$data" --out no/folder.h5ad >out 2>err
[ $? -eq 66 ] || fail "a folder that is not there: $(cat err)"
cp "$data" own.h5ad
"$CPA_HPC" predict run --data own.h5ad --out own.h5ad >out 2>err
[ $? -eq 78 ] && cmp -s "$data" own.h5ad || fail "the data file as output: $(cat err)"
echo precious >x.h5ad # a file that is there is replaced by a complete one only
"$CPA_HPC" predict run --data "$data" --out x.h5ad --perturbation nobody >out 2>err
grep -q precious x.h5ad || fail "a failure replaced the file"

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: what the files hold is not compared"
    exit $((failures > 0))
fi
"$python" - "$CPA_HPC" "$data" "$export_file" <<'PYTHON' || fail "what the files hold"
import subprocess, sys
import h5py, numpy as np

program, data, export = sys.argv[1:]
text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda f, c: [text(f[f"obs/{c}/categories"][:])[k] if k >= 0 else None for k in f[f"obs/{c}/codes"][:]]
worst = lambda x, y: (np.linalg.norm(x - y, axis=1) / np.linalg.norm(x, axis=1)).max()

def predict(*options):
    subprocess.run([program, "predict", "run", "--data", data, "--out", "py.h5ad", "--quiet", *options], check=True)
    return h5py.File("py.h5ad")

# Upstream's own predictions.
up = h5py.File(export)
np.savetxt("cells.txt", up["reference/cells"][:], fmt="%d")
assert worst(up["reference/px"][:], predict("--reconstruct", "--cells", "cells.txt")["X"][:]) < 1e-4
assert worst(up["reference/px"][:], predict("--reconstruct")["X"][:][up["reference/cells"][:]]) < 1e-4
group = up["counterfactual/PW040_panobinostat"]
np.savetxt("cells.txt", group["control_cells"][:], fmt="%d")
f = predict("--perturbation", "panobinostat", "--dose", "0.2", "--cells", "cells.txt")
assert f["X"].shape == (500, 300) and worst(group["px_first_16"][:], f["X"][:16]) < 1e-4

# Held-out groups: every control cell of the same patient, once, under the group's condition and dose.
f = h5py.File("ood.h5ad")
source = h5py.File(data)
names = text(source["obs/" + source["obs"].attrs["_index"]][:])
patient, condition = factor(source, "patient_id"), factor(source, "condition")
controls = [n for n, p, c in zip(names, patient, condition) if (p, c) == ("PW040", "ctrl")]
assert text(f["obs/source_cell"][:]) == controls
assert set(factor(f, "perturbation")) == {"panobinostat"} and set(factor(f, "dose")) == {"0.2"} and set(factor(f, "patient_id")) == {"PW040"}
assert set(factor(f, "group")) == {"PW040_panobinostat"}
index = text(f["obs/_index"][:])
assert len(set(index)) == len(index) and index[0].startswith(controls[0] + "->panobinostat")
assert text(f["var/_index"][:]) == text(up["var_names"][:])
assert f["X"].chunks is None and f["X"].dtype == "f4"
said = {k: v[()] for k, v in f["uns/cpa_hpc"].items()}
assert said["mode"] == b"held-out" and len(said["model_digest"]) == 16 and b"counterfactual" in said["meaning"]
assert said["model_digest"].decode() == h5py.File("run/model.h5").attrs["digest"]

# Cells named by a file, in its order, repeats allowed.
f = h5py.File("three.h5ad")
assert text(f["obs/source_cell"][:]) == [names[17], names[3], names[17]] and (f["X"][0] == f["X"][2]).all() and f["X"].shape[0] == 3
assert len(set(text(f["obs/_index"][:]))) == 3 and b"reconstruct" in f["uns/cpa_hpc/mode"][()]

# One condition is a row of the grid; means are those of the cells.
grid, one = h5py.File("grid.h5ad"), h5py.File("one.h5ad")
assert grid["X"].shape[0] == 3 * len(controls) and (grid["X"][500:1000] == one["X"][:]).all()
assert factor(one, "group")[0] == "PW030_panobinostat" and factor(grid, "dose")[1000] == "1.0"
cells, mean = h5py.File("ood.h5ad")["X"][:].astype("f8"), h5py.File("mean.h5ad")
assert mean["X"].shape == (1, 300) and mean["obs/n_cells"][0] == 500
assert np.allclose(mean["X"][0], cells.mean(0), rtol=1e-5) and np.allclose(mean["layers/variance"][0], cells.var(0), rtol=1e-4)
g = source["X"]
dense = np.zeros(g.attrs["shape"])
for i in range(dense.shape[0]):
    s = slice(g["indptr"][i], g["indptr"][i + 1])
    dense[i, g["indices"][s]] = g["data"][s]
cp = lambda x: (x / np.maximum(x.sum(1, keepdims=True), 1e-9) * 1e4).mean(0)
real = dense[[i for i, n in enumerate(names) if n in set(controls)]]
change = np.log2((cp(cells) + 1) / (cp(real) + 1))
assert np.allclose(mean["layers/log_fold_change"][0], change, rtol=1e-4, atol=1e-5)
PYTHON
exit $((failures > 0))
