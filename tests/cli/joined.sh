#!/bin/bash
# Owns: that `convert LIST.txt OUT.h5ad` changes no value and leaves nothing out without a word: columns of unlike types, texts of
# genes, members of uns and of the root that only some files have or have otherwise, and files that fail on the way.
# Must never take the program's own reader for a witness of contents.
set -u
. "$CPA_TESTS/support/refuse.sh"
cat >make.py <<'PYTHON'
"""make.py NAME EDIT ...: files of three cells with two genes, in which `f` is edited."""
import sys
import h5py
import numpy as np


def encode(obj, kind, version="0.2.0", **attrs):
    obj.attrs.update({"encoding-type": kind, "encoding-version": version, **attrs})
    return obj


def texts(f, path, values):
    encode(f.create_dataset(path, data=np.array(values, dtype=object), dtype=h5py.string_dtype("utf-8")), "string-array")


def column(f, frame, name, values):
    values = np.asarray(values)
    texts(f, f"{frame}/{name}", values) if values.dtype.kind in "OU" else encode(f.create_dataset(f"{frame}/{name}", data=values), "array")
    f[frame].attrs["column-order"] = np.array([*f[frame].attrs["column-order"], name], dtype=object)


def factor(f, name, codes, levels):
    g = encode(f.create_group(f"obs/{name}"), "categorical", ordered=False)
    g.create_dataset("codes", data=codes)
    texts(g, "categories", levels)
    f["obs"].attrs["column-order"] = np.array([*f["obs"].attrs["column-order"], name], dtype=object)


def masked(f, name, values, mask):
    g = encode(f.create_group(f"obs/{name}"), "nullable-integer", "0.1.0")
    g.create_dataset("values", data=values)
    g.create_dataset("mask", data=np.array(mask))
    f["obs"].attrs["column-order"] = np.array([*f["obs"].attrs["column-order"], name], dtype=object)


for name, edit in zip(sys.argv[1::2], sys.argv[2::2]):
    with h5py.File(f"{name}.h5ad", "w") as f:
        encode(f, "anndata", "0.1.0")
        encode(f.create_dataset("X", data=np.arange(6, dtype="f4").reshape(3, 2)), "array")
        for frame, names in ("obs", [f"{name}{i}" for i in range(3)]), ("var", ["g0", "g1"]):
            encode(f.create_group(frame), "dataframe", **{"_index": "_index", "column-order": np.array([], dtype=h5py.string_dtype())})
            texts(f, f"{frame}/_index", names)
        encode(f.create_group("uns"), "dict", "0.1.0")
        exec(edit)
PYTHON
# make NAME EDIT ...: files.
make() {
    /usr/bin/python3 make.py "$@" || failed "making files"
}

# join NAMES...: all.h5ad of these files; what it said is in .refuse/err.
join() {
    list "$@"
    rm -f all.h5ad
    "$CPA_HPC" convert list.txt all.h5ad >.refuse/out 2>.refuse/err </dev/null || failed "convert $*"
}

list() {
    printf '%s.h5ad\n' "$@" >list.txt
}

# holds WHAT EXPRESSION: of the file `f` that was made.
holds() {
    /usr/bin/python3 -c "import sys, h5py, numpy as np
f = h5py.File('all.h5ad')
sys.exit(not ($2))" || failed "$1"
}

# warned COUNT WORDS: the last command gave so many warnings, one of which has the words (separated by '|').
warned() {
    local word list
    grep '^warning: ' .refuse/err >.refuse/message
    [ "$(wc -l <.refuse/message)" -eq "$1" ] || failed "expected $1 warnings"
    IFS='|' read -ra list <<<"$2"
    for word in "${list[@]}"; do
        grep -qF -e "$word" .refuse/message || failed "no warning has '$word'"
    done
}

# unlike CODE WORDS EDIT OTHER: two files that are edited so are not joined.
unlike() {
    make a "$3" b "$4"
    rm -f x.h5ad
    list a b
    attempt "$1" "$2" "$CPA_HPC" convert list.txt x.h5ad
}

# ---- Numbers
real='column(f, "obs", "c", [0.5, 1, 2])'
unlike 65 "b.h5ad: obs/c: row 2|-9007199254740993|2^53" "$real" 'column(f, "obs", "c", [1 << 53, -(1 << 53), -(1 << 53) - 1])'
unlike 65 "b.h5ad: obs/c|row 1|18446744073709551615" 'column(f, "obs", "c", [1, 2, 3])' \
    'column(f, "obs", "c", np.array([1, 2**64 - 1, 2**63 - 1], "u8"))'
unlike 65 "b.h5ad: obs/c|row 1|9223372036854775808" "$real" 'column(f, "obs", "c", np.array([1, 2**63, 2**63 - 1], "u8"))'
unlike 65 "b.h5ad: obs/c|row 0|9223372036854775808" 'column(f, "obs", "c", ["t", "u", "v"])' \
    'column(f, "obs", "c", np.array([2**63, 2, 3], "u8"))'
make a "$real" \
    b 'column(f, "obs", "c", [1 << 53, -(1 << 53), 7])' \
    c 'masked(f, "c", [3, (1 << 53) + 1, 5], [False, True, False])'
join a b c
holds "integers among floats" 'np.array_equal(f["obs/c"][:], [0.5, 1, 2, 2**53, -2**53, 7, 3, np.nan, 5], equal_nan=True)'
make a 'column(f, "obs", "c", np.array([2**63 - 1, 2**53 + 1, 0], "u8"))' \
    b 'column(f, "obs", "c", [-2**63, 1, 2])'
