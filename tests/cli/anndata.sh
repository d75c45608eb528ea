#!/bin/bash
# Owns: that anndata itself, the newest that this Python takes and 0.9, opens what `simulate` and `convert` write, in memory and
# backed, with equal contents. Skipped where PyPI cannot be reached.
# Must never change an environment other than its own, which it keeps for the next time.
set -u
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cpa-hpc
skip() {
    echo "SKIPPED: anndata: $*"
    exit 77
}

# environment NAME REQUIREMENTS...: a virtual environment with these, made beside and renamed.
environment() {
    local name=$1
    shift
    [ ! -x "$cache/$name/bin/python" ] || return 0
    mkdir -p "$cache" && rm -rf "$cache/$name.part"
    /usr/bin/python3 -m venv "$cache/$name.part" >log 2>&1 || skip "no virtual environment: $(tail -n 1 log)"
    "$cache/$name.part/bin/python" -m pip install -q --retries 1 --timeout 20 --only-binary :all: "$@" >log 2>&1 ||
        skip "not installed: $(tail -n 1 log)"
    mv -T "$cache/$name.part" "$cache/$name" 2>/dev/null || [ -x "$cache/$name/bin/python" ] || skip "no place for $cache/$name"
}
environment anndata-newest anndata
environment anndata-0.9 'anndata==0.9.*' 'numpy<2' 'pandas<2.2' 'scipy<1.12'

set -e
"$CPA_HPC" simulate csr.h5ad --cells 500 --genes 80 --doses 0.1,1.0 --quiet
"$CPA_HPC" simulate csc.h5ad --cells 500 --genes 80 --doses 0.1,1.0 --format csc --gzip 0 --quiet
"$CPA_HPC" convert "$CPA_TESTS/data/glioblastoma_panobinostat.h5ad" sample.h5ad --quiet
cat >write.py <<'PYTHON'
"""write.py OUT: a file of this anndata with one of each thing."""
import sys
import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

r = np.random.default_rng(1)
n, g = 60, 20
x = sparse.random(n, g, 0.3, "csc", random_state=1)
obs = pd.DataFrame({"kind": pd.Categorical(["a", "b", "c"] * (n // 3), categories=["c", "b", "a", "unused"], ordered=True),
                    "text": [f"t{i}" for i in range(n)], "number": r.normal(size=n), "whole": np.arange(n, dtype="i4"), "flag": r.random(n) < 0.5,
                    "maybe": pd.array([1, None, 3] * (n // 3), dtype="Int64")}, index=[f"cell{i}" for i in range(n)])
obs["gap"] = obs["kind"].where(r.random(n) < 0.8)
var = pd.DataFrame({"highly_variable": r.random(g) < 0.5}, index=[f"gene{i}" for i in range(g)])
a = ad.AnnData(x, obs, var)
a.raw = ad.AnnData(sparse.csr_matrix(r.poisson(0.5, (n, 2 * g)).astype("f4")), obs, pd.DataFrame(index=[f"gene{i}" for i in range(2 * g)]))
a.layers["counts"] = r.poisson(0.3, (n, g)).astype("i8")
a.layers["csr"] = sparse.csr_matrix(r.poisson(0.3, (n, g)).astype("f4"))
a.obsm["pca"] = r.normal(size=(n, 3))
a.obsm["frame"] = pd.DataFrame({"u": r.normal(size=n)}, index=obs.index)
a.varm["loadings"] = r.normal(size=(g, 3))
a.obsp["near"] = sparse.random(n, n, 0.1, "csr", random_state=2)
a.uns = {"list": np.array(["a", "b"]), "scalar": 3, "text": "words", "deep": {"numbers": np.arange(4.0)},
         "table": np.array([("a", 1.0), ("b", 2.0)], dtype=[("name", "O"), ("score", "f4")])}
a.write_h5ad(sys.argv[1], compression="lzf")
PYTHON
cat >read.py <<'PYTHON'
"""read.py (BEFORE AFTER)...: equal contents, in memory and backed."""
import sys
import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

dense = lambda x: x.toarray() if sparse.issparse(x) else np.asarray(x)


def equal(a, b, path):
    if isinstance(a, dict) or hasattr(a, "keys") and not isinstance(a, (pd.DataFrame, np.ndarray)):
        assert set(a.keys()) == set(b.keys()), path
        for k in a.keys():
            equal(a[k], b[k], f"{path}/{k}")
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, np.ndarray) and a.dtype.kind in "VOSU":
        assert a.dtype == b.dtype and (a == b).all(), path
    else:
        np.testing.assert_array_equal(dense(a), dense(b), err_msg=path)


print("anndata", ad.__version__)
for was, now in zip(sys.argv[1::2], sys.argv[2::2]):
    a, b, c = ad.read_h5ad(was), ad.read_h5ad(now), ad.read_h5ad(now, backed="r")
    for part in ("X", "obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns"):
        equal(getattr(a, part), getattr(b, part), part)
    assert (a.raw is None) == (b.raw is None)
    if a.raw is not None:
        equal(a.raw.X, b.raw.X, "raw/X")
        equal(a.raw.var, b.raw.var, "raw/var")
    assert c.isbacked and c.shape == a.shape
    np.testing.assert_array_equal(dense(c.X[3:17]), dense(a.X[3:17]))
    equal(c.obs, a.obs, "obs")
    equal(c[5:9].to_memory().X, a[5:9].X, "X of some cells")
    c.file.close()
    print(now, a.shape, "is", was)
PYTHON
for version in newest 0.9; do
    python=$cache/anndata-$version/bin/python
    "$python" -W ignore write.py own-$version.h5ad
    "$CPA_HPC" convert own-$version.h5ad converted-$version.h5ad --quiet
    "$python" -W ignore read.py "$CPA_TESTS/data/glioblastoma_panobinostat.h5ad" sample.h5ad own-$version.h5ad converted-$version.h5ad csc.h5ad csr.h5ad csr.h5ad csr.h5ad
done
