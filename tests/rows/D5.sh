#!/bin/bash
# Owns: row D5: a component named twice. Upstream makes of A+A with 1+0.5 the perts [2 0] with the doses [1.0 0.5]: the second dose lies on
# the padding and has no effect (cpa-tools 0.8.8). Here such cells and such conditions are refused, with what to write instead.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 A+A 1+0.5'
hpc 65 train a.h5ad --out run "${tiny[@]}"
says "'A+A' names 'A' twice; name it once, with the sum of its doses"
says "20 cells, the first in row 40"
cells b.h5ad '20 ctrl' '20 A' '20 A+B'
train b.h5ad run
hpc 65 predict run --data b.h5ad --perturbation A+A --dose 1+0.5 --out x.h5ad
says "'A+A' names 'A' twice"
finish
