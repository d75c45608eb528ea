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
cat >pieces.py <<'PYTHON'
"""pieces.py write: a.h5ad, b.h5ad, c.h5ad, which have columns of every kind in common or not; read JOINED: it is what pandas and scipy make of them."""
import sys
import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


def piece(name, n, genes, columns, matrix, **more):
    r = np.random.default_rng(n)
    obs = pd.DataFrame({"kind": pd.Categorical(r.choice(["a", "b", name], n)), "ranked": pd.Categorical(r.choice(["lo", "hi"], n), ["lo", "hi"], ordered=True),
                        "number": r.normal(size=n), "single": r.normal(size=n).astype("f4"), "whole": np.arange(n, dtype="i4"), "flag": r.random(n) < 0.5,
                        "text": [f"{name}{i}" for i in range(n)], "mixed": r.integers(0, 9, n).astype("f8" if name == "a" else "i8"),
                        "maybe": pd.array(np.where(r.random(n) < 0.3, None, r.integers(0, 9, n)), dtype="Int64"),
                        "dose": [1.0, 0.5] * (n // 2) if name == "a" else pd.Categorical(["1", "x"] * (n // 2)),
                        "only": r.normal(size=n), "only_flag": r.random(n) < 0.5, "only_whole": np.arange(n), "only_text": pd.Categorical(["t"] * n)},
                       index=[f"{name}_{i}" for i in range(n)])
    x = r.poisson(0.5, (n, len(genes))).astype("f4")
    var = pd.DataFrame({"mean": x.mean(0), "good": x.sum(0) > 3}, index=genes)
    a = ad.AnnData(matrix(x), obs[columns], var)
    a.layers["counts"] = sparse.csr_matrix(x + 0.1 * (name == "b"))
    a.uns = {"lists": {name: np.array([name, "all"]), "all": np.array([name])}, "number": n}
    for k, v in more.items():
        getattr(a, k)["own"] = v(n)
    return a


common = ["kind", "ranked", "number", "single", "whole", "flag", "text", "mixed", "maybe", "dose"]
genes = [f"g{i}" for i in range(12)]
pieces = {"a": piece("a", 20, genes, common + ["only", "only_flag", "only_whole", "only_text"], sparse.csr_matrix, obsm=lambda n: np.zeros((n, 2))),
          "b": piece("b", 30, genes[::-1], common, sparse.csc_matrix), "c": piece("c", 16, genes[:9] + ["new"], common, np.asarray)}
if sys.argv[1] == "write":
    for k, a in pieces.items():
        if k == "c":
            a.layers = {}
        a.strings_to_categoricals = lambda *_: None
        a.write_h5ad(f"{k}.h5ad")
    sys.exit()
for how in (dict(), dict(backed="r")):
    got = ad.read_h5ad(sys.argv[2], **how)
    want = pd.concat([a.obs for a in pieces.values()])
    assert list(got.obs_names) == list(want.index) and list(got.var_names) == genes[:9] and list(got.obs.columns) == list(want.columns), got
    dense = lambda x: x.toarray() if sparse.issparse(x) else np.asarray(x)
    np.testing.assert_array_equal(dense(got.X[:]), np.concatenate([dense(a[:, genes[:9]].X) for a in pieces.values()]))
    for c in want:
        a, b = got.obs[c], want[c]
        gap = b.isna().to_numpy()
        assert (a.isna().to_numpy() == gap).all(), c
        if c in ("number", "single", "whole", "flag", "mixed", "maybe", "only", "only_flag", "only_whole"):
            assert (a[~gap].to_numpy().astype(float) == b[~gap].to_numpy().astype(float)).all(), c
        elif c != "dose":
            assert (a[~gap].astype(str).to_numpy() == b[~gap].astype(str).to_numpy()).all(), c
    kinds = {c: str(got.obs[c].dtype) for c in want}
    assert [kinds[c] for c in ("number", "single", "whole", "flag", "mixed", "maybe", "only", "only_flag", "only_whole")] == [
        "float64", "float32", "int64", "bool", "float64", "Int64", "float64", "boolean", "Int64"], kinds
    assert set(got.obs["kind"].cat.categories) == {"a", "b", "c"} and got.obs["ranked"].cat.ordered and not got.obs["kind"].cat.ordered
    assert list(got.obs["dose"][:4].astype(str)) == ["1", "0.5", "1", "0.5"] and set(got.obs["dose"][20:]) == {"1", "x"}
    np.testing.assert_array_equal(got.var["good"], pieces["a"].var["good"][:9])
    assert set(got.uns["lists"]) == {"a", "b", "c", "all"} and list(got.uns["lists"]["all"]) == ["a"] and got.uns["number"] == 20
    assert not got.layers and not got.obsm
PYTHON
for version in newest 0.9; do
    "$cache/anndata-$version/bin/python" -W ignore pieces.py write
    printf '%s\n' a.h5ad b.h5ad c.h5ad >pieces.txt
    "$CPA_HPC" convert pieces.txt joined-$version.h5ad 2>said || { cat said; exit 1; }
    grep -q "layers/counts is left out" said && grep -q "left out, since.*'obsm'" said || { cat said; exit 1; }
    "$cache/anndata-newest/bin/python" -W ignore pieces.py read joined-$version.h5ad
    "$cache/anndata-0.9/bin/python" -W ignore pieces.py read joined-$version.h5ad
done
for version in newest 0.9; do
    python=$cache/anndata-$version/bin/python
    "$python" -W ignore write.py own-$version.h5ad
    "$CPA_HPC" convert own-$version.h5ad converted-$version.h5ad --quiet
    "$python" -W ignore read.py "$CPA_TESTS/data/glioblastoma_panobinostat.h5ad" sample.h5ad own-$version.h5ad converted-$version.h5ad csc.h5ad csr.h5ad csr.h5ad csr.h5ad
done
