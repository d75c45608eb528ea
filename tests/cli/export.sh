#!/bin/bash
# Owns: what `export` writes and refuses: the same tensors and names that `import` read, tensor for tensor.
# Never trains.
set -u
export_file=$CPA_TESTS/golden/trained/glioblastoma.h5
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# round_trip NAME FILE: a run made from the export of the run made from FILE is that run.
round_trip() {
    "$CPA_HPC" import "$2" --out "$1" --quiet || fail "import $2"
    "$CPA_HPC" export "$1" --out "$1.h5" --quiet || fail "export of $2"
    "$CPA_HPC" import "$1.h5" --out "$1-again" --quiet || fail "import of the export of $2"
    cmp -s "$1/model.h5" "$1-again/model.h5" || fail "$1: the model changed on its way"
    cmp -s "$1/config.yaml" "$1-again/config.yaml" || fail "$1: config.yaml changed on its way: $(diff "$1/config.yaml" "$1-again/config.yaml")"
}

round_trip run "$export_file"
for n in 2 3; do
    $CPA_MPIRUN -n $n "$CPA_HPC" export run --out ranks.h5 --quiet || fail "export on $n ranks"
    cmp -s run.h5 ranks.h5 || fail "the export differs on $n ranks"
done

# refuse CODE RUN OUT: the export ends with CODE and a message, and leaves nothing.
refuse() {
    "$CPA_HPC" export "$2" --out "$3" >out 2>err
    [ $? -eq "$1" ] && [ -s err ] && [ ! -e "$3" ] && [ ! -e "$3.part" ] || fail "export $2 --out $3: not $1, or a file: $(cat err)"
}
refuse 66 nowhere x.h5
refuse 66 run no/folder.h5
mkdir damaged
head -c 100000 run/model.h5 >damaged/model.h5
refuse 65 damaged x.h5
"$CPA_HPC" export run >out 2>err
[ $? -eq 64 ] || fail "export without --out: $(cat err)"
echo precious >x.h5
"$CPA_HPC" export damaged --out x.h5 >out 2>err
grep -q precious x.h5 || fail "a failure replaced the file"

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py: what the files hold is not compared"
    exit $((failures > 0))
fi
upstream=$CPA_TESTS/golden/upstream_model
"$python" "$CPA_TESTS/../scripts/from-upstream" "$upstream" saved.h5 2>err || fail "from-upstream: $(cat err)"
round_trip combos saved.h5
"$python" - "$export_file" run.h5 saved.h5 combos.h5 <<'PYTHON' || fail "what the files hold"
import json, sys
import h5py, numpy as np

def tensors(f):
    found = {}
    f["module"].visititems(lambda name, o: found.update({name: o}) if isinstance(o, h5py.Dataset) else None)
    return found

for original, exported in (sys.argv[1:3], sys.argv[3:5]):
    a, b = h5py.File(original), h5py.File(exported)
    x, y = tensors(a), tensors(b)
    assert set(x) == set(y), set(x) ^ set(y) # so that torch's load_state_dict takes it, strictly
    for name in x:
        assert x[name].shape == y[name].shape and x[name].dtype == y[name].dtype, name
        without_effect = "num_batches_tracked" in name or "px_r_decoder" in name or "px_dropout_decoder" in name
        assert np.array_equal(np.zeros_like(x[name][()]) if without_effect else x[name][()], y[name][()]), name
    text = lambda f: [g.decode() if isinstance(g, bytes) else g for g in f["var_names"][:]]
    assert text(a) == text(b)
    for encoder in ("pert_encoder", "covars_encoder"):
        assert list(json.loads(a.attrs[encoder]).items()) == list(json.loads(b.attrs[encoder]).items()), encoder
    was, said = json.loads(a.attrs["command"]), json.loads(b.attrs["command"])
    for key in ("control", "covariates", "batch_key", "layer", "max_comb", "recon", "seed"):
        assert was[key] == said[key], (key, was[key], said[key])
    model = json.loads(said["model"])
    assert model["n_latent"] == y["encoder.z.bias"].shape[0] and "n_hidden_adv" in json.loads(said["plan"])
PYTHON
exit $((failures > 0))
