#!/bin/bash
# Owns: that no rank waits for ever: one that is stopped or hangs makes the others end with 76, one that is killed ends the job, in
# every phase, and nothing is left, neither processes nor results under their final names; but not that rank 0 at work is hurried.
# Must never depend on how fast this machine is.
set -u
. "$CPA_TESTS/support/faults.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --lanes 4 --quiet --timeout 2)
"$CPA_HPC" train "$sample" --out "$PWD/model" --max-epochs 1 "${small[@]}" || fail "training the model to predict with"

# away HOW PHASE: judges the last run, in which a rank was stopped or killed, or hung, while the others were in the phase.
away() {
    gone
    absent x.h5ad
    # Open MPI lets a stopped rank go on before it kills it, so that a model may just have been completed.
    [ ! -e run/model.h5 ] || "$CPA_HPC" inspect run/model.h5 >out 2>&1 || fail "$what: a torn model is left: $(cat out)"
    if [ "$1" != kill ]; then
        [ "$code" -eq 76 ] || fail "$what: expected 76, got $code: $(cat err)"
        says "--timeout 2"
        [ -z "$2" ] || says "$2: "
        # Before MPI has started, nobody knows who the others are; and a process that hangs looks like one that waits for its disk.
        [ "$1" = hang ] || [ "$2" = starting ] || says "is stopped"
    else
        [ "$code" -ne 0 ] && [ "$code" -ne 124 ] || fail "$what: ended with $code"
    fi
    rm -rf run run.part x.h5ad x.h5ad.part*
}

train=(train "$sample" --out "$PWD/run" "${small[@]}" --max-epochs)
predict=(predict "$PWD/model" --data "$sample" --out "$PWD/x.h5ad" --quiet --timeout 2)
for how in stop kill; do
    faulty "read .h5ad 3 60 $how" 4 "${train[@]}" 1
    away $how "reading the data"
    faulty "write log.jsonl 0 10 $how" 3 "${train[@]}" 50
    away $how training
    faulty "write model.h5 0 3 $how" 4 "${train[@]}" 1
    away $how "writing the model"
    faulty "write x.h5ad 1 1 $how" 2 "${predict[@]}"
    away $how predicting
done
faulty "alloc - 1 1 stop" 2 "${train[@]}" 1
away stop starting
faulty "open config.yaml 0 1 stop" 2 "${train[@]}" 1
away stop "setting up"
faulty "write x.h5ad 2 1 stop" 4 latent "${predict[@]:1}"
away stop encoding

# Rank 0 works alone, and the others sleep: for as long as it gets on.
for how in stop hang kill; do
    faulty "read .h5ad 0 20 $how" 3 convert "$sample" "$PWD/x.h5ad" --quiet --timeout 2
    away $how converting
    [ $how = kill ] || says "rank 0 ("
done
faulty "read .h5ad 0 100 slow+" 3 convert "$sample" "$PWD/x.h5ad" --timeout 2
[ $code -eq 0 ] || fail "$what: expected 0, got $code: $(cat err)"
grep -qE 'written in ([3-9]|[1-9][0-9])[.]' err || fail "$what: it did not take longer than the timeout: $(cat err)"
rm -f x.h5ad

# In the midst of steps and validations, at any moment.
rank_of() {
    tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -nE 's/^(OMPI_COMM_WORLD|PMI)_RANK=//p' | head -1
}
for how in STOP KILL; do
    cases=$((cases + 1))
    what="$how while 4 ranks train"
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    timeout -k 5 120 $CPA_MPIRUN -n 4 "$CPA_HPC" "${train[@]}" 1000000 --check-val-every-n-epoch 1 \
        --early-stopping-patience 1000000 >out 2>err </dev/null &
    job=$!
    for _ in {1..600}; do
        grep -qs '"event":"epoch"' run/log.jsonl && break
        sleep 0.1
    done
    sleep 0.$((RANDOM % 10))
    for process in $(pgrep -f "$CPA_HPC train .* --out $PWD/run"); do
        [ "$(rank_of "$process")" != 3 ] || kill -$how "$process"
    done
    wait $job
    code=$?
    away "${how,,}" ""
done
finish
