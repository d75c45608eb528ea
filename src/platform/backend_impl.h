// Owns: what a backend is inside: the table of its operations, and the shape checks in front of them. Only the files of
// src/platform/backend*.c include it; it must never leak into a public header.
#ifndef CPA_PLATFORM_BACKEND_IMPL_H
#define CPA_PLATFORM_BACKEND_IMPL_H

#include "cpa/base/inline.h"
#include "cpa/base/mem.h"
#include "cpa/platform/backend.h"

// One function per operation of ops.def.
typedef struct cpa_ops {
#define CPA_OP(name, params, args) cpa_status(*name) params;
#include "cpa/platform/ops.def"
#undef CPA_OP
} cpa_ops;

// How a backend records operations and repeats them. What is recorded is not run; `end` also ends a recording that failed.
typedef struct cpa_recorder {
    cpa_status (*begin)(cpa_backend *be);
    cpa_status (*end)(cpa_backend *be, cpa_recording **out);
    bool (*holds)(const cpa_backend *be, const cpa_recording *r);
    cpa_status (*replay)(cpa_backend *be, const cpa_recording *r);
    void (*forget)(cpa_recording *r);
} cpa_recorder;

// What all backends begin with; each embeds it as its first member.
struct cpa_backend {
    const cpa_ops *ops;
    const char *name;
    const char *isa;
    bool is_host;                          // its memory is the host's
    cpa_memory memory;                     // what it counts as
    cpa_precision precision;               // of products
    size_t (*free_bytes)(cpa_backend *be); // of its device; NULL: nobody counts
    const cpa_recorder *recorder;          // NULL: it cannot
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

// Of all cells, as host and device read them: entry `at`, and where each cell's begin.
CPA_INLINE int cpa_gene_at(cpa_all_cells c, int64_t at)
{
    return c.gene16 ? ((const uint16_t *)c.gene)[at] : (int)((const uint32_t *)c.gene)[at];
}

CPA_INLINE double cpa_count_at(cpa_all_cells c, int64_t at)
{
    return c.count16 ? (double)((const uint16_t *)c.count)[at] : (double)((const float *)c.count)[at];
}

CPA_INLINE const int64_t *cpa_begins_of(cpa_all_cells c)
{
    return (const int64_t *)(uintptr_t)c.indptr;
}

// Bytes that cuBLAS works in on a device: what its documentation advises for compute capability 9. With half of it small steps took a quarter longer.
enum { CPA_CUDA_WORKSPACE = 32 << 20 };

/** Bytes of a batch made dense, which the sparse layer takes on a device (kernels/sparse.cu) beside scratch; `half`: in bfloat16. */
static inline size_t cpa_device_dense_room(int rows, int cols, bool half)
{
    return (size_t)rows * (size_t)cols * (half ? 2 : sizeof(cpa_real));
}

// How the likelihoods cut their cells on a device (kernels/likelihood.h), by the shapes alone. A block takes every so many-th cell, no more than
// CPA_DEVICE_BLOCK_CELLS where it adds up gradients, so that those sums may be of cpa_real.
enum {
    CPA_DEVICE_BLOCKS = 264,               // at least, where there are as many cells: two for each processor of an H100
    CPA_DEVICE_BLOCK_CELLS = 64,           // at most
    CPA_DEVICE_SCORE_BLOCKS = 1056,        // without gradients
    CPA_DEVICE_SHARED = 152 * 1024,        // bytes that a block may share on an A100, too, beside some KiB of its own
    CPA_DEVICE_SHARED_BY_TWO = 105 * 1024, // the same where two blocks are to be at work on a processor
};

/** Blocks of cells of an operation that adds up gradients. */
static inline int cpa_device_blocks(int rows)
{
    const int few = rows < CPA_DEVICE_BLOCKS ? rows : CPA_DEVICE_BLOCKS;
    const int many = (int)(((int64_t)rows + CPA_DEVICE_BLOCK_CELLS - 1) / CPA_DEVICE_BLOCK_CELLS);
    return few > many ? few : many;
}

/** Whether so many arrays of genes are no more than `bytes`. */
static inline bool cpa_device_fits(int arrays, int n_genes, int bytes)
{
    return (int64_t)arrays * n_genes * (int64_t)sizeof(cpa_real) <= bytes;
}

/** Bytes of scratch that a likelihood needs on a device, with or without gradients, with so many tables of genes, arrays of the cell at
 *  hand, and sums over cells; the least is for the losses of the blocks. */
static inline size_t cpa_device_cells_scratch(int rows, int n_genes, int tables, int arrays, int sums)
{
    const size_t blocks = (size_t)cpa_device_blocks(rows);
    const size_t outside = cpa_device_fits(arrays, n_genes, CPA_DEVICE_SHARED) ? 0 : (size_t)arrays;
    return (blocks + CPA_DEVICE_SCORE_BLOCKS) * sizeof(double) +
           ((size_t)tables + blocks * ((size_t)sums + outside)) * (size_t)n_genes * sizeof(cpa_real);
}

enum { CPA_DEVICE_NB_TABLES = 33, CPA_DEVICE_NB_ARRAYS = 2, CPA_DEVICE_GAUSS_SUMS = 2 };

/** What nb_loss needs, and with inflation zinb_loss. */
static inline size_t cpa_device_nb_scratch(int rows, int n_genes, bool inflated)
{
    return cpa_device_cells_scratch(rows, n_genes, CPA_DEVICE_NB_TABLES, CPA_DEVICE_NB_ARRAYS, inflated ? 3 : 2);
}

/** What gauss_loss needs. */
static inline size_t cpa_device_gauss_scratch(int rows, int n_genes)
{
    return cpa_device_cells_scratch(rows, n_genes, 0, 1, CPA_DEVICE_GAUSS_SUMS);
}

// cpa_shape_gemm(be, ...), ...: INTERNAL when the arguments cannot be those of the operation. Touches no device memory.
#define CPA_OP(name, params, args) cpa_status cpa_shape_##name params;
#include "cpa/platform/ops.def"
#undef CPA_OP

#endif
