#!/bin/bash
# Owns: scripts/from-upstream on a model that upstream itself saved: its weights, its predictions, its latents; and on files that would
# do harm. Never needs torch or upstream.
set -u
upstream=$CPA_TESTS/golden/upstream_model
script=$CPA_TESTS/../scripts/from-upstream
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

python=
for p in python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
if [ -z "$python" ]; then
    echo "no python3 has h5py, which the script writes with"
    exit 77
fi

"$python" "$script" "$upstream" model.h5 2>err || fail "from-upstream: $(cat err)"
"$CPA_HPC" import model.h5 --out run --quiet || fail "import"
"$CPA_HPC" predict run --data "$upstream/data.h5ad" --reconstruct --out px.h5ad --quiet || fail "predict"
"$CPA_HPC" latent run --data "$upstream/data.h5ad" --out latent.h5ad --quiet \
    --which basal,after,corrected,no_pert,no_pert_corrected,covs || fail "latent"
for line in 'layer: "counts"' 'batch_key: "dataset"' 'categorical_covariate_keys: ["cell_type"]' 'max_comb_len: 2' 'split_key: "split"' \
    'seed: 3' 'deg_uns_key: ""'; do
    grep -qxF "$line" run/config.yaml || fail "config.yaml lacks $line"
done
"$python" - "$upstream" <<'PYTHON' || fail "values"
import sys
import h5py, numpy as np

worst = lambda x, y: (np.linalg.norm(x - y, axis=1) / np.linalg.norm(x, axis=1)).max()
up = h5py.File(sys.argv[1] + "/expected.h5")
assert worst(up["px"][:], h5py.File("px.h5ad")["X"][:]) < 1e-4
latents = h5py.File("latent.h5ad")["obsm"]
for kind in ("basal", "after", "corrected"):
    assert worst(up[f"latent_{kind}"][:], latents[f"latent_{kind}"][:]) < 1e-5, kind
# The corrected ones lack the batch's vector, those without perturbation the perturbation's.
z = {name[7:]: latents[name][:].astype("f8") for name in latents}
data, w = h5py.File(sys.argv[1] + "/data.h5ad"), h5py.File("model.h5")["module"]
vector = lambda covariate: w[f"covars_embeddings.{covariate}.weight"][:][data[f"obs/{covariate}/codes"][:]]
same = lambda x, y: np.allclose(x, y, atol=1e-5)
assert same(z["after"] - z["corrected"], vector("dataset")) and same(z["no_pert"] - z["no_pert_corrected"], vector("dataset"))
assert same(z["covs"], vector("dataset") + vector("cell_type")) and same(z["no_pert_corrected"] - z["basal"], vector("cell_type"))
assert same(z["after"] - z["no_pert"], z["corrected"] - z["no_pert_corrected"]) and not same(z["after"], z["no_pert"])
PYTHON

# A model with fingerprints: the same again; it takes the vectors of drugs that it has never heard of, and comes through an export.
rdkit=$CPA_TESTS/golden/upstream_rdkit
"$python" "$script" "$rdkit" rdkit.h5 2>err || fail "from-upstream: $(cat err)"
"$CPA_HPC" import rdkit.h5 --out rdkit --quiet || fail "import of a model with fingerprints"
"$CPA_HPC" predict rdkit --data "$rdkit/data.h5ad" --reconstruct --out rdkit_px.h5ad --quiet || fail "predict with fingerprints"
"$CPA_HPC" latent rdkit --data "$rdkit/data.h5ad" --out rdkit_latent.h5ad --quiet || fail "latent with fingerprints"
"$CPA_HPC" export rdkit --out rdkit_again.h5 --quiet || fail "export of a model with fingerprints"
"$CPA_HPC" import rdkit_again.h5 --out rdkit_again --quiet && cmp rdkit/model.h5 rdkit_again/model.h5 || fail "the model with fingerprints changed"
"$python" - "$rdkit" <<'PYTHON' || fail "values with fingerprints"
import sys
import h5py, numpy as np

worst = lambda x, y: (np.linalg.norm(x - y, axis=1) / np.linalg.norm(x, axis=1)).max()
up = h5py.File(sys.argv[1] + "/expected.h5")
assert worst(up["px"][:], h5py.File("rdkit_px.h5ad")["X"][:]) < 1e-5
latents = h5py.File("rdkit_latent.h5ad")["obsm"]
for kind in ("basal", "after", "corrected"):
    assert worst(up[f"latent_{kind}"][:], latents[f"latent_{kind}"][:]) < 1e-5, kind
vectors = h5py.File("rdkit.h5")["module/pert_network.pert_embedding.weight"][:].astype("u1")
assert vectors.shape == (5, 2048)
with h5py.File("drugs.h5", "w") as f: # the fingerprint of caffeine under another name, and a drug without any bit
    f["names"] = ["coffee", "nothing"]
    f["bits"] = np.packbits([vectors[3], np.zeros(2048, "u1")], axis=1)
