// Owns: what the launches of kernels on the host share. Never used by anything but tests/support/looped.
#ifndef CPA_TESTS_LOOPED_H
#define CPA_TESTS_LOOPED_H

#include <stdbool.h>
#include <stdint.h>

extern int64_t cpa_looped_thread; // the number of the thread that runs
extern bool cpa_looped_backwards; // the last thread first
extern int64_t cpa_looped_block;  // the number of the block that runs, in kernels of blocks
extern void *cpa_looped_shared;   // what its threads share, of the size that the launch says

#endif
