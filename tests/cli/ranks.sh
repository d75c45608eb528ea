#!/bin/bash
# Owns: that a trained model depends on data, options and seed, and not on the number of ranks, nor on how the matrix is stored.
# Never looks at how good a model is.
set -u
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
failures=0
/usr/bin/python3 "$CPA_TESTS/data/make_rank_files.py" "$sample" . ||
    { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# train RANKS RUN DATA OPTIONS...
train() {
    local ranks=$1 run=$2 data=$3
    shift 3
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n "$ranks" "$CPA_HPC" train "$data" --out "$run" --max-epochs 2 --train-metrics-every 2 --quiet "$@" \
        >out 2>err </dev/null || fail "training $run: $(cat err)"
}

# equal RUN OTHER: no difference for h5diff, and the same bytes.
equal() {
    h5diff "$1/model.h5" "$2/model.h5" >difference || fail "$1 and $2 are different models: $(head -3 difference)"
    cmp "$1/model.h5" "$2/model.h5" || fail "the files of the models of $1 and $2 differ"
    cmp "$1/history.csv" "$2/history.csv" || fail "the histories of $1 and $2 differ"
}

# different RUN OTHER
different() {
    h5diff "$1/model.h5" "$2/model.h5" >difference
    [ $? -eq 1 ] || fail "$1 and $2 should be different models"
    ! cmp -s "$1/history.csv" "$2/history.csv" || fail "$1 and $2 should have different histories"
}

# The sample: a split, one covariate, lists of genes.
for n in 1 2 3 4; do
    train $n sample$n "$sample" --lanes 4
    equal sample1 sample$n
done
"$CPA_HPC" train "$sample" --out alone --max-epochs 2 --train-metrics-every 2 --lanes 4 --quiet || fail "training without mpirun"
equal sample1 alone
[ "$(wc -l <sample1/history.csv)" -eq 4 ] || fail "not two epochs and a validation in $(cat sample1/history.csv)"

# Added over ranks in MPI's own order: one rank has nothing to add, several come close. A run keeps to its way.
for n in 1 2 3; do
    train $n mpi$n "$sample" --lanes 4 --reduce mpi
    grep -q '^reduce: mpi$' mpi$n/config.yaml || fail "the way of the sum is not in mpi$n/config.yaml"
    paste -d, sample1/history.csv mpi$n/history.csv |
        awk -F, 'NR > 1 { d = $3 - $(NF / 2 + 3); if (d < 0) d = -d; if (!($3 > 0) || d > 1e-4 * $3) bad = 1 } END { exit bad }' ||
        fail "the losses of mpi$n are far from those of the tree: $(cat mpi$n/history.csv)"
done
equal sample1 mpi1
"$CPA_HPC" train "$sample" --out mpi1 --max-epochs 2 --train-metrics-every 2 --lanes 4 --reduce tree --resume --quiet 2>err
[ $? -eq 78 ] && grep -q "was begun with --reduce 'mpi', not 'tree'" err || fail "another way of the sum: $(cat err)"

# The same counts in every layout, without a split.
small=(--lanes 4 --train-size 0.9 --n-latent 16 --n-hidden-encoder 32 --n-hidden-decoder 32)
for n in 1 2 3 4; do
    train $n unsorted$n unsorted.h5ad "${small[@]}"
    equal unsorted1 unsorted$n
done
train 1 csr1 csr.h5ad "${small[@]}"
equal csr1 unsorted1
for layout in csc dense; do
    for n in 1 3; do
        train $n $layout$n $layout.h5ad "${small[@]}"
        equal csr1 $layout$n
    done
done

# Wide and sparse; lanes whose share is no multiple of the batch, uneven shares of the ranks, a batch covariate.
wide=(--batch-key donor --n-latent 16 --n-hidden-encoder 32 --n-hidden-decoder 32)
for n in 1 2 3 4; do
    train $n wide$n wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}"
    equal wide1 wide$n
done
for n in 1 5; do
    train $n lanes$n wide.h5ad --lanes 8 --batch-size 16 "${wide[@]}"
done
equal lanes1 lanes5
for n in 1 3; do
    train $n block$n csr.h5ad "${small[@]}" --batch-size 100 --shuffle block
done
equal block1 block3
train 1 one1 wide.h5ad --batch-size 32 "${wide[@]}"

# Batch norms over all lanes, which meet several times a step; one lane runs out of cells before the others, and a rank with it.
uneven=(--lanes 4 --batch-size 40 --shuffle block --shuffle-block 16 "${wide[@]}")
for n in 1 2 3 4; do
    train $n sync$n wide.h5ad "${uneven[@]}" --batch-norm sync
    equal sync1 sync$n
done
train 1 local wide.h5ad "${uneven[@]}"
different local sync1
for n in 1 5; do
    train $n mixed$n wide.h5ad --lanes 8 --batch-size 16 "${wide[@]}" --batch-norm sync --mixup-alpha 0.3 --variational --adv-steps 0
    equal mixed1 mixed$n
done
# One lane is the whole batch; without batch norms there is nothing to meet for.
train 1 syncone wide.h5ad --batch-size 32 "${wide[@]}" --batch-norm sync
equal one1 syncone
none=(--use-batch-norm-encoder=false --use-batch-norm-decoder=false --use-batch-norm-adv=false)
train 1 none wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}" "${none[@]}"
train 2 syncnone wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}" "${none[@]}" --batch-norm sync
equal none syncnone
"$CPA_HPC" train wide.h5ad --out told --max-epochs 1 --lanes 4 "${wide[@]}" "${none[@]}" --batch-norm sync 2>told.err
grep -q 'batch-norm sync changes nothing: no part of this model has a batch norm' told.err || fail "--batch-norm sync without one: $(cat told.err)"
"$CPA_HPC" train wide.h5ad --out refused --batch-norm both 2>refused.err
[ $? -eq 64 ] || fail "--batch-norm both is taken: $(cat refused.err)"

# What must make a difference does; once more gives the same again.
train 1 again wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}"
equal wide1 again
for run in threads again2; do
    train 1 $run wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}" --threads 2
done
equal threads again2
train 1 seed wide.h5ad --lanes 4 --batch-size 32 "${wide[@]}" --seed 1
different wide1 seed
different wide1 one1
different wide1 lanes1
different csr1 block1
exit $((failures > 0))
