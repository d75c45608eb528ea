#!/bin/bash
# Owns: row D13: masks of differential genes. Upstream stores two of them a cell and a gene, 16 bytes, both from the whole lists, so n_deg_r2 has no
# effect; a group without a list has all genes (cpa-tools 0.8.8). Here they shape metrics alone: the same model with, without, and with fewer genes.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad degs=yes genes=10 '25 ctrl' '25 A' '25 A+B'
train a.h5ad lists
train a.h5ad fewer --n-deg-r2 2
train a.h5ad none --deg-uns-key '' --deg-uns-cat-key ''
same_model lists fewer
same_model lists none
"$python" -c 'import h5py; del h5py.File("a.h5ad", "r+")["uns/rank_genes_groups_cov/T_A"]'
train a.h5ad missing
judge <<'P'
value = lambda run, name: float(history(run, "valid")[0][name] or "nan")
assert value("lists", "r2_mean") == value("fewer", "r2_mean") != value("none", "r2_mean")
assert value("lists", "r2_mean") != value("missing", "r2_mean") != value("none", "r2_mean")
assert value("lists", "r2_mean_deg") != value("fewer", "r2_mean_deg") and np.isnan(value("none", "r2_mean_deg"))
P
finish
