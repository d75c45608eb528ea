#!/bin/bash
# Owns: training on a device by the command line: refused in one sentence where there is none, and close to the cpu's where there is.
# Must never pass on a device without having trained there.
set -u
. "$CPA_TESTS/support/refuse.sh"
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--max-epochs 2 --n-latent 16 --seed 3)

"$CPA_ON_DEVICE" /bin/true 2>/dev/null
if [ $? -eq 77 ]; then
    refuse 78 "backend cuda: there is no GPU|--backend cpu" train "$data" --out run --backend cuda --lanes 4 "${small[@]}"
    finish
fi
for backend in cpu cuda; do
    "$CPA_HPC" train "$data" --out "run-$backend" --backend "$backend" "${small[@]}" || exit 1
    "$CPA_HPC" predict "run-$backend" --data "$data" --split ood --out "$backend.h5ad" --backend "$backend" || exit 1
done
"$CPA_HPC" compare run-cpu run-cuda --data "$data" || exit 1
"$CPA_HPC" train "$data" --out again --backend cuda "${small[@]}" || exit 1
cmp run-cuda/history.csv again/history.csv || { echo "FAILED: two runs on the device differ"; exit 1; }
for precision in tf32 bf16; do
    "$CPA_HPC" train "$data" --out "run-$precision" --backend cuda --precision "$precision" "${small[@]}" || exit 1
done
for run in cuda:1e-3 tf32:2e-3 bf16:1e-2; do
    python3 - run-cpu/history.csv "run-${run%:*}/history.csv" "${run#*:}" <<'PYTHON' || exit 1
import csv, sys
a, b = (list(csv.DictReader(open(path))) for path in sys.argv[1:3])
assert len(a) == len(b) > 0
for x, y in zip(a, b):
    p, q = float(x["recon_loss"]), float(y["recon_loss"])
    assert abs(p - q) <= float(sys.argv[3]) * abs(p), ("recon_loss", sys.argv[2], p, q)
PYTHON
done
