#!/bin/bash
# Owns: groups held out by --holdout: not trained on, remembered by the run, scored by default. Never judges scores.
set -euo pipefail
export OMP_NUM_THREADS=1
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8)
held=$(h5dump -d /obs/patient_id/categories "$data" | grep -o 'PW[0-9]*' | grep -v PW040 | head -1)

fail() {
    echo "FAILED: $*"
    exit 1
}

"$CPA_HPC" train "$data" --out run "${small[@]}" --holdout "patient_id=$held,condition=panobinostat" --holdout patient_id=PW040 >log 2>&1
"$CPA_HPC" train "$data" --out plain "${small[@]}" --quiet
grep -q "^holdout: \[\"patient_id=$held,condition=panobinostat\", \"patient_id=PW040\"\]" run/config.yaml || fail "$(cat run/config.yaml)"
"$CPA_HPC" evaluate plain --data "$data" --out plain.csv --quiet >/dev/null
"$CPA_HPC" evaluate run --data "$data" --out run.csv --quiet >/dev/null
[ "$(cut -d, -f1 plain.csv | tail -n +2)" = PW040_panobinostat ] || fail "groups of the plain run: $(cat plain.csv)"
[ "$(cut -d, -f1 run.csv | tail -n +2 | sort | xargs)" = "$(printf '%s\n' "${held}_panobinostat" PW040_ctrl PW040_panobinostat | sort | xargs)" ] ||
    fail "groups of the run: $(cut -d, -f1 run.csv)"
# The group is no longer among the training cells, unless the command line says so.
"$CPA_HPC" evaluate run --data "$data" --out train.csv --split train --quiet >/dev/null
! grep -q "^${held}_panobinostat" train.csv || fail "the held-out group is among the training cells"
"$CPA_HPC" evaluate run --data "$data" --out train.csv --split train --holdout '' --quiet >/dev/null
grep -q "^${held}_panobinostat" train.csv || fail "--holdout '' does not undo the run's"
code=0
"$CPA_HPC" train "$data" --out wrong "${small[@]}" --holdout patient_id=PW04 >out 2>&1 || code=$?
[ $code -eq 65 ] && grep -q "'PW040'" out && [ ! -e wrong ] || fail "a value that is not there: $code, $(cat out)"
