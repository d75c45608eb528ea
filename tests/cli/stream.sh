#!/bin/bash
# Owns: that a budget of memory changes where cells are kept and nothing else: the same model streamed and resident, on any number of
# ranks, also when a run goes on under another budget; what cannot be streamed; a file that changes meanwhile.
# Must never look at times.
set -u
. "$CPA_TESTS/support/refuse.sh"
. "$CPA_TESTS/support/resume.sh"
data=atlas.h5ad
"$CPA_HPC" simulate atlas.h5ad --cells 6000 --genes 200 --density 0.2 --quiet || fail "simulate"
"$CPA_HPC" simulate csc.h5ad --cells 600 --genes 60 --density 0.2 --format csc --quiet || fail "simulate"
order=(--shuffle block --shuffle-block 8 --shuffle-window 320)
small=(--lanes 4 --batch-size 16 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8)
options=("${order[@]}" "${small[@]}" --max-epochs 3 --train-metrics-every 2 --check-val-every-n-epoch 2)
# Ranks, 0 being no launcher, and lengths of lists. The sanitizers, which are slow, see each way taken once.
any=(0 1 2 3 4) some=(0 3) lengths=(513 900)
[ "$CPA_SANITIZED" = 0 ] || any=(0 2) some=(3) lengths=(513)

# model WORD RANKS RUN OPTIONS...: trains, with cells that are resident or streamed, and gets the model of `whole`.
model() {
    local word=$1
    shift
    command_line "$@"
    for i in "${!line[@]}"; do
        [ "${line[i]}" != --quiet ] || unset "line[i]"
    done
    "${line[@]}" >out 2>err </dev/null || fail "training $2: $(cat err)"
    grep -q "^cells are $word: " err || fail "$2: the cells are not $word: $(cat err)"
    equal whole "$2"
}

# predicted RUN SIZE: predictions and latents of the run are the same with cells in memory and with cells that are streamed, alone
# and on 3 ranks. The lists end with a cell more than whole blocks of 256, or amidst one, and have repeats.
predicted() {
    local run=$1 size=$2 n ranks command launch given
    for n in "${lengths[@]}"; do
        for command in "predict --perturbation pert_01" latent; do
            read -ra given <<<"$command"
            given+=("$run" --data atlas.h5ad --cells list.txt)
            { seq 5000 7 5999 | head -300; yes 17 | head -200; seq 0 3 5999; } | head -n "$n" >list.txt
            "$CPA_HPC" "${given[@]}" --out resident.h5ad >out 2>err </dev/null || fail "$command of $n: $(cat err)"
            for ranks in "${some[@]}"; do
                launch=()
                # CPA_MPIRUN is a command line of several words.
                # shellcheck disable=SC2206
                [ $ranks -eq 0 ] || launch=($CPA_MPIRUN -n $ranks)
                "${launch[@]}" "$CPA_HPC" "${given[@]}" --out streamed.h5ad --memory "$size" >out 2>err </dev/null
                grep -q "^cells are streamed: " err || fail "$command of $n: not streamed: $(cat err)"
                cmp resident.h5ad streamed.h5ad || fail "$command of $n with $size on $ranks ranks: other bytes"
                rm -f streamed.h5ad
            done
        done
    done
}

# ---- One model. With the smaller budget the validation cells are read again and again, with the larger one they stay.
train 0 0 whole
for n in "${any[@]}"; do
    model streamed $n "small$n" --memory 400KiB
    model streamed $n "large$n" --memory 600KiB
    model resident $n "resident$n" --memory 4MiB
done
model streamed 0 threads --memory 600KiB --threads 3
grep -q '"bytes_read":[1-9].*"waiting":0\.[0-9]' threads/log.jsonl || fail "no reading in the log: $(cat threads/log.jsonl)"
[ "$(grep -c '"event":"ranks"' threads/log.jsonl)" -eq 3 ] || fail "no line over ranks for each stage: $(cat threads/log.jsonl)"

predicted small0 400KiB
# What looks at cells in other orders.
attempt 78 "--output mean|leave --memory out" "$CPA_HPC" predict whole --data atlas.h5ad --out x.h5ad --memory 1MiB --output mean
attempt 78 "a rank needs|MiB to stream X|0.1 MiB are allowed (--memory); allow more" "$CPA_HPC" latent whole --data atlas.h5ad \
    --out x.h5ad --memory 64KiB

# One epoch without validation, whose end looks at the first step again.
rm -rf whole
all=("${options[@]}")
options+=(--valid-split '' --max-epochs 1)
train 0 0 whole
model streamed 0 once0 --memory 400KiB
model streamed 3 once3 --memory 400KiB
options=("${all[@]}")

# Some genes of it.
printf 'gene_%03d\n' $(seq 20 170) >genes.txt
rm -rf whole
options+=(--genes genes.txt)
train 0 0 whole
model streamed 0 genes0 --memory 600KiB
model streamed 3 genes3 --memory 600KiB
model resident 2 genes2
predicted genes0 400KiB
unset "options[-1]" "options[-1]"

# ---- A run that goes on under another budget, and on other ranks
rm -rf whole
options[-1]=3 # validation
options[-5]=12 # epochs
train 0 0 whole
launch 0 run --memory 400KiB
await run 2
interrupt USR1
ended 75
launch 2 run --resume
await run 4
interrupt USR1
ended 75
model streamed 3 run --resume --memory 600KiB

# ---- What cannot be
tiny=(--out r --max-epochs 1 --lanes 4 --n-latent 8)
attempt 78 "atlas.h5ad|a rank needs|MiB to stream X|0.1 MiB are allowed (--memory)|--shuffle-window" "$CPA_HPC" train atlas.h5ad \
    "${tiny[@]}" "${order[@]}" --memory 64KiB
refuse 78 "atlas.h5ad|X needs|0.4 MiB are allowed|--shuffle block" train atlas.h5ad "${tiny[@]}" --memory 400KiB
refuse 78 "csc.h5ad|gene by gene (CSC)|cpa-hpc convert csc.h5ad" train csc.h5ad "${tiny[@]}" "${order[@]}" --memory 16KiB
for size in 512 512MB -1MiB MiB 1e3MiB 1.2.3GiB 9999999TiB; do
    refuse 64 "--memory|a size such as 512MiB" train atlas.h5ad "${tiny[@]}" --memory "$size"
done

# ---- A file that is cut, replaced or gone while it is read: exit code 74 on all ranks, and the run can go on once it is back.
options=("${order[@]}" "${small[@]}" --max-epochs 100000)
cp atlas.h5ad kept
for what in cut replaced gone; do
    for n in "${some[@]}"; do
        rm -rf run
        cp kept atlas.h5ad
        launch $n run --memory 400KiB --checkpoint-every-steps 5
        await run 1
        case $what in
        cut) truncate -s 300000 atlas.h5ad ;;
        replaced) cp kept other && mv other atlas.h5ad ;;
        gone) rm atlas.h5ad ;;
        esac
        ended 74
        says "while it is read"
        [ "$(grep -c '^cpa-hpc: error: ' err)" -eq 1 ] || fail "not exactly one message: $(cat err)"
    done
done
finish
