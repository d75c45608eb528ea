#!/bin/bash
# Owns: row D14: counts that are none. Upstream looks at 20 values and warns; one NaN cell makes every parameter NaN in its first batch, and
# training of less than 10 epochs then hands back the initial weights (cpa-tools 0.8.8). Here all are looked at before the first step.
. "$CPA_TESTS/support/rows.sh"
poison() { # poison FILE ROW COLUMN VALUE
    cells "$1" '30 ctrl' '30 A'
    "$python" -c 'import h5py, sys; h5py.File(sys.argv[1], "r+")["X"][int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] != ":" else slice(None)] = float(sys.argv[4])' "$@"
}
poison nan.h5ad 3 2 nan
hpc 65 train nan.h5ad --out run "${tiny[@]}"
says "cell row 3, gene 'gene2' (column 2): the count nan"
poison negative.h5ad 7 1 -2
hpc 65 train negative.h5ad --out run "${tiny[@]}"
says "cell row 7, gene 'gene1' (column 1): the count -2"
poison empty.h5ad 5 : 0
train empty.h5ad run
says "1 of the 60 cells of X have no counts; they are kept"
hpc 0 predict run --data empty.h5ad --reconstruct --out x.h5ad --quiet
judge <<'P'
x = read("x.h5ad", "X")
assert (x[5] == 0).all() and np.isfinite(x).all() and (np.delete(x, 5, 0).sum(1) > 0).all()
P
finish
