#!/bin/bash
# Owns: the command `bench step`: that its table has the steps of both kinds and their operations, and what it refuses.
# Must never look at how long anything took.
set -u
. "$CPA_TESTS/support/refuse.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--batch-size 16 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --steps 6)

"$CPA_HPC" bench step "$sample" --quiet "${small[@]}" >table 2>err </dev/null || failed "bench step: $(cat err)"
/usr/bin/python3 - table <<'P' || failures=$((failures + 1))
import sys
lines = open(sys.argv[1]).read().split("\n")
kinds = {l.split()[0]: l.split() for l in lines[1:4]}
assert [int(kinds[k][1]) for k in ("autoencoder", "adversaries", "both")] == [2, 4, 6], kinds
assert all(float(kinds[k][2]) > 0 and float(kinds[k][3]) > 0 for k in kinds), kinds
assert lines[4].startswith("memory is copied at "), lines[4]
rows = {l.split()[0]: [float(x.rstrip("%")) for x in l.replace("|", " ").split()[1:]] for l in lines[7:] if l and not l.startswith("together")}
assert rows["nb_loss"][0] == 1 and rows["nb_loss"][4] == 0, rows["nb_loss"]      # once in a step of the autoencoder, and in no other
assert rows["adam"][0] == 2 and rows["adam"][4] == 1, rows["adam"]
assert rows["gemm"][0] > 10 and rows["gemm"][4] > 10 and rows["gemm"][1] > 0, rows["gemm"]
P
refuse 64 "bench knows 'loader' and 'step'" bench all "$sample"
attempt 78 "--precision bf16 needs --backend cuda" "$CPA_HPC" bench step "$sample" --precision bf16
refuse 78 "--precision tf32 needs --backend cuda" train "$sample" --out run --precision tf32 --lanes 4
refuse 64 "--precision" train "$sample" --out run --precision fp8 --lanes 4
# shellcheck disable=SC2086
attempt 64 "bench step measures one rank" $CPA_MPIRUN -n 2 "$CPA_HPC" bench step "$sample" "${small[@]}"
finish
