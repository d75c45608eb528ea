#!/bin/bash
# Owns: that a thousand epochs take no more memory than a few: no step allocates after the first epoch, and the resident set does not
# grow by 1 KB an epoch, with cells that are resident and with cells that are streamed.
# Must never look at times.
set -u
failures=0
epochs=${CPA_EPOCHS-1000}
"$CPA_HPC" simulate atlas.h5ad --cells 500 --genes 280 --density 0.4 --combinations 0 --perturbations 2 --quiet || exit 1

# steady WORD OPTIONS...: trains; rank 0's log is judged.
steady() {
    local word=$1
    shift
    rm -rf run
    "$CPA_HPC" train atlas.h5ad --out run --max-epochs "$epochs" --early-stopping-patience "$epochs" --n-latent 4 --n-hidden-encoder 8 \
        --n-hidden-decoder 8 --n-hidden-adv 4 --batch-size 64 --n-layers-encoder 1 --n-layers-decoder 1 --threads 1 "$@" >out 2>err </dev/null ||
        { echo "FAILED: training, $word: $(tail -n 3 err)"; failures=1; return; }
    grep -q "^cells are $word: " err || { echo "FAILED: the cells are not $word: $(cat err)"; failures=1; }
    /usr/bin/python3 - "$word" "$epochs" <<'PYTHON' || failures=1
import json, sys

word, n = sys.argv[1], int(sys.argv[2])
epochs = [e for e in map(json.loads, open("run/log.jsonl")) if e["event"] == "epoch"]
assert len(epochs) == n, f"{len(epochs)} epochs"
allocations = sum(e["allocations"] for e in epochs[1:])
x = range(n // 10, n)  # when caches and the heap have settled
rss = [epochs[i]["rss"] for i in x]
mean_x, mean = sum(x) / len(x), sum(rss) / len(rss)
slope = sum((i - mean_x) * (r - mean) for i, r in zip(x, rss)) / sum((i - mean_x) ** 2 for i in x)
print(f"{word}: {n} epochs; the first allocates {epochs[0]['allocations']} times, the others {allocations} times; {rss[-1] / 1e6:.1f} MB, {slope:.0f} bytes an epoch")
if allocations > 0 or slope >= 1024:
    sys.exit(f"FAILED: {word}")
PYTHON
}

steady resident
steady streamed --shuffle block --shuffle-block 4 --shuffle-window 64 --memory 200KiB
exit $failures
