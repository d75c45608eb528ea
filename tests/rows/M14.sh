#!/bin/bash
# Owns: rows M13 and M14: the projection of external vectors. Upstream's table is frozen, and pert_transformation is in no optimizer, so it stays what it
# was drawn as (cpa-tools 0.8.8). Here it learns; --freeze-pert-projection keeps it, as upstream. The vectors are never trained.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 B'
printf 'name,f0,f1,f2\nctrl,0,0,0\nA,1,0,1\nB,0,1,1\n' >vectors.csv
train a.h5ad initial --pert-embeddings vectors.csv --lr 0 --doser-lr 0 --adv-lr 0
train a.h5ad run --pert-embeddings vectors.csv
train a.h5ad frozen --pert-embeddings vectors.csv --freeze-pert-projection=true
judge <<'P'
projection = {run: tensor(run, "pert_network.pert_transformation.weight") for run in ("initial", "run", "frozen")}
assert (projection["frozen"] == projection["initial"]).all() and np.abs(projection["run"] - projection["initial"]).min() > 0
for run in projection:
    assert (tensor(run, "pert_network.pert_embedding.weight") == [[0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1]]).all()
    assert (tensor(run, "encoder.z.weight") != tensor("initial", "encoder.z.weight")).any() == (run != "initial")
P
finish
