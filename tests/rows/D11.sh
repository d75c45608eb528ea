#!/bin/bash
# Owns: row D11: two models side by side. Upstream keeps the encoders on the class: under another model's, a name that both know gets its
# number there, and predict is wrong without a word (cpa-tools 0.8.8). Here a model's names are its own, whatever a file calls number 2.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '20 A' '20 B' '20 C'
cells b.h5ad '30 ctrl' '20 C' '20 D'
train a.h5ad run_a
train b.h5ad run_b
for file in a b; do # the first 30 cells are the same in both
    hpc 0 predict run_a --data $file.h5ad --perturbation C --out $file.out --quiet
done
cmp -s a.out b.out || fail "a prediction depends on the names in the file of cells"
hpc 0 predict run_b --data a.h5ad --perturbation C --out c.out --quiet
judge <<'P'
perts = lambda run: [v.decode() for v in read(run + "/model.h5", "schema/perturbations")][2:]
assert perts("run_a") == ["A", "B", "C"] and perts("run_b") == ["C", "D"]
assert not close(read("a.out", "X"), read("c.out", "X"), rtol=1e-3)
P
finish
