#!/bin/bash
# Owns: that `predict`, `evaluate` and `import` refuse damaged models, data that do not fit a model, and places that cannot be
# written, alone and on 3 ranks. What their options may not say is in predict.sh, evaluate.sh and import.sh.
# Must never leave a mounted folder behind.
set -u
. "$CPA_TESTS/support/refuse.sh"
trap 'umount full 2>/dev/null' EXIT
make_bad_files
"$CPA_HPC" train good.h5ad --out run --max-epochs 1 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --quiet ||
    { echo "FAILED: the model to test with could not be trained"; exit 1; }

# Folders with a changed copy of run/model.h5, and changed copies of upstream's export.
/usr/bin/python3 - "$CPA_TESTS/golden/trained/glioblastoma.h5" <<'PYTHON' || exit 1
import os, shutil, sys
import h5py, numpy as np

def changed(name, change, source="run/model.h5"):
    if source == "run/model.h5":
        os.mkdir(name)
        name += "/model.h5"
    shutil.copy(source, name)
    with h5py.File(name, "r+") as f:
        change(f)

def replace(f, name, data):
    del f[name]
    f[name] = data

def set_item(name, at, value):
    def change(f):
        f[name][at] = value
    return change

z = "module/encoder.z.weight"
changed("flipped", set_item(z, (3, 5), 7))
changed("nan_weight", set_item(z, (3, 5), np.nan))
changed("no_tensor", lambda f: f.__delitem__(z))
changed("wrong_shape", lambda f: replace(f, z, f[z][:-1]))
changed("text_tensor", lambda f: replace(f, z, np.full((8, 16), b"x")))
changed("future", lambda f: f.attrs.modify("version", 99))
changed("no_options", lambda f: f.__delitem__("options"))
changed("no_genes", lambda f: f.__delitem__("schema/genes"))
changed("fewer_genes", lambda f: replace(f, "schema/genes", f["schema/genes"][:-1]))
changed("latent_negative", lambda f: f["options"].attrs.modify("n_latent", -8))
changed("latent_huge", lambda f: f["options"].attrs.modify("n_latent", 2**31 - 1))
changed("layers_huge", lambda f: f["options"].attrs.modify("n_layers_encoder", 2**31 - 1))
changed("comb_negative", lambda f: f["options"].attrs.modify("max_comb_len", -1))
export = sys.argv[1]
changed("import_nan.h5", set_item(z, (3, 5), np.nan), export)
changed("import_no_tensor.h5", lambda f: f.__delitem__(z), export)
changed("import_wrong_shape.h5", lambda f: replace(f, "module/encoder.z.bias", np.zeros(7)), export)
changed("import_no_perts.h5", lambda f: f.attrs.__delitem__("pert_encoder"), export)
changed("import_not_json.h5", lambda f: f.attrs.modify("covars_encoder", "{"), export)
changed("import_genes.h5", lambda f: replace(f, "var_names", f["var_names"][:-1]), export)
PYTHON
mkdir no_model text_model data_model cut_model empty_model
echo "not a model" >text_model/model.h5
cp good.h5ad data_model/model.h5
: >empty_model/model.h5
head -c 20000 run/model.h5 >cut_model/model.h5

# with_model CODE WORDS RUN, with_data CODE WORDS DATA OPTIONS...: `predict` and `evaluate` refuse.
with_model() {
    refuse "$1" "$3|$2" predict "$3" --data good.h5ad --out x.h5ad
    attempt "$1" "$3|$2" "$CPA_HPC" evaluate "$3" --data good.h5ad --out x.csv
}
with_data() {
    local code=$1 words=$2 data=$3
    shift 3
    refuse "$code" "$data|$words" predict run --data "$data" --out x.h5ad "$@"
    attempt "$code" "$data|$words" "$CPA_HPC" evaluate run --data "$data" --out x.csv "$@"
}

# ---- Models
with_model 66 "no such" nowhere
with_model 66 "model.h5" no_model
with_model 66 "model.h5" good.h5ad
with_model 65 "not an HDF5 file" text_model
with_model 65 "empty" empty_model
with_model 65 "truncated" cut_model
with_model 65 "not a model file|import" data_model
with_model 65 "damaged|digest" flipped
with_model 65 "encoder.z.weight|nan" nan_weight
with_model 65 "encoder.z.weight" no_tensor
with_model 65 "encoder.z.weight|shape" wrong_shape
with_model 65 "encoder.z.weight" text_tensor
with_model 65 "version 99" future
with_model 65 "options" no_options
with_model 65 "schema/genes" no_genes
with_model 65 "shape [12]|needs [11]" fewer_genes
with_model 65 "n_latent|-8" latent_negative
with_model 65 "n_latent|2147483647" latent_huge
with_model 65 "n_layers_encoder|2147483647" layers_huge
with_model 65 "max_comb_len|-1" comb_negative

# ---- Data
with_data 66 "no such file" nowhere.h5ad
with_data 65 "not an HDF5 file" text.h5ad
with_data 65 "lacks 1 of the 12 genes|run/model.h5|'gene11'" other_gene.h5ad
with_data 65 "row 7|gene 'gene5'|nan" nan.h5ad
with_data 65 "row 7|gene index 12" index_high.h5ad
with_data 65 "condition" no_condition.h5ad
with_data 65 "cell_type" no_cell_type.h5ad
with_data 65 "split" no_split.h5ad
with_data 65 "'ood'" no_held_out.h5ad
with_data 65 "'C'" other_condition.h5ad
with_data 65 "'2uM'" dose_unparsable.h5ad
with_data 65 "no layer 'counts'" good.h5ad --layer counts
refuse 65 "other_cell_type.h5ad|'NK'|cell_type" predict run --data other_cell_type.h5ad --out x.h5ad --reconstruct

# ---- Places
mkdir taken
refuse 66 "'nowhere/x.h5ad'" predict run --data good.h5ad --out nowhere/x.h5ad
refuse 66 "'run/model.h5/x.h5ad'" predict run --data good.h5ad --out run/model.h5/x.h5ad
refuse 74 "'taken'|folder" predict run --data good.h5ad --out taken
refuse 66 "'nowhere/x.csv'" evaluate run --data good.h5ad --out nowhere/x.csv
refuse 74 "'taken'|folder" evaluate run --data good.h5ad --out taken
mkdir full
if mount -t tmpfs -o size=4k none full 2>/dev/null; then
    refuse 74 "full/x.h5ad|No space left" predict run --data good.h5ad --out full/x.h5ad
    head -c 4096 /dev/zero >full/ballast
    refuse 74 "full/x.csv|No space left" evaluate run --data good.h5ad --out full/x.csv
    umount full
else
    echo "SKIPPED: a full disk (this user may not mount one)"
fi

# ---- Weights to import
for case in "nan encoder.z.weight|nan" "no_tensor encoder.z.weight" "wrong_shape encoder.z.bias|shape" "no_perts pert_encoder" \
    "not_json covars_encoder|JSON" "genes 299|300"; do
    refuse 65 "import_${case%% *}.h5|${case#* }" import "import_${case%% *}.h5" --out imported
done
refuse 66 "no such file" import nowhere.h5 --out imported
refuse 65 "text.h5ad|not an HDF5 file" import text.h5ad --out imported
refuse 78 "'run'|exists" import "$CPA_TESTS/golden/trained/glioblastoma.h5" --out run
refuse 66 "'nowhere/run'" import "$CPA_TESTS/golden/trained/glioblastoma.h5" --out nowhere/run
finish
