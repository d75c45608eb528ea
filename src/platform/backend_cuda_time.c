// Owns: marks on the stream, and the time between them. Never waits but to read one.
#include "backend_cuda_impl.h"

cpa_status cpa_cuda_stamp(cpa_backend *be, int i)
{
    cpa_status st = CPA_OK;
    cpa_cuda *cuda = (cpa_cuda *)be;
    if (i >= cuda->n_marks) {
        CPA_TRY(cpa_realloc((size_t)i + 1, sizeof(void *), &cuda->mark));
        for (; cuda->n_marks <= i; cuda->n_marks++) {
            cuda->mark[cuda->n_marks] = NULL;
            CPA_TRY(cpa_cuda_judge(cudaEventCreateWithFlags(&cuda->mark[cuda->n_marks], 0), "an event"));
        }
    }
    CPA_TRY(cpa_cuda_judge(cudaEventRecord(cuda->mark[i], cuda->stream), "an event"));
cleanup:
    return st;
}

cpa_status cpa_cuda_elapsed(cpa_backend *be, int from, int to, double *seconds)
{
    cpa_status st;
    cpa_cuda *cuda = (cpa_cuda *)be;
    float milliseconds;
    CPA_TRY(cpa_cuda_judge(cudaEventSynchronize(cuda->mark[to]), "an operation that is timed"));
    CPA_TRY(cpa_cuda_judge(cudaEventElapsedTime(&milliseconds, cuda->mark[from], cuda->mark[to]),
                           "the time of an operation"));
    *seconds = 1e-3 * (double)milliseconds;
cleanup:
    return st;
}

void cpa_cuda_forget_marks(cpa_cuda *cuda)
{
    for (int i = 0; i < cuda->n_marks; i++) {
        if (cuda->mark[i] != NULL) {
            cudaEventDestroy(cuda->mark[i]);
        }
    }
    cpa_free(&cuda->mark);
    cuda->n_marks = 0;
}
