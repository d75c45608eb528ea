#!/bin/bash
# Owns: row T3: where training writes. Upstream without a save_path drops model.pt, CPA_info.json and history.csv into the working folder, over
# what is there (cpa-tools 0.8.8). Here the place must be named, nothing is written elsewhere, and a run that is there is left alone.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
mkdir elsewhere
hpc 64 train a.h5ad "${tiny[@]}"
says "--out"
train a.h5ad elsewhere/run
[ "$(ls)" = "$(printf 'a.h5ad\nelsewhere\nsaid')" ] || fail "training leaves in the working folder: $(ls)"
cp -r elsewhere/run before
hpc 78 train a.h5ad --out elsewhere/run "${tiny[@]}" --seed 1
diff -r before elsewhere/run || fail "a run that was there has changed"
finish
