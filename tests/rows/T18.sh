#!/bin/bash
# Owns: row T18: the focal loss of the adversaries. Upstream divides the weighted cross-entropy by its batch's class weights, the focal one by the cells alone
# (cpa-tools 0.8.8): with 8 even classes, of weight 7 each, (1 - 1/8)^2 x 7 = 5.4 times as much. So it is here, with a warning.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '10 ctrl' '10 A' '10 B' '10 C' '10 D' '10 E' '10 F' '10 G'
still=(--lr 0 --doser-lr 0 --adv-lr 0 --adv-steps 0 --batch-size 64)
train a.h5ad cce "${still[@]}"
train a.h5ad focal "${still[@]}" --adv-loss focal
says "focal"
judge <<'P'
cce, focal = (float(history(run, "train")[0]["adv_perts"]) for run in ("cce", "focal"))
assert 4 < focal / cce < 7, (cce, focal)
P
finish
