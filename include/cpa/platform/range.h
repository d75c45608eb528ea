// Owns: names of what a thread is doing, for profilers that show NVTX ranges (Nsight Systems). Never changes what is done; of builds without
// CUDA it is no part.
#ifndef CPA_PLATFORM_RANGE_H
#define CPA_PLATFORM_RANGE_H

#include "cpa/base/status.h"

#ifdef CPA_CUDA
/** The calling thread does what `name` says until cpa_range_end; ranges nest. `name` is copied by whoever listens. Rank-local. */
void cpa_range_begin(const char *name);

/** Ends the innermost range, and hands back the status of what was done in it. */
cpa_status cpa_range_end(cpa_status st);
#else
static inline void cpa_range_begin(const char *name)
{
    (void)name;
}

static inline cpa_status cpa_range_end(cpa_status st)
{
    return st;
}
#endif

// The status of a call that is a range of its own.
#define CPA_IN_RANGE(name, call) (cpa_range_begin(name), cpa_range_end(call))

#endif
