#!/bin/bash
# Owns: row M3: the library size of a counterfactual prediction. Upstream keeps the control cell's (cpa-tools 0.8.8), which is the default here;
# --library gives every prediction a fixed one, or the mean of the condition's training cells.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '30 A' '30 A 0.5 S' '10 B 1 T b1 test'
train a.h5ad run
seq 0 29 >controls.txt
predict() {
    hpc 0 predict run --data a.h5ad --cells controls.txt --quiet "$@"
}
predict --perturbation A --out control.h5ad
predict --perturbation A --library 10000 --out fixed.h5ad
predict --perturbation A --library condition-mean --out mean.h5ad
judge <<'P'
x, split = read("a.h5ad", "X"), np.array(obs("a.h5ad", "split"))
known = [c == "A" and d == "1.0" and s == "train" for c, d, s in zip(obs("a.h5ad", "condition"), obs("a.h5ad", "dose"), split)]
sums = {name: read(name + ".h5ad", "X").sum(1) for name in ("control", "fixed", "mean")}
assert close(sums["control"], x[:30].sum(1)) and close(sums["fixed"], 10000) and close(sums["mean"], x[known].sum(1).mean())
shares = lambda name: read(name + ".h5ad", "X") / sums[name][:, None]
assert close(shares("control"), shares("fixed")) and close(shares("control"), shares("mean"))
P
hpc 65 predict run --data a.h5ad --perturbation B --library condition-mean --out x.h5ad
says "no training cell is 'B' at dose 1.0"
hpc 64 predict run --data a.h5ad --perturbation A --library much --out x.h5ad
hpc 78 predict run --data a.h5ad --reconstruct --library 5 --out x.h5ad
$CPA_MPIRUN -n 3 "$CPA_HPC" predict run --data a.h5ad --cells controls.txt --perturbation A --library condition-mean --out ranks.h5ad --quiet
cmp mean.h5ad ranks.h5ad || fail "another prediction on 3 ranks"
finish
