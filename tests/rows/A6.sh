#!/bin/bash
# Owns: row A6: a model that is saved and opened again. Upstream's of a model with a batch key raises, for the saved list of covariates holds the batch
# already (cpa-tools 0.8.8). Here the folder is all that a model is: moved, exported and imported it predicts the same.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 ctrl 1 S b2' '20 A 1 S b2'
train a.h5ad run --batch-key batch
hpc 0 predict run --data a.h5ad --reconstruct --out before.h5ad --quiet
hpc 0 export run --out up.h5
mv run moved
hpc 0 import up.h5 --out again --categorical-covariate-keys cell_type --batch-key batch --quiet
for run in moved again; do
    hpc 0 predict $run --data a.h5ad --reconstruct --out $run.h5ad --quiet
done
cmp before.h5ad moved.h5ad || fail "a run that was moved predicts something else"
judge <<'P'
assert close(read("before.h5ad", "X"), read("again.h5ad", "X"))
P
finish
