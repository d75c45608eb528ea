#!/bin/bash
# Owns: an empty working folder for one command, removed when the command has ended.
# Must never hide the command's exit code.
set -u
folder=$(mktemp -d "${TMPDIR:-/tmp}/cpa-test.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
"$@"
