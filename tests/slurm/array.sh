# Owns: an array of configurations, a run folder each.
# Must never be run without a cluster: the support file skips it then.
source "$CPA_TESTS/support/slurm.sh"
printf '%s\n' '--seed 1' '--seed 2 --n-latent 6' '--seed 3' >options.txt

sbatch --wait --array=1-3 --cpus-per-task=1 jobs/array.sbatch "$DATA" runs options.txt --max-epochs 1 --n-hidden-encoder 16 --n-hidden-decoder 16 \
    >/dev/null || fail "the array ended with $?"
for i in 1 2 3; do
    [ -s runs/$i/model.h5 ] || fail "task $i has no model"
    grep -qx "seed: $i" runs/$i/config.yaml || fail "task $i has not the seed of its line"
done
grep -qx 'n_latent: 6' runs/2/config.yaml || fail "task 2 has not the latent size of its line"

# A task without a line trains nothing; carriage returns of a file from elsewhere are no part of an option.
printf -- '--seed 4\r\n\n' >short.txt
sbatch --wait --array=1-3 --cpus-per-task=1 jobs/array.sbatch "$DATA" few short.txt --max-epochs 1 --n-hidden-encoder 16 --n-hidden-decoder 16 \
    >/dev/null && fail "an array with tasks that have no line ended well"
grep -qx 'seed: 4' few/1/config.yaml || fail "task 1 has not the seed of its line"
[ ! -e few/2 ] && [ ! -e few/3 ] || fail "tasks without a line trained"
