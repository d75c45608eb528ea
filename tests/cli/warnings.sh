#!/bin/bash
# Owns: what is warned of and accepted: genes without counts, names that several cells or genes have, a covariate with faults; by every command that looks, in the same
# words from every storage, in both tiers and on any number of ranks.
# Must never refuse a file for it.
set -u
. "$CPA_TESTS/support/refuse.sh"
export OMP_NUM_THREADS=1
tiny=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --lanes 4 --batch-size 16
    --shuffle block --shuffle-block 8 --shuffle-window 320)
"$CPA_HPC" simulate sim.h5ad --cells 3000 --genes 100 --density 0.3 --perturbations 4 --combinations 2 --quiet 2>.refuse/err || failed "simulate"
/usr/bin/python3 - <<'PYTHON' || { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }
import shutil
import h5py
import numpy as np

silent = [3, 17, 40, 99]
with h5py.File("sim.h5ad") as f:
    x = np.zeros((3000, 100), "f4")
    x[np.repeat(np.arange(3000), np.diff(f["X/indptr"][:])), f["X/indices"][:]] = f["X/data"][:]
x[:, silent] = 0
assert (x.sum(0) > 0).sum() == 96


def make(name, kind, x, some_zeros=False, wide=False):
    shutil.copy("sim.h5ad", name)
    with h5py.File(name, "a") as f:
        attrs = dict(f["X"].attrs)
        del f["X"]
        if wide:
            x = x.copy()
            x[2999, 50] = 70000
        if kind == "dense":
            d = f.create_dataset("X", data=x, chunks=(64, 30), compression="gzip")
            d.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            return
        m = x if kind == "csr" else x.T
        stored = m > 0
        if some_zeros: # a stored zero is no count
            stored[5, silent] = True
        row, col = np.nonzero(stored)
        g = f.create_group("X")
        g.attrs.update(attrs)
        g.attrs["encoding-type"] = f"{kind}_matrix"
        g.create_dataset("data", data=m[row, col], chunks=(1000,), compression="gzip")
        g.create_dataset("indices", data=col.astype("i4"), chunks=(1000,), compression="gzip")
        g.create_dataset("indptr", data=np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(m)))]))


make("csr.h5ad", "csr", x)
make("zeros.h5ad", "csr", x, some_zeros=True)
make("wide.h5ad", "csr", x, some_zeros=True, wide=True)
make("csc.h5ad", "csc", x)
make("dense.h5ad", "dense", x)
make("one.h5ad", "csr", x[:, :])
with h5py.File("one.h5ad", "a") as f: # in the last cell that is read
    f["X/indices"][-1] = 99
with h5py.File("csr.h5ad") as f:
    names = f["var/_index"].asstr()[:]
with open("some.txt", "w") as f:
    f.write("\n".join(names[[0, 1, 2, 17, 18, 40]]) + "\n")
with h5py.File("twice.h5ad", "w") as f, h5py.File("sim.h5ad") as g:
    for k in g:
        g.copy(k, f)
    f.attrs.update(g.attrs)
    cells = f["obs/_index"]
    cells[1500] = cells[7]
    cells[2999] = cells[7]
    cells[1600] = cells[8]
shutil.copy("sim.h5ad", "genes.h5ad")
with h5py.File("genes.h5ad", "a") as f:
    genes = f["var/_index"]
    genes[[20, 30, 90]] = genes[50]
shutil.copy("sim.h5ad", "few.h5ad")
with h5py.File("few.h5ad", "a") as f:
    names = list(f["obs/split/categories"].asstr()[:])
    train = np.flatnonzero(f["obs/split/codes"][:] == names.index("train"))
    codes = f["obs/split/codes"][:]
    codes[train[2:]] = names.index("ood")
    f["obs/split/codes"][:] = codes
shutil.copy("sim.h5ad", "lacking.h5ad")
with h5py.File("lacking.h5ad", "a") as f:
    f["obs/cell_type/codes"][[5, 7, 2999]] = -1
    f.move("obs/cell_type", "obs/line")
    f["obs"].attrs["column-order"] = [c.replace("cell_type", "line") for c in f["obs"].attrs["column-order"]]
