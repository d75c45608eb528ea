#!/bin/bash
# Owns: what `import` makes of an export of upstream's weights, and of files that are none.
# Never trains.
set -u
export_file=$CPA_TESTS/golden/trained/glioblastoma.h5
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect CODE TEXT ARGUMENTS...: the program ends with CODE and says TEXT (on either stream).
expect() {
    local code=$1 text=$2 got
    shift 2
    "$CPA_HPC" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ] || ! cat out err | grep -qF -e "$text"; then
        fail "cpa-hpc $*: expected $code and '$text', got $got and: $(cat out err)"
    fi
}

expect 0 "300 genes" import "$export_file" --out run
[ -s run/model.h5 ] && [ -s run/config.yaml ] || fail "import leaves no model.h5 and config.yaml"
grep -q '^control_group: "ctrl"' run/config.yaml || fail "config.yaml does not name the control"
grep -q 'patient_id' run/config.yaml || fail "config.yaml does not name the covariate"
cp run/model.h5 first.h5
expect 78 "exists already" import "$export_file" --out run
cmp -s run/model.h5 first.h5 || fail "a refused import changed the run"
sleep 1
expect 0 "300 genes" import "$export_file" --out again
cmp -s run/model.h5 again/model.h5 || fail "two imports differ"
expect 0 "300 genes" import "$export_file" --out keyed --perturbation-key treatment --control-group vehicle
grep -q '^perturbation_key: "treatment"' keyed/config.yaml || fail "the command line does not win"

expect 66 "nowhere.h5" import nowhere.h5 --out none
expect 65 "pert_encoder" import run/model.h5 --out none
expect 78 "n_latent is 12" import "$export_file" --out none --n-latent 12
expect 66 "its parent must exist" import "$export_file" --out no/folder
head -c 200000 "$export_file" >cut.h5
expect 65 "cut.h5" import cut.h5 --out none
[ -e none ] && fail "a failed import leaves a folder"
for n in 2 3; do
    $CPA_MPIRUN -n $n "$CPA_HPC" import "$export_file" --out run$n >out 2>err || fail "import on $n ranks: $(cat err)"
    cmp -s run/model.h5 run$n/model.h5 || fail "import on $n ranks gives another model.h5"
    $CPA_MPIRUN -n $n "$CPA_HPC" import nowhere.h5 --out none >out 2>err
    [ "$(grep -c 'nowhere.h5' err)" -eq 1 ] || fail "not one message on $n ranks: $(cat err)"
done
exit $((failures > 0))
