#!/bin/bash
# Owns: that `plan` says what training then takes: item by item, and within a tenth of what the system sees; the batches that it says
# fit; what it refuses. Must never look at absolute times.
set -u
. "$CPA_TESTS/support/refuse.sh"
"$CPA_HPC" simulate a.h5ad --cells 3000 --genes 5000 --quiet 2>err </dev/null || { echo "FAILED: simulate: $(cat err)"; exit 1; }

# compare NAME RANKS [check of RSS: yes|no] DATA OPTION...: trains, plans with the same options, and holds the two against each other.
compare() {
    local name=$1 ranks=$2 rss=$3 data=$4
    shift 4
    # CPA_MPIRUN is a command line of several words.
    # shellcheck disable=SC2086
    $CPA_MPIRUN -n "$ranks" "$CPA_HPC" train "$data" --out "$name" --max-epochs 2 --quiet "$@" 2>err </dev/null ||
        { echo "FAILED: training of $name: $(cat err)"; failures=$((failures + 1)); return; }
    "$CPA_HPC" plan "$data" --ranks "$ranks" --json --quiet "$@" >"$name.json" 2>err </dev/null ||
        { echo "FAILED: plan of $name: $(cat err)"; failures=$((failures + 1)); return; }
    /usr/bin/python3 - "$name" "$ranks" "$rss" <<'PYTHON' || { echo "FAILED: $name"; failures=$((failures + 1)); }
import json, sys

name, ranks, rss = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "yes"
plan = json.load(open(name + ".json"))
lines = [json.loads(line) for line in open(name + "/log.jsonl")]
for rank, need in ((0, plan["first_rank"]), (ranks - 1, plan["last_rank"])):
    taken = [m for m in lines if m["event"] == "items" and m["rank"] == rank]
    assert len(taken) == 1 and need["rank"] == rank
    for item, by_place in need["items"].items():
        # The C library rounds up; the thread that writes checkpoints has a megabyte of its own, a validation over ranks half of one;
        # and at the end best.h5 may be waiting, which the plan has among what is taken for a moment.
        room = 2e6 if item == "steps" else 64e3
        waiting = 1.2 * sum(need["items"]["values"].values()) if item == "steps" else 0
        more = taken[0][item] - sum(by_place.values())
        assert -room < more < room + waiting, (rank, item, by_place, taken[0][item])
    memory = {m["stage"]: m for m in lines if m["event"] == "memory" and m["rank"] == rank}
    grown, planned = memory["trained"]["high"] - memory["start"]["rss"], need["host"] - need["start"]
    print(f"{name}, rank {rank}: planned {planned / 2**20:.1f} MiB, the system saw {grown / 2**20:.1f} MiB more than at the start")
    assert not rss or abs(planned / grown - 1) < 0.1, "the plan is off by more than a tenth"
PYTHON
}

# What the system sees is another thing under the sanitizers.
seen=yes
# Chunks so small that where they are is no small part of what a rank takes.
cp a.h5ad chunks.h5ad
/usr/bin/python3 - <<'PYTHON' || { echo "FAILED: chunks.h5ad"; exit 1; }
import h5py

with h5py.File("chunks.h5ad", "r+") as f:
    for name in ("X/data", "X/indices"):
        values = f[name][:]
        del f[name]
        f.create_dataset(name, data=values, chunks=(100,))
PYTHON
[ "$CPA_SANITIZED" = 1 ] && seen=no
stop="--check-val-every-n-epoch 1 --checkpoint-every-steps 4" # after the first validation, so that all memory is in use
# shellcheck disable=SC2086
{
    compare resident 1 $seen a.h5ad --batch-size 1024 $stop
    compare streamed 2 $seen chunks.h5ad --batch-size 256 --lanes 4 --batch-norm sync --mixup-alpha 0.2 --shuffle block --shuffle-window 512 --memory 4MiB $stop
    compare small 1 no a.h5ad --batch-size 128 --recon-loss zinb --variational true --checkpoint-every-seconds 0 --n-hidden-encoder 64 --n-layers-encoder 1
}

# ---- The batches that fit, and a plan that takes little itself
/usr/bin/python3 - <<'PYTHON' || failures=$((failures + 1))
import json, os, resource, shlex, subprocess

hpc = os.environ["CPA_HPC"]


def plan(*options, data="a.h5ad", launcher=[], env=None):
    command = [*launcher, hpc, "plan", data, "--json", "--quiet", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL).stdout)


# One rank alone looks, for as long as it takes: others wait for it as long as it gets on.
ranks = {"launcher": [*os.environ["CPA_MPIRUN"].split(), "-n", "2"]}
by_two = ["--ranks", "1", "--timeout", "2"]
for option, mib, where, how in (("--fit", 300, "host", {}), ("--fit-device", 200, "device", ranks)):
    whole = plan(option, f"{mib}MiB", *(by_two if how else []), **how)
    found = whole[option[2:].replace("-", "_")]
    assert found["limit"] == mib * 2**20 and 0 < found["takes"] <= found["limit"], found
    which = "first_rank" if where == "host" else "first_rank_with_gpu"
    # The program itself is not quite as large every time.
    assert abs(plan("--batch-size", str(found["batch_size"]))[which][where] - found["takes"]) < 4e6, found
    larger = plan("--batch-size", str(found["batch_size"] + 1))[which]
    own = whole[which]["start"] - larger["start"] if where == "host" else 0
    assert larger[where] + own > found["limit"], "a larger one would fit"
