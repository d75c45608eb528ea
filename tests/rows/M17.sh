#!/bin/bash
# Owns: row M17: the perturbations' part of a latent. Upstream's inference sums it twice and hands out one number a cell: for 8 cells and a
# latent of 4, z_pert has the shape (8,) (cpa-tools 0.8.8). Here it is a vector a cell, what embeddings writes for that condition.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A 2' '20 A+B 1+0.5'
train a.h5ad run
hpc 0 latent run --data a.h5ad --which after,no_pert --out z.h5ad --quiet
hpc 0 embeddings run --perturbation A+B --dose 2,1+0.5 --out e.h5ad
judge <<'P'
part = read("z.h5ad", "obsm/latent_after") - read("z.h5ad", "obsm/latent_no_pert")
rows = dict(zip(obs("e.h5ad", "_index"), read("e.h5ad", "X")))
assert part.shape == (60, 4) and np.ptp(part[40], axis=0) > 0
assert close(part[20:40], rows["perturbation:A@2"], atol=1e-5) and close(part[40:], rows["perturbation:A+B@1+0.5"], atol=1e-5)
P
finish
