#!/bin/bash
# Owns: that a call of the system that fails - open, read, write, fsync, rename, mkdir, an allocation - ends the program with the
# documented exit code and one message, on one rank as on four, and leaves nothing of a result behind.
# Must never count on how many calls of a kind there are beyond those named here.
set -u
. "$CPA_TESTS/support/faults.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --lanes 4 --max-epochs 1 --quiet)
"$CPA_HPC" train "$sample" --out model "${small[@]}" || fail "training the model to predict with"
train=(train "$sample" --out run "${small[@]}")
predict=(predict model --data "$sample" --out x.h5ad --quiet)
mean=("${predict[@]}" --output mean)
latent=(latent model --data "$sample" --out x.h5ad --quiet)
evaluate=(evaluate model --data "$sample" --out scores.csv --quiet)

# struck CODE WORDS FAULT RANKS ARGUMENTS...: the fault ends the command with CODE and one message that has WORDS.
struck() {
    local want=$1 words=$2
    shift 2
    rm -rf run
    echo old >x.h5ad
    echo old >scores.csv
    faulty "$@"
    grep '^cpa-hpc: error: ' err >message
    [ "$code" -eq "$want" ] || fail "$what: expected $want, got $code: $(cat err)"
    [ "$(wc -l <message)" -eq 1 ] || fail "$what: not exactly one message: $(cat err)"
    grep -qF -e "$words" message || fail "$what: the message lacks '$words': $(cat message)"
    absent run x.h5ad.part x.h5ad.part.new x.h5ad.part.rows scores.csv.part
    [ "$(cat x.h5ad scores.csv)" = "old
old" ] || fail "$what: what was there before is gone"
}

# everywhere CODE WORDS CALL WHERE NTH ACT RANK ARGUMENTS...: alone, and on that rank of four.
everywhere() {
    local want=$1 words=$2 call=$3 where=$4 nth=$5 act=$6 rank=$7
    shift 7
    struck "$want" "$words" "$call $where 0 $nth $act" 0 "$@"
    struck "$want" "$words" "$call $where $rank $nth $act" 4 "$@"
}

io=5 full=28 memory=12 many=24 closed=13 # errno
# A name that cannot be looked up (20), a list of strings (52), counts (400).
everywhere 74 "glioblastoma_panobinostat.h5ad: cannot be read: Input/output error" read .h5ad 20 $io 3 "${train[@]}"
struck 74 "cannot be read: Input/output error" "read .h5ad 0 52 $io" 0 "${train[@]}"
struck 74 "cannot be read: Input/output error" "read .h5ad 0 400 $io" 0 "${train[@]}"
struck 74 "model/model.h5: cannot be read: Input/output error" "read model.h5 2 11 $io" 4 "${predict[@]}"
struck 74 "model/model.h5: cannot be read: Input/output error" "read model.h5 0 60 $io" 0 "${latent[@]}"
struck 74 "cannot be read: Input/output error" "read .h5ad 0 200 $io" 0 "${evaluate[@]}"
everywhere 74 "Too many open files" open .h5ad 2 $many 2 "${train[@]}"
struck 74 "Permission denied" "open model.h5 0 2 $closed" 0 "${predict[@]}"

# A disk that is full when this or that is written.
everywhere 74 "run/model.h5.part" write model.h5 5 $full+ 0 "${train[@]}"
for file in config.yaml history.csv log.jsonl; do
    struck 74 "$file" "write $file 0 1 $full+" 0 "${train[@]}"
done
struck 74 "run" "mkdir run 0 1 $closed" 4 "${train[@]}"
struck 74 "x.h5ad.part" "write x.h5ad 0 3 $full+" 0 "${predict[@]}"
struck 74 "x.h5ad.part" "write x.h5ad 3 1 $full+" 4 "${predict[@]}"
struck 74 "x.h5ad.part" "write x.h5ad 0 40 $full" 0 "${mean[@]}"
struck 74 "x.h5ad.part" "write x.h5ad 0 2 $full" 0 "${latent[@]}"
struck 74 "scores.csv.part" "write scores.csv 0 1 $full" 0 "${evaluate[@]}"

# What is written but not safe, or safe but without its name.
struck 74 "run/model.h5.part" "fsync model.h5 0 1 $io" 0 "${train[@]}"
struck 74 "run/model.h5.part" "rename model.h5 0 1 $io" 0 "${train[@]}"
struck 74 "x.h5ad.part" "fsync x.h5ad 1 1 $io" 4 "${predict[@]}"
for nth in 1 2; do # the skeleton, the whole
    struck 74 "x.h5ad.part" "rename x.h5ad 0 $nth $io" 4 "${latent[@]}"
done
struck 74 "x.h5ad.part.rows" "write x.h5ad.part.rows 0 1 $full" 0 "${predict[@]}"
struck 74 "x.h5ad.part.rows" "write x.h5ad.part.rows 2 1 $full" 4 "${latent[@]}"
struck 74 "x.h5ad.part" "open x.h5ad.part.rows 1 1 $closed" 4 "${predict[@]}"

# Memory that runs short, from the command line on.
for nth in 1 20 80 300 1000; do
    struck 70 "out of memory" "alloc - 0 $nth $memory" 0 "${train[@]}"
    struck 70 "out of memory" "alloc - 0 $nth $memory" 0 "${evaluate[@]}"
done
struck 70 "out of memory" "alloc - 3 600 $memory" 4 "${train[@]}"
struck 70 "out of memory" "alloc - 2 40 $memory" 4 "${predict[@]}"

# Half of what was asked for is no failure: the rest is asked for again.
"$CPA_HPC" "${train[@]}" || fail "training without a fault"
mv run whole
for fault in "read .h5ad 0 30 short" "read .h5ad 0 400 short" "write model.h5 0 4 short"; do
    rm -rf run
    faulty "$fault" 0 "${train[@]}"
    { [ "$code" -eq 0 ] && cmp run/model.h5 whole/model.h5; } || fail "$what: it ended with $code: $(cat err)"
done
finish