join a b
holds "large integers" 'list(f["obs/c"][:]) == [2**63 - 1, 2**53 + 1, 0, -2**63, 1, 2]'
warned 0 ""
unlike 65 "b.h5ad: obs/c/codes should hold the integer codes of a categorical column" 'factor(f, "c", [0, 1, -1], ["x", "y"])' \
    'factor(f, "c", [0.5, 1, np.nan], ["x", "y"])'

# ---- Texts
make a 'column(f, "var", "note", ["first", "second"]); column(f, "obs", "c", ["x", "y", "z"]); column(f, "obs", "d", ["x", "y", "z"])' \
    b 'column(f, "obs", "c", ["x", "v", "w"]); factor(f, "d", [0, -1, 0], ["x"])' \
    c 'f["var/_index"][0] = "other"; column(f, "obs", "c", ["x", "v", "w"])'
join a b
holds "texts of all genes" '[*f["var/note"].asstr()] == ["first", "second"] and f["var/note"].attrs["encoding-type"] == "string-array"'
holds "complete texts" '[*f["obs/c"].asstr()] == ["x", "y", "z", "x", "v", "w"]'
holds "texts and categories" '[*f["obs/d/categories"].asstr()] == ["x", "y", "z"] and [*f["obs/d/codes"]] == [0, 1, 2, 0, -1, 0]'
join a c
holds "texts of some genes" '[*f["var/note"].asstr()] == ["second"] and [*f["var/_index"].asstr()] == ["g1"]'
holds "texts that a file lacks" '[*f["obs/d/codes"]] == [0, 1, 2, -1, -1, -1]'

# ---- What is left out is said
own='f["obs"].attrs["_index"] = "name"; f["obs"].move("_index", "name"); column(f, "obs", "_index", [7, 8, 9])'
raw='f["raw/X"] = f["X"][:]; f.copy("var", "raw/var")'
make a "$raw; $own; f['rawdata'] = [1, 2]; f['raw.varm'] = [1, 2]" \
    b "$raw; f.create_group('raw.empty')"
join a b
warned 2 "list.txt: the column '_index' of obs is left out|it belongs to single files or not all have it: 'raw.varm', 'rawdata'"
holds "names instead of a column _index" '[*f["obs/_index"].asstr()] == ["a0", "a1", "a2", "b0", "b1", "b2"] and "_index" not in f["obs"].attrs["column-order"]'
make a "${own//obs/var}" \
    b 'column(f, "obs", "c", [1, 2, 3]); f["obs"].attrs["column-order"] = np.array(["_index", "c"], dtype=object)' \
    c 'pass'
join b c
warned 0 ""
holds "an index that is listed" '[*f["obs"].attrs["column-order"]] == ["c"]'
join a b
warned 1 "list.txt: the column '_index' of var is left out"

same='u = f["uns"]; u["one"] = 1; u["nan"] = [[np.nan, 1]]; u["big"] = np.array([2**64 - 1], "u8"); u["text"] = "t"; u["flag"] = True
u["table"] = np.array([("a", 1.5)], dtype=[("name", h5py.string_dtype()), ("score", "f4")]); u["d/list"] = np.array(["x", "y"], dtype=object)
u["none"] = h5py.Empty("f8"); u["rows"] = np.arange(70000); factor(f, "c", [0, 1, 1], ["x", "y"]); f.move("obs/c", "uns/factor")
f["obs"].attrs["column-order"] = np.array([], dtype=h5py.string_dtype())'
make a "$same" \
    b "$same; del u['one']; u['one'] = np.int8(1); u['d/more'] = 5" \
    c "$same; u['rows'][69999] = 0; u['factor/codes'][0] = 1; u['d/more'] = 6
for k in 'd/list', 'nan', 'text', 'table': del u[k]
u['d/list/deeper'] = 1; u['nan'] = [np.nan, 1]; u['text'] = 't '
u['table'] = np.array([('b', 1.5)], dtype=[('name', h5py.string_dtype()), ('score', 'f4')])"
join a b
warned 0 ""
holds "uns that is the same" 'f["uns/d/more"][()] == 5 and f["uns/one"][()] == 1'
join a b c
warned 1 "list.txt: uns: the first file's value is kept where others have another: 'd/list', 'd/more', 'factor', 'nan', 'rows', 'table', 'text'"
holds "uns of the first file" 'f["uns/rows"][69999] == 69999 and f["uns/d/more"][()] == 5 and f["uns/text"].asstr()[()] == "t"'

# ---- Files that fail: of more files than are open at a time each is opened anew whenever it is read. Not under the sanitizers, whose
# own threads do not bear a library that is loaded before them.
if [ "${CPA_SANITIZED:-0}" != 1 ]; then
    make piece0 'f.create_group("layers")["counts"] = f["X"][:]'
    for i in {1..9}; do
        cp piece0.h5ad "piece$i.h5ad"
    done
    list piece{0..9}
    for nth in {1..99}; do
        rm -f x.h5ad .refuse/struck
        CPA_FAULT_LOG=.refuse/struck CPA_FAULT="open piece0.h5ad 0 $nth 5" LD_PRELOAD=$CPA_FAULT_SHIM \
            "$CPA_HPC" convert list.txt x.h5ad >.refuse/out 2>.refuse/err </dev/null
        code=$?
        [ -s .refuse/struck ] || break
        [ $code -eq 74 ] || failed "opening $nth of piece0.h5ad fails, and convert ends with $code"
    done
    echo "$((nth - 1)) openings that failed"
    [ "$nth" -gt 8 ] || failed "piece0.h5ad is opened $((nth - 1)) times only"
fi
finish
