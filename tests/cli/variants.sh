#!/bin/bash
# Owns: every option of the model trains, and gives the same model on 1, 2 and 4 ranks.
# Must never compare a model with one of other options.
set -euo pipefail
export OMP_NUM_THREADS=1
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --batch-size 64 --lanes 4 --train-metrics-every 1 --quiet)

# Likelihood, dose response, norms, latent, mixup: each value meets each other's at least once.
variants=(
    "--recon-loss nb --doser-type sigm --variational=true"
    "--recon-loss nb --doser-type linear --mixup-alpha 0.3 --use-layer-norm-encoder=true --use-layer-norm-decoder=true --use-layer-norm-adv=true"
    "--recon-loss zinb --doser-type logsigm --mixup-alpha 0.3 --use-batch-norm-encoder=false --use-batch-norm-decoder=false --use-batch-norm-adv=false"
    "--recon-loss zinb --doser-type sigm --dropout-rate-encoder 0.2 --adv-loss focal --do-clip-grad=true"
    "--recon-loss gauss --doser-type linear --variational=true --dropout-rate-decoder 0.2 --adv-steps 0"
    "--recon-loss gauss --doser-type sigm --mixup-alpha 0.3 --use-batch-norm-encoder=false --use-layer-norm-encoder=true --use-batch-norm-adv=false --use-layer-norm-adv=true"
    "--recon-loss nb --doser-type mlp --n-hidden-doser 5 --n-layers-doser 3 --mixup-alpha 0.3 --adv-cov-mixup both --control-zero --nb-decoder-dropout --compat-dose-order"
    "--recon-loss zinb --doser-type linear --variational=true --mixup-alpha 0.3 --n-epochs-kl-warmup 2 --n-epochs-pretrain-ae 1"
)
number=0
for variant in "${variants[@]}"; do
    number=$((number + 1))
    read -ra options <<<"$variant"
    "$CPA_HPC" train "$data" --out "run$number.1" "${small[@]}" "${options[@]}"
    for ranks in 2 4; do
        $CPA_MPIRUN -n $ranks "$CPA_HPC" train "$data" --out "run$number.$ranks" "${small[@]}" "${options[@]}"
        h5diff "run$number.1/model.h5" "run$number.$ranks/model.h5" || { echo "$variant: another model on $ranks ranks"; exit 1; }
        cmp "run$number.1/history.csv" "run$number.$ranks/history.csv"
    done
    "$CPA_HPC" predict "run$number.1" --data "$data" --split ood --output mean --out "mean$number.h5ad" --quiet
done

# A dose response by networks, which upstream has no tensors for, survives its way out and back in.
grep -lx "doser_type: mlp" run*.1/config.yaml | while read -r config; do
    run=${config%/config.yaml}
    "$CPA_HPC" export "$run" --out out.h5 --quiet
    "$CPA_HPC" import out.h5 --out back --quiet
    h5diff "$run/model.h5" back/model.h5
    "$CPA_HPC" embeddings back --dose 0,1 --out embeddings.h5ad --quiet
done
[ -s embeddings.h5ad ] || { echo "no run has networks for doses"; exit 1; }
! h5diff -q run1.1/model.h5 run2.1/model.h5 >/dev/null || { echo "options that differ give the same model"; exit 1; }
