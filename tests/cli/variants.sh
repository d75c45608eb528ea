#!/bin/bash
# Owns: options of the model train, and give the same model on 1, 2 and 4 ranks: a choice of them on the sample, or, of the likelihood
# that is given, every combination on a tiny file. Must never compare a model with one of other options.
set -euo pipefail
export OMP_NUM_THREADS=1
small=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --lanes 4 --train-metrics-every 1 --quiet)

# compare NUMBER OPTIONS...: trains on 1 rank, and on those of $counts.
counts="2 4"
[ "$CPA_SANITIZED" = 0 ] || counts=2
compare() {
    local number=$1 ranks
    shift
    "$CPA_HPC" train "$data" --out "run$number.1" "${small[@]}" "$@"
    for ranks in $counts; do
        $CPA_MPIRUN -n $ranks "$CPA_HPC" train "$data" --out "run$number.$ranks" "${small[@]}" "$@"
        h5diff "run$number.1/model.h5" "run$number.$ranks/model.h5" || { echo "$*: another model on $ranks ranks"; exit 1; }
        cmp "run$number.1/history.csv" "run$number.$ranks/history.csv"
    done
}

# Likelihood, dose response, norms, latent, mixup: each value meets each other's at least once.
some() {
    local variants=(
        "--recon-loss nb --doser-type sigm --variational=true"
        "--recon-loss nb --doser-type linear --mixup-alpha 0.3 --use-layer-norm-encoder=true --use-layer-norm-decoder=true --use-layer-norm-adv=true"
        "--recon-loss zinb --doser-type logsigm --mixup-alpha 0.3 --use-batch-norm-encoder=false --use-batch-norm-decoder=false --use-batch-norm-adv=false"
        "--recon-loss zinb --doser-type sigm --dropout-rate-encoder 0.2 --adv-loss focal --do-clip-grad=true"
        "--recon-loss gauss --doser-type linear --variational=true --dropout-rate-decoder 0.2 --adv-steps 0"
        "--recon-loss gauss --doser-type sigm --mixup-alpha 0.3 --use-batch-norm-encoder=false --use-layer-norm-encoder=true --use-batch-norm-adv=false --use-layer-norm-adv=true"
        "--recon-loss nb --doser-type mlp --n-hidden-doser 5 --n-layers-doser 3 --mixup-alpha 0.3 --adv-cov-mixup both --control-zero --nb-decoder-dropout --compat-dose-order"
        "--recon-loss zinb --doser-type linear --variational=true --mixup-alpha 0.3 --n-epochs-kl-warmup 2 --n-epochs-pretrain-ae 1"
    ) options number run
    data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
    small+=(--batch-size 64)
    for number in "${!variants[@]}"; do
        read -ra options <<<"${variants[$number]}"
        compare "$number" "${options[@]}"
        "$CPA_HPC" predict "run$number.1" --data "$data" --split ood --output mean --out "mean$number.h5ad" --quiet
    done
    # A dose response by networks, which upstream has no tensors for, survives its way out and back in.
    run=$(dirname "$(grep -lx "doser_type: mlp" run*.1/config.yaml)")
    "$CPA_HPC" export "$run" --out out.h5 --quiet
    "$CPA_HPC" import out.h5 --out back --quiet
    # Upstream's tensors are 32-bit numbers.
    if [ "$CPA_REAL" = double ]; then
        h5diff -p 1e-6 "$run/model.h5" back/model.h5 /module
    else
        h5diff "$run/model.h5" back/model.h5
    fi
    "$CPA_HPC" embeddings back --dose 0,1 --out embeddings.h5ad --quiet
    [ -s embeddings.h5ad ]
}

# all LIKELIHOOD: each dose response x norms x latent x mixup; four batches a lane, by turns of the autoencoder and the adversaries.
# Half of them on 2 ranks, half on 4, unless CPA_VARIANTS_RANKS says on which all do.
all() {
    local doser norms variational alpha part layer batch options number=0
    data=tiny.h5ad
    /usr/bin/python3 "$CPA_TESTS/data/make_row_file.py" $data '50 ctrl' '40 A 0.5' '30 B 2 S' '30 A+B 1+0.3 S' '10 ctrl 1 S'
    small+=(--batch-size 8 --n-layers-encoder 2 --n-layers-decoder 2 --n-layers-adv 2 --adv-steps 2 --dropout-rate-encoder 0.1)
    for doser in logsigm sigm linear; do
        for norms in batch layer both none; do
            options=(--recon-loss "$1" --doser-type $doser)
            batch=$([ $norms = batch ] || [ $norms = both ] && echo true || echo false)
            layer=$([ $norms = layer ] || [ $norms = both ] && echo true || echo false)
            for part in encoder decoder adv; do
                options+=("--use-batch-norm-$part=$batch" "--use-layer-norm-$part=$layer")
            done
            for variational in false true; do
                for alpha in 0 0.3; do
                    counts=${CPA_VARIANTS_RANKS:-$((2 + 2 * ((number + number / 2 + number / 4) % 2)))}
                    compare $number "${options[@]}" --variational=$variational --mixup-alpha $alpha
                    number=$((number + 1))
                done
            done
        done
    done
    [ $number -eq 48 ]
}

if [ $# -gt 0 ]; then
    all "$1"
else
    some
fi
# No two of them are the same model: options that differ do something.
for run in run*.1; do
    h5dump -a /digest "$run/model.h5" | grep '(0)'
done | sort | uniq -d >same
[ ! -s same ] || { echo "options that differ give the same model: $(cat same)"; exit 1; }
