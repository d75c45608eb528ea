#!/bin/bash
# Owns: the house rules that a machine can check: length, header comments, open ends, hidden functions.
# Must never pass without having caught a planted violation of each rule first.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
longest=600

# Files of $1 that people write.
sources() {
    (cd "$1" && find src include kernels tests -name '*.[ch]' -type f -o -name '*.cu' -type f | sort)
}

too_long() {
    local file lines
    while read -r file; do
        lines=$(wc -l <"$1/$file")
        if [ "$lines" -gt $longest ]; then
            echo "$file:$lines: longer than $longest lines; a file has one subject"
        fi
    done < <(sources "$1")
}

# A file begins with what it owns, and with what it never does: on a second line, or said on the first.
no_header() {
    local file
    while read -r file; do
        awk -v file="$file" '
            NR == 1 && !/^\/\/ Owns: / { print file ":1: does not begin with \"// Owns: ...\""; exit }
            NR == 1 && /[Nn]ever|[Nn]othing|[Kk]eeps no / { exit }
            NR == 2 && !/^\/\/ / { print file ":2: the header does not say what the file must never do" }
            NR == 2 { exit }' "$1/$file"
    done < <(sources "$1")
}

open_ends() {
    local marks='TO''DO|FIX''ME|XX''X'
    (cd "$1" && grep -rnwE "$marks" --include='*.[ch]' --include='*.cu' --include='*.def' --include='*.sh' --include='*.txt' \
        --include='*.md' src include kernels tests 2>/dev/null || true)
}

# Functions that other files could call without a header that tells them how. A header may also declare them by a macro
# that pastes their names (cpa_cpu_##name).
undeclared() {
    local file line name headers pasted
    headers=$(cd "$1" && find include src -name '*.h' -type f -exec cat {} +)
    pasted=$(grep -oE '[a-z_]+##' <<<"$headers" | sort -u | sed 's/^/^/; s/##$//' || true)
    while IFS=: read -r file line name; do
        if ! grep -qwF "$name" <<<"$headers" && ! { [ -n "$pasted" ] && grep -qf <(echo "$pasted") <<<"$name"; }; then
            echo "$file:$line: $name is neither static nor declared in a header"
        fi
    done < <(cd "$1" && find src -name '*.c' -type f -exec awk '
        /^[a-zA-Z_]/ && !/^(static|typedef|enum|struct [a-z_]+ \{|#|[a-z_]+:)/ && /\(/ { head = $0; at = FNR }
        /^\{/ && head != "" {
            name = head
            sub(/\(.*/, "", name)
            sub(/.*[ *]/, "", name)
            if (name != "main") { print FILENAME ":" at ":" name }
        }
        /;|^\{|^\}/ { head = "" }' {} +)
}

violations() {
    too_long "$1"
    no_header "$1"
    open_ends "$1"
    undeclared "$1"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/src/base" "$scratch/include/cpa/base" "$scratch/kernels" "$scratch/tests"
header=$'// Owns: a planted file.\n// Must never be built.'
printf '%s\ncpa_status cpa_known(int x);\n' "$header" >"$scratch/include/cpa/base/good.h"
printf '%s\ncpa_status cpa_known(int x)\n{\n}\nstatic int local(void)\n{\n}\n' "$header" >"$scratch/src/base/good.c"
printf '%s\n#define CPA_OP(name, ...) void cpa_op_##name(void);\n' "$header" >"$scratch/src/base/x_impl.h"
printf '%s\nvoid cpa_op_add(void)\n{\n}\n' "$header" >"$scratch/src/base/op.c"
{ echo "$header"; seq 600; } >"$scratch/src/base/long.c"
printf '#include <stdio.h>\n' >"$scratch/src/base/bare.c"
printf '#include "kernel.h"\n' >"$scratch/kernels/bare.cu"
printf '// Owns: one line.\n#include <stdio.h>\n' >"$scratch/src/base/short.c"
printf '%s\n// TO''DO later\n' "$header" >"$scratch/src/base/open.c"
printf '%s\nconst char *cpa_hidden(int a,\n    int b)\n{\n}\n' "$header" >"$scratch/src/base/hidden.c"
found=$(violations "$scratch")
for expected in long.c:602: bare.c:1: bare.cu:1: short.c:2: open.c:3: hidden.c:3:; do
    if ! grep -qF "$expected" <<<"$found"; then
        printf 'self-check: %s was not caught in:\n%s\n' "$expected" "$found"
        exit 1
    fi
done
if [ "$(wc -l <<<"$found")" -ne 6 ]; then
    printf 'self-check: more was reported than planted:\n%s\n' "$found"
    exit 1
fi

found=$(violations "$root")
if [ -n "$found" ]; then
    echo "$found"
    exit 1
fi
echo "the house rules hold"
