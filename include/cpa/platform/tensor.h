// Owns: views of backend memory. A view is a value, never freed. What it points to may live on a device, so its pointer
// types are incomplete on purpose: only backends look inside.
#ifndef CPA_PLATFORM_TENSOR_H
#define CPA_PLATFORM_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpa/base/types.h"

typedef struct cpa_dev_real cpa_dev_real; // array of cpa_real on a backend
typedef struct cpa_dev_int cpa_dev_int;   // array of int32_t on a backend
typedef struct cpa_dev_f64 cpa_dev_f64;   // array of double on a backend (sums)
typedef struct cpa_dev_i64 cpa_dev_i64;   // array of int64_t on a backend (exact sums)

// Row-major matrix view, rows x cols, leading dimension ld >= cols. A vector is a matrix of one row. Elements are cpa_real, or with bf16
// the upper halves of floats (8 bits of precision): only where an operation and the backend allow it.
typedef struct cpa_mat {
    cpa_dev_real *data;
    int rows, cols, ld;
    bool bf16;
} cpa_mat;

// Elements offset .. offset + length - 1 of an array.
typedef struct cpa_range {
    int64_t offset, length;
} cpa_range;

// Cells of a batch as CSR. gene[i] < cols; genes of a row ascend. A count may be 0, and says nothing then: its gene may be that of another
// value, too.
typedef struct cpa_csr {
    int rows, cols, nnz;
    const cpa_dev_int *indptr;   // [rows+1]
    const cpa_dev_int *gene;     // [nnz]
    const cpa_dev_real *count;   // [nnz] raw counts
    const cpa_dev_real *log1p;   // [nnz] log(1 + count), rounded once from double
    const cpa_dev_real *library; // [rows] sum of the counts of the cell
} cpa_csr;

// All cells as compact CSR on a backend: what batches are taken from there (operation take_cells). Entries of a cell as those of a batch.
typedef struct cpa_all_cells {
    int64_t n_cells;
    int n_genes;
    bool gene16, count16;        // genes are uint16_t, else uint32_t; counts are uint16_t, else float
    const void *gene, *count;    // [indptr[n_cells]]
    const cpa_dev_i64 *indptr;   // [n_cells+1]
    const cpa_dev_real *library; // [n_cells]
    const cpa_dev_real *log1p;   // [n_log1p] of the whole numbers below n_log1p, rounded once
    int n_log1p;
} cpa_all_cells;

// What a batch norm over more rows than those at hand goes by: sums over the rows at hand and over all of them, as the operation
// that made them lays them out. Without `all` (CPA_NOT_POOLED) the rows at hand are all.
typedef struct cpa_pooled {
    const cpa_dev_f64 *own, *all;
    int64_t rows; // of all
} cpa_pooled;

// A number that is another one whenever recorded operations are repeated (cpa_backend_record): with `at`, a device reads it there.
typedef struct cpa_number {
    double value;
    const cpa_dev_f64 *at;
} cpa_number;

/** One that stays. */
static inline cpa_number cpa_number_of(double value)
{
    return (cpa_number){value, NULL};
}

/** Address of element `i` of a real array. */
static inline cpa_dev_real *cpa_real_at(const cpa_dev_real *p, int64_t i)
{
    return (cpa_dev_real *)((uintptr_t)p + (uintptr_t)i * sizeof(cpa_real));
}

/** Address of element `i` of an integer array. */
static inline cpa_dev_int *cpa_int_at(const cpa_dev_int *p, int64_t i)
{
    return (cpa_dev_int *)((uintptr_t)p + (uintptr_t)i * sizeof(int32_t));
}

/** Address of element `i` of a sum array. */
static inline cpa_dev_f64 *cpa_f64_at(const cpa_dev_f64 *p, int64_t i)
{
    return (cpa_dev_f64 *)((uintptr_t)p + (uintptr_t)i * sizeof(double));
}

/** Address of element `i` of an array of exact sums. */
static inline cpa_dev_i64 *cpa_i64_at(const cpa_dev_i64 *p, int64_t i)
{
    return (cpa_dev_i64 *)((uintptr_t)p + (uintptr_t)i * sizeof(int64_t));
}

/** Contiguous matrix over an array. */
static inline cpa_mat cpa_mat_of(const cpa_dev_real *data, int rows, int cols)
{
    return (cpa_mat){(cpa_dev_real *)(uintptr_t)data, rows, cols, cols, false};
}

/** The first `rows` rows. */
static inline cpa_mat cpa_mat_head(cpa_mat m, int rows)
{
    m.rows = rows;
    return m;
}

/** One row, as a vector. */
static inline cpa_mat cpa_mat_row(cpa_mat m, int row)
{
    return (cpa_mat){cpa_real_at(m.data, (int64_t)row * m.ld), 1, m.cols, m.cols, false};
}

/** Cuts a contiguous rows x cols matrix off an arena at *used and moves *used on, to a multiple of 16 elements. Without an arena only
 *  counts, so that the same walk sizes an arena and lays it out. */
static inline cpa_mat cpa_mat_take(const cpa_dev_real *arena, int64_t *used, int rows, int cols)
{
    cpa_mat m = arena ? cpa_mat_of(cpa_real_at(arena, *used), rows, cols) : (cpa_mat){0};
    *used += ((int64_t)rows * cols + 15) / 16 * 16;
    return m;
}

#define CPA_NO_MAT ((cpa_mat){0})
#define CPA_NOT_POOLED ((cpa_pooled){0})

#endif
