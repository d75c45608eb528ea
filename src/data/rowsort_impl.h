// Owns: turning entries of a matrix in any order into rows that can be written. Never included outside src/data.
#ifndef CPA_DATA_ROWSORT_IMPL_H
#define CPA_DATA_ROWSORT_IMPL_H

#include <stdbool.h>

#include "buckets_impl.h"
#include "cpa/data/h5ad_write.h"

enum {
    CPA_ROWSORT_ENTRIES = 1 << 20, // that a block should have, unless one cell has more
    CPA_ROWSORT_CELLS = 1 << 14,   // that a block may have
};

typedef struct cpa_rowsort cpa_rowsort; // a block of neighbouring cells (or of genes, to write CSC)

/** `wide`: values are written as 64-bit floats, else as 32-bit floats. */
cpa_status cpa_rowsort_create(bool wide, cpa_rowsort **out);

/** Frees it and sets *b to NULL; NULL-safe. */
void cpa_rowsort_destroy(cpa_rowsort **b);

/** Begins a block of the cells [first, first + n_cells). */
void cpa_rowsort_begin(cpa_rowsort *b, int64_t first, int64_t n_cells);

/** Takes entries of these cells. */
cpa_status cpa_rowsort_take(cpa_rowsort *b, int64_t n, const int64_t *cell, const int64_t *gene, const double *value);

/** Appends the rows of the block. Entries of one place are added up in the order in which they came; zeros are dropped. */
cpa_status cpa_rowsort_write(cpa_rowsort *b, cpa_h5ad_sparse *to);

/** Appends the rows of all buckets, which must hold what is written, block by block. */
cpa_status cpa_rowsort_buckets(cpa_rowsort *b, cpa_buckets *buckets, cpa_h5ad_sparse *to);

/** Entries added to others, and zeros dropped, so far. */
void cpa_rowsort_met(const cpa_rowsort *b, int64_t *n_added, int64_t *n_zeros);

#endif
