# Owns: a signalled job saves a checkpoint, goes back into the queue by itself, goes on on other nodes and ends with the model of
# an uninterrupted run.
# Must never pass when the job was not interrupted.
source "$CPA_TESTS/support/slurm.sh"
options=(--max-epochs 60 --check-val-every-n-epoch 20)

"$CPA_HPC" train "$DATA" --out whole --lanes 4 "${options[@]}" >whole.log 2>&1 || fail "the uninterrupted run failed"

job=$(CPA_LANES=4 sbatch --parsable --ntasks-per-node=2 jobs/several_nodes.sbatch "$DATA" run "${options[@]}")
started() { grep -q '"epoch"' run/log.jsonl 2>/dev/null; }
wait_until started || fail "the job does not train"
scancel --batch --signal=USR1 "$job"
requeued() { grep -q 'goes back into the queue' "cpa-train-$job.log"; }
wait_until requeued || fail "no requeue after SIGUSR1"
[ ! -e run/model.h5 ] || fail "the run was over before the signal"
wait_until ended "$job" || fail "the requeued job does not end"
[ "$(job_state "$job")" = COMPLETED ] || fail "the requeued job ended as $(job_state "$job")"
grep -qi 'resum' "cpa-train-$job.log" || fail "the requeued job did not resume"
h5diff whole/model.h5 run/model.h5 || fail "another model than the uninterrupted run's"
cmp whole/history.csv run/history.csv || fail "another history than the uninterrupted run's"

# Fewer nodes and ranks take over: stopped on two nodes, finished on one.
job=$(CPA_REQUEUES=0 CPA_LANES=4 sbatch --parsable --ntasks-per-node=2 jobs/several_nodes.sbatch "$DATA" other "${options[@]}")
started() { grep -q '"epoch"' other/log.jsonl 2>/dev/null; }
wait_until started || fail "the second job does not train"
scancel --batch --signal=USR1 "$job"
wait_until ended "$job" || fail "the second job does not stop"
scontrol show job "$job" | grep -q 'ExitCode=75:0' || fail "the stopped job's exit code is not 75"
CPA_LANES=4 sbatch --wait --ntasks-per-node=1 jobs/one_node.sbatch "$DATA" other "${options[@]}" >/dev/null || fail "one node does not take over: $?"
h5diff whole/model.h5 other/model.h5 || fail "one node took over: another model"
