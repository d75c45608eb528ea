#!/bin/bash
# Owns: row T8: the unit of n_steps_*. Upstream's count is Lightning's, of every optimizer.step(): 3 for a batch of pretraining (cpa-tools 0.8.8), which
# lasts while the count is at most P. So P = 6 pretrains 3 batches, as P = 2 does when --step-unit batch counts batches.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '60 ctrl' '60 A'
train a.h5ad upstream --n-steps-pretrain-ae 6
train a.h5ad batches --n-steps-pretrain-ae 2 --step-unit batch
train a.h5ad longer --n-steps-pretrain-ae 6 --step-unit batch
same_model upstream batches
other_model upstream longer
finish
