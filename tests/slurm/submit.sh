# Owns: jobs on one node and on two give the model of a laptop, with the scripts as they are.
# Must never be run without a cluster: the support file skips it then.
source "$CPA_TESTS/support/slurm.sh"
options=(--max-epochs 2 --n-hidden-encoder 32 --n-hidden-decoder 32 --n-latent 8)

"$CPA_HPC" train "$DATA" --out laptop --lanes 4 "${options[@]}" >laptop.log 2>&1 || fail "training without SLURM failed"

CPA_LANES=4 sbatch --wait --ntasks-per-node=2 jobs/one_node.sbatch "$DATA" one "${options[@]}" >/dev/null || fail "one node: exit code $?"
CPA_LANES=4 sbatch --wait --ntasks-per-node=2 jobs/several_nodes.sbatch "$DATA" two "${options[@]}" >/dev/null || fail "two nodes: exit code $?"
for run in one two; do
    h5diff laptop/model.h5 $run/model.h5 || fail "$run: another model than without SLURM"
    cmp laptop/history.csv $run/history.csv || fail "$run: another history than without SLURM"
done
grep -q '4 ranks' cpa-train-*.log || fail "two nodes of two tasks are not 4 ranks"

sbatch --wait --ntasks-per-node=2 jobs/predict.sbatch two "$DATA" pred.h5ad --split ood >/dev/null || fail "prediction: exit code $?"
[ -s pred.h5ad ] || fail "no predictions"

# A job whose run is refused ends with the program's code.
sbatch --wait jobs/one_node.sbatch missing.h5ad none >/dev/null
[ $? -eq 66 ] || fail "a missing file: not exit code 66"
[ ! -e none ] || fail "a refused job leaves a run folder"
