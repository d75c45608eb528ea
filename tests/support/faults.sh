# Owns: running the program with a fault on request (fault_shim.c), on any number of ranks, and what it is judged by.
# Sourced in an empty folder. Must never wait without a limit.
failures=0
cases=0
export CPA_FAULT_LOG=$PWD/struck

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# faulty FAULT RANKS ARGUMENTS...: the program with the fault, under mpirun when there are ranks (0: alone). Its words are in
# `out` and `err`, its exit code in `code`; 124 when it had to be ended.
faulty() {
    local fault=$1 ranks=$2 launch=()
    shift 2
    rm -f struck
    cases=$((cases + 1))
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2206
    [ "$ranks" -eq 0 ] || launch=($CPA_MPIRUN -n "$ranks")
    timeout -k 5 120 "${launch[@]}" env "CPA_FAULT=$fault" "LD_PRELOAD=$CPA_FAULT_SHIM" \
        "ASAN_OPTIONS=${ASAN_OPTIONS-}:verify_asan_link_order=0:detect_leaks=0" "$CPA_HPC" "$@" >out 2>err </dev/null
    code=$?
    what="$fault on $ranks ranks of $1"
    [ -s struck ] || fail "$what: it never came to that"
}

# says TEXT: the last run said it.
says() {
    grep -qF -e "$1" err || fail "$what: it does not say '$1': $(cat err)"
}

# absent PATH...: none of them is there.
absent() {
    local path
    for path in "$@"; do
        [ ! -e "$path" ] || fail "$what: $path is left behind"
    done
}

# gone: no process of this folder is left; the launcher may still be at ending them.
gone() {
    local i
    for i in {1..100}; do
        pgrep -f "$PWD/" >left || return 0
        sleep 0.1
    done
    fail "$what: processes are left after $i looks: $(cat left)"
}

# Ends the script.
finish() {
    echo "$cases faults, $failures failures"
    exit $((failures > 0))
}
