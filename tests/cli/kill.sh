#!/bin/bash
# Owns: training that is killed at random moments, also while it writes a checkpoint, and resumed on another number of ranks ends
# in the same bytes; a checkpoint that is torn is never taken for a good one; a full disk does not end training.
# CPA_KILLS says how often to kill (default 6), CPA_KILL_SEED which moments. Must never leave a process or a mounted folder behind.
set -u
. "$CPA_TESTS/support/resume.sh"
trap 'umount full 2>/dev/null' EXIT
data=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
options=(--n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --lanes 4 --batch-size 64 --max-epochs 8
    --check-val-every-n-epoch 3)
RANDOM=${CPA_KILL_SEED:-1}

# The whole run, and how long it takes.
start=$(date +%s%3N)
train 0 4 whole --checkpoint-every-steps 1
span=$(($(date +%s%3N) - start))

hits=0 in_writing=0 kills=${CPA_KILLS:-6}
for i in $(seq $((3 * kills))); do
    [ $hits -lt "$kills" ] || break
    ranks=$((RANDOM % 5)) delay=$((RANDOM * span / 32768)) victim=$RANDOM
    rm -rf run
    launch $ranks run --resume --checkpoint-every-steps $((1 + RANDOM % 3))
    sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
    [ $((i % 2)) -eq 1 ] || await run 1
    mapfile -t all < <(ranks "$pid")
    if [ $((i % 2)) -eq 0 ]; then # while a checkpoint is written, which takes milliseconds
        until compgen -G 'run/checkpoints/*.part' >part || ! kill -0 "$pid" 2>/dev/null; do :; done
        victim=0
    fi
    if [ $ranks -eq 0 ] || [ ${#all[@]} -eq 0 ] || [ $((victim % 3)) -eq 0 ]; then
        # shellcheck disable=SC2046
        kill -9 "$pid" $(processes "$pid") 2>/dev/null
    else
        kill -9 "${all[victim % ${#all[@]}]}" 2>/dev/null
    fi
    wait "$pid" 2>/dev/null
    if [ -e run/model.h5 ]; then # too late: the machine has become faster
        span=$((span * 2 / 3))
        continue
    fi
    hits=$((hits + 1))
    stood=$(find run/checkpoints -name 'epoch-*.h5' 2>/dev/null | sort | tail -1)
    torn=$(find run/checkpoints -name '*.part' 2>/dev/null | wc -l)
    train 0 $(((ranks + 1 + RANDOM % 4) % 5)) run --resume
    grep -q "cannot be used" err && fail "kill $i tore a checkpoint: $(cat err)"
    equal whole run
    echo "kill $i: on $ranks ranks after $delay of $span ms; stood at ${stood:-nothing}$([ "$torn" -eq 0 ] || echo ", writing the next one")"
    in_writing=$((in_writing + (torn > 0)))
done
echo "$in_writing of $hits kills came while a checkpoint was written"
[ $hits -eq "$kills" ] || fail "only $hits of $((3 * kills)) kills came before the end"

# ---- Torn files: the next older one is taken, and all end in the same model.
launch 0 torn --checkpoint-every-steps 3
await torn 3
kill -USR1 $pid
ended 75
mapfile -t files < <(find torn/checkpoints -name 'epoch-*.h5' | sort)
[ ${#files[@]} -ge 2 ] || fail "not two checkpoints: ${files[*]}"
size=$(stat -c %s "${files[-1]}")
for harm in "truncate -s $((size / 2))" "truncate -s $((size - 1))" "truncate -s 0" flip append; do
    rm -rf copy
    cp -r torn copy
    file=copy/checkpoints/$(basename "${files[-1]}")
    case $harm in
    flip) printf '\x55' | dd of="$file" bs=1 seek=$((size / 3)) conv=notrunc status=none ;;
    append) echo >>"$file" ;;
    *) $harm "$file" ;;
    esac
    train 0 2 copy --resume
    says "cannot be used"
    [ -e "$file.damaged" ] || fail "$harm: the damaged checkpoint was not put aside"
    equal whole copy
done
# All torn: from the beginning.
rm -rf copy
cp -r torn copy
truncate -s 100 copy/checkpoints/*.h5
train 0 0 copy --resume
says "there is no older one"
equal whole copy

# ---- A disk that is full when a checkpoint is written, in the middle of training or from the first: training goes on.
mkdir full
if mount -t tmpfs -o size=2500k none full 2>/dev/null; then
    train 0 2 full/run --checkpoint-every-steps 2 --keep 1
    equal whole full/run
    grep -q "No space left" err || fail "nothing said of the full disk: $(cat err)"
    [ -z "$(find full/run -name '*.part')" ] || fail "half-written files are left: $(find full/run)"
    umount full
else
    echo "SKIPPED: a full disk (this user may not mount one)"
fi
(
    ulimit -f 1000 # KiB: less than a checkpoint, more than all else
    train 0 0 limited --checkpoint-every-steps 2
    exit $failures
) || failures=$((failures + 1))
equal whole limited
grep -q "File too large" err || fail "nothing said of the file that may not grow: $(cat err)"
exit $((failures > 0))
