#!/bin/bash
# Owns: --semantics as a user sees it: what it sets, what beats it, what a run says of it, what config.yaml remembers.
# Must never look at the numbers of a model, only at which runs make the same.
set -euo pipefail
export OMP_NUM_THREADS=1
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --batch-size 128 --lanes 2 --train-metrics-every 1)
# A run in which most rows matter.
rows=(--max-epochs 4 --mixup-alpha 0.3 --n-epochs-pretrain-ae 1 --n-epochs-mixup-warmup 1 --step-size-lr 1
    --dropout-rate-decoder 0.1 --n-steps-adv-warmup 20)

train() { # train NAME OPTIONS...
    "$CPA_HPC" train "$data" --out "$1" "${small[@]}" "${@:2}" 2>"$1.err" || { cat "$1.err"; exit 1; }
}
fails() {
    echo "FAILED: $*"
    exit 1
}
says() { # says NAME TEXT: the run said so, to people and in its log
    grep -qF -e "$2" "$1.err" || fails "$1 does not say '$2': $(cat "$1.err")"
}
same() {
    h5diff "$1/model.h5" "$2/model.h5" || fails "$1 and $2 are different models"
}

train upstream "${rows[@]}"
train fixed "${rows[@]}" --semantics fixed
says upstream "semantics: cpa-0.8.8; different from cpa-0.8.8 here: E6 "
says upstream "cpa-0.8.8 behaviours that matter here: D2 "
says upstream "T11 mixup never happens"
says fixed "semantics: fixed; different from cpa-0.8.8 here: D2 control_zero true"
for row in "M10 nb_decoder_dropout true" "T8 step_unit batch" "T11 mixup_warmup linear" "L4 adv_cov_mixup both" \
    "T17 class_weights train" "T15 lr_schedule every" "E4 epoch_means exact"; do
    says fixed "$row"
    grep -qF -e "$row" fixed/log.jsonl || fails "log.jsonl lacks '$row'"
    name=${row#* }
    grep -qx "${name/ /: }" fixed/config.yaml || fails "config.yaml lacks '${name/ /: }'"
done
grep -qF "cpa-0.8.8 behaviours" fixed.err && fails "with everything mended nothing is as upstream"
grep -qx "semantics: fixed" fixed/config.yaml || fails "config.yaml lacks the switch"
! h5diff -q upstream/model.h5 fixed/model.h5 >/dev/null || fails "the switch changes nothing"

# What is said of a row wins, on the command line or in a file: then the switch changes nothing.
cat >rows.yaml <<'END'
semantics: fixed
control_zero: false
nb_decoder_dropout: false
step_unit: optimizer
mixup_warmup: upstream
adv_cov_mixup: upstream
END
train overruled "${rows[@]}" --config rows.yaml --class-weights all --lr-schedule upstream --epoch-means upstream
grep -qx "semantics: fixed" overruled/config.yaml || fails "a configuration cannot switch"
sed -i '/^semantics:/d' overruled/config.yaml
diff <(sed '/^semantics:/d' upstream/config.yaml) overruled/config.yaml || fails "the configurations differ"
same upstream overruled
cmp upstream/history.csv overruled/history.csv

# The configuration that a run leaves makes the same model again.
train again --config fixed/config.yaml
same fixed again
cmp fixed/history.csv again/history.csv

# The number of ranks changes nothing.
$CPA_MPIRUN -n 2 "$CPA_HPC" train "$data" --out ranks "${small[@]}" "${rows[@]}" --semantics fixed --quiet
same fixed ranks
cmp fixed/history.csv ranks/history.csv

# T8: while both are trained a batch is 3 updates of single optimizers, so 30 of those are 10 batches.
train updates --max-epochs 1 --n-steps-pretrain-ae 30
train batches --max-epochs 1 --n-steps-pretrain-ae 10 --step-unit batch
train longer --max-epochs 1 --n-steps-pretrain-ae 11 --step-unit batch
same updates batches
! h5diff -q batches/model.h5 longer/model.h5 >/dev/null || fails "n_steps_pretrain_ae does nothing"

# A finished run stays as it is, and is not taken for one of other semantics.
"$CPA_HPC" train "$data" --out fixed "${small[@]}" "${rows[@]}" --semantics fixed --resume --quiet
! "$CPA_HPC" train "$data" --out fixed "${small[@]}" "${rows[@]}" --semantics cpa-0.8.8 --resume --quiet 2>err ||
    fails "a finished run takes other semantics"

# T12 and T18 do as upstream does, and say what that means.
train warned --max-epochs 1 --adv-steps 1 --adv-loss focal
says warned "warning: --adv-steps 1: T12"
says warned "warning: --adv-loss focal: T18"
