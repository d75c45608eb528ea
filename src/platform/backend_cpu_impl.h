// Owns: what the files of the cpu backend share: the object, its scratch, and how work is cut. The decorator `check`
// uses the same. Never included outside src/platform/backend_c*.c.
#ifndef CPA_PLATFORM_BACKEND_CPU_IMPL_H
#define CPA_PLATFORM_BACKEND_CPU_IMPL_H

#include <omp.h>

#include "backend_impl.h"

// A choice between two values becomes vector code only when the compiler may compute both, which it will not as long as
// it believes that somebody reads the floating-point exception flags. Nobody does. (No result changes.)
#ifdef __OPTIMIZE__
#pragma GCC optimize("no-trapping-math")
#endif

typedef struct cpa_cpu {
    cpa_backend base;
    void *scratch; // from cpa_alloc; aligned use begins at the next multiple of 64
    size_t scratch_bytes;
    long live; // allocations not yet released
} cpa_cpu;

/** Fills the common part. */
void cpa_cpu_init(cpa_cpu *cpu, const char *name, const cpa_ops *ops, cpa_status (*destroy)(cpa_backend *be));

/** The instructions that the library of products uses. Static. */
const char *cpa_cpu_isa(void);

/** Frees the scratch. */
void cpa_cpu_fini(cpa_cpu *cpu);

/** At least `bytes` of 64-byte aligned scratch in *out, with any content, good until the operation ends. Grows when it
 *  must, so a second operation of the same size allocates nothing. */
cpa_status cpa_cpu_scratch(cpa_backend *be, size_t bytes, void *out);

/** Bytes that count as taken by the cpu backend for a block of so many. */
size_t cpa_cpu_block_bytes(size_t bytes);

// Scratch of the operations that can need more than any other, in bytes, for outputs and inputs of these shapes.
size_t cpa_cpu_sparse_scratch(int rows, int cols);
size_t cpa_cpu_group_r2_scratch(int n_genes, int n_groups);
size_t cpa_cpu_nb_scratch(int rows, int n_genes, int n_more);
size_t cpa_cpu_gauss_scratch(int rows, int n_genes);

// The table, and its functions cpa_cpu_gemm, ... spread over backend_cpu_*.c.
extern const cpa_ops cpa_cpu_ops;
#define CPA_OP(name, params, args) cpa_status cpa_cpu_##name params;
#include "cpa/platform/ops.def"
#undef CPA_OP

// Looking inside device memory is the right of backends alone; on the CPU it is plain memory.
static inline cpa_real *cpa_reals(const cpa_dev_real *p)
{
    return (cpa_real *)(uintptr_t)p;
}

static inline const int *cpa_ints(const cpa_dev_int *p)
{
    return (const int *)(uintptr_t)p;
}

static inline double *cpa_f64s(const cpa_dev_f64 *p)
{
    return (double *)(uintptr_t)p;
}

static inline int64_t *cpa_i64s(const cpa_dev_i64 *p)
{
    return (int64_t *)(uintptr_t)p;
}

static inline cpa_real *cpa_row(cpa_mat m, int row)
{
    return cpa_reals(m.data) + (int64_t)row * m.ld;
}

// Fewer elements than this are not worth waking threads for (a wake costs one or two microseconds).
enum { CPA_SERIAL = 1 << 15 };

// A matrix cut into pieces of rows for threads: piece i is `n` elements from column `col` of row `row`. The cut depends
// on the shape alone, so sums by pieces do not depend on the number of threads.
typedef struct cpa_piece {
    int row, col, n;
} cpa_piece;

enum { CPA_PIECE = 1 << 14 };

static inline int cpa_pieces_per_row(int cols)
{
    return (cols + CPA_PIECE - 1) / CPA_PIECE;
}

static inline int64_t cpa_pieces(cpa_mat m)
{
    return (int64_t)m.rows * cpa_pieces_per_row(m.cols);
}

static inline cpa_piece cpa_piece_at(cpa_mat m, int64_t i)
{
    int per_row = cpa_pieces_per_row(m.cols);
    int col = (int)(i % per_row) * CPA_PIECE;
    return (cpa_piece){(int)(i / per_row), col, m.cols - col < CPA_PIECE ? m.cols - col : CPA_PIECE};
}

static inline bool cpa_parallel(cpa_mat m)
{
    return (int64_t)m.rows * m.cols >= CPA_SERIAL;
}

// What a gradient is multiplied by on its way back through ReLU and dropout: where the output is above 0, and elsewhere.
typedef struct cpa_gate {
    cpa_real above, elsewhere;
} cpa_gate;

// A product and not a choice between values, because a choice of constants is what compilers turn into vector code.
static inline cpa_real cpa_gated(cpa_real dy, cpa_real y, cpa_gate by)
{
    return dy * (y > 0 ? by.above : by.elsewhere);
}

/** Rounds a count of bytes up to whole cache lines, for carving scratch. */
static inline size_t cpa_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/** Takes so many bytes, in cache lines of their own, off the beginning of scratch. */
static inline void *cpa_carve(char **scratch, size_t bytes)
{
    char *p = *scratch;
    *scratch += cpa_lines(bytes);
    return p;
}

#endif
