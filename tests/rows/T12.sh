#!/bin/bash
# Owns: row T12: adv_steps. Upstream trains the adversaries where batch % adv_steps != 0, so 1 never trains them, None trains both on every batch, and 0
# raises (cpa-tools 0.8.8). So it is here, with a warning for 1; 0 is None.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '40 ctrl' '40 A'
for steps in 0 1 2; do
    train a.h5ad run$steps --adv-steps $steps --max-epochs 2
    train a.h5ad still$steps --adv-steps $steps --max-epochs 2 --adv-lr 0
done
hpc 0 train a.h5ad --out warned "${tiny[@]}" --adv-steps 1
says "T12"
same_model run1 still1 # what the adversaries' learning rate is does not matter
other_model run0 still0
other_model run2 still2
finish
