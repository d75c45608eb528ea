// Owns: what a backend is inside: the table of its operations, and the shape checks in front of them. Only the files of
// src/platform/backend*.c include it; it must never leak into a public header.
#ifndef CPA_PLATFORM_BACKEND_IMPL_H
#define CPA_PLATFORM_BACKEND_IMPL_H

#include "cpa/base/mem.h"
#include "cpa/platform/backend.h"

// One function per operation of ops.def.
typedef struct cpa_ops {
#define CPA_OP(name, params, args) cpa_status(*name) params;
#include "cpa/platform/ops.def"
#undef CPA_OP
} cpa_ops;

// What all backends begin with; each embeds it as its first member.
struct cpa_backend {
    const cpa_ops *ops;
    const char *name;
    const char *isa;
    bool is_host;                          // its memory is the host's
    cpa_memory memory;                     // what it counts as
    cpa_precision precision;               // of products
    size_t (*free_bytes)(cpa_backend *be); // of its device; NULL: nobody counts
    struct cpa_profile *profile;           // what is told of every operation; NULL: nobody asks
    // Of a device: marks the place that its work has got to with a number, and what it took from one mark to another (waiting for it).
    cpa_status (*stamp)(cpa_backend *be, int i);
    cpa_status (*elapsed)(cpa_backend *be, int from, int to, double *seconds);
    cpa_status (*destroy)(cpa_backend *be); // frees the object, and says what was wrong with its use
};

#ifdef CPA_CUDA
#define CPA_BACKENDS_OF_DEVICES(X) X(cuda)
#elif defined(CPA_LOOPED) // in tests (tests/support/looped): the device's kernels as loops on the host
#define CPA_BACKENDS_OF_DEVICES(X) X(kernels) X(kernels_backwards)
#else
#define CPA_BACKENDS_OF_DEVICES(X)
#endif

// Creators, one for each backend of this build: X(name).
#define CPA_BACKEND_LIST(X)                                                                                            \
    X(cpu)                                                                                                             \
    X(check)                                                                                                           \
    CPA_BACKENDS_OF_DEVICES(X)

#define X(name) cpa_status cpa_backend_create_##name(cpa_backend **out);
CPA_BACKEND_LIST(X)
#undef X

// Bytes that cuBLAS works in on a device: what its documentation advises for compute capability 9.
enum { CPA_CUDA_WORKSPACE = 32 << 20 };

/** Bytes of a batch made dense, which the sparse layer takes on a device (kernels/sparse.cu) beside scratch; `half`: in bfloat16. */
static inline size_t cpa_device_dense_room(int rows, int cols, bool half)
{
    return (size_t)rows * (size_t)cols * (half ? 2 : sizeof(cpa_real));
}

// cpa_shape_gemm(be, ...), ...: INTERNAL when the arguments cannot be those of the operation. Touches no device memory.
#define CPA_OP(name, params, args) cpa_status cpa_shape_##name params;
#include "cpa/platform/ops.def"
#undef CPA_OP

#endif
