#!/bin/bash
# Owns: row T15: the decay of the learning rates. Upstream decays at the ends of epochs S x S, 2 S x S, ... and raises "unsupported operand type(s)
# for %" for None (cpa-tools 0.8.8). So it is here by default, 0 being none; with --lr-schedule every it decays every S epochs.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
for epochs in 5 6; do
    train a.h5ad none$epochs --max-epochs $epochs --step-size-lr 0
    train a.h5ad upstream$epochs --max-epochs $epochs --step-size-lr 2
    train a.h5ad every$epochs --max-epochs $epochs --step-size-lr 2 --lr-schedule every
done
same_model none5 upstream5 # epochs 0 to 4
other_model none6 upstream6 # after epoch 4
other_model none5 every5
train a.h5ad tutorial --max-epochs 6 --step-size-lr 45
same_model none6 tutorial
finish
