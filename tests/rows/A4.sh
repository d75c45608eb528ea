#!/bin/bash
# Owns: row A4: vectors of perturbations. Upstream's get_pert_embeddings takes a dose of type float alone (1 raises NotImplementedError), no
# combination (KeyError: 'A+B'), and its first row is the padding (cpa-tools 0.8.8). Here any doses and combinations, and no padding.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 B' '20 A+B'
train a.h5ad run
hpc 0 embeddings run --perturbation A+B,B+ctrl --dose 1,0.25,2+0.5 --out e.h5ad
judge <<'P'
rows, e = dict(zip(obs("e.h5ad", "_index"), read("e.h5ad", "X"))), tensor("run", "pert_network.pert_embedding.weight")
part = lambda name, dose: response("run", ["", "ctrl", "A", "B"].index(name), dose) * e[["", "ctrl", "A", "B"].index(name)]
for dose in ("1", "0.25"):
    for name in ("ctrl", "A", "B"):
        assert close(rows[f"perturbation:{name}@{dose}"], part(name, float(dose)), atol=1e-5)
    assert close(rows[f"perturbation:A+B@{dose}+{dose}"], part("A", float(dose)) + part("B", float(dose)), atol=1e-5)
assert close(rows["perturbation:B+ctrl@2+0.5"], part("B", 2) + part("ctrl", 0.5), atol=1e-5)
assert not any("PAD" in name for name in rows)
P
finish
