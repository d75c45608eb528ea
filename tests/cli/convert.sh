#!/bin/bash
# Owns: what `convert` writes: from every storage and encoding the same contents in one layout, in bounded memory, and what it
# refuses. Must never take the program's own reader for a witness of contents.
set -u
. "$CPA_TESTS/support/refuse.sh"
trap 'umount full 2>/dev/null' EXIT
mkdir odd out
/usr/bin/python3 "$CPA_TESTS/data/make_odd_files.py" odd ||
    { echo "FAILED: the files to test with could not be made (python3-h5py is needed)"; exit 1; }

convert() {
    "$CPA_HPC" convert "$1" "$2" --quiet "${@:3}" >.refuse/out 2>.refuse/err </dev/null || failed "convert $1"
}

# ---- Every storage and encoding
files=$(cat odd/matrices.txt)
for name in $files columns.h5ad columns06.h5ad columns07.h5ad nullable_index.h5ad no_column_order.h5ad duplicates.h5ad layer_only.h5ad; do
    convert "odd/$name" "out/$name"
done
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
convert "$sample" out/sample.h5ad
convert "$sample" out/plain.h5ad --gzip 0
convert "$sample" out/threads.h5ad --threads 3
cmp out/sample.h5ad out/threads.h5ad || failed "threads change the file"

# raw and layers of a larger matrix, by way of CSC on disk, with duplicates, zeros and values that no 32-bit float is.
/usr/bin/python3 - <<'PYTHON' || failures=$((failures + 1))
import h5py
import numpy as np

random = np.random.default_rng(7)
n, g, text = 3000, 200, h5py.string_dtype("utf-8")


def encode(obj, kind, version):
    obj.attrs["encoding-type"] = kind
    obj.attrs["encoding-version"] = version
    return obj


def frame(f, name, size):
    d = encode(f.create_group(name), "dataframe", "0.2.0")
    d.attrs["_index"] = "name"
    d.attrs["column-order"] = np.array(["number"], dtype=object)
    encode(d.create_dataset("name", data=np.array([f"{name[-3:]}{i}" for i in range(size)], dtype=object), dtype=text), "string-array", "0.2.0")
    encode(d.create_dataset("number", data=random.normal(size=size), compression="lzf"), "array", "0.2.0")


