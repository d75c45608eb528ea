#!/bin/bash
# Owns: where results go: through a link to its target, never in place of a pipe, and never mixed with those of another command that
# writes the same file.
# Must never write to a device.
set -u
. "$CPA_TESTS/support/refuse.sh"
make_bad_files
small=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16)
"$CPA_HPC" train good.h5ad --out run --quiet "${small[@]}" || { echo "FAILED: the model to test with could not be trained"; exit 1; }
atlas=(--genes 500 --perturbations 3 --combinations 0 --quiet)

# ---- What is not a file, and links
mkfifo pipe.h5ad pipe.csv
attempt 74 "cannot write 'pipe.h5ad'|not a file" "$CPA_HPC" simulate pipe.h5ad --cells 300 "${atlas[@]}"
refuse 74 "cannot write 'pipe.h5ad'|not a file" predict run --data good.h5ad --out pipe.h5ad
refuse 74 "cannot write 'pipe.csv'|not a file" evaluate run --data good.h5ad --out pipe.csv
ln -s nowhere/gone.h5ad dangling.h5ad
refuse 74 "cannot write 'dangling.h5ad'|a link to what is not there" predict run --data good.h5ad --out dangling.h5ad

mkdir scratch
echo "old" >scratch/predicted.h5ad
ln -s scratch/predicted.h5ad link.h5ad
"$CPA_HPC" predict run --data good.h5ad --out plain.h5ad --quiet && "$CPA_HPC" predict run --data good.h5ad --out link.h5ad --quiet ||
    failed "predict through a link"
if [ ! -L link.h5ad ] || ! cmp -s plain.h5ad scratch/predicted.h5ad; then
    echo "FAILED: predictions through a link are not where it points to"
    failures=$((failures + 1))
fi
[ "$(ls scratch)" = predicted.h5ad ] || { echo "FAILED: left in scratch: $(ls scratch)"; failures=$((failures + 1)); }

# ---- Two commands at once: the one that began last has the file, whole; the other says so, and takes nothing away.
"$CPA_HPC" simulate both.h5ad --cells 60000 "${atlas[@]}" 2>first.err &
first=$!
until [ -s both.h5ad.part ] || ! kill -0 $first 2>/dev/null; do sleep 0.01; done
kill -STOP $first
attempt 66 "nothing.h5ad" "$CPA_HPC" convert nothing.h5ad both.h5ad
[ -s both.h5ad.part ] || { echo "FAILED: a command that wrote nothing took away what another one writes"; failures=$((failures + 1)); }
"$CPA_HPC" simulate both.h5ad --cells 400 --seed 9 "${atlas[@]}" || { echo "FAILED: the second command"; failures=$((failures + 1)); }
kill -CONT $first
wait $first
code=$?
"$CPA_HPC" simulate alone.h5ad --cells 400 --seed 9 "${atlas[@]}"
if [ $code -ne 74 ] || ! grep -q "'both.h5ad.part' is not the file that was written any more: another command" first.err; then
    echo "FAILED: the first command ended with $code and said: $(cat first.err)"
    failures=$((failures + 1))
fi
cmp both.h5ad alone.h5ad || { echo "FAILED: two commands wrote one file"; failures=$((failures + 1)); }
ls -- *.part* 2>/dev/null && { echo "FAILED: something is left"; failures=$((failures + 1)); }
finish
