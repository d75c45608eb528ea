# Owns: a throw-away SLURM cluster for one test, and what tests of job scripts share. Exit code 77 (skipped) where there is none.
# Must never leave a daemon or a job behind.
set -u
sandbox=${CPA_SLURM_SANDBOX:-$(cd "$CPA_TESTS/.." && pwd)/../shared/tools/slurm-sandbox}
for tool in "$sandbox" slurmctld slurmd sbatch munged; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is not here; CPA_SLURM_SANDBOX names a script that starts a SLURM cluster, scripts/install brings SLURM"
        exit 77
    fi
done

export SLURM_SANDBOX_DIR=/tmp/cpa-slurm.$$
trap '"$sandbox" down >/dev/null 2>&1' EXIT
# SLURM takes a wait below 5 seconds for its default, two minutes.
if ! "$sandbox" up --nodes 2 --cpus-per-node 4 --requeue-wait 5 >up.log 2>&1; then
    cat up.log
    echo "the SLURM cluster did not start" >&2
    exit 1
fi
eval "$("$sandbox" env)"

# The job scripts are used as they are, from a folder like a user's.
ln -s "$CPA_TESTS/../jobs" jobs
export CPA_HPC OMP_NUM_THREADS=1
DATA=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad

fail() {
    echo "$*" >&2
    for log in *.log; do
        printf '== %s\n' "$log" >&2
        tail -25 "$log" >&2
    done
    exit 1
}

# job_state JOB: its state, as squeue or (when it has ended) scontrol tells.
job_state() {
    scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p' | head -1
}

# wait_until COMMAND...: polls until the command holds; how long a busy machine may take is not known, so the limit only ends
# what will never come.
wait_until() {
    local left=2000
    until "$@"; do
        ((left-- > 0)) || return 1
        sleep 0.2
    done
}

# ended JOB: whether no part of it waits or runs.
ended() {
    [ -z "$(squeue -h -j "$1" -o %T 2>/dev/null)" ]
}