def csc(f, name, values, genes, repeated=0):
    """Columns of cells in any order; some entries are split in two, some are zeros."""
    d = encode(f.create_group(name), "csc_matrix", "0.1.0")
    d.attrs["shape"] = np.array([n, genes])
    data, indices, indptr = [], [], [0]
    for j in range(genes):
        rows = random.permutation(n)[: n // 10]
        v = values(len(rows))
        again = rows[:repeated]
        v[-1:] = 0
        data += [v, values(len(again))]
        indices += [rows, again]
        indptr.append(indptr[-1] + len(rows) + len(again))
    d.create_dataset("data", data=np.concatenate(data), chunks=(5000,), compression="gzip")
    d.create_dataset("indices", data=np.concatenate(indices).astype("i8"), chunks=(7000,), compression="lzf", shuffle=True)
    d.create_dataset("indptr", data=np.array(indptr, dtype="i4"))


with h5py.File("rich.h5ad", "w") as f:
    encode(f, "anndata", "0.1.0")
    frame(f, "obs", n)
    frame(f, "var", g)
    csc(f, "X", lambda k: random.normal(size=k), g)
    csc(f, "layers/counts", lambda k: random.integers(1, 9, size=k), g, repeated=20)
    encode(f["layers"], "dict", "0.1.0")
    dense = random.integers(0, 3, size=(n, g)).astype("f8")
    encode(f.create_dataset("layers/dense", data=dense, chunks=(700, 30), compression="lzf"), "array", "0.2.0")
    encode(f.create_group("raw"), "raw", "0.1.0")
    frame(f, "raw/var", 2 * g)
    csc(f, "raw/X", lambda k: random.integers(1, 100000, size=k).astype("f4"), 2 * g)
    f.create_group("obsm")
    encode(f["obsm"].create_dataset("pca", data=random.normal(size=(n, 20)), compression="lzf"), "array", "0.2.0")
    u = encode(f.create_group("uns"), "dict", "0.1.0")
    encode(u.create_dataset("none", data=h5py.Empty("f8")), "null", "0.1.0")
    encode(u.create_dataset("text", data="words", dtype=text), "string", "0.2.0")
    table = np.array([("a", 1.5), ("b", 2.5)], dtype=[("name", text), ("score", "f4")])
    encode(u.create_dataset("table", data=table), "rec-array", "0.2.0")
    u.create_group("empty")
PYTHON
convert rich.h5ad out/rich.h5ad
cat >same.py <<'PYTHON'
"""same.py BEFORE AFTER ...: the same contents, and the layout that is promised."""
import sys
import traceback
import h5py
import numpy as np


def matrix(e):
    """Any storage as a dense array, entries of one place added up."""
    if isinstance(e, h5py.Dataset):
        return e[:].astype("f8")
    a = e.attrs
    kind = a.get("encoding-type", a.get("h5sparse_format"))
    n, g = a["shape"] if "shape" in a else a["h5sparse_shape"]
    major = np.repeat(np.arange(len(e["indptr"]) - 1), np.diff(e["indptr"][:].astype("i8")))
    minor = e["indices"][:].astype("i8")
    x = np.zeros((n, g))
    np.add.at(x, (major, minor) if kind.startswith("csr") else (minor, major), e["data"][:].astype("f8"))
    return x


def texts(d):
    v = np.atleast_1d((d["values"] if isinstance(d, h5py.Group) else d)[()])
    return np.array([x.decode() if isinstance(x, bytes) else x for x in v]) if v.dtype.kind in "OS" else v


def column(f, frame, name):
    """(values, missing or None) of a column in any encoding."""
    top = f[frame]
    if isinstance(top, h5py.Dataset):
        v, labels = top[name], "uns/" + name + "_categories"
        v = np.array([x.decode() for x in v]) if v.dtype.kind in "OS" else v
        return np.where(v < 0, "missing", texts(f[labels])[v]) if labels in f else v
    e = top[name]
    if isinstance(e, h5py.Group):
        if "codes" in e:
            return np.where(e["codes"][:] < 0, "missing", texts(e["categories"])[e["codes"][:]])
        return np.where(e["mask"][:], "missing", texts(e["values"]).astype(str))
    if "categories" in e.attrs: # repacking tools break references
        return np.where(e[:] < 0, "missing", texts(f[e.attrs["categories"] or f"{frame}/__categories/{name}"])[e[:]])
    return texts(e)


def frame(before, after, old, new):
    top = before[old]
    if isinstance(top, h5py.Dataset):
        names = list(top.dtype.names)
        index, names = names[0], names[1:]
    else:
        index = top.attrs.get("_index", "index" if "index" in top else "_index")
        names = list(top.attrs["column-order"]) if "column-order" in top.attrs else [k for k in top if k not in (index, "__categories")]
    now = after[new]
    assert now.attrs["encoding-type"] == "dataframe" and now.attrs["encoding-version"] == "0.2.0"
    listed = list(now.attrs["column-order"]) if "column-order" in now.attrs else None
    assert listed is None or listed == names, (listed, names)
    for was, to in [(index, now.attrs["_index"])] + [(k, k) for k in names]:
        a, b = column(before, old, was), column(after, new, to)
        assert len(a) == len(b) and ((a == b) | (a != a)).all(), (old, was, a, b)
        assert a.dtype.kind in "OSU" or a.dtype == b.dtype, (was, a.dtype, b.dtype)


def same(a, b, path):
    """Two objects and all below: attributes, types, values; filters may differ."""
    assert set(a.attrs) == set(b.attrs), path
    for k in a.attrs:
        assert np.array_equal(a.attrs[k], b.attrs[k]), (path, k)
    if isinstance(a, h5py.Group):
        assert set(a) == set(b), (path, set(a) ^ set(b))
        for k in a:
            same(a[k], b[k], path + "/" + k)
    else:
        assert a.shape == b.shape and a.dtype == b.dtype, path
        assert a.shape is None or (np.asarray(a[()] == b[()]) | np.asarray(a[()] != a[()])).all(), path
        assert b.compression in (None, "gzip"), (path, b.compression)


def compare(was, now):
    before, after = h5py.File(was), h5py.File(now)
    assert after.attrs["encoding-type"] == "anndata"
    assert set(after) == set(before), set(after) ^ set(before)
    matrices = [k for k in before if k == "X"] + ["layers/" + k for k in before.get("layers", [])] + (["raw/X"] if "raw" in before else [])
    for path in matrices:
        m, x = after[path], matrix(before[path])
        assert m.attrs["encoding-type"] == "csr_matrix" and tuple(m.attrs["shape"]) == x.shape
        p, j, v = m["indptr"][:], m["indices"][:], m["data"][:]
        assert p.dtype == "i8" and j.dtype == "i4" and (v != 0).all()
        assert all((np.diff(j[a:b]) > 0).all() for a, b in zip(p, p[1:])), path + ": indices do not ascend"
        assert v.dtype == ("f4" if (x.astype("f4") == x).all() else "f8"), (path, v.dtype)
        assert np.array_equal(matrix(m), x) if (x == np.rint(x)).all() else np.allclose(matrix(m), x, rtol=1e-15, atol=0), path
        assert m["data"].compression == ("gzip" if now != "out/plain.h5ad" else None), path
    for k in ["obs", "var"] + (["raw/var"] if "raw" in before else []):
        frame(before, after, k, k)
    for k in before:
        if k not in ("X", "layers", "raw", "obs", "var", "uns"):
            same(before[k], after[k], k)
    for k in before.get("uns", []):
        if not (k.endswith("_categories") and isinstance(before["obs"], h5py.Dataset)):
            same(before["uns"][k], after["uns"][k], "uns/" + k)


failures = 0
for was, now in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        compare(was, now)
    except Exception:
        print(f"FAILED: {now} does not hold what {was} does", file=sys.stderr)
        traceback.print_exc()
        failures += 1
sys.exit(failures > 0)
PYTHON
pairs=("$sample" out/sample.h5ad "$sample" out/plain.h5ad rich.h5ad out/rich.h5ad)
for file in odd/*.h5ad; do
    was=$file
    case $file in *zstd* | *blosc*) was=odd/csr_gzip.h5ad ;; esac # h5py cannot read these; they hold the same
    [ ! -e "out/${file#odd/}" ] || pairs+=("$was" "out/${file#odd/}")
done
/usr/bin/python3 same.py "${pairs[@]}" >.refuse/out 2>.refuse/err || failed "${#pairs[@]} files compared"

# ---- The same model from both
tiny=(--max-epochs 1 --n-latent 8 --n-hidden-encoder 12 --n-hidden-decoder 12 --n-hidden-adv 8 --quiet)
OMP_NUM_THREADS=1 "$CPA_HPC" train "$sample" --out run.before "${tiny[@]}" 2>.refuse/err || failed "training"
OMP_NUM_THREADS=1 "$CPA_HPC" train out/sample.h5ad --out run.after "${tiny[@]}" 2>.refuse/err || failed "training"
h5diff run.before/model.h5 run.after/model.h5 || failed "the converted sample gives another model"

# ---- Memory: CSC ten times as large takes about as much.
/usr/bin/python3 "$CPA_TESTS/data/make_large_csc.py" small.h5ad 20000 400 && /usr/bin/python3 "$CPA_TESTS/data/make_large_csc.py" large.h5ad 150000 400 ||
    failed "making large files"
cp large.h5ad larger.h5ad
printf '%s\n' large.h5ad larger.h5ad >large.txt
/usr/bin/python3 - <<'PYTHON' || failures=$((failures + 1))
import os, resource, subprocess


def high(file):
    """The high-water mark of the largest child so far, in bytes."""
    subprocess.run([os.environ["CPA_HPC"], "convert", file, f"out/{file}.h5ad", "--quiet"], check=True,
                   env=dict(os.environ, ASAN_OPTIONS="quarantine_size_mb=1:detect_leaks=0"))
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


few = high("small.h5ad")
many = high("large.h5ad")
print(f"800,000 values take {few / 1e6:.1f} MB, 6 million {many / 1e6:.1f} MB")
assert many - few < 6e6 * 8, "memory grows with the values"  # as a matrix they take 8 bytes each, sorted as entries 32
twice = high("large.txt")
print(f"two files of these {twice / 1e6:.1f} MB")
assert twice - many < 6e6 * 8, "memory grows with the files"
PYTHON

# ---- Refusals
refuse 64 "convert needs two paths" convert rich.h5ad
refuse 64 "'three'|one path too many" convert rich.h5ad x.h5ad three
refuse 64 "--gzip" convert rich.h5ad x.h5ad --gzip 10
refuse 66 "nothing.h5ad" convert nothing.h5ad x.h5ad
refuse 66 "nowhere" convert rich.h5ad nowhere/x.h5ad
refuse 78 "'rich.h5ad'|not overwritten" convert rich.h5ad rich.h5ad
refuse 65 "odd/text.h5ad" convert odd/text.h5ad x.h5ad
refuse 65 "odd/corrupt_chunk.h5ad|X/data" convert odd/corrupt_chunk.h5ad x.h5ad
refuse 65 "odd/index_too_large_csc.h5ad|X/indices|cell index 12" convert odd/index_too_large_csc.h5ad x.h5ad
refuse 65 "odd/indptr_falls.h5ad|row 7" convert odd/indptr_falls.h5ad x.h5ad
make_bad_files
refuse 65 "code_high.h5ad|cell_type|row 7|code 2" convert code_high.h5ad x.h5ad
refuse 65 "code_low.h5ad|condition|row 7|code -3" convert code_low.h5ad x.h5ad
refuse 65 "short_column.h5ad|'cell_type'|47 rows|48" convert short_column.h5ad x.h5ad
refuse 65 "long_column.h5ad|'cell_type'|49 rows|48" convert long_column.h5ad x.h5ad
mkdir full
for size in 64k 1m; do # full for the file, full for sorting
    if mount -t tmpfs -o size=$size none full 2>/dev/null; then
        refuse 74 "full/x.h5ad|No space left" convert large.h5ad full/x.h5ad
        umount full
    fi
done
finish
