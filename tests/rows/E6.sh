#!/bin/bash
# Owns: row E6: which epoch's weights are kept. Upstream begins with the initial ones, ignores a validation of epoch 0, and after 14 epochs hands
# back those of epoch 10 (cpa-tools 0.8.8). Here they are those of the best validated epoch, the first and the last among them.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '40 ctrl' '40 A'
train a.h5ad all --max-epochs 14 --lr 0.01
train a.h5ad worse --max-epochs 14 --lr 0.5 --check-val-every-n-epoch 1
judge <<'P'
valid = history("all", "valid")
assert [int(r["epoch"]) for r in valid] == [9, 13] and float(valid[1]["cpa_metric"]) > float(valid[0]["cpa_metric"])
metric = [float(r["cpa_metric"]) for r in history("worse", "valid")]
open("best", "w").write(str(int(np.argmax(metric)) + 1))
assert np.argmax(metric) < 13
P
best=$(cat best)
train a.h5ad last --max-epochs "$best" --lr 0.5 --check-val-every-n-epoch 1
same_model worse last # what it has learned since its best epoch is gone
train a.h5ad ten --max-epochs 10 --lr 0.01
other_model all ten # upstream's would be the same
finish
