#!/bin/bash
# Owns: row A1: latents of some cells. Upstream raises on a subset ("obs must have number of rows of X (5), but has 90 rows"), and reversed cells get
# the vectors in reverse under the names in order (cpa-tools 0.8.8). Here every vector stands beside its own cell.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '20 A' '20 B 2 S'
train a.h5ad run
seq 69 -7 0 >some.txt
hpc 0 latent run --data a.h5ad --out all.h5ad --quiet
hpc 0 latent run --data a.h5ad --cells some.txt --out some.h5ad --quiet
judge <<'P'
some = np.arange(69, -1, -7)
for column in ("_index", "cell_type"):
    assert obs("some.h5ad", column) == [obs("a.h5ad", column)[i] for i in some]
assert obs("some.h5ad", "perturbation") == [obs("a.h5ad", "condition")[i] for i in some]
for kind in ("basal", "after", "corrected"):
    assert close(read("some.h5ad", "obsm/latent_" + kind), read("all.h5ad", "obsm/latent_" + kind)[some], atol=1e-5)
P
finish
