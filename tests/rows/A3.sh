#!/bin/bash
# Owns: row A3: predictions from other latents. Upstream's custom_predict adds no covariate at all unless they are listed, whatever add_batch says, and
# raises for variational means (cpa-tools 0.8.8; its numbers lie in golden/upstream_model). Here --latent and --add say both, all by default.
. "$CPA_TESTS/support/rows.sh"
upstream=$CPA_TESTS/golden/upstream_model
hpc 0 import "$CPA_TESTS/golden/upstream_variational/model.h5" --out variational --quiet
"$python" "$CPA_TESTS/../scripts/from-upstream" "$upstream" model.h5 >said 2>&1 || fail "$(cat said)"
hpc 0 import model.h5 --out run --quiet
seq 0 12 143 >some.txt
predict() { # predict RUN OUT OPTIONS...
    hpc 0 predict "$1" --data "$upstream/data.h5ad" --layer counts --reconstruct --cells some.txt --quiet --out "${@:2}"
}
for latent in after no_pert corrected no_pert_corrected basal; do
    for add in none cell_type all; do
        predict run $add.$latent.h5ad --latent $latent --add $add
    done
done
predict run mean.h5ad --latent corrected --add all --output mean
predict variational variational.h5ad --latent no_pert
judge <<P
up = h5py.File("$upstream/custom_predict.h5")
for name in (f"{add}/{latent}" for add in ("none", "cell_type", "all") for latent in ("after", "no_pert", "corrected", "no_pert_corrected", "basal")):
    x = read(name.replace("/", ".") + ".h5ad", "X")
    assert np.linalg.norm(x - up[name][:]) < 1e-4 * np.linalg.norm(x), name
assert not close(up["none/after"][:], up["all/after"][:], rtol=0.1)  # upstream's default is not its own predict
n = read("mean.h5ad", "obs/n_cells")
assert close(n @ read("mean.h5ad", "X"), read("all.corrected.h5ad", "X").sum(0), rtol=1e-4) and np.isfinite(read("variational.h5ad", "X")).all()
P
hpc 65 predict run --data "$upstream/data.h5ad" --layer counts --reconstruct --add donor --out x.h5ad
says "has no covariate 'donor'; it has cell_type, dataset"
finish
