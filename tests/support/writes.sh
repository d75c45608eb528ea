# Owns: the harness of tests of a command that writes one file from the model in `run`: its exit code, its message, what it leaves.
# Sourced; needs data. Must never judge what the file holds.
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# writes COMMAND CODE ARGUMENTS...: the command with the sample into x.h5ad ends with CODE; a failure leaves nothing.
writes() {
    local command=$1 code=$2 got
    shift 2
    rm -f x.h5ad
    "$CPA_HPC" "$command" run --data "$data" --out x.h5ad --quiet "$@" >out 2>err </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "$command $*: expected $code, got $got: $(cat err)"
    if [ "$code" -ne 0 ] && { [ -e x.h5ad ] || [ -e x.h5ad.part ] || ! [ -s err ]; }; then
        fail "$command $*: leaves a file or says nothing"
    fi
}

# says TEXT: the last message holds it.
says() {
    grep -qF -e "$1" err || fail "the message lacks '$1': $(cat err)"
}