PYTHON
"$CPA_HPC" predict rdkit --data "$rdkit/data.h5ad" --perturbation coffee+aspirin --dose 0.5+1 --pert-embeddings drugs.h5 --out coffee.h5ad --quiet ||
    fail "predict with a vector given at prediction"
"$CPA_HPC" embeddings rdkit --dose 0.5 --pert-embeddings drugs.h5 --out drugs.h5ad --quiet || fail "embeddings of vectors given then"
"$python" - <<'PYTHON' || fail "a vector given at prediction"
import h5py, numpy as np

f = h5py.File("drugs.h5ad")
z = dict(zip([v.decode() for v in f["obs/_index"][:]], f["X"][:].astype("f8")))
z = {name.split(":")[1].split("@")[0]: v / np.linalg.norm(v) for name, v in z.items()}
assert set(z) == {"DMSO", "aspirin", "caffeine", "coffee", "ibuprofen", "nothing", "B", "T"}
# Under another name caffeine has the mean dose curve of all drugs instead of its own: the same direction, another length.
assert np.allclose(z["caffeine"], z["coffee"], atol=1e-6) and not np.allclose(z["aspirin"], z["coffee"], atol=1e-2)
bias = h5py.File("rdkit.h5")["module/pert_network.pert_transformation.bias"][:]
assert np.allclose(z["nothing"], bias / np.linalg.norm(bias), atol=1e-6)
PYTHON

# refuse TEXT FOLDER: the script fails, says TEXT, does not show a traceback and leaves nothing.
refuse() {
    if "$python" "$script" "$2" x.h5 >out 2>err; then
        fail "$2: taken"
    fi
    grep -qF -e "$1" err && ! grep -q Traceback err || fail "$2: expected '$1', got: $(cat err)"
    [ ! -e x.h5 ] && [ ! -e x.h5.part ] || fail "$2: leaves a file"
}

"$python" - "$upstream" <<'PYTHON' || fail "making bad models"
import collections, json, os, pickle, shutil, sys, zipfile

def folder(name):
    os.makedirs(name)
    shutil.copy(sys.argv[1] + "/CPA_info.json", name)
    return name + "/model.pt"

class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)

class Unknown:
    def __reduce__(self):
        return collections.Counter, ("a",)

source = zipfile.ZipFile(sys.argv[1] + "/model.pt")

def change(name, **parts): # data_pkl=b"..." for data.pkl, part_3=b"..." for data/3; None leaves it out
    with zipfile.ZipFile(folder(name), "w") as z:
        for item in source.namelist():
            key = "data_pkl" if item.endswith("data.pkl") else "part_" + item.split("/")[-1]
            content = parts.get(key, source.read(item))
            if content is not None:
                z.writestr(item, content)

change("harm", data_pkl=pickle.dumps({"model_state_dict": Harm()}, 2))
change("unknown", data_pkl=pickle.dumps({"attr_dict": Unknown()}, 2))
change("nothing", data_pkl=pickle.dumps({"state_dict": {}}, 2))
change("no_registry", data_pkl=pickle.dumps({"model_state_dict": {}, "var_names": [], "attr_dict": {}}, 2))
change("cut_pickle", data_pkl=source.read("model/data.pkl")[:-200])
change("no_part", part_3=None)
change("short_part", part_3=b"abcd")
change("no_pickle", data_pkl=None)
for name, content in (("old", pickle.dumps({})), ("empty", b"")):
    open(folder(name), "wb").write(content)
content = open(sys.argv[1] + "/model.pt", "rb").read()
open(folder("cut"), "wb").write(content[:len(content) // 2])
shutil.copy(sys.argv[1] + "/model.pt", folder("no_encoder"))
json.dump({"covars_encoder": {}}, open("no_encoder/CPA_info.json", "w"))
shutil.copy(sys.argv[1] + "/model.pt", folder("not_json"))
open("not_json/CPA_info.json", "w").write("{")
shutil.copy(sys.argv[1] + "/model.pt", folder("no_info"))
os.remove("no_info/CPA_info.json")
PYTHON
refuse "system" harm
[ ! -e harm/harm ] && [ ! -e harm.h5 ] && [ ! -f harm ] || fail "a pickle was obeyed"
refuse "collections.Counter" unknown
refuse "model_state_dict" nothing
refuse "setup_anndata" no_registry
refuse "cut_pickle/model.pt" cut_pickle
refuse "part 'model/data/3'" no_part
refuse "part 'model/data/3'" short_part
refuse "data.pkl" no_pickle
refuse "zip" old
refuse "zip" empty
refuse "zip" cut
refuse "pert_encoder" no_encoder
refuse "JSON" not_json
refuse "CPA_info.json" no_info
refuse "nowhere/model.pt" nowhere
exit $((failures > 0))
