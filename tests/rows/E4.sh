#!/bin/bash
# Owns: row E4: means over an epoch. Upstream's leave out every batch whose value is 0, an accuracy of nothing right above all, and are NaN where all
# are (cpa-tools 0.8.8: val_KL=nan). So it is here by default; --epoch-means exact takes them all.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '8 ctrl' '8 A' '8 B' '8 C' '8 D' '8 E' '8 F' '8 G'
still=(--lr 0 --doser-lr 0 --adv-lr 0 --batch-size 4 --adv-steps 0 --train-metrics-every 1)
train a.h5ad upstream "${still[@]}"
train a.h5ad exact "${still[@]}" --epoch-means exact
judge <<'P'
up, exact = history("upstream", "train")[0], history("exact", "train")[0]
assert float(exact["acc_perts"]) < 0.8 * float(up["acc_perts"]) and up["recon_loss"] == exact["recon_loss"]
P
finish
