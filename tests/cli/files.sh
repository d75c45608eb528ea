#!/bin/bash
# Owns: several files as one data set: the same model as from one file with their cells, whatever each file's layout, encoding, order of
# genes and lists; what a list may not be.
# Must never compare with anything but one file of the same cells.
set -u
. "$CPA_TESTS/support/refuse.sh"
export OMP_NUM_THREADS=1
tiny=(--max-epochs 2 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --lanes 4 --batch-size 16
    --shuffle block --shuffle-block 8 --shuffle-window 320 --train-metrics-every 2)
mkdir -p in/deeper
"$CPA_HPC" simulate in/sim.h5ad --cells 3000 --genes 100 --density 0.3 --perturbations 4 --combinations 2 --quiet || failed "simulate"
/usr/bin/python3 "$CPA_TESTS/data/make_pieces.py" in/sim.h5ad in ||
    { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }
mv in/c.h5ad in/deeper
printf '%s\n' $'\xEF\xBB\xBFa.h5ad' b.h5ad '' deeper/c.h5ad " $PWD/in/d.h5ad " >in/all.txt
printf '%s\n' a.h5ad m.h5ad deeper/c.h5ad d.h5ad >in/order.txt
printf '%s\n' a.h5ad b.h5ad k.h5ad d.h5ad >in/csc.txt
printf '%s\n' a.h5ad b.h5ad f.h5ad d.h5ad >in/some.txt
printf '%s\n' b.h5ad a.h5ad deeper/c.h5ad d.h5ad >in/turned.txt
printf '%s\n' in/whole.h5ad >one.txt

# model WORD RANKS RUN DATA OPTIONS...: trains, with cells that are resident or streamed.
model() {
    local word=$1 ranks=$2 run=$3 data=$4 launcher=()
    shift 4
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2206
    [ "$ranks" -eq 0 ] || launcher=($CPA_MPIRUN -n "$ranks")
    "${launcher[@]}" "$CPA_HPC" train "$data" --out "$run" "${tiny[@]}" "$@" >.refuse/out 2>.refuse/err </dev/null ||
        failed "training $run"
    grep -q "^cells are $word: " .refuse/err || failed "$run: the cells are not $word"
}

# same RUN OTHER: the same model and the same history.
same() {
    h5diff "$1/model.h5" "$2/model.h5" || failed "$1 and $2 are different models"
    cmp "$1/history.csv" "$2/history.csv" || failed "the histories of $1 and $2 differ"
}

# ---- The same model as from one file
model resident 0 whole in/whole.h5ad
for data in one.txt in/order.txt in/csc.txt; do
    run=$(basename $data .txt)
    model resident 0 "$run" $data
    same whole "$run"
done
grep -q '^in/csc.txt: 4 files with 3000 cells and the same 100 genes' .refuse/err || failed "what a list holds is not said"
model resident 3 all3 in/all.txt
model streamed 0 streamed in/all.txt --memory 300KiB
model streamed 3 turned3 in/order.txt --memory 300KiB
for run in all3 streamed turned3; do
    same whole $run
done

# ---- The genes that all files have, and some of them
model resident 0 few in/few.h5ad
model resident 0 some in/some.txt
grep -q 'in/some.txt: 4 files with 3000 cells; of their genes (87 to 100) 80 are used' .refuse/err || failed "the genes left out are not said"
model streamed 3 some3 in/some.txt --memory 300KiB
same few some
same few some3
model resident 0 first in/whole.h5ad --genes first
model resident 3 first3 in/order.txt --genes first
model streamed 0 first0 in/order.txt --genes first --memory 300KiB
same first first3
same first first0

