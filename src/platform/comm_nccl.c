// Owns: everything that calls NCCL. The communicator does not block: every call of it, the first included, is polled, so that the
// watch over waits ends what never answers. Must never be compiled into a build without CUDA.
#include <stdatomic.h>
#include <time.h>

#include <nccl.h>

#include "backend_cuda_impl.h"
#include "comm_watch_impl.h"
#include "cpa/base/mem.h"
#include "device_sum_impl.h"

static const long NAP_NS = 100000; // between two looks at a call that is still in progress

typedef struct nccl_adder {
    cpa_adder base;
    cpa_backend *be;          // borrowed
    _Atomic(ncclComm_t) comm; // NULL: aborted, by the watch too, or never begun
    cudaStream_t stream;
    cudaEvent_t ready, done; // what the backend was asked for before a message; the last message
} nccl_adder;

static nccl_adder *self_of(cpa_adder *a)
{
    return (nccl_adder *)(void *)a;
}

// Its own words beside the code's; ranks that share a GPU are the one mistake that is the user's.
static cpa_status nccl_status(const nccl_adder *a, ncclResult_t r, const char *what)
{
    if (r == ncclSuccess) {
        return CPA_OK;
    }
    bool is_shared = r == ncclInvalidUsage;
    return cpa_fail(is_shared ? CPA_CONFIG : CPA_LOST_PEER, "NCCL: %s: %s: %s%s (NCCL_DEBUG=WARN says more)", what,
                    ncclGetErrorString(r), ncclGetLastError(a->comm),
                    is_shared ? "; each rank needs a GPU of its own" : "");
}

// What has become of a call.
static ncclResult_t outcome(const nccl_adder *a)
{
    ncclComm_t comm = a->comm;
    ncclResult_t r = ncclInternalError, asked = comm != NULL ? ncclCommGetAsyncError(comm, &r) : r;
    return asked != ncclSuccess ? asked : r;
}

// Waits until a call is through. Under the watch.
static cpa_status settle(const nccl_adder *a, ncclResult_t r, const char *what)
{
    cpa_watch_begin(what, -1);
    while (r == ncclInProgress) {
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        r = outcome(a);
    }
    cpa_watch_end();
    return nccl_status(a, r, what);
}

static cpa_status start(cpa_adder *adder, cpa_dev_real *v, int64_t n)
{
    cpa_status st;
    nccl_adder *a = self_of(adder);
    void *reals = (void *)(uintptr_t)v;
    ncclDataType_t type = sizeof(cpa_real) == sizeof(float) ? ncclFloat32 : ncclFloat64;
    CPA_TRY(cpa_cuda_judge(cudaEventRecord(a->ready, cpa_cuda_stream(a->be)), "an event"));
    CPA_TRY(cpa_cuda_judge(cudaStreamWaitEvent(a->stream, a->ready, 0), "waiting for an event"));
    CPA_TRY(settle(a, ncclAllReduce(reals, reals, (size_t)n, type, ncclSum, a->comm, a->stream), "ncclAllReduce"));
cleanup:
    return st;
}

// The backend goes on behind the sum.
static cpa_status close_sum(cpa_adder *adder)
{
    cpa_status st;
    nccl_adder *a = self_of(adder);
    CPA_TRY(cpa_cuda_judge(cudaEventRecord(a->done, a->stream), "an event"));
    CPA_TRY(cpa_cuda_judge(cudaStreamWaitEvent(cpa_cuda_stream(a->be), a->done, 0), "waiting for an event"));
cleanup:
    return st;
}

static cpa_status poll(cpa_adder *adder, bool *over)
{
    cpa_status st;
    nccl_adder *a = self_of(adder);
    ncclResult_t r = outcome(a);
    if (r != ncclInProgress) {
        CPA_TRY(nccl_status(a, r, "a sum over ranks"));
    }
    cudaError_t done = cudaEventQuery(a->done);
    *over = done == cudaSuccess;
    if (done == cudaErrorNotReady) {
        (void)cudaGetLastError(); // or the next launch might be blamed for it
    } else {
        CPA_TRY(cpa_cuda_judge(done, "a sum over ranks"));
    }
cleanup:
    return st;
}

static void abort_sum(cpa_adder *adder)
{
    ncclComm_t comm = atomic_exchange(&self_of(adder)->comm, NULL);
    if (comm != NULL) {
        ncclCommAbort(comm);
    }
}

// For the watch, whose process is about to end: the devices of the others stop waiting.
static void abort_at_end(void *adder)
{
    abort_sum(adder);
}

static void destroy(cpa_adder *adder)
{
    nccl_adder *a = self_of(adder);
    if (a->comm != NULL && settle(a, ncclCommFinalize(a->comm), "ncclCommFinalize") == CPA_OK) {
        ncclComm_t comm = atomic_exchange(&a->comm, NULL);
        if (comm != NULL) {
            ncclCommDestroy(comm);
        }
    }
    abort_sum(adder);
    cpa_watch_last_act(NULL, NULL);
    if (a->done != NULL) {
        cudaEventDestroy(a->done);
    }
    if (a->ready != NULL) {
        cudaEventDestroy(a->ready);
    }
    if (a->stream != NULL) {
        cudaStreamDestroy(a->stream);
    }
    cpa_free(&a);
}

static const cpa_adder_ops ops = {start, close_sum, poll, abort_sum, destroy};

static cpa_status take(cpa_backend *be, nccl_adder **out)
{
    cpa_status st;
    nccl_adder *a = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *a, &a));
    *a = (nccl_adder){.base = {&ops}, .be = be};
    *out = a;
    CPA_TRY(cpa_cuda_judge(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking), "a stream"));
    CPA_TRY(cpa_cuda_judge(cudaEventCreateWithFlags(&a->ready, cudaEventDisableTiming), "an event"));
    CPA_TRY(cpa_cuda_judge(cudaEventCreateWithFlags(&a->done, cudaEventDisableTiming), "an event"));
cleanup:
    return st;
}

// Rank 0's number for this communicator, told by the ranks' own. Collective.
static cpa_status share_id(cpa_comm *comm, ncclUniqueId *id)
{
    cpa_status st;
    ncclResult_t r = cpa_comm_rank(comm) == 0 ? ncclGetUniqueId(id) : ncclSuccess;
    CPA_TRY(cpa_comm_agree(
        comm, r == ncclSuccess ? CPA_OK : cpa_fail(CPA_LOST_PEER, "NCCL: ncclGetUniqueId: %s", ncclGetErrorString(r))));
    CPA_TRY(cpa_comm_bcast(comm, id, sizeof *id, 0));
cleanup:
    return st;
}

cpa_status cpa_adder_nccl_create(cpa_comm *comm, cpa_backend *be, cpa_adder **out)
{
    cpa_status st;
    nccl_adder *a = NULL;
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    CPA_TRY(cpa_comm_agree(comm, take(be, &a)));
    CPA_TRY(share_id(comm, &id));
    ncclComm_t made = NULL;
    ncclResult_t r = ncclCommInitRankConfig(&made, cpa_comm_size(comm), id, cpa_comm_rank(comm), &config);
    a->comm = made;
    CPA_TRY(cpa_comm_agree(comm, settle(a, r, "connecting GPUs")));
    cpa_watch_last_act(abort_at_end, a);
    *out = &a->base;
    a = NULL;
cleanup:
    if (a != NULL) {
        abort_sum(&a->base); // others may have failed: nothing is left to be agreed on
        destroy(&a->base);
    }
    return st;
}
