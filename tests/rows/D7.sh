#!/bin/bash
# Owns: row D7: combinations longer than max_comb_len. Upstream raises on a ragged array, and not even that where every cell is too long
# (cpa-tools 0.8.8). Here the length is inferred, and one that is given is held.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 A+B+C'
train a.h5ad run --quiet=false
says "max_comb_len: 3 (inferred)"
hpc 65 train a.h5ad --out never "${tiny[@]}" --max-comb-len 2
says "'A+B+C' has 3 components, more than the 2 of max_comb_len"
hpc 65 predict run --data a.h5ad --perturbation A+B+C+ctrl --out x.h5ad
says "4 components"
finish
