#!/bin/bash
# Owns: rows E1 and D13: R2 over differential genes. Upstream multiplies all other genes by 0 in prediction and truth, which then agree (0.82 where the
# genes of the list alone have -0.05), whatever n_deg_r2 says (cpa-tools 0.8.8). r2_mean here is the same; r2_mean_deg has the first n_deg_r2 alone.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad degs=yes genes=10 '25 ctrl' '25 A' '25 A+B'
train a.h5ad two --n-deg-r2 2
train a.h5ad three --n-deg-r2 3
hpc 0 predict two --data a.h5ad --reconstruct --split test --out x.h5ad --quiet
judge <<'P'
test = np.array(obs("a.h5ad", "split")) == "test"
truth, pred, group = np.log1p(read("a.h5ad", "X")[test]), np.log1p(read("x.h5ad", "X")), np.array(obs("a.h5ad", "cov_cond"))[test]
genes = {c: [int(g[4:]) for g in read("a.h5ad", "uns/rank_genes_groups_cov/" + c).astype(str)] for c in ("T_A", "T_A+B")}
r2 = lambda t, p: 1 - ((t - p) ** 2).sum() / ((t - t.mean()) ** 2).sum()
def mean_r2(groups, transform):
    return np.mean([r2(transform(g, truth[group == g].mean(0)), transform(g, pred[group == g].mean(0))) for g in groups])
multiplied = mean_r2(sorted(set(group)), lambda g, x: x * np.isin(np.arange(10), genes.get(g, np.arange(10))))
got = {run: {k: float(v) for k, v in history(run, "valid")[0].items() if v and k != "mode"} for run in ("two", "three")}
assert close(got["two"]["r2_mean"], multiplied, 1e-4) and got["two"]["r2_mean"] == got["three"]["r2_mean"]
for run, n in (("two", 2), ("three", 3)):
    assert close(got[run]["r2_mean_deg"], mean_r2(genes, lambda g, x: x[genes[g][:n]]), 1e-4)
assert close(got["two"]["r2_mean_split"], mean_r2(sorted(set(group)), lambda g, x: x), 1e-4) and abs(multiplied - got["two"]["r2_mean_split"]) > 0.05
P
finish
