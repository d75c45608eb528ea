// Owns: rows of cells in compact CSR while they are made: putting genes and counts in, judging counts, sorting, adding
// duplicates up. Never knows where they come from or who reads them.
#ifndef CPA_DATA_ROWS_H
#define CPA_DATA_ROWS_H

#include <stdbool.h>
#include <string.h>

#include "cpa/base/hash.h"
#include "cpa/base/mem.h"

// Row i is [indptr[i], indptr[i+1]) of the arrays. One of each pair of arrays is NULL.
typedef struct cpa_rows {
    const int64_t *indptr;
    uint16_t *gene16;
    uint32_t *gene32;
    uint16_t *count16;
    float *count32;
    double *library; // [rows] sum of counts
    // [rows] or NULL: values marked CPA_NO_GENE are dropped in finishing; so many are left at a row's beginning
    int32_t *kept;
    uint8_t *counted; // [genes] or NULL: set to 1 in finishing where a gene has a count; several threads may share it
    int64_t first;    // cell of row 0, where genes are noted
} cpa_rows;

// What stands for a gene that is not used; UINT16_MAX of 16 bits.
#define CPA_NO_GENE UINT32_MAX

// What was met on the way. Add them up with cpa_row_stats_add.
typedef struct cpa_row_stats {
    int64_t n_empty;       // rows without counts
    int64_t n_non_integer; // stored values that are not integers
    int64_t n_duplicate;   // entries added up
    int64_t n_read;        // bytes read from the file
    double max_count;
    // Digest of the sums of the rows, and of their entries where genes are noted, in whatever order they come.
    uint64_t totals;
    bool wide; // a count that 16 bits cannot hold
} cpa_row_stats;

/** Adds the sum of a cell to the digest. */
void cpa_row_stats_total(cpa_row_stats *a, int64_t cell, double sum);

/** The share of one count in the digest of a row's entries, which is the sum of them; 0 for no count. What a gene weighs must not grow
 *  with its number, or counts that move up and down alike would go unnoticed. */
static inline uint32_t cpa_entry_digest(uint32_t gene, float count)
{
    uint32_t bits, weight = (gene + 1) * 0x9E3779B1U;
    memcpy(&bits, &count, sizeof bits);
    bits &= 0x7FFFFFFF; // -0 is 0
    weight = (weight ^ weight >> 15) * 0x85EBCA6BU;
    weight ^= weight >> 13;
    return (weight | 1) * (bits ^ bits >> 15);
}

/** Adds the digest of a cell's entries. */
void cpa_row_stats_entries(cpa_row_stats *a, int64_t cell, uint32_t entries);

/** Adds `b` to `a`. */
void cpa_row_stats_add(cpa_row_stats *a, const cpa_row_stats *b);

/** Takes `n` counts for the places [at, at + n), as doubles or floats (the other one NULL). Returns the position of the
 *  first that is negative, infinite, not a number or too large for a float, -1 when there is none. Sets stats->wide
 *  where 16 bits are not enough; what it put into them is then of no use. */
int64_t cpa_rows_put_counts(const cpa_rows *rows, int64_t at, int64_t n, const double *doubles, const float *floats,
                            cpa_row_stats *stats);

/** Puts one gene. */
static inline void cpa_rows_put_gene(const cpa_rows *rows, int64_t at, uint32_t gene)
{
    if (rows->gene16 != NULL) {
        rows->gene16[at] = (uint16_t)gene;
    } else {
        rows->gene32[at] = gene;
    }
}

static inline bool cpa_rows_is_dropped(const cpa_rows *rows, int64_t at)
{
    return rows->gene16 != NULL ? rows->gene16[at] == UINT16_MAX : rows->gene32[at] == CPA_NO_GENE;
}

static inline uint32_t cpa_rows_gene(const cpa_rows *rows, int64_t at)
{
    return rows->gene16 != NULL ? rows->gene16[at] : rows->gene32[at];
}

static inline double cpa_rows_count(const cpa_rows *rows, int64_t at)
{
    return rows->count16 != NULL ? (double)rows->count16[at] : (double)rows->count32[at];
}

/** Whether the genes of row i ascend, so that summing it is all that finishing does where every value is used. */
bool cpa_rows_ascend(const cpa_rows *rows, int64_t i);

/** Sets library[i] of such a row. */
void cpa_rows_sum(const cpa_rows *rows, int64_t i, cpa_row_stats *stats);

/** Whether a gene is known to have a count. Most are after a few cells, so that threads mostly read what they share. */
static inline bool cpa_rows_is_noted(const cpa_rows *rows, uint32_t gene)
{
    return __atomic_load_n(&rows->counted[gene], __ATOMIC_RELAXED) != 0;
}

/** Notes that a gene has a count. */
static inline void cpa_rows_note_gene(const cpa_rows *rows, uint32_t gene)
{
    __atomic_store_n(&rows->counted[gene], 1, __ATOMIC_RELAXED);
}

/** Finishes row i: what is not used goes, genes ascend, entries of one gene are added up into the first (the surplus ones keep it with count 0),
 *  library[i] is set. `room`: twice the row. Returns the gene whose sum is too large for a float, or -1. Sets
 *  stats->wide when a sum does not fit into 16-bit counts; the row is then of no use. */
int64_t cpa_rows_finish(const cpa_rows *rows, int64_t i, uint64_t *room, cpa_row_stats *stats);

#endif
