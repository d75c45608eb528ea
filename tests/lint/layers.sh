#!/bin/bash
# Owns: the check that includes follow the layers, and that every foreign library has one home.
# Must never pass without having caught a planted violation of each rule first.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

# Prints file:line: reason for every include in $1/src, $1/include and $1/kernels that breaks a rule.
violations() {
    (cd "$1" && grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.[ch]' --include='*.cu' --include='*.def' \
        src include kernels || true) |
        awk '
    BEGIN {
        n = split("base platform nn data model train app", names, " ")
        split("0 1 2 2 3 4 5", levels, " ")
        for (i = 1; i <= n; i++) { level[names[i]] = levels[i] }
        home["mpi.h"] = "^src/platform/comm_mpi\\.c$"
        home["nccl.h"] = "^src/platform/comm_nccl\\.c$"
        home["hdf5.h"] = home["hdf5_hl.h"] = "^src/platform/h5[a-z0-9_]*\\.[ch]$"
        home["cblas.h"] = home["dnnl.h"] = home["dnnl_types.h"] = "^src/platform/backend_cpu[a-z0-9_]*\\.[ch]$"
        home["cuda_runtime_api.h"] = "^src/platform/backend_cuda[a-z0-9_]*\\.[ch]$"
        home["cublas_v2.h"] = "^src/platform/backend_cuda_gemm\\.c$"
        home["oneapi/dnnl/dnnl.h"] = home["openblas_config.h"] = home["cblas.h"]
    }
    function bad(why) { print file ":" line ": " why }
    {
        split($0, part, ":")
        file = part[1]; line = part[2]
        if (match(file, /^include\/cpa\/[a-z]+\//)) {
            layer = substr(file, 13, RLENGTH - 13)
        } else if (match(file, /^src\/[a-z]+\//)) {
            layer = substr(file, 5, RLENGTH - 5)
        } else if (file == "src/main.c") {
            layer = "app"
        } else if (file ~ /^kernels\//) {
            layer = "platform"
        } else {
            bad("belongs to no layer"); next
        }
        if (!(layer in level)) { bad("unknown layer " layer); next }
        if (!match($0, /[<"][^>"]*[>"]/)) { bad("an include that cannot be read"); next }
        target = substr($0, RSTART + 1, RLENGTH - 2)
        if (target in home) {
            if (file !~ home[target]) { bad("<" target "> is not at home here") }
        } else if (target ~ /^cpa\//) {
            split(target, path, "/")
            to = path[2]
            if (!(to in level)) { bad("unknown layer " to) }
            else if (level[to] > level[layer]) { bad(layer " includes " target ", a higher layer") }
            else if (level[to] == level[layer] && to != layer) { bad(layer " includes " target ", a sibling") }
            else if (layer == "model" && to == "data" && target != "cpa/data/batch.h") {
                bad("model sees nothing of data but cpa/data/batch.h, not " target)
            }
        } else if (file ~ /^kernels\//) {
            if (target ~ /\// && !(file == "kernels/kernel.h" && target == "../src/platform/backend_cuda_impl.h")) {
                bad("kernels see of src nothing but backend_cuda_impl.h, in kernel.h")
            }
        } else if (index($0, "\"" target "\"") > 0 && target !~ /^[a-z0-9_]+_impl\.h$/) {
            bad("\"" target "\" is neither a cpa/ header nor a private *_impl.h of this folder")
        }
    }'
}

# One planted include per rule: file|line. Each must be reported, and nothing else.
planted=(
    'src/base/x.c|#include "cpa/platform/comm.h"'
    'src/platform/x.c|#include <mpi.h>'
    'src/platform/z.c|#include <nccl.h>'
    'src/data/x.c|#  include <hdf5.h>'
    'src/nn/x.c|#include <cblas.h>'
    'include/cpa/platform/x.h|#include "dnnl.h"'
    'include/cpa/nn/x.h|#include "cpa/data/batch.h"'
    'src/data/y.c|#include "cpa/nn/mlp.h"'
    'src/model/x.c|#include "cpa/data/registry.h"'
    'src/train/x.c|#include "cpa/app/options.h"'
    'src/train/y.c|#include "../model/model_impl.h"'
    'src/other/x.c|#include <stdio.h>'
    'src/data/z.c|#include <cuda_runtime_api.h>'
    'src/platform/backend_cuda.c|#include <cublas_v2.h>'
    'kernels/x.cu|#include "cpa/nn/mlp.h"'
    'kernels/y.cu|#include "../src/platform/backend_cuda_impl.h"'
    'kernels/z.cu|#include <cuda_runtime_api.h>'
)
allowed=(
    'src/platform/comm_mpi.c|#include <mpi.h>'
    'src/platform/h5_read.c|#include <hdf5.h>'
    'src/platform/backend_cpu.c|#include <dnnl.h>'
    'src/model/z.c|#include "cpa/data/batch.h"'
    'src/main.c|#include "cpa/app/options.h"'
    'src/train/z.c|#include "step_impl.h"'
    'src/platform/backend_cuda_gemm.c|#include <cublas_v2.h>'
    'src/platform/backend_cuda_impl.h|#include <cuda_runtime_api.h>'
    'kernels/kernel.h|#include "../src/platform/backend_cuda_impl.h"'
    'kernels/norm.cu|#include "kernel.h"'
)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
plant() {
    mkdir -p "$scratch/src" "$scratch/include" "$scratch/$(dirname "${1%%|*}")"
    printf '// A planted file.\n%s\n' "${1#*|}" >"$scratch/${1%%|*}"
}
for entry in "${planted[@]}" "${allowed[@]}"; do
    plant "$entry"
done
found=$(violations "$scratch")
for entry in "${planted[@]}"; do
    if ! grep -qF "${entry%%|*}:2:" <<<"$found"; then
        echo "self-check: not caught: ${entry/|/: }"
        exit 1
    fi
done
if [ "$(wc -l <<<"$found")" -ne "${#planted[@]}" ]; then
    printf 'self-check: more was reported than planted:\n%s\n' "$found"
    exit 1
fi

found=$(violations "$root")
if [ -n "$found" ]; then
    echo "$found"
    exit 1
fi
echo "includes follow the layers"
