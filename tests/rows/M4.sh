#!/bin/bash
# Owns: row M4: an unknown dose response. Upstream takes any word it does not know, logsig for logsigm, as the identity, without a word
# (cpa-tools 0.8.8). Here it is refused with the words there are; the identity is called linear.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A 2' '20 A 0.5'
hpc 64 train a.h5ad --out run "${tiny[@]}" --doser-type logsig
says "logsigm, sigm, linear"
train a.h5ad run --doser-type linear
hpc 0 latent run --data a.h5ad --which after,no_pert --out z.h5ad --quiet
judge <<'P'
got = read("z.h5ad", "obsm/latent_after") - read("z.h5ad", "obsm/latent_no_pert")
e = tensor("run", "pert_network.pert_embedding.weight")
assert close(got[20:40], 2 * e[2], atol=1e-5) and close(got[40:], 0.5 * e[2], atol=1e-5)
P
finish
