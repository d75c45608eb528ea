#!/bin/bash
# Owns: that every command that writes says so when the disk is full, be it at once or half-way, and leaves nothing there.
# Must never leave a mounted folder behind.
set -u
. "$CPA_TESTS/support/refuse.sh"
trap 'umount full 2>/dev/null' EXIT
mkdir full
mount -t tmpfs -o size=4m none full 2>/dev/null || { echo "SKIPPED: a full disk (this user may not mount one)"; exit 77; }
make_bad_files
small=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16)
"$CPA_HPC" train good.h5ad --out run --quiet "${small[@]}" || { echo "FAILED: the model to test with could not be trained"; exit 1; }
cp -r run other

# fill ROOM: leaves that many bytes (whole pages) on the disk.
fill() {
    rm -rf full/*
    local free
    free=$(($(stat -f -c '%a * %S' full)))
    head -c $((free - $1)) /dev/zero >full/ballast
}

# full NAME COMMAND...: the command, which writes the file or folder full/NAME, on a disk that is full from the start; and, alone and on
# 3 ranks, on one that has half of the room it takes.
full() {
    local name=$1 size
    shift
    rm -rf full/*
    "$CPA_HPC" "$@" >.refuse/out 2>.refuse/err </dev/null || failed "$*: it fails on a disk with room"
    size=$(du -s --block-size=1 "full/$name" | cut -f 1)
    fill 0
    attempt 74 "full/$name|No space left" "$CPA_HPC" "$@"
    if [ "$size" -gt 8192 ]; then
        fill $((size / 2 / 4096 * 4096))
        refuse 74 "full/$name|No space left" "$@"
    fi
}

full run train good.h5ad --out full/run --lanes 4 --quiet "${small[@]}"
full run train good.h5ad --out full/run --lanes 4 --quiet "${small[@]}" --checkpoint-every-steps 1
full run import "$CPA_TESTS/golden/trained/glioblastoma.h5" --out full/run
full model.h5 export run --out full/model.h5
full cells.h5ad predict run --data good.h5ad --out full/cells.h5ad --split ood
full mean.h5ad predict run --data good.h5ad --out full/mean.h5ad --split ood --output mean
full latent.h5ad latent run --data good.h5ad --out full/latent.h5ad
full vectors.h5ad embeddings run --out full/vectors.h5ad
full scores.csv evaluate run --data good.h5ad --out full/scores.csv
full compared.csv compare run other --data good.h5ad --out full/compared.csv
full atlas.h5ad simulate full/atlas.h5ad --cells 300 --genes 40
full copy.h5ad convert good.h5ad full/copy.h5ad
finish
