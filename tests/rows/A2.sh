#!/bin/bash
# Owns: row A2: predictions of a variational model. Upstream averages 20 draws, of zinb those of mu, and raises with `indices` or without the average
# (cpa-tools 0.8.8; its numbers lie in golden/upstream_variational). Here too, for any cells, the same on any ranks; also (1 - pi) mu.
. "$CPA_TESTS/support/rows.sh"
upstream=$CPA_TESTS/golden/upstream_variational
data=$CPA_TESTS/golden/upstream_model/data.h5ad
hpc 0 import "$upstream/model.h5" --out run --quiet
seq 0 12 143 >some.txt
predict() {
    hpc 0 predict run --data "$data" --layer counts --reconstruct --quiet --out "$@"
}
predict 20.h5ad --cells some.txt
predict many.h5ad --cells some.txt --n-samples 600
predict thin.h5ad --cells some.txt --n-samples 600 --zinb-mean=true
predict fixed.h5ad --cells some.txt --n-samples 600 --semantics fixed
cmp thin.h5ad fixed.h5ad || fail "--semantics fixed leaves out the inflation"
predict none.h5ad --cells some.txt --n-samples 0
predict all.h5ad
predict other.h5ad --cells some.txt --seed 9
# shellcheck disable=SC2086
$CPA_MPIRUN -n 3 "$CPA_HPC" predict run --data "$data" --layer counts --reconstruct --out ranks.h5ad --quiet || fail "3 ranks"
cmp all.h5ad ranks.h5ad || fail "other draws on 3 ranks"
peak() { # of memory with that number of draws
    "$python" -c 'import resource, subprocess, sys; subprocess.run(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' \
        "$CPA_HPC" predict run --data "$data" --layer counts --reconstruct --out x.h5ad --quiet --n-samples "$1"
}
peaks="1, 1"
grep -q __asan_init "$CPA_HPC" || peaks="$(peak 2), $(peak 1000)" # the sanitizers keep what is freed
judge <<P
few, many = $peaks
assert many < 1.05 * few, "$peaks"
up = h5py.File("$upstream/expected.h5")
mu, var, n = up["mu"][:], up["mu_variance"][:], up["draws"][()]
off = lambda name, draws: np.sqrt(np.mean((read(name, "X") - mu) ** 2 / (var / draws + var / n)))  # 1 if only chance differs
assert 0.7 < off("20.h5ad", 20) < 1.4 and 0.7 < off("many.h5ad", 600) < 1.4 and 0.7 < np.sqrt(np.mean((up["predict_20"][:] - mu) ** 2 / (var / 20))) < 1.4
assert np.linalg.norm(read("many.h5ad", "layers/draw_variance") / var - 1) / np.sqrt(var.size) < 0.2
thin = up["zinb_mean"][:]
assert np.linalg.norm(read("thin.h5ad", "X") - thin) < 0.05 * np.linalg.norm(thin) and np.linalg.norm(mu - thin) > 0.2 * np.linalg.norm(thin)
assert close(read("all.h5ad", "X")[np.loadtxt("some.txt", dtype=int)], read("20.h5ad", "X"), rtol=1e-4)  # in any batch
assert not close(read("other.h5ad", "X"), read("20.h5ad", "X"), rtol=1e-2) and not close(read("none.h5ad", "X"), read("many.h5ad", "X"), rtol=1e-2)
assert "layers" not in h5py.File("none.h5ad")
P
finish
