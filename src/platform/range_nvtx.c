// Owns: NVTX, in builds with CUDA alone; without a profiler that listens a range is a test of a pointer. Never keeps a name.
#include "cpa/platform/range.h"

#include <nvtx3/nvToolsExt.h>

void cpa_range_begin(const char *name)
{
    nvtxRangePushA(name);
}

cpa_status cpa_range_end(cpa_status st)
{
    nvtxRangePop();
    return st;
}
