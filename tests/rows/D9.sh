#!/bin/bash
# Owns: row D9: combinations and pairs that were not trained. Upstream raises on an unseen pair of covariate and perturbation ("Category ...
# not found in source registry") and on an unseen combination, although each part is known (cpa-tools 0.8.8). Here the parts are enough.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 B' '20 ctrl 1 S' '20 A+C'
cells b.h5ad '20 ctrl 1 S' '10 A+B 0.5+1 S' '10 B 2 S'
train a.h5ad run
hpc 0 predict run --data b.h5ad --reconstruct --out x.h5ad --quiet
hpc 0 predict run --data b.h5ad --perturbation B+A --dose 1+0.5 --out y.h5ad --quiet
hpc 0 latent run --data b.h5ad --which after,no_pert --out z.h5ad --quiet
judge <<'P'
assert read("x.h5ad", "X").shape == (40, 8) and np.isfinite(read("x.h5ad", "X")).all()
assert obs("y.h5ad", "group") == ["S_B+A"] * 20
e = tensor("run", "pert_network.pert_embedding.weight")  # padding, ctrl, A, B, C
got = read("z.h5ad", "obsm/latent_after") - read("z.h5ad", "obsm/latent_no_pert")
assert close(got[20:30], response("run", 2, 0.5) * e[2] + response("run", 3, 1) * e[3], atol=1e-5)
assert close(got[30:], response("run", 3, 2) * e[3], atol=1e-5)
P
finish
