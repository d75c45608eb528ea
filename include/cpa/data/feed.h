// Owns: where training and predictions take their cells from: resident in the memory of the node, or streamed in windows. The budget
// decides, and the batches are the same.
// Never knows what a cell means.
#ifndef CPA_DATA_FEED_H
#define CPA_DATA_FEED_H

#include "cpa/data/loader.h"
#include "cpa/data/stream.h"

typedef struct cpa_feed cpa_feed;

typedef enum cpa_tier { CPA_TIER_BY_MEMORY, CPA_TIER_RESIDENT, CPA_TIER_STREAMED } cpa_tier;

// What a feed is made for; pointers are borrowed.
typedef struct cpa_feed_plan {
    cpa_comm *comm;
    cpa_h5ad *file;
    const char *layer;    // NULL: X
    cpa_sampler *sampler; // NULL, with no lanes: cells come in the order of a list alone
    bool in_blocks;       // the order has windows, so it can be streamed; so can a list
    int n_lanes, batch_size;
    int64_t n_epochs;
    int64_t memory; // bytes that a rank may hold of cells; 0: half of what the node has free
    cpa_tier tier;  // of measurements: whatever the budget says
} cpa_feed_plan;

// What reading has taken so far, on this rank.
typedef struct cpa_feed_report {
    bool streamed;
    size_t bytes;   // of memory for cells
    int64_t read;   // bytes read from the file
    int64_t filled; // cells put into batches
    double waited;  // seconds that training stood still for cells
} cpa_feed_report;

/** Opens the matrix and loads it, or makes ready to stream it, and says which. CONFIG, with the sum, when the budget is too small: for
 *  all cells where the order or the storage needs all of them at hand, else for the windows. BAD_DATA as cpa_cells_load: also a stream
 *  looks at every count first. The same on all ranks. Collective. */
cpa_status cpa_feed_open(const cpa_feed_plan *plan, cpa_feed **out);

/** What cpa_feed_open would make of a matrix that is open already and stays the caller's, without the cells: for planning. Its memory is
 *  taken, or (resident cells) only counted, but nothing is read, and no batch can be filled (INTERNAL). m->stats must say whether counts are
 *  wide. Rank-local. */
cpa_status cpa_feed_imagine(const cpa_feed_plan *plan, cpa_matrix *m, cpa_feed **out);

/** A feed of the cells that `whole`, which outlives it, has resident, in the order of another sampler. Rank-local. */
cpa_status cpa_feed_share(const cpa_feed *whole, cpa_sampler *sampler, cpa_feed **out);

/** Frees it and sets *f to NULL; NULL-safe. Collective over the node, unless it shares another one's cells. */
void cpa_feed_close(cpa_feed **f);

/** Bytes that a rank may hold of cells: as plan->memory they lead to the same choice. */
size_t cpa_feed_budget(const cpa_feed *f);

/** Stored values of all cells; the largest; a digest of the cells' sums; and the most values that `n` different cells can have
 *  together. */
int64_t cpa_feed_nnz(const cpa_feed *f);
double cpa_feed_max_count(const cpa_feed *f);
uint64_t cpa_feed_totals(const cpa_feed *f);
cpa_status cpa_feed_max_nnz(const cpa_feed *f, int n, int64_t *out);

/** The cells of this rank's validation batches, or of a list alone, in their order (see cpa_streamer_list). Collective. */
cpa_status cpa_feed_list(cpa_feed *f, const int64_t *cell, int64_t n);

/** Has the cells of this rank's lanes in a step at hand. Collective; see cpa_streamer_step. */
cpa_status cpa_feed_step(cpa_feed *f, int64_t epoch, int64_t step);

/** Fills the batch of one of this rank's lanes in the step that is at hand; where it has batch->all, without the counts. Rank-local;
 *  allocates nothing. */
cpa_status cpa_feed_fill(cpa_feed *f, const cpa_registry *registry, int lane, int64_t step, cpa_batch *batch);

/** Fills the batch of the n cells of the list from `at` on, waiting for them where need be. Fails as cpa_streamer_listed.
 *  Rank-local; allocates nothing. */
cpa_status cpa_feed_fill_listed(cpa_feed *f, const cpa_registry *registry, int64_t at, int n, cpa_batch *batch);

/** All cells, NULL when they are streamed. Borrowed. */
const cpa_cells *cpa_feed_cells(const cpa_feed *f);

/** The matrix whose cells are resident, or would be (cpa_feed_imagine); NULL when they are streamed. Borrowed. */
const cpa_matrix *cpa_feed_resident(const cpa_feed *f);

/** The streamer, NULL when cells are resident. Borrowed. */
cpa_streamer *cpa_feed_streamer(const cpa_feed *f);

cpa_feed_report cpa_feed_reported(const cpa_feed *f);

#endif
