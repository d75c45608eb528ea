#!/bin/bash
# Owns: row D16: a last batch of one cell. Upstream with a split column crashes: "Expected more than 1 value per channel when training", or
# in the metric of a validation batch of one (cpa-tools 0.8.8). Here a last batch of fewer than 3 cells joins the one before.
. "$CPA_TESTS/support/rows.sh"
cells train.h5ad '16 ctrl 1 T b1 train' '17 A 1 T b1 train' '10 A 1 T b1 test'
cells valid.h5ad '20 ctrl 1 T b1 train' '20 A 1 T b1 train' '17 A 1 T b1 test'
train train.h5ad run_train --quiet=false
says "33 train, 10 validate"
says "2 steps an epoch"
train valid.h5ad run_valid --quiet=false
says "40 train, 17 validate"
judge <<'P'
for run in ("run_train", "run_valid"):
    assert np.isfinite(float(history(run, "valid")[0]["cpa_metric"])) and np.isfinite(float(history(run, "train")[0]["recon_loss"]))
P
finish
