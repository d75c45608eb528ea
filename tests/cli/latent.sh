#!/bin/bash
# Owns: what `latent` writes and refuses; against the latents that upstream recorded for the same weights, where a python3 has h5py.
# Never trains.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
export_file=$CPA_TESTS/golden/trained/glioblastoma.h5
. "$CPA_TESTS/support/writes.sh"

"$CPA_HPC" import "$export_file" --out run --quiet || exit 1

latent() {
    writes latent "$@"
}

latent 0
cp x.h5ad all.h5ad
latent 0 --which covs,no_pert,no_pert_corrected,corrected,after,basal --split ood
cp x.h5ad ood.h5ad
printf '17\n3\n17\n' >cells.txt
latent 0 --which basal --cells cells.txt
cp x.h5ad three.h5ad

# The same bytes on any number of ranks.
for n in 2 3 4; do
    $CPA_MPIRUN -n $n "$CPA_HPC" latent run --data "$data" --out ranks.h5ad --quiet || fail "latent on $n ranks"
    cmp -s all.h5ad ranks.h5ad || fail "latents differ on $n ranks"
done
$CPA_MPIRUN -n 3 "$CPA_HPC" latent run --data "$data" --out never.h5ad --split nothing >out 2>err
[ $? -eq 65 ] && [ ! -e never.h5ad ] && [ "$(grep -c "'nothing'" err)" -eq 1 ] || fail "an unknown split on 3 ranks: $(cat err)"

latent 64 --which basal,before
says "no_pert_corrected"
latent 64 --which basal,basal
latent 78 --cells cells.txt --split ood
latent 65 --split nothing
latent 66 --cells no_such_file
printf '5000\n' >bad.txt
latent 65 --cells bad.txt
"$CPA_HPC" latent run --out x.h5ad >out 2>err
[ $? -eq 64 ] || fail "latents of no data: $(cat err)"
"$CPA_HPC" latent nowhere --data "$data" --out x.h5ad >out 2>err
[ $? -eq 66 ] || fail "a run that is not there: $(cat err)"
"$CPA_HPC" latent run --data "$data" --out no/folder.h5ad >out 2>err
[ $? -eq 66 ] || fail "a folder that is not there: $(cat err)"
cp "$data" own.h5ad
"$CPA_HPC" latent run --data own.h5ad --out own.h5ad >out 2>err
[ $? -eq 78 ] && cmp -s "$data" own.h5ad || fail "the data file as output: $(cat err)"
echo precious >x.h5ad # a file that is there is replaced by a complete one only
"$CPA_HPC" latent run --data "$data" --out x.h5ad --split nothing >out 2>err
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

# Upstream's own latents.
up, f, source = h5py.File(export), h5py.File("all.h5ad"), h5py.File(data)
rows = up["reference/cells"][:]
assert sorted(f["obsm"]) == ["latent_after", "latent_basal", "latent_corrected"]
for kind in ("basal", "after", "corrected"):
    assert worst(up[f"reference/latent/latent_{kind}"][:], f[f"obsm/latent_{kind}"][:][rows]) < 1e-5, kind
assert (f["X"][:] == f["obsm/latent_basal"][:]).all() and f["X"].dtype == "f4" and f["X"].chunks is None

# The cells are the data's, under their own names.
names = text(source["obs/" + source["obs"].attrs["_index"]][:])
assert text(f["obs/_index"][:]) == names and text(f["var/_index"][:]) == [f"latent_{i}" for i in range(128)]
assert list(f["obs"].attrs["column-order"]) == ["perturbation", "dose", "patient_id", "split", "category"]
for ours, theirs in (("perturbation", "condition"), ("dose", "dose"), ("patient_id", "patient_id"), ("split", "split")):
    assert factor(f, ours) == factor(source, theirs), ours
assert factor(f, "category") == [f"{p}_{c}" for p, c in zip(factor(source, "patient_id"), factor(source, "condition"))]
said = f["uns/cpa_hpc"]
assert said["mode"][()] == b"latent" and said["x"][()] == b"basal" and text(said["which"][:]) == ["basal", "after", "corrected"]
assert said["model_digest"][()].decode() == h5py.File("run/model.h5").attrs["digest"]

# Every kind is the sum of its parts; X is the first that was asked for.
f = h5py.File("ood.h5ad")
z = {name[7:]: f["obsm/" + name][:].astype("f8") for name in f["obsm"]}
assert len(z) == 6 and (f["X"][:] == f["obsm/latent_covs"][:]).all() and set(factor(f, "split")) == {"ood"}
held_out = [i for i, s in enumerate(factor(source, "split")) if s == "ood"]
assert text(f["obs/_index"][:]) == [names[i] for i in held_out]
assert np.allclose(z["basal"], h5py.File("all.h5ad")["obsm/latent_basal"][:][held_out], atol=1e-6)
patients = up["module/covars_embeddings.patient_id.weight"][:]
assert np.allclose(z["covs"], patients[h5py.File(data)["obs/patient_id/codes"][:][held_out]], atol=1e-6)
assert np.allclose(z["no_pert"], z["basal"] + z["covs"], atol=1e-5) and np.allclose(z["no_pert"], z["no_pert_corrected"])
assert np.allclose(z["after"], z["corrected"]) and not np.allclose(z["after"], z["no_pert"], atol=1e-2)

# Cells named by a file, in its order, repeats allowed.
f = h5py.File("three.h5ad")
index = text(f["obs/_index"][:])
assert list(f["obsm"]) == ["latent_basal"] and len(set(index)) == 3 and index[1] == names[3] and index[0].startswith(names[17])
assert (f["X"][0] == f["X"][2]).all() and np.allclose(f["X"][:], h5py.File("all.h5ad")["X"][:][[17, 3, 17]], atol=1e-6)

# Cells of a perturbation that the model does not know have a basal latent, but no other.
with h5py.File("own.h5ad", "r+") as f:
    names = text(f["obs/condition/categories"][:])
    names[names.index("panobinostat")] = "novel"
    kept = dict(f["obs/condition/categories"].attrs)
    del f["obs/condition/categories"]
    d = f.create_dataset("obs/condition/categories", data=names, dtype=h5py.string_dtype())
    d.attrs.update(kept)
    del f["obs/split"]
    f["obs"].attrs["column-order"] = np.array([c for c in f["obs"].attrs["column-order"] if c != "split"], dtype=object)
run = lambda *o: subprocess.run([program, "latent", "run", "--data", "own.h5ad", "--out", "py.h5ad", "--quiet", *o], capture_output=True, text=True)
r = run("--which", "basal")
assert r.returncode == 0, r.stderr
f = h5py.File("py.h5ad")
assert (f["X"][:] == h5py.File("all.h5ad")["X"][:]).all() and "novel" in factor(f, "perturbation") and "split" not in f["obs"]
r = run("--which", "basal,after")
assert r.returncode == 65 and "'novel'" in r.stderr, r.stderr
PYTHON
exit $((failures > 0))
