#!/bin/bash
# Owns: what log.jsonl says of the memory of every rank, and that setting up takes little beyond the counts and the model.
# Never looks at absolute times.
set -u
failures=0
/usr/bin/python3 "$CPA_TESTS/data/make_large_file.py" large.h5ad 4000 3000 ||
    { echo "FAILED: the file to test with could not be made (python3-h5py is needed)"; exit 1; }

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

for n in 1 3; do
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n $n "$CPA_HPC" train large.h5ad --out run$n --lanes 4 --max-epochs 1 --quiet 2>err </dev/null ||
        fail "training on $n ranks: $(cat err)"
    /usr/bin/python3 - run$n $n large.h5ad <<'PYTHON' || fail "the memory of run$n"
import json, sys
import h5py

run, ranks, data = sys.argv[1], int(sys.argv[2]), sys.argv[3]
lines = [json.loads(line) for line in open(f"{run}/log.jsonl")]
memory = {(m["stage"], m["rank"]): m for m in lines if m["event"] == "memory"}
stages = ["start", "setup", "trained"]
assert set(memory) == {(s, r) for s in stages for r in range(ranks)}, sorted(memory)
assert len([m for m in lines if m["event"] == "memory"]) == len(memory), "a stage more than once"
order = [m["stage"] for m in lines if m["event"] == "memory"]
assert order == sorted(order, key=stages.index), order
assert all(lines[i]["t"] <= lines[i + 1]["t"] for i in range(len(lines) - 1)), "times fall"
assert [e["epoch"] for e in lines if e["event"] == "epoch"] == [0]

with h5py.File(data) as f:
    nnz, cells = f["X/data"].shape[0], f["X"].attrs["shape"][0]
with h5py.File(f"{run}/model.h5") as f:
    n_params = sum(f["module"][name].size for name in f["module"])
counts, model = 4 * nnz + 16 * cells, 16 * n_params
for r in range(ranks):
    start, setup, trained = (memory[s, r] for s in stages)
    assert all(0 < m["rss"] <= m["high"] for m in (start, setup, trained)), memory
    assert start["high"] <= setup["high"] <= trained["high"], "a high-water mark falls"
    beyond = setup["high"] - start["high"] - counts - model
    print(f"{run}, rank {r}: start {start['high'] / 1e6:.1f} MB, set-up {setup['high'] / 1e6:.1f} MB, trained {trained['high'] / 1e6:.1f} MB; "
          f"counts {counts / 1e6:.1f} MB, model {model / 1e6:.1f} MB; {beyond / 1e6:.1f} MB beyond them")
    assert beyond < 100e6, "set-up takes 100 MB or more beyond the counts and the model"
PYTHON
done

# A run that is there is not overwritten.
cp -r run1 before
"$CPA_HPC" train large.h5ad --out run1 --max-epochs 1 --quiet 2>err </dev/null
[ $? -eq 78 ] && grep -qF "'run1'" err || fail "a second training of the same run: $(cat err)"
diff -r before run1 || fail "a refused training changed the run"
exit $((failures > 0))
