# Owns: the harness of the tests in rows/, one for each row of docs/semantics.md where upstream and cpa-hpc may differ: tiny files,
# tiny models, and what they hold. Sourced in an empty folder. A script without a python3 that has h5py is skipped.
set -u
export OMP_NUM_THREADS=1
failures=0
python=
for p in /usr/bin/python3 python3; do
    "$p" -c 'import h5py' 2>/dev/null && python=$p && break
done
[ -n "$python" ] || { echo "no python3 has h5py: skipped"; exit 77; }
tiny=(--max-epochs 1 --batch-size 16 --n-latent 4 --n-hidden-encoder 6 --n-layers-encoder 1 --n-hidden-decoder 6 --n-layers-decoder 1
    --n-hidden-adv 5 --n-layers-adv 1 --quiet)

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# cells FILE [genes=..] [seed=..] [kinds=..] SPEC...: a file of data/make_row_file.py.
cells() {
    "$python" "$CPA_TESTS/data/make_row_file.py" "$@" || fail "no file $1"
}

# hpc CODE ARGUMENTS...: the program ends with CODE; what it said is in ./said.
hpc() {
    local code=$1 got
    shift
    "$CPA_HPC" "$@" >said 2>&1 </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "$*: expected exit code $code, got $got: $(cat said)"
}

# train FILE RUN OPTIONS...: a tiny model.
train() {
    local file=$1 run=$2
    shift 2
    hpc 0 train "$file" --out "$run" "${tiny[@]}" "$@"
}

# says TEXT: the last command said so.
says() {
    grep -qF -e "$1" said || fail "'$1' is not said: $(cat said)"
}

# same_model RUN RUN, other_model RUN RUN: whether two runs have learned the same, to the bit.
same_model() {
    h5diff -q "$1/model.h5" "$2/model.h5" /module >/dev/null || fail "the models of $1 and $2 differ"
}
other_model() {
    ! h5diff -q "$1/model.h5" "$2/model.h5" /module >/dev/null || fail "$1 and $2 have the same model"
}

# judge < PYTHON: assertions on what files hold.
judge() {
    { cat "$CPA_TESTS/support/rows.py"; cat; } >judge.py
    "$python" judge.py || fail "what the files hold"
}

# Ends the script.
finish() {
    exit $((failures > 0))
}