few = plan("--batch-size", "5")["first_rank_with_gpu"]["device"]
for bytes_, batch in (few, 5), (few - 1, 4):
    assert plan("--fit-device", f"{bytes_ / 1024}KiB")["fit_device"]["batch_size"] == batch, batch
whole = plan("--fit", "1TiB")
assert whole["fit"]["batch_size"] == whole["training_cells"], whole["fit"]
assert plan("--fit", "1MiB")["fit"]["batch_size"] == 0 and plan()["fit"] is None
# A batch that outgrows the windows does not fit, either.
windows = ["--memory", "4MiB", "--shuffle", "block", "--shuffle-window", "512"]
found = plan(*windows, "--fit", "1TiB")
assert found["first_rank"]["cells"] == "streamed" and 0 < found["fit"]["batch_size"] < 2000, found["fit"]
# What training would take a plan only counts.
if os.environ["CPA_SANITIZED"] != "1":
    wide = ["--batch-size", "2400", "--lanes", "1", "--n-hidden-decoder", "4096"]
    assert plan(*wide, "--checkpoint-every-seconds", "0")["first_rank"]["host"] > 1.2 * 2**30
    high = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    assert high < 300, high
eight = ["--lanes", "8", "--ranks", "8", "--ranks-per-node", "4", "--lr", "1e-3", "--threads", "3"]
p = plan(*eight)
assert p["nodes"] == 2 and p["gpu_confirmed"] is False and p["last_rank"]["rank"] == 7
assert p["last_rank"]["checkpoint"] == 0 < p["first_rank"]["checkpoint"]
job = shlex.split(p["sbatch"])
assert job[:6] == ["CPA_LANES=8", "sbatch", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=3"], job
assert job[7:] == ["jobs/several_nodes.sbatch", "a.h5ad", "RUN", "--lr", "0.001", "--memory", f"{p['memory'] >> 20}MiB"], job
assert int(job[6].removeprefix("--mem=").removesuffix("M")) * 2**20 > p["node_bytes"], job
# What is said of the host is of a run without GPUs.
nccl = plan(*eight, "--backend", "check", "--reduce", "nccl")
for rank in "first_rank", "last_rank":
    assert all(abs(sum(of.values()) - sum(p[rank]["items"][item].values())) < 4096 for item, of in nccl[rank]["items"].items()), rank
# The job is the run that was planned, whatever the ranks and the words are: also when it finds other memory free.
assert found["sbatch"].endswith(" --memory 4MiB") and found["memory"] == 4 * 2**20, found
os.symlink("a.h5ad", "it's a.h5ad")
held = ["--holdout", "cell_type=type_1,batch=batch_1", "--holdout", "cell_type=type_2"]
cores, env = len(os.sched_getaffinity(0)), {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
p = plan("--lanes", "8", "--ranks", "5", "--ranks-per-node", "2", *held, data="it's a.h5ad", env=env)
job = shlex.split(p["sbatch"])
assert job[2:5] == ["--nodes=3", "--ntasks=5", "--ntasks-per-node=2"], job
assert job[8:10] == ["it's a.h5ad", "RUN"] and job[10:14] == held, job
# Threads that nobody asked for are cores, shared among the ranks of a node.
assert p["threads"] == max(1, cores // 2) and job[5] == f"--cpus-per-task={p['threads']}", p
PYTHON

"$CPA_HPC" plan a.h5ad --quiet >page 2>err || { echo "FAILED: plan: $(cat err)"; failures=$((failures + 1)); }
for words in "counts of the cells (resident" "moments of the three Adams" "together" "MiB of its GPU" "jobs/one_node.sbatch a.h5ad RUN"; do
    grep -qF "$words" page || { echo "FAILED: the page does not say: $words"; failures=$((failures + 1)); }
done

# ---- Refused as training would
attempt 64 "8 ranks are more than the 1 lane" "$CPA_HPC" plan a.h5ad --ranks 8
attempt 64 "--out" "$CPA_HPC" plan a.h5ad --out RUN
attempt 66 "none.h5ad" "$CPA_HPC" plan none.h5ad
refuse 65 "nowhere" plan a.h5ad --perturbation-key nowhere --ranks 1
attempt 78 "--reduce nccl|--backend cuda" "$CPA_HPC" plan a.h5ad --reduce nccl
attempt 78 "--reduce nccl|--backend cuda" "$CPA_HPC" train a.h5ad --out run --lanes 4 --reduce nccl
refuse 78 "allow more with --memory" plan a.h5ad --memory 1MiB --ranks 1
finish
