// Owns: what the fuzzing harnesses share: reading a file as the commands do, in a process of its own, and judging how that ended.
// Never part of the program.
#ifndef CPA_TESTS_FUZZ_H
#define CPA_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/** Starts the libraries, and makes the counters of covered code common to this process and those that read files, so that libFuzzer
 *  sees theirs. */
void fuzz_begin(void);

/** Reads the bytes as a file, and aborts unless that ends well or with a status and a message that name the file. */
void fuzz_judge(const uint8_t *bytes, size_t n);

// What libFuzzer calls; replay.c too.
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
