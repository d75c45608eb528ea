#!/bin/bash
# Owns: row E7: what is left of a training that stops. Upstream's model.pt has no optimizer, adversary or epoch: a second train() pretrains again, with
# new adversaries (cpa-tools 0.8.8). Here a checkpoint holds them all, and a run that goes on from one ends in the same bytes.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '40 ctrl' '40 A' '20 ctrl 1 S'
options=(--max-epochs 8 --check-val-every-n-epoch 3 --n-epochs-pretrain-ae 1 --mixup-alpha 0.3 --dropout-rate-encoder 0.1)
train a.h5ad whole "${options[@]}" --checkpoint-every-steps 7 --keep 9
cp -r whole half
rm half/model.h5 half/history.csv half/checkpoints/last.h5
first=$(find half/checkpoints -name 'epoch-*' | sort | head -1)
find half/checkpoints -name 'epoch-*' ! -path "$first" -delete
train a.h5ad half "${options[@]}" --resume
cmp whole/model.h5 half/model.h5 && cmp whole/history.csv half/history.csv || fail "another run after a resume"
judge <<P
with h5py.File("$first") as f:
    assert all("encoder.z.weight" in f[group] for group in ("module", "adam_m/module", "adam_v/module"))
    assert "classifier.1.weight" in f["perturbation_classifier"] and "cell_type.classifier.1.weight" in f["covars_classifiers"]
P
finish
