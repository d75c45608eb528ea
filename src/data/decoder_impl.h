// Owns: what the files of the decoder share. Never included outside src/data/decoder*.c.
#ifndef CPA_DATA_DECODER_IMPL_H
#define CPA_DATA_DECODER_IMPL_H

#include <pthread.h>

#include "cpa/base/team.h"
#include "cpa/data/decoder.h"
#include "cpa/data/elements.h"

// Neighbouring cells: elements [begin, end) of a file's arrays go to `to` and on.
typedef struct cpa_run {
    int64_t begin, end, to;
    int part; // the file
} cpa_run;

// One chunk to unpack. Dense: a band of chunks side by side.
typedef struct cpa_piece {
    int64_t begin; // its first element (dense: row) that is wanted
    int64_t chunk; // dense: of the first column
    int64_t first; // the first run (dense: wanted cell) in it
    int part;      // the file
    bool counts;   // of `data`, not of `indices`
} cpa_piece;

typedef enum cpa_fault_kind { CPA_FAULT_NONE, CPA_FAULT_CHUNK, CPA_FAULT_GENE, CPA_FAULT_COUNT } cpa_fault_kind;

// What is known of a wanted row before all are there.
typedef enum cpa_row_state { CPA_ROW_UNKNOWN, CPA_ROW_ASCENDS, CPA_ROW_DONE } cpa_row_state;

// What a thread met.
typedef struct cpa_fault {
    cpa_fault_kind kind;
    int part;           // the file, and
    int64_t at;         // element of it (dense: cell * genes + gene): the first one is told
    bool counts;        // CHUNK: of `data`
    int64_t chunk;      // CHUNK
    const char *reason; // CHUNK
    int error;          // CHUNK: of the system, or 0
    int64_t gene;       // GENE: what stands there; COUNT: -1 when `indices` tells
    double value;       // COUNT
} cpa_fault;

struct cpa_decoder {
    cpa_decoder_plan plan;
    cpa_team *team;
    cpa_chunk_reader **reader; // [threads]
    uint64_t **room;           // [threads][2 * longest] for sorting
    cpa_row_stats *stats;      // [threads]
    cpa_run *run;
    cpa_piece *piece;
    int64_t n_runs;
    int64_t n_pieces, n_first; // all; those of the first phase: `indices`, and dense matrices
    uint8_t *state;            // [max_cells] CSR: cpa_row_state
    int64_t *cursor;           // [max_cells] dense: next free place
    double *sum;               // [max_cells] dense: of the counts, while counting
    uint32_t *entries;         // [max_cells] their digest, likewise
    bool has_csr, has_dense;   // some file
    const int64_t *cell;
    int64_t first, n;
    cpa_rows to;
    int64_t *count; // counting instead of reading
    bool unpacks;   // and nothing else
    pthread_mutex_t lock;
    cpa_fault fault;
};

static inline const cpa_h5ad_raw_part *cpa_part_of(const cpa_decoder *d, int part)
{
    return &d->plan.raw->part[part];
}

/** The i-th wanted cell. */
static inline int64_t cpa_wanted(const cpa_decoder *d, int64_t i)
{
    return d->cell != NULL ? d->cell[i] : d->first + i;
}

/** Notes a fault unless an earlier one is known; false, for the team. Any thread. */
bool cpa_decoder_fail(cpa_decoder *d, const cpa_fault *fault);

/** The runs of the wanted cells [i, end), which are stored as CSR in one file. */
void cpa_decoder_find_runs(cpa_decoder *d, int part, int64_t i, int64_t end);

/** The pieces of all runs: of `data` (`counts`) or of `indices`. */
void cpa_decoder_plan_csr(cpa_decoder *d, bool counts);

/** The pieces of the wanted cells [i, end), which are dense in one file. */
void cpa_decoder_plan_dense(cpa_decoder *d, int part, int64_t i, int64_t end);

/** Unpacks one piece of a CSR or of a dense matrix and puts it in place. Any thread; false ends the work. */
bool cpa_decoder_run_csr(cpa_decoder *d, const cpa_piece *piece, int thread);
bool cpa_decoder_run_dense(cpa_decoder *d, const cpa_piece *piece, int thread);

#endif
