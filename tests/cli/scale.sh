#!/bin/bash
# Owns: the command `scale`: its table, figure and page on one rank and on several, its model, what it refuses.
# Must never look at how long anything took.
set -u
. "$CPA_TESTS/support/refuse.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
small=(--batch-size 16 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --n-hidden-adv 8 --steps 4 --repeats 2)

# fail TEXT...
fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# study RANKS FOLDER OPTIONS...: runs one; the page is in FOLDER.md.
study() {
    local ranks=$1 folder=$2
    shift 2
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n "$ranks" "$CPA_HPC" scale "$sample" --out "$folder" --quiet "${small[@]}" "$@" >"$folder.md" 2>err </dev/null ||
        fail "scale on $ranks ranks: $(cat err)"
    [ "$(ls "$folder" | xargs)" = "scaling.csv scaling.svg" ] || fail "$folder holds $(ls "$folder")"
}

# judge FOLDER POINTS MODEL: the table has these measured points (law:ranks:lanes:batch), all figures make sense, and the figure is XML.
# MODEL: whether there are predictions.
cat >judge.py <<'P'
import csv, sys, xml.etree.ElementTree as tree
folder, points, model = sys.argv[1], sys.argv[2].split(), sys.argv[3] == "model"
rows = list(csv.DictReader(open(folder + "/scaling.csv")))
assert list(rows[0]) == ("mode source ranks threads nodes lanes batch step_ms p25_ms p75_ms cells_per_s speedup efficiency "
                         "compute_ms reduce_ms wait_ms imbalance model_ms").split(), list(rows[0])
measured = [r for r in rows if r["source"] == "measured"]
got = [":".join(r[k] for k in ("mode", "ranks", "lanes", "batch")) for r in measured]
assert got == points, got
for r in rows:
    x = {k: float(v) for k, v in r.items() if k not in ("mode", "source") and v}
    assert abs(x["cells_per_s"] * x["step_ms"] / 1e3 / (x["lanes"] * x["batch"]) - 1) < 1e-3, r
    assert abs(x["efficiency"] * x["ranks"] / x["speedup"] - 1) < 1e-3, r
    if r["source"] == "measured":
        assert x["nodes"] == 1 and x["threads"] == 1 and x["p25_ms"] <= x["p75_ms"] and x["imbalance"] >= -1e-6, r
        assert abs((x["compute_ms"] + x["reduce_ms"] + x["wait_ms"]) / x["step_ms"] - 1) < 1e-3, r
        assert x["ranks"] > 1 or (x["reduce_ms"] >= 0 and x["wait_ms"] < 1e-6 and x["speedup"] == 1), r
    assert (r["model_ms"] != "") == model, r
predicted = [r for r in rows if r["source"] == "predicted"]
weak = [int(r["ranks"]) for r in predicted if r["mode"] == "weak"]
assert (weak[-1:] == [4096]) == model and all(b == 2 * a for a, b in zip(weak, weak[1:])), weak
for r in predicted:
    strong = r["mode"] == "strong"
    assert not strong or int(r["lanes"]) * int(r["batch"]) == int(measured[0]["lanes"]) * int(measured[0]["batch"]), r
root = tree.parse(folder + "/scaling.svg").getroot()
assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(root.findall(".//{*}circle")) == 2 * len(measured)
P
judge() {
    /usr/bin/python3 judge.py "$@" || fail "$1: $(cat "$1"/scaling.csv)"
}

study 2 two
judge two "strong:1:2:16 strong:2:2:16 weak:1:1:16 weak:2:2:16" model
grep -qE '^Model error: step times of the 4 measured points are off by [0-9.]+ % on average, [0-9.]+ % at most$' two.md ||
    fail "no error of the model: $(cat two.md)"
grep -q '^| 4096 (predicted) | 4096 x 16 |' two.md || fail "no prediction: $(cat two.md)"

# One rank tells nothing of the others.
"$CPA_HPC" scale "$sample" --out one --quiet --threads 1 "${small[@]}" --adv-steps 0 >one.md 2>err || fail "scale alone: $(cat err)"
judge one "strong:1:1:16 weak:1:1:16" none
grep -q '^No model: one rank alone' one.md || fail "$(cat one.md)"

# Leaks have been looked for on two ranks and alone; in the MPI library's own the search takes seconds.
export ASAN_OPTIONS="${ASAN_OPTIONS-}:detect_leaks=0"

# Three ranks: all of them under the strong law. A model that is given; cells that are streamed.
study 3 three --model 2,5, --lanes 8 --shuffle block --shuffle-block 8 --shuffle-window 64 --memory 1MiB --quiet false
grep -q "^cells are streamed: " err || fail "the cells are not streamed: $(cat err)"
judge three "strong:1:8:16 strong:2:8:16 strong:3:8:16 weak:1:4:16 weak:2:8:16" model
grep -q '^Model (as given, the rest from the measurements): latency 2 us a message, bandwidth 5 GB/s' three.md || fail "$(cat three.md)"

refuse 64 "--model|LATENCY,BANDWIDTH,FLOPS|'1,2'" scale "$sample" --out r --model 1,2
attempt 64 "--model|LATENCY,BANDWIDTH,FLOPS|'1,x,3'" "$CPA_HPC" scale "$sample" --out r --model 1,x,3
attempt 64 "--steps" "$CPA_HPC" scale "$sample" --out r --steps 0
attempt 64 "scale takes no --resume" "$CPA_HPC" scale "$sample" --out r --resume
refuse 78 "'two' exists already" scale "$sample" --out two
attempt 66 "'nowhere/r'|parent must exist" "$CPA_HPC" scale "$sample" --out nowhere/r
refuse 66 "nothing.h5ad" scale nothing.h5ad --out r
# What befalls those that work ends those that sleep, too.
# shellcheck disable=SC2086
attempt 77 "nan|layer" $CPA_MPIRUN -n 3 "$CPA_HPC" scale "$sample" --out r "${small[@]}" --lr 1e30
refuse 65 "training cells are too few for 3 full steps" scale "$sample" --out r --lanes 4 --batch-size 4096
# shellcheck disable=SC2086
attempt 64 "3 ranks are more than the 2 lanes of a step|--lanes 4" $CPA_MPIRUN -n 3 "$CPA_HPC" scale "$sample" --out r --lanes 2
finish
