#!/bin/bash
# Owns: row E3: batches of a validation. Upstream shuffles them anew each time, so its metrics change though the model does not (cpa-tools 0.8.8).
# Here the batches are fixed: a model that stands still has the same metrics in every epoch, and on any number of ranks.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '60 ctrl' '60 A' '60 B 1 S' '60 ctrl 1 S'
still=(--lr 0 --doser-lr 0 --adv-lr 0 --use-batch-norm-encoder=false --use-batch-norm-decoder=false --max-epochs 3 --check-val-every-n-epoch 1 --lanes 2)
train a.h5ad run "${still[@]}"
# shellcheck disable=SC2086
$CPA_MPIRUN -n 2 "$CPA_HPC" train a.h5ad --out ranks "${tiny[@]}" "${still[@]}" || fail "2 ranks"
cmp run/history.csv ranks/history.csv || fail "other metrics on 2 ranks"
judge <<'P'
rows = [{k: v for k, v in r.items() if k != "epoch"} for r in history("run", "valid")]
assert len(rows) == 3 and rows[0] == rows[1] == rows[2] and float(rows[0]["cpa_metric"]) > 0
P
finish
