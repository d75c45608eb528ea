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
# Two ranks that share the device, with sums by NCCL: each says that it is on a host of its own, or NCCL would refuse.
export NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo NCCL_MAX_CTAS=1 NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1
$CPA_MPIRUN -n 2 bash -c 'NCCL_HOSTID=rank${OMPI_COMM_WORLD_RANK:-$PMI_RANK} exec "$@"' - "$CPA_HPC" train "$data" --out run-nccl \
    --backend cuda --lanes 2 --reduce nccl --timeout 60 "${small[@]}" || exit 1
"$CPA_HPC" train "$data" --out run-lanes --backend cuda --lanes 2 "${small[@]}" || exit 1

for run in run-cuda:run-cpu:1e-3 run-tf32:run-cpu:2e-3 run-bf16:run-cpu:1e-2 run-nccl:run-lanes:1e-3; do
    IFS=: read -r one other tolerance <<<"$run"
    python3 - "$other/history.csv" "$one/history.csv" "$tolerance" <<'PYTHON' || exit 1
import csv, sys
a, b = (list(csv.DictReader(open(path))) for path in sys.argv[1:3])
assert len(a) == len(b) > 0
for x, y in zip(a, b):
    p, q = float(x["recon_loss"]), float(y["recon_loss"])
    assert abs(p - q) <= float(sys.argv[3]) * abs(p), ("recon_loss", sys.argv[2], p, q)
PYTHON
done
