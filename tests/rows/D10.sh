#!/bin/bash
# Owns: row D10: the batch key. Upstream appends it to the covariates, in the caller's own list: ['cell_type'] is ['cell_type', 'batch'] after
# one set-up, and the next one without a batch key has it still (cpa-tools 0.8.8). Here it is a covariate, and the list stays.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 ctrl 1 S b2' '20 A 1 S b2'
train a.h5ad with --batch-key batch
train a.h5ad without
grep -qxF 'categorical_covariate_keys: ["cell_type"]' with/config.yaml || fail "the list of covariates has changed"
hpc 0 latent with --data a.h5ad --which after,corrected --out z.h5ad --quiet
judge <<'P'
names = lambda run: [v.decode() for v in read(run + "/model.h5", "schema/covariate_order")]
assert names("with") == ["cell_type", "batch"] and names("without") == ["cell_type"]
batch = tensor("with", "covars_embeddings.batch.weight")[[["b1", "b2"].index(b) for b in obs("a.h5ad", "batch")]]
assert close(read("z.h5ad", "obsm/latent_after") - read("z.h5ad", "obsm/latent_corrected"), batch, atol=1e-5)
assert "adv_batch" in history("with")[0] and "adv_batch" not in history("without")[0]  # it has an adversary, too
P
finish
