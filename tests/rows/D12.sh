#!/bin/bash
# Owns: row D12: names of external vectors. Upstream looks names of combinations up as patterns in the column of SMILES: A finds AB (ValueError), d(1) finds
# nothing (IndexError) (cpa-tools 0.8.8). Here a file of names and vectors is read, and names are compared whole.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 AB' '20 A+d(1)' '20 AB+d(1)'
printf 'name,f0,f1\nAB,1,0\nA,0,1\nd(1),1,1\n' >vectors.csv
train a.h5ad run --pert-embeddings vectors.csv
hpc 0 latent run --data a.h5ad --which after,no_pert --out z.h5ad --quiet
judge <<'P'
part = read("z.h5ad", "obsm/latent_after") - read("z.h5ad", "obsm/latent_no_pert")
w, b = tensor("run", "pert_network.pert_transformation.weight"), tensor("run", "pert_network.pert_transformation.bias")
names = [v.decode() for v in read("run/model.h5", "schema/perturbations")]
vector = {"A": [0, 1], "AB": [1, 0], "d(1)": [1, 1]}
for row, condition in ((20, "AB"), (40, "A+d(1)"), (60, "AB+d(1)")):
    want = sum(response("run", names.index(n), 1) * (w @ vector[n] + b) for n in condition.split("+"))
    assert close(part[row], want, atol=1e-5), condition
P
printf 'name,f0,f1\nAB,1,0\nA,0,1\n' >few.csv
hpc 65 train a.h5ad --out never "${tiny[@]}" --pert-embeddings few.csv
says "d(1)"
finish
