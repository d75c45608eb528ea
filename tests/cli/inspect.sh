#!/bin/bash
# Owns: what `inspect` and `check` say of the sample and of files that are none.
# Never trains.
set -u
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
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

expect 0 "kind: AnnData" inspect "$sample"
for part in "X:" "obs:" "  condition: values" "var:" "uns:"; do
    grep -qF -e "$part" out || { echo "FAILED: inspect does not show '$part'"; failures=$((failures + 1)); }
done
expect 0 '"kind":	"AnnData"' inspect "$sample" --json
if command -v python3 >/dev/null; then
    python3 -c 'import json, sys; d = json.load(sys.stdin); assert d["cells"] > 0 and d["obs"]["condition"]["values"] > 1' <out ||
        { echo "FAILED: inspect --json is not JSON with cells and conditions"; failures=$((failures + 1)); }
fi
expect 66 "no such file or folder" inspect nowhere
expect 66 "has no config.yaml" inspect .
echo "not HDF5" >text.h5ad
expect 65 "text.h5ad" inspect text.h5ad
head -c 100000 "$sample" >cut.h5ad
expect 65 "cut.h5ad" inspect cut.h5ad

expect 0 "categories:" check "$sample"
for part in "cells:" "genes:" "counts:" "perturbations:" "conditions:" "covariates:" "splits:"; do
    grep -qF -e "$part" out || { echo "FAILED: check does not show '$part'"; failures=$((failures + 1)); }
done
# Everything at once: a control that is not there and a layer that is not there.
expect 65 "nobody" check "$sample" --control-group nobody --layer nolayer
grep -qF "nolayer" err || { echo "FAILED: check does not name the second problem"; failures=$((failures + 1)); }
expect 66 "nowhere.h5ad" check nowhere.h5ad
exit $((failures > 0))
