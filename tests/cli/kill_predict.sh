#!/bin/bash
# Owns: predictions and latents whose command is killed at random moments: the same command on another number of ranks goes on, and
# ends in the same bytes; what is torn, damaged or of another command is never taken for good.
# CPA_KILLS says how often to kill (default 3), CPA_KILL_SEED which moments. Must never leave a process behind.
set -u
. "$CPA_TESTS/support/faults.sh"
. "$CPA_TESTS/support/ranks.sh"
export OMP_NUM_THREADS=1
RANDOM=${CPA_KILL_SEED:-1}
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
"$CPA_HPC" import "$CPA_TESTS/golden/trained/glioblastoma.h5" --out model --quiet || fail "the model to predict with"
for _ in {1..8}; do seq 0 4999; done >cells.txt
out=$PWD/x.h5ad
predict=(predict model --data "$data" --out "$out" --perturbation panobinostat --cells cells.txt)
latent=(latent model --data "$data" --out "$out" --cells cells.txt --which basal,after)

# on RANKS ARGUMENTS...: sets the array `line` to the program on so many ranks (0: alone).
on() {
    local ranks=$1
    shift
    line=("$CPA_HPC" "$@")
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2206
    [ "$ranks" -eq 0 ] || line=($CPA_MPIRUN -n "$ranks" "${line[@]}")
}

# again RANKS WHOLE ARGUMENTS...: the command ends well with the bytes of WHOLE, and nothing else is left. How many rows it found is in
# $found.
again() {
    local ranks=$1 whole=$2
    shift 2
    on "$ranks" "$@"
    timeout 120 "${line[@]}" >out 2>err </dev/null || fail "$what: once more on $ranks ranks: $(cat err)"
    found=$(sed -n 's/.* \([0-9]*\) of [0-9]* rows are there$/\1/p' err)
    h5diff "$whole" x.h5ad /X >difference && h5diff "$whole" x.h5ad /obs >>difference ||
        fail "$what: other numbers on $ranks ranks: $(head -3 difference)"
    cmp "$whole" x.h5ad || fail "$what: other bytes on $ranks ranks"
    [ "$(echo x.h5ad*)" = x.h5ad ] || fail "$what: there is $(echo x.h5ad*)"
    rm -f x.h5ad
}

now() {
    date +%s%3N
}

