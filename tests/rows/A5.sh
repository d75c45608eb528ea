#!/bin/bash
# Owns: row A5: vectors of covariates. Upstream's get_covar_embeddings always raises: "X needs to be 2-dimensional, not 3-dimensional"
# (cpa-tools 0.8.8). Here they stand beside the perturbations', one a value, also of the batch key.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 ctrl 1 S b2' '20 A 1 S b2'
train a.h5ad run --batch-key batch
hpc 0 embeddings run --out e.h5ad
judge <<'P'
rows = dict(zip(obs("e.h5ad", "_index"), read("e.h5ad", "X")))
for covariate, values in (("cell_type", ["S", "T"]), ("batch", ["b1", "b2"])):
    assert close([rows[f"{covariate}:{v}"] for v in values], tensor("run", f"covars_embeddings.{covariate}.weight"))
P
finish
