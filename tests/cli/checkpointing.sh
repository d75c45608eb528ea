#!/bin/bash
# Owns: that --gradient-checkpointing changes memory and not one bit of a run, also where a run is resumed with or without it, and that
# `plan` shows what it saves. Must never look at times.
set -u
. "$CPA_TESTS/support/resume.sh"
data=a.h5ad
"$CPA_HPC" simulate a.h5ad --cells 500 --genes 120 --quiet 2>err </dev/null || { echo "FAILED: simulate: $(cat err)"; exit 1; }

options=(--n-layers-encoder 5 --n-layers-decoder 4 --n-hidden-encoder 24 --n-hidden-decoder 16 --n-latent 8 --dropout-rate-encoder 0.2
    --recon-loss zinb --use-layer-norm-decoder true --batch-size 64 --lanes 2 --check-val-every-n-epoch 2 --max-epochs 40)
# stop OPTIONS...: goes on with the run for two epochs and stops it.
stop() {
    local after=$(($(epochs run) + 2))
    launch 0 run --checkpoint-every-steps 5 "$@"
    await run $after
    kill -USR1 "$pid"
    ended 75
}

train 0 0 kept --batch-norm sync
train 0 0 again --batch-norm sync --gradient-checkpointing true
equal kept again
# Begun with it, gone on with without it, and once more with it.
train 0 0 whole
stop --gradient-checkpointing true
stop --resume
train 0 0 run --resume --gradient-checkpointing true
equal whole run

# Four fifths of what eight hidden layers of 512 with batch norm leave, in the encoder and in the decoder.
for with in false true; do
    "$CPA_HPC" plan a.h5ad --batch-size 2046 --n-layers-encoder 8 --n-layers-decoder 8 --n-hidden-encoder 512 --n-hidden-decoder 512 \
        --gradient-checkpointing $with --json --quiet >$with.json 2>err </dev/null || fail "plan: $(cat err)"
done
/usr/bin/python3 - <<'PYTHON' || fail "what plan says"
import json, os, shlex

kept, again = (json.load(open(name + ".json")) for name in ("false", "true"))
job = shlex.split(again["sbatch"])
assert job[job.index("--gradient-checkpointing") + 1] == "true", job
for rank in "first_rank", "first_rank_with_gpu":
    k, a = (sum(plan[rank]["items"]["activations"].values()) for plan in (kept, again))
    hidden = 2 * 8 * 512 * 2 * (2046 + 2) * (8 if os.environ["CPA_REAL"] == "double" else 4)
    print(f"{rank}: activations of {k / 2**20:.1f} MiB, {a / 2**20:.1f} with checkpointing: {100 * (k - a) / hidden:.1f} % of the hidden layers'")
    assert k - a > 0.8 * hidden, (k, a)
    for item in "values", "gradients", "moments":
        assert kept[rank]["items"][item] == again[rank]["items"][item]
PYTHON
exit $((failures > 0))
