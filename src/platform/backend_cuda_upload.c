// Owns: the way of host memory to the device, through a ring of pinned memory: the caller may use its memory again at once, and waits
// neither for the copy nor for what is on the stream before it. Never interprets what it copies.
#include "backend_cuda_impl.h"

#include <string.h>

enum { HALF = 8 << 20 }; // bytes of each half of the ring

cpa_status cpa_cuda_ring_create(cpa_cuda *cuda)
{
    cpa_status st;
    cpa_cuda_ring *r = &cuda->ring;
    void *at;
    CPA_TRY(cpa_cuda_judge(cudaMallocHost(&at, 2 * (size_t)HALF), "pinned memory for uploads"));
    r->at = (char *)at;
    for (int i = 0; i < 2; i++) {
        CPA_TRY(cpa_cuda_judge(cudaEventCreateWithFlags(&r->passed[i], cudaEventDisableTiming), "an event"));
    }
cleanup:
    return st;
}

void cpa_cuda_ring_destroy(cpa_cuda *cuda)
{
    cpa_cuda_ring *r = &cuda->ring;
    for (int i = 0; i < 2; i++) {
        if (r->passed[i] != NULL) {
            cudaEventDestroy(r->passed[i]);
        }
    }
    if (r->at != NULL) {
        cudaFreeHost(r->at);
    }
    *r = (cpa_cuda_ring){0};
}

// Goes on to the other half, once the device has taken what was there.
static cpa_status turn(cpa_cuda *cuda)
{
    cpa_status st;
    cpa_cuda_ring *r = &cuda->ring;
    CPA_TRY(cpa_cuda_judge(cudaEventRecord(r->passed[r->half], cuda->stream), "an event"));
    r->half = !r->half;
    r->used = 0;
    CPA_TRY(cpa_cuda_judge(cudaEventSynchronize(r->passed[r->half]), "an upload"));
cleanup:
    return st;
}

cpa_status cpa_cuda_upload(cpa_backend *be, void *dev, const void *host, size_t bytes)
{
    cpa_status st = CPA_OK;
    cpa_cuda *cuda = (cpa_cuda *)be;
    cpa_cuda_ring *r = &cuda->ring;
    cpa_cuda_changed(cuda, dev, bytes);
    for (size_t done = 0, n; done < bytes; done += n) {
        if (r->used == HALF) {
            CPA_TRY(turn(cuda));
        }
        n = bytes - done < HALF - r->used ? bytes - done : HALF - r->used;
        char *from = r->at + (size_t)r->half * HALF + r->used;
        memcpy(from, (const char *)host + done, n);
        CPA_TRY(cpa_cuda_judge(cudaMemcpyAsync((char *)dev + done, from, n, cudaMemcpyHostToDevice, cuda->stream),
                               "an upload"));
        r->used += (n + 255) / 256 * 256;
    }
cleanup:
    return st;
}
