#!/bin/bash
# Owns: a training run that is stopped by signals and resumed on other numbers of ranks ends in the same bytes; what --resume
# refuses, and what it leaves alone.
# Must never depend on the step at which a signal arrives.
set -u
. "$CPA_TESTS/support/resume.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
/usr/bin/python3 "$CPA_TESTS/data/make_rank_files.py" "$sample" . ||
    { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }
small=(--n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --lanes 4)

# stop SIGNAL RANKS RUN AFTER OPTIONS...: sends the signal after so many more epochs.
stop() {
    local signal=$1 ranks=$2 run=$3 after=$4
    shift 4
    after=$((after + $(epochs "$run")))
    launch "$ranks" "$run" "$@"
    await "$run" "$after"
    interrupt "$signal"
    ended 75
    says "--resume"
    unfinished "$run"
}

# ---- Stopped four times, on 1, 3, 2 and 4 ranks; validation and the best state in between.
data=$sample
options=("${small[@]}" --batch-size 64 --max-epochs 16 --check-val-every-n-epoch 3 --train-metrics-every 2)
train 0 0 whole
stop USR1 0 run 1 --checkpoint-every-steps 7 --keep 2
[ "$(find run/checkpoints -name 'epoch-*.h5' | wc -l)" -le 2 ] || fail "more than 2 checkpoints are kept: $(ls run/checkpoints)"
stop USR1 3 run 3 --resume
stop TERM 0 run 2 --resume --threads 2 --backend check
stop INT 0 run 2 --resume --checkpoint-every-seconds 0.05
"$CPA_HPC" predict run --data "$data" --split ood --output mean --out early.h5ad --quiet 2>err ||
    fail "no prediction while training is stopped: $(cat err)"
stop USR1 2 run 1 --resume
train 0 4 run --resume
equal whole run
grep -q '"event":"checkpoint"' run/log.jsonl || fail "the log has no checkpoint: $(cat run/log.jsonl)"

# A signal to one rank of four stops them all.
cp -r whole one && rm one/model.h5 one/history.csv one/log.jsonl
launch 4 one --resume
await one 2
kill -USR1 "$(ranks "$pid" | tail -1)"
ended 75
unfinished one
train 0 1 one --resume
equal whole one

# A signal to MPICH's mpirun stops them as well, whatever it ends with.
if [ "$CPA_MPI" = mpich ]; then
    launch 3 handed
    await handed 1
    kill -USR1 "$pid"
    wait "$pid"
    says "--resume"
    unfinished handed
    train 0 2 handed --resume
    equal whole handed
fi

# ---- What a finished run, or one with other options or data, does.
cp -r run before
train 0 0 run --resume
diff -r before run || fail "resuming a finished run changed it"
train 0 3 run --resume
diff -r before run || fail "resuming a finished run on 3 ranks changed it"
train 78 0 run
says "'run' exists"
train 78 0 run --resume --lr 1e-3
says "--lr"
cp -r one half && rm half/model.h5 half/history.csv
cp -r half before_half
train 78 0 half --resume --n-latent 9
says "'half' was begun with --n-latent '8', not '9'"
train 78 2 half --resume --batch-size 63
says "--batch-size '64', not '63'"
train 78 0 half --resume --max-epochs 1
says "--max-epochs"
data=csr.h5ad
train 65 2 half --resume
says "csr.h5ad: not the data"
# Counts that have changed places within their cells: as many, with the same totals.
/usr/bin/python3 - "$sample" <<'PYTHON' || fail "the file with counts in other places could not be made (python3-h5py is needed)"
import shutil, sys
import h5py
import numpy as np
shutil.copy(sys.argv[1], "moved.h5ad")
with h5py.File("moved.h5ad", "a") as f:
    begin, value = f["X/indptr"][:], f["X/data"][:]
    genes, moved = f["X/indices"][:], 0
    for i in range(len(begin) - 1): # one count goes a gene up, an equal one a gene down
        at = slice(begin[i], begin[i + 1])
        ones = begin[i] + np.flatnonzero(value[at] == 1)
        has = set(genes[at])
        up = [k for k in ones if genes[k] + 1 not in has and genes[k] < 299]
        down = [k for k in ones if genes[k] - 1 not in has and genes[k] > 0]
        if up and down and up[0] != down[-1]:
            genes[up[0]], genes[down[-1]] = genes[up[0]] + 1, genes[down[-1]] - 1
            moved += 1
    f["X/indices"][:] = genes
    assert moved > 1000
