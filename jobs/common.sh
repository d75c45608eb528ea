# Owns: what every job script does alike: where the program is, how it is launched, what happens after exit code 75.
# Must never hold a site's names or a run's options: those stand in the scripts and on sbatch's command line.

# The program, from the folder that sbatch was called in, unless CPA_HPC names another.
cpa_hpc=${CPA_HPC:-build/release/cpa-hpc}

# One thread per core that a rank was given. Settings that the site made stay.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun of 22.05 and later does not take it from sbatch

# Until there is a program to pass it on to, a signal that asks for a stop is only noted.
cpa_wish=
trap 'cpa_wish=USR1' USR1

# cpa_launch ARGUMENT...: runs cpa-hpc on every rank of the job and returns its exit code. SIGUSR1, which SLURM sends before
# the time limit (#SBATCH --signal=B:USR1@...), is passed on: the program then saves a checkpoint and ends with 75.
cpa_launch() {
    local launcher rc child mpi=${SLURM_MPI_TYPE:-pmix}
    trap 'cpa_wish=USR1; kill -USR1 "${child:-}" 2>/dev/null' USR1
    if srun --mpi=list 2>&1 | grep -qw "$mpi"; then
        # A rank that dies must end the others: srun does not do that by itself.
        launcher=(srun "--mpi=$mpi" --kill-on-bad-exit=1 --cpu-bind=cores)
    else
        launcher=(mpirun --map-by "slot:PE=$OMP_NUM_THREADS" --bind-to core)
    fi
    [ -z "$cpa_wish" ] || return 75 # nothing has begun
    echo "${launcher[*]} $cpa_hpc $*"
    "${launcher[@]}" "$cpa_hpc" "$@" &
    child=$!
    while :; do
        wait "$child"
        rc=$?
        kill -0 "$child" 2>/dev/null || break # a signal ended the wait, not the program
    done
    trap - USR1
    # A launcher that is still starting ends by the signal itself.
    [ -z "$cpa_wish" ] || [ "$rc" -ne 138 ] || rc=75
    return "$rc"
}

# cpa_finish CODE: ends the job with the program's exit code; after 75 (checkpointed, run me again) it goes back into the queue
# first, at most CPA_REQUEUES times.
cpa_finish() {
    local id=${SLURM_JOB_ID:-}
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    fi
    if [ "$1" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${CPA_REQUEUES:-100}" ]; then
        echo "checkpointed; job $id goes back into the queue (restart $((${SLURM_RESTART_COUNT:-0} + 1)))"
        scontrol requeue "$id"
    fi
    exit "$1"
}
