#!/bin/bash
# Owns: the ranges that a profiler is shown of a training (NVTX): which there are, how they nest, that all of them end. Needs no device.
# Must never listen by other means than a profiler's.
set -u
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--max-epochs 1 --n-latent 16 --seed 3 --backend cpu)

RANGES=$PWD/ranges NVTX_INJECTION64_PATH=$CPA_LISTENER "$CPA_HPC" train "$data" --out run "${small[@]}" --checkpoint-every-steps 4 || exit 1
"$CPA_HPC" train "$data" --out unheard "${small[@]}" --checkpoint-every-steps 4 || exit 1
cmp run/history.csv unheard/history.csv || { echo "FAILED: listening changed the training"; exit 1; }

failures=0
for expected in '0 cells' '0 lanes, autoencoder' '1 gemm' '0 lanes, adversaries' '0 update' '1 adam' '0 validation' '1 sparse_linear' \
    '0 checkpoint' '0 ranges open'; do
    grep -qx "$expected" ranges || { echo "FAILED: no '$expected'"; failures=1; }
done
if grep -q 'had not begun' ranges; then
    echo "FAILED: more ends than beginnings"
    failures=1
fi
exit $failures
