#!/bin/bash
# Owns: row L7: a batch that trains the adversaries alone. Upstream runs the whole autoencoder forward for it, so the running statistics of encoder
# and decoder move on every batch (cpa-tools 0.8.8): 3 batches of one epoch count 3, although only the first trains. Here, too.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '24 ctrl 1 T b1 train' '24 A 1 T b1 train' '8 ctrl 1 T b1 test'
still=(--lr 0 --doser-lr 0 --adv-lr 0)
train a.h5ad first "${still[@]}" --batch-size 48
train a.h5ad all "${still[@]}" --adv-steps 3
judge <<'P'
for part in ("encoder.network", "decoder.px_decoder"):
    name = part + ".fc_layers.Layer 0."
    assert close(tensor("first", name + "0.weight"), tensor("all", name + "0.weight"), 0, 0)  # nothing learns
    one, three = (tensor(run, name + "1.running_var") for run in ("first", "all"))
    # From 1 towards the batches' variance v: after one batch 0.99 + 0.01 v, after three 0.99^3 + (1 - 0.99^3) v.
    assert close((one - 1) / 0.01, (three - 1) / (1 - 0.99 ** 3), rtol=0.5, atol=0.2) and np.abs(three - 1).max() > 2 * np.abs(one - 1).max()
P
finish