shutil.copy(sys.argv[1], "dense.h5ad")
with h5py.File("dense.h5ad", "a") as f:
    begin = f["X/indptr"][:]
    x = np.zeros((len(begin) - 1, len(f["var"][f["var"].attrs["_index"]])), "f4")
    x[np.repeat(np.arange(len(begin) - 1), np.diff(begin)), f["X/indices"][:]] = f["X/data"][:]
    del f["X"]
    f.create_dataset("X", data=x, chunks=(100, 50), compression="gzip").attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
PYTHON
data=moved.h5ad
train 65 2 half --resume
says "moved.h5ad: not the data"
# The same counts stored in another way are the same data.
data=dense.h5ad
cp -r half dense
train 0 2 dense --resume
equal one dense
data=$sample
for file in config.yaml checkpoints/last.h5; do
    cmp "half/$file" "before_half/$file" || fail "a refused resume changed half/$file"
done
mkdir other && touch other/notes
train 78 0 other --resume
says "'other' is there but is not a run folder"

# A run that is not finished may become longer.
train 0 2 half --resume --max-epochs 19
train 0 0 longer --max-epochs 19
equal longer half

# ---- Nothing to go on from.
train 0 2 fresh --resume
equal whole fresh
mkdir -p early/checkpoints && touch early/log.jsonl early/config.yaml.part
train 0 0 early --resume
equal whole early

# ---- Nothing to predict with: not finished, and not validated so far.
stop USR1 0 young 1 --check-val-every-n-epoch 16
for command in "predict young --data $data --out young.h5ad" "export young --out young.npz" "embeddings young --out young.h5ad"; do
    # Several words.
    # shellcheck disable=SC2086
    "$CPA_HPC" $command --quiet 2>err
    got=$?
    [ $got -eq 66 ] && [ ! -e young.h5ad ] || fail "$command: expected 66, got $got"
    says "'young' has no model yet"
    says "--out young --resume"
done

# ---- A second signal ends the program at once. It is stopped in between, so that the first is not acted on before.
launch 0 twice
await twice 1
kill -STOP "$pid"
kill -USR1 "$pid"
kill -TERM "$pid"
kill -CONT "$pid"
wait "$pid"
got=$?
[ "$got" -eq 143 ] || [ "$got" -eq 138 ] || fail "two signals: expected 143 or 138, got $got"

# ---- The end of the job is known, and may come before the first step.
cp -r before_half slurm
SLURM_JOB_END_TIME=$(($(date +%s) + 3)) train 75 0 slurm --resume --max-epochs 100000
says "the end of the job"
unfinished slurm

# ---- Mixup, a variational latent, a batch covariate, lanes that run out, blocks of cells; a training loss that is not finite.
data=wide.h5ad
options=("${small[@]}" --batch-size 32 --max-epochs 12 --check-val-every-n-epoch 5 --train-metrics-every 2 --batch-key donor
    --mixup-alpha 0.3 --variational=true --dropout-rate-encoder 0.1 --n-epochs-adv-warmup 5 --shuffle block)
train 0 2 whole2
stop USR1 4 run2 2
stop USR1 1 run2 2 --resume
stop USR1 0 run2 2 --resume
train 0 3 run2 --resume
equal whole2 run2

options=("${small[@]}" --max-epochs 4 --lr 1e30)
train 77 2 nan --checkpoint-every-steps 1
unfinished nan
exit $((failures > 0))
