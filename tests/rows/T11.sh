#!/bin/bash
# Owns: row T11: a warm-up of mixup after pretraining. Upstream subtracts the epoch from itself, so alpha stays 0 for ever; without pretraining by
# epochs it rises from epoch 0 (cpa-tools 0.8.8). So it is here by default; --mixup-warmup linear begins after pretraining.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '30 A' '30 B 1 S' '10 ctrl 1 S'
pretrained=(--max-epochs 5 --n-epochs-pretrain-ae 1)
warm=(--mixup-alpha 0.5 --n-epochs-mixup-warmup 2)
train a.h5ad never "${pretrained[@]}"
train a.h5ad upstream "${pretrained[@]}" "${warm[@]}"
train a.h5ad linear "${pretrained[@]}" "${warm[@]}" --mixup-warmup linear
same_model never upstream
other_model never linear
train a.h5ad plain --max-epochs 3
train a.h5ad rises --max-epochs 3 "${warm[@]}"
other_model plain rises
finish
