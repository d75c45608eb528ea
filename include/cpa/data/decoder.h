// Owns: reading chosen cells of a matrix from its packed chunks into compact rows, by threads, each chunk unpacked once.
// Never calls HDF5 while it reads; the faults that threads meet are told by the caller's thread.
#ifndef CPA_DATA_DECODER_H
#define CPA_DATA_DECODER_H

#include "cpa/data/h5ad.h"
#include "cpa/data/rows.h"

typedef struct cpa_decoder cpa_decoder;

// What a decoder is made for.
typedef struct cpa_decoder_plan {
    cpa_h5ad *file;          // borrowed: names in messages
    const cpa_h5ad_raw *raw; // borrowed
    const int64_t *indptr;   // [n_cells+1] of all files, checked, borrowed; may be NULL when all are dense
    int n_threads;           // 0: as many as OpenMP has
    int64_t max_cells, max_values, longest; // of one call: cells, their stored values; values of one cell
} cpa_decoder_plan;

/** Takes all memory and starts the threads. */
cpa_status cpa_decoder_create(const cpa_decoder_plan *plan, cpa_decoder **out);

/** Ends the threads and frees it, sets *d to NULL; NULL-safe. */
void cpa_decoder_destroy(cpa_decoder **d);

/** Bytes that a decoder for this plan takes. */
size_t cpa_decoder_bytes(const cpa_decoder_plan *plan);

/** Begins to read n cells in ascending order into `to`: cell[0..n), or with `cell` NULL first, first + 1, ... Row i of `to` is
 *  the i-th of them, with exactly as much room as it has stored values. `to` (copied) and `cell` (borrowed) must stay until
 *  cpa_decoder_finish. Allocates nothing. */
void cpa_decoder_start(cpa_decoder *d, const int64_t *cell, int64_t first, int64_t n, const cpa_rows *to);

/** Begins to unpack the chunks of these cells and throws them away: how fast reading could be at most. */
void cpa_decoder_start_unpacking(cpa_decoder *d, const int64_t *cell, int64_t n);

/** Whether reading goes on. */
bool cpa_decoder_is_busy(cpa_decoder *d);

/** Waits for the cells. BAD_DATA: a chunk that cannot be unpacked, a gene out of range, a count that is no count; the first
 *  in the order of the file. IO: the file was replaced, cut or changed. When stats->wide is set and `to` has 16-bit counts, the rows
 *  are of no use. */
cpa_status cpa_decoder_finish(cpa_decoder *d, cpa_row_stats *stats);

/** IO when a file of the cells that were read last was replaced, cut or changed since it was opened; says how. */
cpa_status cpa_decoder_same(const cpa_decoder *d);

/** Of cells that are stored dense: counts the values other than 0 of [first, first + n), judges them and notes their genes in
 *  `counted`, as of cpa_rows. Fails as cpa_decoder_finish. */
cpa_status cpa_decoder_count(cpa_decoder *d, int64_t first, int64_t n, int64_t *count, uint8_t *counted,
                             cpa_row_stats *stats);

/** BAD_DATA that names the file, the cell in it, the gene and what is wrong with the count. */
cpa_status cpa_bad_count(cpa_h5ad *f, const char *path, int64_t cell, int64_t gene, double value);

#endif
