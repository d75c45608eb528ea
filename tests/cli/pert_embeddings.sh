#!/bin/bash
# Owns: external vectors of perturbations from file to prediction: perturbations that were never trained are predicted through them, the
# same from every kind of file and on any number of ranks; and what is refused. Never judges a model without vectors.
set -u
source "$CPA_TESTS/support/refuse.sh"
export OMP_NUM_THREADS=1
/usr/bin/python3 "$CPA_TESTS/data/make_vector_files.py" . ||
    { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# train RANKS RUN DATA VECTORS OPTIONS...
train() {
    local ranks=$1 run=$2 data=$3 vectors=$4
    shift 4
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n "$ranks" "$CPA_HPC" train "$data" --out "$run" --pert-embeddings "$vectors" --n-latent 5 --n-hidden-encoder 32 \
        --n-layers-encoder 2 --n-hidden-decoder 32 --n-layers-decoder 1 --n-hidden-adv 32 --n-layers-adv 2 --dropout-rate-adv 0 \
        --lr 5e-3 --adv-lr 5e-3 --reg-adv 10 --pen-adv 0.1 --adv-steps 2 --batch-size 64 --max-comb-len 2 --quiet "$@" \
        >out 2>err </dev/null || fail "training $run: $(cat err)"
}

# cpa ARGUMENTS...: must work.
cpa() {
    "$CPA_HPC" "$@" --quiet >out 2>err </dev/null || fail "cpa-hpc $*: $(cat err)"
}

# Perturbations that lie in no training cell are predicted from their vectors, if the projection learns what the vectors mean.
long=(--max-epochs 100 --check-val-every-n-epoch 100)
train 1 trained trained.h5ad bits.h5 "${long[@]}"
train 1 frozen trained.h5ad bits.h5 "${long[@]}" --freeze-pert-projection
for run in trained frozen; do
    cpa evaluate $run --data full.h5ad --out $run.csv
done
/usr/bin/python3 - <<'PYTHON' || fail "scores of perturbations that were never trained"
import csv

def mean(run, column):
    rows = list(csv.DictReader(open(run + ".csv")))
    assert len(rows) == 12 and all(r["n_cells"] == "24" for r in rows)
    return sum(float(r[column]) for r in rows) / len(rows)

trained, frozen = (mean(run, "pearson_delta_all") for run in ("trained", "frozen"))
r2 = [mean("trained", "pseudobulk_r2_all" + suffix) for suffix in ("", "_no_change", "_mean_effect")]
print(f"12 held-out perturbations: pearson_delta {trained:.3f} trained, {frozen:.3f} frozen, "
      f"{mean('trained', 'pearson_delta_all_mean_effect'):.3f} mean effect; R2 {r2[0]:.3f}, no change {r2[1]:.3f}, mean effect {r2[2]:.3f}")
assert trained > 0.7 and frozen < 0.4
assert r2[0] > 0.5 > max(r2[1:])
PYTHON

# The vectors may come when the model has been trained, and from every kind of file.
short=(--max-epochs 2 --lanes 4)
train 1 known trained.h5ad known.h5 "${short[@]}"
train 1 of_bits.h5 trained.h5ad bits.h5 "${short[@]}"
refuse 65 "does not know 'drug00'" evaluate known --data full.h5ad --out none.csv
cpa evaluate known --data full.h5ad --pert-embeddings new.h5 --out known.csv
cpa evaluate of_bits.h5 --data full.h5ad --out of_bits.csv
cmp of_bits.csv known.csv || fail "the scores differ when the vectors come with the prediction"
for kind in floats.h5 vectors.h5ad sparse.h5ad vectors.csv; do
    train 1 "of_$kind" trained.h5ad $kind "${short[@]}"
    h5diff of_bits.h5/model.h5 "of_$kind/model.h5" /module || fail "another model from $kind"
    cmp of_floats.h5/model.h5 "of_$kind/model.h5" || fail "another file from $kind"
done
for n in 2 4; do
    train $n ranks$n trained.h5ad bits.h5 "${short[@]}"
    h5diff -q of_bits.h5/model.h5 ranks$n/model.h5 && cmp of_bits.h5/model.h5 ranks$n/model.h5 || fail "another model on $n ranks"
    cmp of_bits.h5/history.csv ranks$n/history.csv || fail "another history on $n ranks"
done
$CPA_MPIRUN -n 3 "$CPA_HPC" evaluate known --data full.h5ad --pert-embeddings new.h5 --out ranks.csv --quiet >out 2>err || fail "evaluate: $(cat err)"
cmp known.csv ranks.csv || fail "other scores on 3 ranks"

# In two sittings as in one; but not with other vectors in the second.
cp full.h5ad atlas.h5ad && cp bits.h5 vectors.h5
train 1 whole atlas.h5ad vectors.h5 "${short[@]}" --max-epochs 4
train 2 sittings atlas.h5ad vectors.h5 "${short[@]}" --checkpoint-every-steps 9
rm sittings/model.h5
train 4 sittings atlas.h5ad vectors.h5 "${short[@]}" --max-epochs 4 --resume
cmp whole/model.h5 sittings/model.h5 || fail "another model in two sittings"
train 1 other atlas.h5ad vectors.h5 "${short[@]}" --checkpoint-every-steps 9
rm other/model.h5
/usr/bin/python3 -c 'import h5py; h5py.File("vectors.h5", "r+")["bits"][70, 2] ^= 8'
"$CPA_HPC" train atlas.h5ad --config other/config.yaml --out other --max-epochs 4 --resume --quiet >out 2>err
[ $? -eq 65 ] && grep -qF "digest of the perturbations' vectors" err || fail "a resumed run took other vectors: $(cat err)"

# Everything that takes a name takes that of a perturbation that was not trained, also in combinations.
printf 'perturbation,dose\ndrug00,1\ndrug00+drug01,1+0.5\n' >grid.csv
cpa predict trained --data trained.h5ad --perturbation drug00 --dose 1 --output mean --out one.h5ad
cpa predict trained --data trained.h5ad --perturbation drug00+drug01 --dose 1+0.5 --output mean --out pair.h5ad
cpa predict trained --data trained.h5ad --grid grid.csv --output mean --out grid.h5ad
cpa latent trained --data full.h5ad --out latent.h5ad
cpa embeddings trained --perturbation drug00+drug01 --dose 1,0.5 --out embeddings.h5ad
cpa embeddings known --pert-embeddings new.h5 --out embeddings_known.h5ad
cpa embeddings of_bits.h5 --out embeddings_bits.h5ad
cpa inspect trained/model.h5
train 1 frozen_short trained.h5ad bits.h5 "${short[@]}" --freeze-pert-projection
train 1 held full.h5ad bits.h5 "${short[@]}" --lr 0.02 --doser-lr 0.02
cpa evaluate held --data full.h5ad --out held.csv
cpa check full.h5ad --pert-embeddings bits.h5

# Through an export and back, with the vectors of perturbations that were not trained.
cpa export trained --out export.h5
cpa import export.h5 --out again
cpa export again --out again.h5
cmp export.h5 again.h5 || fail "the model changed on its way through an export"
cpa predict again --data trained.h5ad --perturbation drug00 --dose 1 --output mean --out again.h5ad
/usr/bin/python3 - <<'PYTHON' || fail "what the files hold"
import h5py, numpy as np

text = lambda values: [v.decode() if isinstance(v, bytes) else v for v in values]
sigmoid = lambda x: 1 / (1 + np.exp(-x))
with h5py.File("floats.h5") as f:
    vector = dict(zip(text(f["names"][:]), f["vectors"][:].astype("f8")))
model = h5py.File("trained/model.h5")
w = {name: model["module/pert_network." + name][:].astype("f8")
     for name in ("pert_embedding.weight", "pert_transformation.weight", "pert_transformation.bias", "dosers.beta", "dosers.bias")}
names = text(model["schema/perturbations"][:])
assert len(names) == 2 + 72 and "drug00" not in names
assert not w["pert_embedding.weight"][:2].any() # padding, and a control without a vector
for name, row in zip(names[2:], w["pert_embedding.weight"][2:]):
    assert (row == vector[name]).all(), name
assert text(model["unseen/names"][:]) == [f"drug{i:02d}" for i in range(0, 84, 7)]
assert model["unseen/bits"].shape == (12, 4) and model["unseen/bits"].dtype == np.uint8

# A frozen projection stays what it was drawn as, the other one does not.
drawn, frozen = (h5py.File(run + "/model.h5")["module/pert_network.pert_transformation.weight"][:] for run in ("frozen_short", "frozen"))
assert (drawn == frozen).all() and abs(drawn - w["pert_transformation.weight"]).max() > 1e-3 and abs(drawn).max() <= 30**-0.5

# Of embeddings: the projected vector times the dose curve, which is the mean one where nothing was trained.
f = h5py.File("embeddings.h5ad")
x = dict(zip(text(f["obs/_index"][:]), f["X"][:]))
beta, bias = w["dosers.beta"][0], w["dosers.bias"][0]
def want(name, dose):
    b, c = (beta[names.index(name)], bias[names.index(name)]) if name in names else (beta[2:].mean(), bias[2:].mean())
    z = w["pert_transformation.weight"] @ vector[name] + w["pert_transformation.bias"]
    return z * (sigmoid(b * np.log1p(dose) + c) - sigmoid(c))
for name in ("drug00", "drug01"):
    assert np.allclose(x[f"perturbation:{name}@0.5"], want(name, 0.5), atol=1e-6), name
assert np.allclose(x["perturbation:drug00+drug01@1+1"], want("drug00", 1) + want("drug01", 1), atol=1e-6)
assert np.allclose(*(h5py.File(name)["X"][:] for name in ("embeddings_known.h5ad", "embeddings_bits.h5ad")), atol=0)

again, one, pair, grid = (h5py.File(name)["X"][:] for name in ("again.h5ad", "one.h5ad", "pair.h5ad", "grid.h5ad"))
assert np.allclose(again, one, rtol=1e-5) and (grid[0] == one[0]).all() and (grid[1] == pair[0]).all() and not np.allclose(one, pair, rtol=1e-3)
assert np.isfinite(h5py.File("latent.h5ad")["X"][:]).all()

# Perturbations of held-out cells are the model's, with the mean dose curve of the others.
held = h5py.File("held/model.h5")
names = text(held["schema/perturbations"][:])
beta = held["module/pert_network.dosers.beta"][0]
out = np.array([n in {f"drug{i:02d}" for i in range(0, 84, 7)} for n in names])
assert out.sum() == 12 and "unseen" not in held
assert (beta[out] == beta[out][0]).all() and np.isclose(beta[out][0], beta[~out][2:].mean(), atol=1e-6)
assert len(set(beta[~out][2:])) > 60 and abs(beta[out][0] - 1) > 1e-4

# A copy with one bit changed.
import shutil, os
os.mkdir("damaged")
shutil.copy("trained/model.h5", "damaged")
with h5py.File("damaged/model.h5", "r+") as f:
    f["unseen/bits"][3, 1] ^= 4
PYTHON
predict=(predict trained --data trained.h5ad --perturbation drug00 --out none.h5ad)
refuse 65 "damaged/model.h5|damaged" predict damaged "${predict[@]:2}"
attempt 65 "narrow.h5|9 numbers|30" "$CPA_HPC" "${predict[@]}" --pert-embeddings narrow.h5
attempt 65 "'drug99'" "$CPA_HPC" "${predict[@]}" --perturbation drug99

# Bad tables.
bad_table() {
    local words=$1 file=$2
    attempt 65 "$file|$words" "$CPA_HPC" train full.h5ad --out run --pert-embeddings "$file"
}
bad_table "no vector of 2 of the 84|'drug00', 'drug01'" bad_missing.h5
attempt 65 "bad_missing.h5|'drug00', 'drug01'" "$CPA_HPC" check full.h5ad --pert-embeddings bad_missing.h5
bad_table "'drug03' has two vectors, in rows 3 and 83" bad_twice.h5
bad_table "no numbers" bad_width.h5
bad_table "83 rows for 84 names" bad_rows.h5
bad_table "none of the datasets 'vectors' and 'bits'" bad_neither.h5
bad_table "'vectors'|matrix" bad_flat.h5
bad_table "n_bits is 7|25 to 32" bad_bits.h5
bad_table "number 2|'drug05' (row 5|nan" bad_nan.h5
bad_table "number 2|'drug05' (row 5|inf" bad_inf.h5
bad_table "number 2|'drug05' (row 5|nan" bad_nan.h5ad
bad_table "line 8: perturbation 'drug06' has 31 numbers under a header of 30" bad_ragged.csv
bad_table "line 8: perturbation 'drug06' has 29 numbers" bad_short.csv
bad_table "line 8: number 29 of perturbation 'drug06' is 'many'" bad_text.csv
bad_table "number 29|'drug06'|nan" bad_nan.csv
bad_table "header has one column" bad_names.csv
bad_table "row 7|name is empty" bad_noname.csv
bad_table "no vector" bad_empty.csv
bad_table "neither a dataset 'names'" trained/model.h5
refuse 65 "bad_nan.h5" train full.h5ad --out run --lanes 4 --pert-embeddings bad_nan.h5
refuse 66 "nowhere.csv" train full.h5ad --out run --lanes 4 --pert-embeddings nowhere.csv
attempt 66 "'trained'" "$CPA_HPC" train full.h5ad --out run --pert-embeddings trained

# Options that need vectors, and a model that has none.
attempt 78 "combosciplex-rdkit|--pert-embeddings" "$CPA_HPC" train full.h5ad --out run --preset combosciplex-rdkit
attempt 78 "--freeze-pert-projection|--pert-embeddings" "$CPA_HPC" train full.h5ad --out run --freeze-pert-projection
attempt 78 "--doser-type mlp|--pert-embeddings" "$CPA_HPC" train full.h5ad --out run --doser-type mlp --pert-embeddings bits.h5
attempt 64 "--use-rdkit-embeddings; did you mean --pert-embeddings?" "$CPA_HPC" train full.h5ad --out run --use-rdkit-embeddings
cpa train trained.h5ad --out learned --max-epochs 1 --n-latent 4
attempt 78 "learned its embeddings" "$CPA_HPC" predict learned "${predict[@]:2}" --pert-embeddings bits.h5
cpa train trained.h5ad --out preset --preset combosciplex-rdkit --pert-embeddings bits.h5 --max-epochs 1
for line in 'n_latent: 64' 'dropout_rate_encoder: 0.25' 'use_batch_norm_adv: false' 'seed: 6478' 'pert_embeddings: "bits.h5"'; do
    grep -qxF "$line" preset/config.yaml || fail "config.yaml lacks $line"
done
finish
