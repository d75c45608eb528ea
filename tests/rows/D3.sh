#!/bin/bash
# Owns: row D3: doses. Upstream takes numbers as well as texts, calls no column of doses 1.0 everywhere, and pads missing doses with 0
# without a word (cpa-tools 0.8.8). Here numbers and texts are the same, no column is 1 everywhere, a missing dose is refused.
. "$CPA_TESTS/support/rows.sh"
cells text.h5ad '20 ctrl 0' '20 A 1' '20 A 0.5'
cells number.h5ad kinds=condition,dose:number,cell_type,split '20 ctrl 0' '20 A 1' '20 A 0.5'
cells ones.h5ad '20 ctrl 1' '20 A 1' '20 B+A 1+1'
cells none.h5ad kinds=condition,cell_type,split '20 ctrl 1' '20 A 1' '20 B+A 1+1'
cells few.h5ad '20 ctrl 1' '20 A 1' '20 B+A 1'
for name in text number ones none; do
    train $name.h5ad run_$name
done
same_model run_text run_number
same_model run_ones run_none
hpc 65 check few.h5ad
says "20 cells, the first in row 40"
finish
