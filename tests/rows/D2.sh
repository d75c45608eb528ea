#!/bin/bash
# Owns: row D2: the control. Upstream's encoder has it as number 1, a perturbation with a learned embedding and dose curve of its own, added to every
# control cell (cpa-tools 0.8.8). So it is here by default; with --control-zero it adds nothing.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '30 A' '10 A+ctrl 1+2'
for run in as_upstream zero; do
    train a.h5ad $run --control-zero=$([ $run = zero ] && echo true || echo false)
    hpc 0 latent $run --data a.h5ad --which after,no_pert --out $run.h5ad --quiet
done
judge <<'P'
part = lambda run: read(run + ".h5ad", "obsm/latent_after") - read(run + ".h5ad", "obsm/latent_no_pert")
e = {run: tensor(run, "pert_network.pert_embedding.weight") for run in ("as_upstream", "zero")}  # padding, ctrl, A
own = lambda dose: response("as_upstream", 1, dose) * e["as_upstream"][1]
assert np.abs(own(1)).max() > 0.05 and close(part("as_upstream")[:30], own(1), atol=1e-5)
assert close(part("as_upstream")[60:], own(2) + response("as_upstream", 2, 1) * e["as_upstream"][2], atol=1e-5)
assert (np.abs(part("zero")[:30]) < 1e-6).all() and close(part("zero")[60:], response("zero", 2, 1) * e["zero"][2], atol=1e-5)
P
finish