# begun: waits until the file is being filled, or the command has ended.
begun() {
    while [ ! -e x.h5ad.part.rows ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.005
    done
}

# ---- Killed at any moment, most often while rows are written.
span=()
for kind in predict latent; do
    declare -n arguments=$kind
    on 2 "${arguments[@]}"
    "${line[@]}" >out 2>err </dev/null &
    pid=$!
    begun
    start=$(now)
    wait $pid || fail "$kind: $(cat err)"
    span+=($(($(now) - start)))
    mv x.h5ad "$kind.h5ad"
done
hits=0 kills=${CPA_KILLS:-3}
for i in $(seq $((3 * kills))); do
    [ $hits -lt "$kills" ] || break
    kind=$((i % 2)) ranks=$((RANDOM % 5))
    delay=$((RANDOM * span[kind] / 32768)) victim=$RANDOM
    [ $kind -eq 0 ] && name=predict || name=latent
    declare -n arguments=$name
    on $ranks "${arguments[@]}"
    "${line[@]}" >out 2>err </dev/null &
    pid=$!
    [ $((RANDOM % 4)) -eq 0 ] || begun # else the delay counts from the start
    sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
    mapfile -t all < <(ranks "$pid")
    if [ $ranks -eq 0 ] || [ ${#all[@]} -eq 0 ] || [ $((victim % 3)) -eq 0 ]; then
        # shellcheck disable=SC2046
        kill -9 "$pid" $(processes "$pid") 2>/dev/null
    else
        kill -9 "${all[victim % ${#all[@]}]}" 2>/dev/null
    fi
    wait "$pid" 2>/dev/null
    if [ -e x.h5ad ]; then # too late
        rm -f x.h5ad x.h5ad.part*
        span[kind]=$((span[kind] * 2 / 3))
        continue
    fi
    hits=$((hits + 1))
    stood=$(echo x.h5ad.part*)
    what="kill $i of $name"
    again $(((ranks + 1 + RANDOM % 4) % 5)) $name.h5ad "${arguments[@]}"
    echo "$what: on $ranks ranks after $delay of ${span[kind]} ms, left $stood; ${found:-no} rows were there"
done
[ $hits -eq "$kills" ] || fail "only $hits of $((3 * kills)) kills came before the end"

# ---- Damage: what is harmed is made anew, all else is kept.
seq 0 4999 >cells.txt # 20 blocks
"$CPA_HPC" "${predict[@]}" --quiet && mv x.h5ad predict.h5ad || fail "all cells once"
faulty "write x.h5ad.part.rows 1 7 kill" 2 "${predict[@]}"
[ -e x.h5ad.part ] && [ -e x.h5ad.part.rows ] && [ ! -e x.h5ad ] || fail "$what: it left $(echo x.h5ad*)"
mkdir kept && mv x.h5ad.part* kept
# flip FILE AT: one bit of the byte at AT.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ 64)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
# harmed RANKS WORDS COMMAND...: goes on after the command has done its harm, and says the words.
harmed() {
    local ranks=$1 words=$2
    shift 2
    cp kept/* .
    "$@"
    what="after: $*"
    again "$ranks" predict.h5ad "${predict[@]}"
    says "$words"
}
part=x.h5ad.part record=x.h5ad.part.rows
harmed 3 "rows are there" true
whole=${found:-0}
[ "$whole" -ge $((6 * 256)) ] || fail "of 6 blocks and more it found $whole rows"
block=10 # the first one of rank 1
x=$(h5dump -p -H -d /X predict.h5ad | sed -n 's/.*OFFSET //p')
for harm in "$part $((x + block * 256 * 300 * 4 + 5))" "$record $((8 + 8 * block))"; do
    # shellcheck disable=SC2086
    harmed 1 "rows are there" flip $harm
    [ "$found" -eq $((whole - 256)) ] || fail "$what: of $whole rows it found $found"
done
harmed 4 "rows are there" truncate -s 64 $part.new # a skeleton in the making
for harm in "flip $part 100" "flip $part $((x - 50))" "truncate -s $((x + 100000)) $part" "truncate -s 0 $part" "flip $record 0" \
    "truncate -s -8 $record" "truncate -s 0 $record" "rm $record" "dd if=/dev/urandom of=$record bs=1000 count=1 conv=notrunc status=none"; do
    # shellcheck disable=SC2086
    harmed 0 "is begun anew" $harm
    [ -z "$found" ] || fail "$what: it found $found rows"
done
harmed 2 "" rm $part
[ -z "$found" ] || fail "$what: it found $found rows"

# ---- Of another command, other data or another model: begun anew.
"$CPA_HPC" train "$data" --out other --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --max-epochs 1 \
    --batch-size 512 --quiet || fail "another model"
/usr/bin/python3 - "$data" <<'PYTHON' || fail "other data (python3-h5py is needed)"
import shutil, sys, h5py
for name in "counts", "names", "cells":
    shutil.copy(sys.argv[1], name + ".h5ad")
    with h5py.File(name + ".h5ad", "r+") as f:
        if name == "counts":
            f["X/data"][7] += 1
            continue
        index = f["var" if name == "names" else "obs"]
        index = index[index.attrs["_index"]]
        index[0], index[1] = index[1], index[0]
PYTHON
head -n 4999 cells.txt >fewer.txt
{ echo 1 && tail -n +2 cells.txt; } >swapped.txt
for other in "--dose 2" "--latent basal" "--library 5000" "--add none" "--cells fewer.txt" "--cells swapped.txt" "--data counts.h5ad" \
    "--data names.h5ad" "--data cells.h5ad" other; do
    arguments=("${predict[@]}")
    # An option and its value.
    # shellcheck disable=SC2206
    [ "$other" = other ] && arguments[1]=other || arguments+=($other)
    rm -f x.h5ad*
    "$CPA_HPC" "${arguments[@]}" --quiet || fail "with $other"
    mv x.h5ad whole.h5ad
    cp kept/* .
    what="with $other"
    again 0 whole.h5ad "${arguments[@]}"
    says "is begun anew"
    [ -z "$found" ] || fail "$what: it found $found rows"
done

# ---- A command that fails leaves nothing, also of what it found, unless it never came so far as to go on with it.
cp kept/* .
faulty "write x.h5ad.part.rows 0 3 28+" 0 "${predict[@]}"
[ "$code" -eq 74 ] || fail "$what: expected 74, got $code: $(cat err)"
absent x.h5ad x.h5ad.part x.h5ad.part.rows x.h5ad.part.new
cp kept/* .
faulty "write x.h5ad.part.new 0 3 28+" 0 "${predict[@]}"
[ "$code" -eq 74 ] || fail "$what: expected 74, got $code: $(cat err)"
absent x.h5ad x.h5ad.part.new
for file in kept/*; do
    cmp "$file" "${file#kept/}" || fail "$what: it harmed what was there"
done
rm x.h5ad*

# ---- A mean per condition is as good as a row per cell.
{ echo perturbation,dose && for dose in 1 2 3 4 5 6; do echo "panobinostat,$dose"; done; } >grid.csv
mean=(predict model --data "$data" --out "$out" --grid grid.csv --output mean)
"$CPA_HPC" "${mean[@]}" --quiet && mv x.h5ad mean.h5ad || fail "a mean per condition"
faulty "write x.h5ad.part.rows 0 5 kill" 2 "${mean[@]}"
again 3 mean.h5ad "${mean[@]}"
[ "$found" = 3 ] || fail "of 3 conditions and one in the making it found ${found:-none}"
gone
finish
