#!/bin/bash
# Owns: row T17: weights of classes. Upstream's (cells / cells of the class) - 1 counts held-out cells too; a class without cells divides by zero, a
# single one raises "`num_classes` to be an integer larger than 1" (cpa-tools 0.8.8). Here classes are those that occur, in all or in training cells.
. "$CPA_TESTS/support/rows.sh"
cells one.h5ad '40 ctrl'
cells a.h5ad '20 ctrl' '20 A'
cells ood.h5ad '20 ctrl' '20 A' '20 ctrl 1 T b1 ood'
"$python" - <<'P'
import h5py, shutil
shutil.copy("a.h5ad", "unused.h5ad")
with h5py.File("unused.h5ad", "r+") as f:  # the same cells, as a categorical with a value that no cell has
    values = [v.decode() for v in f["obs/condition"][:]]
    del f["obs/condition"]
    g = f.create_group("obs/condition")
    g.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
    for name, data in (("categories", ["A", "Z", "ctrl"]), ("codes", [["A", "Z", "ctrl"].index(v) for v in values])):
        g.create_dataset(name, data=data).attrs.update({"encoding-type": "string-array" if name == "categories" else "array", "encoding-version": "0.2.0"})
P
for file in one a unused ood; do
    train $file.h5ad $file
    train $file.h5ad $file.train --class-weights train
done
same_model a unused
same_model a a.train # the same shares
other_model ood ood.train
judge <<'P'
assert all(np.isfinite(tensor(run, "encoder.z.weight")).all() for run in ("one", "unused", "ood"))
P
finish
