// Owns: what the files of the cuda backend share, host and kernels: the object, its stream, its scratch. Never included outside
// src/platform/backend_cuda*.c, kernels/ and comm_nccl.c, whose sums follow what is on the stream.
#ifndef CPA_PLATFORM_BACKEND_CUDA_IMPL_H
#define CPA_PLATFORM_BACKEND_CUDA_IMPL_H

#include <cuda_runtime_api.h>

#include "backend_impl.h"

// Pinned memory in two halves, of which one is filled: [0, used) of it.
typedef struct cpa_cuda_ring {
    char *at;
    cudaEvent_t passed[2]; // the device has taken what was in this half
    int half;
    size_t used;
} cpa_cuda_ring;

// What is in the room for dense cells; nothing if x.rows is 0.
typedef struct cpa_dense_of {
    cpa_csr x;
    bool use_log1p, half;
} cpa_dense_of;

// One device, one stream: operations run in the order in which they were called, and the host waits in `download`, and where memory is given back (larger scratch included).
typedef struct cpa_cuda {
    cpa_backend base;
    cudaStream_t stream;
    struct cublasContext *blas; // a cublasHandle_t, which backend_cuda_gemm.c makes and uses
    void *blas_room;
    cpa_precision blas_precision; // what it was told last
    cpa_cuda_ring ring;           // what uploads go through
    void *scratch;
    size_t scratch_bytes;
    void *dense; // cells made dense
    size_t dense_bytes;
    cpa_dense_of dense_of;
    long n_outgrown; // how often one of the two has been replaced by a larger one
    struct cpa_cuda_block *block; // [room] of which `live` are allocations not yet released: what they count for
    long live, room;
    cudaEvent_t *mark; // [n_marks] of a profile
    int n_marks;
    char isa[320];
} cpa_cuda;

/** Creates the backend on the first of the visible devices; CONFIG when there is none. */
cpa_status cpa_backend_create_cuda(cpa_backend **out);

/** At least `bytes` of scratch on the device in *out (a pointer to a pointer), with any content, good until the operation ends. Grows
 *  when it must, so a second operation of the same size allocates nothing. */
cpa_status cpa_cuda_scratch(cpa_backend *be, size_t bytes, void *out);

/** A matrix for the cells made dense (in bfloat16 where that is the precision), likewise, beside scratch: products of it may need that.
 *  *is_there: they are there already, from an operation before on the same cells; else the caller has to put them there. */
cpa_status cpa_cuda_dense_room(cpa_backend *be, cpa_csr x, bool use_log1p, cpa_mat *out, bool *is_there);

/** Bytes at `dev` are no longer what they were, and so may be the cells that are there densely. */
void cpa_cuda_changed(cpa_cuda *cuda, const void *dev, size_t bytes);

/** INTERNAL, naming the kernel, when its launch was refused. */
cpa_status cpa_cuda_launched(const char *kernel);

/** INTERNAL with the driver's words when `error` is one; `what` failed. */
cpa_status cpa_cuda_judge(cudaError_t error, const char *what);

/** C *= beta; beta 0 overwrites whatever was there. */
cpa_status cpa_cuda_scale(cpa_backend *be, cpa_mat c, cpa_real beta);

/** Makes be->blas, on the stream. */
cpa_status cpa_cuda_blas_create(cpa_cuda *cuda);

/** The version of cuBLAS, as a number. */
int cpa_cuda_blas_version(void);

/** Destroys it and sets it to NULL. */
void cpa_cuda_blas_destroy(cpa_cuda *cuda);

/** Makes be->ring, and frees what there is of it. */
cpa_status cpa_cuda_ring_create(cpa_cuda *cuda);
void cpa_cuda_ring_destroy(cpa_cuda *cuda);

/** Marks the place that the stream has got to with number i, and the time between two marks, waiting for the latter. */
cpa_status cpa_cuda_stamp(cpa_backend *be, int i);
cpa_status cpa_cuda_elapsed(cpa_backend *be, int from, int to, double *seconds);

/** Frees all marks. */
void cpa_cuda_forget_marks(cpa_cuda *cuda);

/** How operations are recorded. */
extern const cpa_recorder cpa_cuda_recorder;

static inline cudaStream_t cpa_cuda_stream(cpa_backend *be)
{
    return ((cpa_cuda *)be)->stream;
}

// The operations cpa_cuda_gemm, ... spread over backend_cuda*.c and kernels/*.cu.
#define CPA_OP(name, params, args) cpa_status cpa_cuda_##name params;
#include "cpa/platform/ops.def"
#undef CPA_OP

#endif
