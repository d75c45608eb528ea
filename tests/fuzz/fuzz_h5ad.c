// Owns: the harness of whole files: the input is the file. Finds what damaged structures do to the reader.
// Never looks at the result.
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    fuzz_begin();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_judge(data, n);
    return 0;
}
