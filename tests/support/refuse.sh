# Owns: how the scripts in cli/ judge a command that must be refused: exit code, one message, its words, nothing left behind.
# Must never need the network or more than 60 seconds for one command; a command that takes longer hangs.
# Sourced in an empty folder; the files it keeps for itself are in ./.refuse.
failures=0
cases=0
mkdir -p .refuse

# failed TEXT: counts a failure and shows what the program said.
failed() {
    echo "FAILED: $1; it said:"
    cat .refuse/err
    failures=$((failures + 1))
}

# Everything in the folder, with sizes and, of files, times.
snapshot() {
    find . -path ./.refuse -prune -o -type f -printf '%p %s %T@\n' -o -printf '%p\n' | sort
}

# attempt CODE WORDS COMMAND...: the command ends with CODE, its message has all of WORDS (separated by '|') and comes
# once, and the folder is as before. The message stays in .refuse/message.
attempt() {
    local code=$1 words=$2 got word list
    shift 2
    cases=$((cases + 1))
    snapshot >.refuse/before
    timeout -k 5 60 "$@" >.refuse/out 2>.refuse/err </dev/null
    got=$?
    grep '^cpa-hpc: error: ' .refuse/err >.refuse/message
    if [ "$got" -ne "$code" ]; then
        failed "$*: expected exit code $code, got $got"
    elif [ ! -s .refuse/message ] || [ -n "$(sort .refuse/message | uniq -d)" ]; then
        failed "$*: not exactly one message"
    elif grep -qE 'HDF5-DIAG|Sanitizer|runtime error|MPI_ABORT|Segmentation' .refuse/err; then
        failed "$*: a library spoke, or worse"
    fi
    IFS='|' read -ra list <<<"$words"
    for word in "${list[@]}"; do
        grep -qF -e "$word" .refuse/message || failed "$*: the message does not have '$word'"
    done
    snapshot >.refuse/after
    cmp -s .refuse/before .refuse/after || { diff .refuse/before .refuse/after; failed "$*: it left files behind"; }
}

# refuse CODE WORDS ARGUMENTS...: cpa-hpc alone, then on 3 ranks, which must say the same. Under the sanitizers alone: that is
# where they look for leaks, and hundreds of launches under them would take longer than all else.
refuse() {
    local code=$1 words=$2
    shift 2
    attempt "$code" "$words" "$CPA_HPC" "$@"
    [ "$CPA_SANITIZED" = 0 ] || return 0
    mv .refuse/message .refuse/alone
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    attempt "$code" "" $CPA_MPIRUN -n 3 "$CPA_HPC" "$@"
    cmp -s .refuse/alone .refuse/message || failed "$*: alone it said: $(cat .refuse/alone); on 3 ranks"
}

# The files of data/make_bad_files.py, in the folder.
make_bad_files() {
    /usr/bin/python3 "$CPA_TESTS/data/make_bad_files.py" . ||
        { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }
}

# bad CODE WORDS FILE OPTIONS...: `check` and `train` refuse the file; of faulty data the message names the file.
bad() {
    local code=$1 words=$2 file=$3
    shift 3
    if [ "$code" -ne 78 ]; then
        words="$file|$words"
    fi
    attempt "$code" "$words" "$CPA_HPC" check "$file" "$@"
    refuse "$code" "$words" train "$file" --out run --max-epochs 1 --lanes 4 --n-latent 8 "$@"
}

# Ends the script.
finish() {
    echo "$cases refused commands, $failures failures"
    exit $((failures > 0))
}