PYTHON

# warned COMMAND...: it warns of the genes once, in these words.
genes="warning: FILE: 4 of the 100 genes of X have no counts; they are kept: 'gene_004', 'gene_018', 'gene_041', ..."
warned() {
    local file=$1 words=$2
    shift 2
    "$@" >.refuse/out 2>.refuse/err </dev/null || failed "$*"
    [ "$(grep -c 'genes of X have no counts' .refuse/err)" -eq 1 ] && grep -qxF "${words//FILE/$file}" .refuse/err || failed "$*: the warning is another"
}
for file in csr zeros wide csc dense; do
    warned $file.h5ad "$genes" "$CPA_HPC" check $file.h5ad
    warned $file.h5ad "$genes" "$CPA_HPC" train $file.h5ad --out run.$file "${tiny[@]}"
    [ $file = csc ] || warned $file.h5ad "$genes" "$CPA_HPC" train $file.h5ad --out run.$file.s "${tiny[@]}" --memory 1MiB
done
# shellcheck disable=SC2086
for file in csr dense csc; do
    warned $file.h5ad "$genes" $CPA_MPIRUN -n 3 "$CPA_HPC" check $file.h5ad
done
three=${genes/4 of/3 of}
warned one.h5ad "${three%, ...}" "$CPA_HPC" check one.h5ad
chosen="warning: FILE: 2 of the 6 genes of X have no counts; they are kept: 'gene_018', 'gene_041'"
warned csr.h5ad "$chosen" "$CPA_HPC" check csr.h5ad --genes some.txt
warned csr.h5ad "$chosen" "$CPA_HPC" train csr.h5ad --out run.some "${tiny[@]}" --genes some.txt

# ---- Names
names="warning: FILE: observation names are not unique: 3 of the 3000 cells have the name of a cell before them; they are told apart by their place: "
for command in check inspect; do
    "$CPA_HPC" $command twice.h5ad >.refuse/out 2>.refuse/err || failed "$command"
    grep -qxF "${names//FILE/twice.h5ad}'cell_0007', 'cell_0008'" .refuse/err || failed "$command does not warn of names"
    "$CPA_HPC" $command sim.h5ad >.refuse/out 2>.refuse/err || failed "$command"
    ! grep -q 'not unique' .refuse/err || failed "$command warns of names"
done
printf '%s\n' sim.h5ad twice.h5ad >list.txt
"$CPA_HPC" check list.txt >.refuse/out 2>.refuse/err || failed "check"
grep -qF "list.txt: observation names are not unique: 3000 of the 6000 cells" .refuse/err || failed "names of a list"
shared="warning: genes.h5ad: gene names are not unique: 3 of the 100 genes have the name of another one; a model of them is for files with the same genes in the same order alone: 'gene_051'"
for command in "check genes.h5ad" "train genes.h5ad --out run.genes ${tiny[*]}"; do
    # shellcheck disable=SC2086
    "$CPA_HPC" $command >.refuse/out 2>.refuse/err || failed "$command"
    grep -qxF "$shared" .refuse/err || failed "$command does not warn of genes' names"
done
"$CPA_HPC" check sim.h5ad >.refuse/out 2>.refuse/err && ! grep -q 'not unique' .refuse/err || failed "check warns of genes' names"

# ---- Cells that train
"$CPA_HPC" check few.h5ad >.refuse/out 2>.refuse/err && grep -qxF "warning: few.h5ad: 2 cells train; training needs at least 3" .refuse/err ||
    failed "check does not warn of too few cells"
attempt 65 "2 training cells are too few|at least 3" "$CPA_HPC" train few.h5ad --out run.few

# ---- Covariates
lacking="warning: lacking.h5ad: obs/line is the covariate of obs/cov_cond in 2997 of 3000 cells, and has another value, or none, in the rest: it is not taken; mend it, or say what is meant by --categorical-covariate-keys"
"$CPA_HPC" check lacking.h5ad >.refuse/out 2>.refuse/err
grep -qxF "$lacking" .refuse/err || failed "check does not warn of a covariate with faults"
finish
