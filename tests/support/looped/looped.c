// Owns: the backends "kernels" and "kernels_backwards" of tests: the cuda backend, its files unchanged, on stand-ins for the CUDA
// runtime and cuBLAS, with launches as loops over the threads, in ascending or descending order. What comes out must not depend on
// the order. It proves the arithmetic and the indexing of the kernels; never races within a launch that order does not show, launches
// themselves, or speed.
#include "looped.h"

#include "../../../src/platform/backend_cuda_impl.h"

int64_t cpa_looped_thread;
bool cpa_looped_backwards;
int64_t cpa_looped_block;
void *cpa_looped_shared;

static cpa_status create(const char *name, bool backwards, cpa_backend **out)
{
    cpa_status st = cpa_backend_create_cuda(out);
    if (st == CPA_OK) {
        (*out)->name = name;
        (*out)->recorder = NULL;
        cpa_looped_backwards = backwards;
    }
    return st;
}

cpa_status cpa_backend_create_kernels(cpa_backend **out)
{
    return create("kernels", false, out);
}

cpa_status cpa_backend_create_kernels_backwards(cpa_backend **out)
{
    return create("kernels_backwards", true, out);
}
