# Owns: how the scripts in cli/ stop, kill and resume a training run, and what "the same result" means.
# Sourced in an empty folder; needs data. Must never judge a run by anything but its files and its exit code.
. "$CPA_TESTS/support/ranks.sh"
export OMP_NUM_THREADS=1
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# command RANKS RUN OPTIONS...: sets the array `line` to the command that trains RUN on so many ranks.
command_line() {
    local ranks=$1 run=$2
    shift 2
    line=("$CPA_HPC" train "$data" --out "$run" --quiet "${options[@]}" "$@")
    if [ "$ranks" -gt 0 ]; then
        # CPA_MPIRUN is a command line of several words.
        # shellcheck disable=SC2206
        line=($CPA_MPIRUN -n "$ranks" "${line[@]}")
    fi
}

# train CODE RANKS RUN OPTIONS...: trains to the end (RANKS 0: without mpirun) and expects the exit code.
train() {
    local code=$1 got
    shift
    command_line "$@"
    timeout 120 "${line[@]}" >out 2>err </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "train $*: expected $code, got $got: $(cat err)"
}

# says TEXT: the last message holds it.
says() {
    grep -qF -e "$1" err || fail "the message lacks '$1': $(cat err)"
}

# launch RANKS RUN OPTIONS...: starts it in the background; $pid is the launcher, or the program without mpirun.
launch() {
    command_line "$@"
    "${line[@]}" >out 2>err </dev/null &
    pid=$!
}

# interrupt SIGNAL: to the program, or to mpirun, which hands it on. MPICH's does so too, but that of 4.0 may then end with 0
# whatever the ranks ended with (it forgets the codes of those it has not yet waited for); so there it goes to the ranks.
interrupt() {
    if [ "$CPA_MPI" = mpich ]; then
        # shellcheck disable=SC2046
        kill -"$1" $(ranks "$pid") 2>/dev/null # the first one's word may have ended the others
    else
        kill -"$1" "$pid"
    fi
}

# ended CODE: what was launched ends with this code.
ended() {
    wait "$pid"
    local got=$?
    [ "$got" -eq "$1" ] || fail "expected $1, got $got: $(cat err)"
}

# epochs RUN: how many epochs the log has, over all sittings.
epochs() {
    local n
    n=$(grep -c '"event":"epoch"' "$1/log.jsonl" 2>/dev/null)
    echo "${n:-0}"
}

# await RUN N: waits until the log has N epochs, or the command has ended.
await() {
    while [ "$(epochs "$1")" -lt "$2" ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.01
    done
}

# equal RUN OTHER: the same model and the same history.
equal() {
    h5diff "$1/model.h5" "$2/model.h5" >difference || fail "$1 and $2 are different models: $(head -3 difference)"
    cmp "$1/model.h5" "$2/model.h5" || fail "the files of the models of $1 and $2 differ"
    cmp "$1/history.csv" "$2/history.csv" || fail "the histories of $1 and $2 differ"
}

# unfinished RUN: holds checkpoints but no result, and nothing half-written.
unfinished() {
    [ -e "$1/checkpoints/last.h5" ] || fail "$1 has no checkpoint"
    ! [ -e "$1/model.h5" ] || fail "$1 has a model"
    ! [ -e "$1/history.csv" ] || fail "$1 has a history"
    [ -z "$(find "$1" -name '*.part')" ] || fail "$1 has half-written files: $(find "$1" -name '*.part')"
}
