#!/bin/bash
# Owns: row M10: dropout in the decoder. Upstream passes dropout_rate_decoder to the gauss decoder alone; those of nb and zinb have the rate 0
# whatever it says (cpa-tools 0.8.8). So it is here by default; with --nb-decoder-dropout it acts.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '30 ctrl' '30 A'
for likelihood in nb zinb gauss; do
    train a.h5ad $likelihood.none --recon-loss $likelihood
    train a.h5ad $likelihood.upstream --recon-loss $likelihood --dropout-rate-decoder 0.5
    train a.h5ad $likelihood.acts --recon-loss $likelihood --dropout-rate-decoder 0.5 --nb-decoder-dropout=true
done
for likelihood in nb zinb; do
    same_model $likelihood.none $likelihood.upstream
    other_model $likelihood.none $likelihood.acts
done
other_model gauss.none gauss.upstream
same_model gauss.upstream gauss.acts
finish
