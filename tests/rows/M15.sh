#!/bin/bash
# Owns: row M15: a perturbation that was never trained. Upstream's only way in is an undocumented nn.Embedding of all perturbations in the order of its
# encoder, with a projection that stays random (cpa-tools 0.8.8). Here a file names them, and names that come later are predicted from their vectors.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 B'
printf 'name,f0,f1\nA,1,0\nB,0,1\n' >vectors.csv
printf 'name,f0,f1\nB,0,1\nnew,0.5,0.5\nlike_A,1,0\nA,1,0\n' >later.csv
train a.h5ad run --pert-embeddings vectors.csv
hpc 65 predict run --data a.h5ad --perturbation new --out x.h5ad
says "new"
hpc 0 embeddings run --pert-embeddings later.csv --out e.h5ad
for name in new like_A; do
    hpc 0 predict run --data a.h5ad --perturbation $name --pert-embeddings later.csv --out $name.h5ad --quiet
done
judge <<'P'
rows = dict(zip(obs("e.h5ad", "_index"), read("e.h5ad", "X")))
w, b = tensor("run", "pert_network.pert_transformation.weight"), tensor("run", "pert_network.pert_transformation.bias")
for name, vector in (("new", [0.5, 0.5]), ("like_A", [1, 0])):
    e = w @ vector + b
    got = rows[f"perturbation:{name}@1.0"]
    assert close(got, (got @ e) / (e @ e) * e, atol=1e-5) and 0 < (got @ e) / (e @ e) < 1
assert not close(read("new.h5ad", "X"), read("like_A.h5ad", "X"), rtol=1e-3)
P
finish
