#!/bin/bash
# Owns: that training is refused, or undone, where its result cannot go, and where ranks, lanes and numbers do not fit.
# Must never leave a mounted folder behind.
set -u
. "$CPA_TESTS/support/refuse.sh"
trap 'umount full 2>/dev/null' EXIT
make_bad_files
data=good.h5ad
small=(--max-epochs 2 --n-latent 8)

# badly CODE WORDS OPTIONS...: `train` of good data is refused, alone and on 3 ranks.
badly() {
    local code=$1 words=$2
    shift 2
    refuse "$code" "$words" train $data "${small[@]}" "$@"
}

# ---- Places
mkdir there
echo "a result" >there/model.h5
badly 78 "'there'|exists" --out there --lanes 4
badly 78 "'good.h5ad'|exists" --out good.h5ad --lanes 4
badly 66 "'nowhere/run'|parent must exist" --out nowhere/run --lanes 4
badly 66 "'good.h5ad/run'" --out good.h5ad/run --lanes 4
badly 74 "too long" --out "$(printf 'x%.0s' {1..300})" --lanes 4
if [ "$(id -u)" -eq 0 ]; then
    badly 74 "'/sys/run'" --out /sys/run --lanes 4
else
    mkdir -m 555 closed
    badly 74 "'closed/run'|ermission" --out closed/run --lanes 4
fi
# Files of at most 8 KiB, for this process alone: what mpirun keeps for itself is larger.
limited() {
    ulimit -f 8
    "$@"
}
export -f limited
attempt 74 "run/model.h5|File too large" bash -c 'limited "$@"' limited "$CPA_HPC" train $data "${small[@]}" --out run
# Streams that are closed from the start: what opens files must not get their numbers.
"$CPA_HPC" train $data "${small[@]}" --out unheard <&- 2>&- || failed "train without standard error"
/usr/bin/python3 -c 'import json; [json.loads(line) for line in open("unheard/log.jsonl")]' || failed "log.jsonl without standard error"
# A disk that is full when the model is written, and one that is full from the start.
mkdir full
for size in 64k 4k; do
    if mount -t tmpfs -o size=$size none full 2>/dev/null; then
        badly 74 "full/run/|No space left" --out full/run --lanes 4
        umount full
    else
        echo "SKIPPED: a full disk of $size (this user may not mount one)"
    fi
done

# ---- Ranks and lanes
badly 64 "--lanes|power of two|'3'" --out run --lanes 3
badly 64 "--lanes|'0'" --out run --lanes 0
badly 64 "--n-layers-encoder|1 to 8" --out run --n-layers-encoder 9
badly 64 "--batch-size|3 or more" --out run --batch-size 2
# shellcheck disable=SC2086
attempt 64 "3 ranks|2 lanes|mpirun -n 2" $CPA_MPIRUN -n 3 "$CPA_HPC" train $data --out run --lanes 2
# shellcheck disable=SC2086
attempt 64 "3 ranks|1 lane" $CPA_MPIRUN -n 3 "$CPA_HPC" train $data --out run
badly 65 "$data|35 training cells|--lanes" --out run --lanes 16
badly 65 "$data|1 training cells" --out run --lanes 4 --split-key '' --train-size 0.001

# ---- Numbers, configurations
# Parameters that are finite, and whose squares are not.
huge=$([ "$CPA_REAL" = double ] && echo 1e200 || echo 1e30)
badly 77 "epoch 2|nan|layer|cell in row|--lr" --out run --lanes 4 --lr $huge
badly 77 "epoch 1|validation|nan|layer|cell in row|--lr" --out run --lanes 4 --lr $huge --max-epochs 1
badly 77 "last step|training cells|nan|layer|cell in row|--lr" --out run --lanes 4 --lr $huge --max-epochs 1 --valid-split ''
badly 66 "nowhere.yaml" --out run --lanes 4 --config nowhere.yaml
echo "lr: [" >broken.yaml
badly 78 "broken.yaml:2|not YAML" --out run --lanes 4 --config broken.yaml
echo "lrr: 3" >unknown.yaml
badly 78 "unknown.yaml:1|'lrr'|lr" --out run --lanes 4 --config unknown.yaml
finish
