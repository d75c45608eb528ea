#!/bin/bash
# Owns: row D6: names that a model does not know. Upstream drops them without a word: C becomes the perts [0 0], C+A with 0.3+1 becomes A
# with C's dose, [2 0] and [0.3 1.0] (cpa-tools 0.8.8). Here each is named, with its cells.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 A+B'
cells b.h5ad '10 ctrl' '10 C' '5 C+A 0.3+1'
train a.h5ad run
hpc 65 predict run --data b.h5ad --reconstruct --out x.h5ad
says "10 cells are 'C', but the model does not know 'C'"
says "5 cells are 'C+A', but the model does not know 'C'"
hpc 65 predict run --data b.h5ad --perturbation C+A --out x.h5ad
says "C"
seq 0 9 >controls.txt
hpc 0 predict run --data b.h5ad --reconstruct --cells controls.txt --out x.h5ad # which leaves them out
finish
