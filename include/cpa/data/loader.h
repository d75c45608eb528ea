// Owns: filling batches from compact cells and the registry. Never chooses the cells, never keeps what it fills.
#ifndef CPA_DATA_LOADER_H
#define CPA_DATA_LOADER_H

#include "cpa/data/batch.h"
#include "cpa/data/cells.h"
#include "cpa/data/registry.h"

/** Fills `batch` with the cells row[0..n). INTERNAL when they do not fit. Rank-local; allocates nothing. */
cpa_status cpa_loader_fill(const cpa_cells *cells, const cpa_registry *registry, const int64_t *row, int n,
                           cpa_batch *batch);

// Where the counts of a cell lie: a row of compact cells.
typedef struct cpa_place {
    const cpa_cells *cells;
    int64_t row;
} cpa_place;

/** The same with the counts of cell row[i] at place[i]. */
cpa_status cpa_loader_fill_from(const cpa_place *place, const cpa_registry *registry, const int64_t *row, int n,
                                cpa_batch *batch);

/** The same without the counts: they are taken from batch->all, rows row[0..n) of which are named. */
cpa_status cpa_loader_name(const cpa_registry *registry, const int64_t *row, int n, cpa_batch *batch);

/** The logarithms ln(1 + k) of the whole numbers k below *n, as batches have them. Static. */
const cpa_real *cpa_loader_log1p(int *n);

/** The largest number of stored values that any `n` different cells together can have: the sum of the n largest cells. */
cpa_status cpa_loader_max_nnz(const cpa_cells *cells, int n, int64_t *out);

#endif
