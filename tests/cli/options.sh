#!/bin/bash
# Owns: what a user sees of the command line: exit codes, messages, help.
# Never needs data: every command here ends before it would read any.
set -u
failures=0

# expect CODE TEXT ARGUMENTS...: the program ends with CODE and says TEXT (on either stream).
expect() {
    local code=$1 text=$2 got
    shift 2
    "$CPA_HPC" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ] || ! cat out err | grep -qF -e "$text"; then
        echo "FAILED: cpa-hpc $*: expected $code and '$text', got $got and:" && cat out err
        failures=$((failures + 1))
    fi
}

expect 64 "cpa-hpc: error: no command"
expect 64 "unknown command 'trian'; did you mean train?" trian
expect 64 "did you mean --n-latent?" train a.h5ad --out r --n-latnet 3
expect 64 "--n-latent: wants an integer, 1 to 65536, not 'x'" train a.h5ad --out r --n-latent x
expect 64 "--lr: wants a number, 0 or more, not '-1'" train a.h5ad --out r --lr -1
expect 64 "train needs --out" train a.h5ad
expect 64 "--perturbation: wants a text, not ''" predict run --data a.h5ad --out p.h5ad --perturbation ""
expect 64 "--split: wants a text, not ''" predict run --data a.h5ad --out p.h5ad --split ""
expect 66 "a.h5ad" train a.h5ad --out r --split-key ""
expect 64 "check takes no --lr" check a.h5ad --lr 1
expect 66 "a.h5ad" check a.h5ad
expect 78 "choose logsigm, sigm or linear" train a.h5ad --out r --pert-embeddings x.h5 --doser-type mlp
expect 66 "nowhere.yaml" check a.h5ad --config nowhere.yaml
printf 'lr: 0.1\n---\nseed: 1\n' >bad.yaml
expect 78 "bad.yaml:2: a second document" check a.h5ad --config bad.yaml
printf 'lr: 0.1\n...\n]\n' >bad.yaml
expect 78 "bad.yaml:3: not YAML" check a.h5ad --config bad.yaml
printf 'lr: 1\nseed: abc\n' >bad.yaml
expect 78 "bad.yaml:2: seed: wants an integer" check a.h5ad --config bad.yaml
expect 0 "usage: cpa-hpc COMMAND" --help
expect 0 "usage: cpa-hpc COMMAND" help
expect 0 "--n-latent N" train --help
expect 0 "usage: cpa-hpc predict" predict run -h
expect 0 "cpa-hpc $(sed -n 's/^project(.* VERSION \([0-9.]*\).*/\1/p' "$CPA_TESTS/../CMakeLists.txt")" --version

# Help is for standard output, errors are for standard error.
"$CPA_HPC" --help >out 2>err
[ -s out ] && [ ! -s err ] || { echo "FAILED: --help does not go to standard output alone"; failures=$((failures + 1)); }
"$CPA_HPC" nonsense >out 2>err
[ ! -s out ] && [ "$(wc -l <err)" -eq 1 ] || { echo "FAILED: an error is not one line on standard error"; failures=$((failures + 1)); }
"$CPA_HPC" help options | cmp -s - "$CPA_TESTS/../docs/options.md" ||
    { echo "FAILED: docs/options.md is out of date: cpa-hpc help options > docs/options.md"; failures=$((failures + 1)); }
if [ -w /dev/full ]; then
    "$CPA_HPC" --help >/dev/full 2>err
    [ $? -eq 74 ] || { echo "FAILED: a full disk behind standard output is not exit code 74"; failures=$((failures + 1)); }
fi

# On several ranks: one message, the same code, and no more ranks than lanes.
ranks() {
    # CPA_MPIRUN is a command line of several words.
    $CPA_MPIRUN -n "$@" >out 2>err </dev/null
}
ranks 3 "$CPA_HPC" train a.h5ad --out r --lanes 2 --where x
[ $? -eq 64 ] && [ "$(grep -c 'cpa-hpc: error:' err)" -eq 1 ] ||
    { echo "FAILED: a wrong option on 3 ranks:"; cat err; failures=$((failures + 1)); }
ranks 3 "$CPA_HPC" train a.h5ad --out r --lanes 2 --layer "x y"
[ $? -eq 64 ] && grep -qF "start 2: mpirun -n 2 cpa-hpc train a.h5ad --out r --lanes 2 --layer 'x y'" err ||
    { echo "FAILED: more ranks than lanes:"; cat err; failures=$((failures + 1)); }
[ ! -e r ] || { echo "FAILED: a refused command left a run folder"; failures=$((failures + 1)); }
exit $((failures > 0))
