#!/bin/bash
# Owns: row M18: a covariate with a single value. Upstream adds its constant embedding all the same, without an adversary (cpa-tools 0.8.8);
# so does cpa-hpc.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
train a.h5ad run
hpc 0 latent run --data a.h5ad --which no_pert,basal --out z.h5ad --quiet
judge <<'P'
constant = tensor("run", "covars_embeddings.cell_type.weight")
assert constant.shape == (1, 4) and "adv_cell_type" not in history("run")[0]
assert close(read("z.h5ad", "obsm/latent_no_pert") - read("z.h5ad", "obsm/latent_basal"), constant, atol=1e-5)
P
finish
