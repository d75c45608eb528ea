#!/bin/bash
# Owns: what configuring says of an HDF5_ROOT that cannot serve.
# Must never build anything.
set -u
source_folder=$(cd "$CPA_TESTS/.." && pwd)
failures=0

# refused FOLDER ARGUMENTS...: configuring names FOLDER and what it lacks.
refused() {
    local folder=$1
    shift
    if cmake -S "$source_folder" -B build "$@" >out 2>&1; then
        echo "FAILED: $folder was taken for a parallel HDF5"
        failures=$((failures + 1))
    elif ! tr -s ' \n' ' ' <out | grep -qF "HDF5_ROOT is '$folder', where there is no parallel HDF5"; then
        echo "FAILED: $folder: expected a sentence on HDF5_ROOT, got:" && cat out
        failures=$((failures + 1))
    fi
}

HDF5_ROOT=$PWD/nowhere refused "$PWD/nowhere"

mkdir -p serial/include serial/lib
echo '/* #undef H5_HAVE_PARALLEL */' >serial/include/H5pubconf.h
touch serial/lib/libhdf5.so
refused "$PWD/serial" -DHDF5_ROOT="$PWD/serial"

exit $((failures > 0))
