#!/bin/bash
# Owns: row M5: doser_type mlp. Upstream's raises: "Module [ModuleList] is missing the required "forward" function" (cpa-tools 0.8.8). Here it is a
# network for each perturbation, as in CPA's first release: the effect of a dose above 0 is between 0 and 1 times the embedding, of 0 nothing.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 A 0.2' '20 B 3'
train a.h5ad run --doser-type mlp --n-hidden-doser 6 --max-epochs 3 --doser-lr 0.05
hpc 0 embeddings run --dose 0,0.1,1,8 --out e.h5ad
judge <<'P'
rows, e = dict(zip(obs("e.h5ad", "_index"), read("e.h5ad", "X"))), tensor("run", "pert_network.pert_embedding.weight")
for number, name in ((2, "A"), (3, "B")):
    share = [(rows[f"perturbation:{name}@{dose}"] @ e[number]) / (e[number] @ e[number]) for dose in ("0", "0.1", "1", "8")]
    for k, dose in enumerate(("0", "0.1", "1", "8")):
        assert close(rows[f"perturbation:{name}@{dose}"], share[k] * e[number], atol=1e-5)
    assert share[0] == 0 and all(0 < s < 1 for s in share[1:]) and np.ptp(share[1:]) > 1e-4
P
finish
