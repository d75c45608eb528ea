#!/bin/bash
# Owns: row T9: a warm-up of the adversaries of 0 epochs. Upstream divides by it: "ZeroDivisionError: division by zero" (cpa-tools 0.8.8), a value
# that its own tuning space has. Here 0 is no warm-up; one of W epochs begins with reg_adv 0 and so differs.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
train a.h5ad none --max-epochs 3
train a.h5ad zero --max-epochs 3 --n-epochs-adv-warmup 0 --n-steps-adv-warmup 0
train a.h5ad warm --max-epochs 3 --n-epochs-adv-warmup 2
same_model none zero
other_model none warm
finish
