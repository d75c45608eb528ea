#!/bin/bash
# Owns: what `embeddings` writes and refuses; against the weights themselves and against the vectors that upstream recorded, where a
# python3 has h5py. Never trains.
set -u
export_file=$CPA_TESTS/golden/trained/glioblastoma.h5
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# embeddings CODE RUN ARGUMENTS...: the vectors into x.h5ad ends with CODE; a failure leaves nothing.
embeddings() {
    local code=$1 got
    shift
    rm -f x.h5ad
    "$CPA_HPC" embeddings "$@" --out x.h5ad --quiet >out 2>err </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "embeddings $*: expected $code, got $got: $(cat err)"
    if [ "$code" -ne 0 ] && { [ -e x.h5ad ] || [ -e x.h5ad.part ] || ! [ -s err ]; }; then
        fail "embeddings $*: leaves a file or says nothing"
    fi
}

"$CPA_HPC" import "$export_file" --out run --quiet || exit 1
embeddings 0 run
cp x.h5ad one.h5ad
embeddings 0 run --dose 0.1,2
cp x.h5ad doses.h5ad
$CPA_MPIRUN -n 3 "$CPA_HPC" embeddings run --dose 0.1,2 --out ranks.h5ad --quiet || fail "embeddings on 3 ranks"
cmp -s doses.h5ad ranks.h5ad || fail "embeddings differ on 3 ranks"

embeddings 66 nowhere
embeddings 65 run --dose -1
embeddings 65 run --dose 1,much
embeddings 65 run --dose 1+2
grep -q -e "--perturbation" err || fail "the message does not say how to name a combination: $(cat err)"
embeddings 65 run --perturbation panobinosta
embeddings 65 run --perturbation ctrl+panobinostat # the model combines none
embeddings 64 run --data data.h5ad
"$CPA_HPC" embeddings run >out 2>err
[ $? -eq 64 ] || fail "embeddings without --out: $(cat err)"
"$CPA_HPC" embeddings run --out no/folder.h5ad >out 2>err
[ $? -eq 66 ] || fail "a folder that is not there: $(cat err)"
echo precious >x.h5ad
"$CPA_HPC" embeddings run --dose much --out x.h5ad >out 2>err
grep -q precious x.h5ad || fail "a failure replaced the file"

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: what the files hold is not compared"
    exit $((failures > 0))
fi
upstream=$CPA_TESTS/golden/upstream_model
"$python" "$CPA_TESTS/../scripts/from-upstream" "$upstream" combos.h5 2>err || fail "from-upstream: $(cat err)"
"$CPA_HPC" import combos.h5 --out combos --quiet || fail "import of a model of combinations"
embeddings 0 combos --dose 0.1,1.0,2+3 --perturbation MAP2K6+KLF1
cp x.h5ad combos.h5ad
embeddings 65 combos --perturbation KLF1+MAP2K3+MAP2K6
"$python" - "$export_file" "$upstream" <<'PYTHON' || fail "what the files hold"
import sys
import h5py, numpy as np

export, upstream = sys.argv[1:]
text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
factor = lambda f, c: [text(f[f"obs/{c}/categories"][:])[k] if k >= 0 else None for k in f[f"obs/{c}/codes"][:]]

# By the formula, from the weights.
w = h5py.File(export)["module"]
sigmoid = lambda x: 1 / (1 + np.exp(-x.astype("f8")))
beta, bias = w["pert_network.dosers.beta"][0], w["pert_network.dosers.bias"][0]
at = lambda d: (w["pert_network.pert_embedding.weight"][:] * (sigmoid(beta * np.log1p(d) + bias) - sigmoid(bias))[:, None])[1:]
f = h5py.File("doses.h5ad")
patients = w["covars_embeddings.patient_id.weight"][:]
want = np.concatenate([at(0.1), at(2), patients])
assert f["X"].shape == want.shape and np.allclose(f["X"][:], want, atol=1e-6)
assert (f["X"][-5:] == patients).all()
assert factor(f, "kind") == ["perturbation"] * 4 + ["patient_id"] * 5 and factor(f, "dose") == ["0.1"] * 2 + ["2"] * 2 + [None] * 5
assert text(f["obs/name"][:])[:5] == ["ctrl", "panobinostat"] * 2 + ["PW030"]
assert text(f["obs/_index"][:])[3:5] == ["perturbation:panobinostat@2", "patient_id:PW030"]
assert f["uns/cpa_hpc/model_digest"][()].decode() == h5py.File("run/model.h5").attrs["digest"]
f = h5py.File("one.h5ad")
assert np.allclose(f["X"][:2], at(1.0), atol=1e-6) and set(factor(f, "dose")) == {"1.0", None}

# As upstream's get_pert_embeddings (whose first row is the padding); a combination is the sum of its components.
f, up = h5py.File("combos.h5ad"), h5py.File(upstream + "/expected.h5")
names, doses, x = text(f["obs/name"][:]), factor(f, "dose"), f["X"][:]
for i, d in ((0, "0.1"), (5, "1.0")):
    assert names[i:i + 5] == ["control", "KLF1", "MAP2K3", "MAP2K6", "MAP2K6+KLF1"]
    assert doses[i:i + 5] == [d] * 4 + [f"{d}+{d}"]
    assert np.allclose(x[i:i + 4], up[f"pert_embedding_{d}"][1:], atol=1e-6)
    assert np.allclose(x[i + 4], x[i + 1] + x[i + 3], atol=1e-6)
assert names[10:] == ["MAP2K6+KLF1", "A172", "k562", "mcfaline23", "norman19"] and doses[10:] == ["2+3"] + [None] * 4
assert factor(f, "kind")[11:] == ["cell_type", "cell_type", "dataset", "dataset"]
w = h5py.File("combos.h5")["module"]
beta, bias = w["pert_network.dosers.beta"][0], w["pert_network.dosers.bias"][0]
assert np.allclose(x[10], at(2)[3] + at(3)[1], atol=1e-6)
PYTHON
exit $((failures > 0))
