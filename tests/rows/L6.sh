#!/bin/bash
# Owns: row L6: a weighted cross-entropy in parts. Upstream divides by the class weights of its one batch (cpa-tools 0.8.8); the mean of two
# halves' means is another number. Here lanes divide by the weights of them all, so two lanes give what one batch of all cells gives.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '24 ctrl 1 T b1 train' '7 A 1 T b1 train' '1 B 1 T b1 train' '8 ctrl 1 T b1 test'
plain=(--use-batch-norm-encoder=false --use-batch-norm-decoder=false --use-batch-norm-adv=false --dropout-rate-adv 0 --adv-steps 0)
train a.h5ad whole "${plain[@]}" --batch-size 32
train a.h5ad halves "${plain[@]}" --batch-size 16 --lanes 2
# shellcheck disable=SC2086
$CPA_MPIRUN -n 2 "$CPA_HPC" train a.h5ad --out ranks "${tiny[@]}" "${plain[@]}" --batch-size 16 --lanes 2 || fail "2 ranks"
same_model halves ranks
judge <<'P'
whole, halves = history("whole", "train")[0], history("halves", "train")[0]
for name in ("recon_loss", "adv_perts", "penalty_perts"):
    assert close(float(whole[name]), float(halves[name]), rtol=1e-5), (name, whole[name], halves[name])
P
finish
