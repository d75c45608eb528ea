// Owns: sorting more entries of a matrix than memory holds by the cell they belong to: into buckets of neighbouring cells, on
// disk. Never included outside src/data.
#ifndef CPA_DATA_BUCKETS_IMPL_H
#define CPA_DATA_BUCKETS_IMPL_H

#include "cpa/base/mem.h"

typedef struct cpa_entry {
    uint32_t cell, gene;
    double value;
} cpa_entry;

typedef struct cpa_buckets cpa_buckets;

/** Buckets for `n_cells` cells and about `n_entries` entries, of at most `size` entries each if the cells are alike. What does
 *  not fit into some 32 MB goes to a file beside `path` that has no name and ends with the process. IO. */
cpa_status cpa_buckets_create(const char *path, int64_t n_cells, int64_t n_entries, int64_t size, cpa_buckets **out);

/** Frees it and sets *b to NULL; NULL-safe. */
void cpa_buckets_destroy(cpa_buckets **b);

/** Adds entries. IO: the disk is full. */
cpa_status cpa_buckets_add(cpa_buckets *b, int64_t n, const int64_t *cell, const int64_t *gene, const double *value);

/** Number of buckets; bucket k holds the cells [*first, *last) and *n entries. */
int64_t cpa_buckets_count(const cpa_buckets *b);
void cpa_buckets_range(const cpa_buckets *b, int64_t k, int64_t *first, int64_t *last, int64_t *n);

/** Hands the entries of bucket k to `use`, in the order in which they were added. */
cpa_status cpa_buckets_read(cpa_buckets *b, int64_t k, cpa_status (*use)(void *ctx, int64_t n, const cpa_entry *entry),
                            void *ctx);

#endif
