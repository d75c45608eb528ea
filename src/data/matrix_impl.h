// Owns: what judging and loading share: room for a stretch of cells that are read and passed on. Never included outside
// src/data/matrix.c and cells.c.
#ifndef CPA_DATA_MATRIX_IMPL_H
#define CPA_DATA_MATRIX_IMPL_H

#include "cpa/data/matrix.h"

typedef struct cpa_slab {
    const cpa_matrix *m;
    cpa_rows rows;
    int64_t *indptr;
    int64_t max_values;
    cpa_decoder *decoder;
} cpa_slab;

/** Takes the memory, some 30 MB; `wide`: counts of 32 bits. */
cpa_status cpa_slab_init(cpa_slab *s, const cpa_matrix *m, bool wide);

/** Frees it. */
void cpa_slab_fini(cpa_slab *s);

/** Reads as many of the cells [first, last) as there is room for; *n of them. Row i is s->rows' i-th. */
cpa_status cpa_slab_read(cpa_slab *s, int64_t first, int64_t last, int64_t *n, cpa_row_stats *stats);

#endif
