#!/bin/bash
# Owns: row T1 and finding 1: how long training lasts. Upstream takes min(round(8e6 / cells), 400) epochs, 0 from 16 million cells on, and hands
# back the initial weights after 1 to 9 epochs, none of which it validates (cpa-tools 0.8.8). Here the last epoch is always validated.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
for epochs in 1 2 9; do
    train a.h5ad run$epochs --max-epochs $epochs
done
train a.h5ad initial --lr 0 --doser-lr 0 --adv-lr 0
train a.h5ad formula --max-epochs 0
grep -qx 'max_epochs: 400' formula/config.yaml || fail "$(grep max_epochs formula/config.yaml) epochs of 40 cells"
judge <<'P'
for n in (1, 2, 9):
    assert [int(r["epoch"]) for r in history(f"run{n}", "valid")] == [n - 1]
    moved = tensor(f"run{n}", "px_r") - tensor("initial", "px_r")
    assert np.abs(moved).max() > 1e-4  # upstream: 0
P
finish