# ---- More files than may be open
ls in/many/*.h5ad | sed 's|^in/||' >in/many.txt
(
    ulimit -n 150
    model resident 0 many in/many.txt
    model streamed 0 many0 in/many.txt --memory 300KiB
    exit $failures
) || failures=$((failures + 1))
same whole many
same whole many0

# ---- The other commands
quietly() {
    "$CPA_HPC" "$@" >.refuse/out 2>.refuse/err </dev/null || failed "$*"
}
for data in whole.h5ad order.txt; do
    quietly check in/$data
    mv .refuse/out check_$data
    quietly predict whole --data in/$data --split ood --out pred_$data.h5ad
    quietly latent whole --data in/$data --out latent_$data.h5ad
    quietly evaluate whole --data in/$data --out $data.csv
done
cmp check_whole.h5ad check_order.txt || failed "check tells otherwise of a list"
cmp whole.h5ad.csv order.txt.csv || failed "the scores of a list are others"
for path in /X /obs/_index /var; do
    h5diff pred_whole.h5ad.h5ad pred_order.txt.h5ad $path && h5diff latent_whole.h5ad.h5ad latent_order.txt.h5ad $path ||
        failed "$path is predicted otherwise from a list"
done
quietly compare whole order --data in/order.txt
quietly bench loader in/order.txt --shuffle-block 8 --shuffle-window 320 --batch-size 16
quietly inspect in/order.txt
grep -q '^files: in/a.h5ad, in/m.h5ad, in/deeper/c.h5ad, in/d.h5ad$' .refuse/out && grep -q '^cells: 3000$' .refuse/out &&
    grep -q 'layout: mixed' .refuse/out || { cat .refuse/out; failed "inspect tells otherwise"; }

# ---- One file of all
for list in all order csc some; do
    quietly convert in/$list.txt joined_$list.h5ad
done
same_as() {
    model resident 0 "$1" "$1.h5ad"
    same "$2" "$1"
}
same_as joined_all whole
same_as joined_csc whole
same_as joined_some few
quietly convert in/all.txt threads.h5ad --threads 3
cmp joined_all.h5ad threads.h5ad || failed "threads change the joined file"
/usr/bin/python3 - <<'PYTHON' || failed "the joined files"
import h5py
import numpy as np


def column(f, path):
    e = f[path]
    if isinstance(e, h5py.Dataset):
        return e.asstr()[:] if h5py.check_string_dtype(e.dtype) else e[:]
    return e["categories"].asstr()[:][e["codes"][:]]


for name, whole in [("all", "whole"), ("order", "whole"), ("csc", "whole"), ("some", "few")]:
    with h5py.File(f"joined_{name}.h5ad") as f, h5py.File(f"in/{whole}.h5ad") as g:
        for part in ("data", "indices", "indptr"):
            assert (f["X"][part][:] == g["X"][part][:]).all() and len(f["X"][part]) == len(g["X"][part]), (name, part)
        assert list(f["X"].attrs["shape"]) == list(g["X"].attrs["shape"])
        for frame in ("obs", "var"):
            assert list(f[frame].attrs["column-order"]) == list(g[frame].attrs["column-order"])
            for c in ["_index", *(g[frame].attrs["column-order"] if (name, frame) != ("some", "var") else [])]:
                assert (column(f, f"{frame}/{c}") == column(g, f"{frame}/{c}")).all(), (name, frame, c)
        key = "uns/rank_genes_groups_cov"
        assert set(f[key]) == set(g[key])
        for k in g[key]:
            assert (f[key][k].asstr()[:] == g[key][k].asstr()[:]).all()
with h5py.File("joined_some.h5ad") as f, h5py.File("in/a.h5ad") as g: # columns of genes are the first file's
    first = dict(zip(g["var/_index"].asstr()[:], g["var/first"][:]))
    assert (f["var/first"][:] == [first[k] for k in f["var/_index"].asstr()[:]]).all() and f["var/first"].dtype == bool
PYTHON

# ---- The data of a run are the cells in their order, whatever the files are called
quietly train in/whole.h5ad --out run "${tiny[@]}" --checkpoint-every-steps 40
rm run/model.h5
cp -pr run long
attempt 65 "in/turned.txt|not the data that 'run' was begun with" \
    sh -c '"$@"; code=$?; cp -p long/log.jsonl run; exit $code' - \
    "$CPA_HPC" train in/turned.txt --out run "${tiny[@]}" --resume --max-epochs 3
quietly train in/order.txt --out run "${tiny[@]}" --resume --max-epochs 3
quietly train in/whole.h5ad --out long "${tiny[@]}" --resume --max-epochs 3
same long run

# ---- Refusals
refuse 78 "in/csc.txt|in/k.h5ad: it is stored gene by gene|convert in/k.h5ad" train in/csc.txt --out x "${tiny[@]}" --memory 300KiB
# listed CODE WORDS LINES...: a list of these lines is refused.
listed() {
    local code=$1 words=$2
    shift 2
    printf '%s\n' "$@" >in/list.txt
    attempt "$code" "in/list.txt|$words" "$CPA_HPC" check in/list.txt
}
attempt 66 "nowhere.txt" "$CPA_HPC" check nowhere.txt
attempt 66 "nowhere.txt" "$CPA_HPC" inspect nowhere.txt
listed 66 "in/nowhere.h5ad" a.h5ad nowhere.h5ad
listed 65 "names no file" '' '  '
listed 65 "in/a.h5ad|in/deeper/../a.h5ad|same file" a.h5ad deeper/../a.h5ad
listed 65 "all.txt" a.h5ad all.txt
listed 65 "33 genes in common|half" a.h5ad half.h5ad
refuse 65 "in/list.txt|33 genes in common" train in/list.txt --out x "${tiny[@]}"

# faulty WORDS PYTHON: a copy of b with this done to it, as the second of three files, is refused.
faulty() {
    cp in/b.h5ad in/bad.h5ad
    /usr/bin/python3 -c "import h5py, numpy as np
with h5py.File('in/bad.h5ad', 'a') as f:
    $2" || failed "making a faulty file"
    printf '%s\n' a.h5ad bad.h5ad d.h5ad >in/list.txt
    attempt 65 "in/bad.h5ad|$1" "$CPA_HPC" check in/list.txt
}
faulty "X: cell row 2, gene 'gene_|-3 is negative" 'd = f["X/data"]; d[f["X/indptr"][2]] = -3'
faulty "X/indices: cell row 1 has the gene index 100" 'd = f["X/indices"]; d[f["X/indptr"][1]] = 100'
faulty "obs has no column 'split'" \
    'f["obs"].attrs["column-order"] = np.array([c for c in f["obs"].attrs["column-order"] if c != "split"], dtype=object)'
faulty "'much'|the first in row 1" 'd = f["obs/dose"]; d[1] = "much"'
finish
