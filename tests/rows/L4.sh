#!/bin/bash
# Owns: row L4: covariates of a mixed cell. Upstream's loss reads A if c else 0 + (1 - l) B if c else 0, which is l CE(own value) alone
# (cpa-tools 0.8.8). So it is here by default; --adv-cov-mixup both adds the other cell's term. Without mixup they are the same.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '10 ctrl' '10 A' '10 ctrl 1 S' '10 A 1 S'
still=(--lr 0 --doser-lr 0 --adv-lr 0 --batch-size 32 --adv-steps 0)
for alpha in 0 0.8; do
    train a.h5ad upstream$alpha --mixup-alpha $alpha "${still[@]}"
    train a.h5ad both$alpha --mixup-alpha $alpha "${still[@]}" --adv-cov-mixup both
done
judge <<'P'
loss = lambda run, name: float(history(run, "train")[0][name])
assert loss("upstream0", "adv_cell_type") == loss("both0", "adv_cell_type")
own, both = loss("upstream0.8", "adv_cell_type"), loss("both0.8", "adv_cell_type")
assert own < 0.95 * both and loss("upstream0.8", "adv_perts") == loss("both0.8", "adv_perts")
P
finish
