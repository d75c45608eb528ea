#!/bin/bash
# Owns: row D4: which dose belongs to which component. Upstream sorts the components and leaves the doses where they are: of B+A with 0.1+1.0
# its obsm holds perts [2 3] (A, B) and perts_doses [0.1 1.0] (cpa-tools 0.8.8). Here they are paired by position, or, when asked, like that.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A' '20 B+A 0.1+1.0'
train a.h5ad run --quiet=false
says "in 20 cells"
train a.h5ad compat --compat-dose-order=true
for run in run compat; do
    hpc 0 latent $run --data a.h5ad --which after,no_pert --out $run.h5ad --quiet
done
judge <<'P'
combined = [c == "B+A" for c in obs("a.h5ad", "condition")]
for run, dose_of_a, dose_of_b in (("run", 1.0, 0.1), ("compat", 0.1, 1.0)):
    got = (read(run + ".h5ad", "obsm/latent_after") - read(run + ".h5ad", "obsm/latent_no_pert"))[combined]
    e = tensor(run, "pert_network.pert_embedding.weight")  # padding, ctrl, A, B
    part = lambda a, b: response(run, 2, a) * e[2] + response(run, 3, b) * e[3]
    assert close(got, part(dose_of_a, dose_of_b), atol=1e-5) and not close(got, part(dose_of_b, dose_of_a), atol=1e-3)
P
finish
