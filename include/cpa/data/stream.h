// Owns: the cells in hand of an atlas that does not fit into memory: windows read from the unmodified file ahead of training, then
// dropped. A rank reads the windows of its own lanes.
// Never decides in which order cells come (the sampler does), and never reads a chunk twice for one window.
#ifndef CPA_DATA_STREAM_H
#define CPA_DATA_STREAM_H

#include "cpa/data/loader.h"
#include "cpa/data/sampler.h"

typedef struct cpa_streamer cpa_streamer;

// What a stream is made for; all borrowed.
typedef struct cpa_streamer_plan {
    cpa_comm *comm;
    cpa_matrix *matrix;                // judged, with m->raw
    cpa_sampler *sampler;              // NULL, with no lanes: for a list alone
    int n_lanes, first_lane, end_lane; // all; this rank's
    int max_batch;                     // cells of any batch, of training or of the list
    int64_t n_epochs;                  // nothing is read ahead beyond the last one
    int n_threads;                     // that unpack; 0: as many as OpenMP has
    bool imagined;                     // memory is taken, but nothing is ever read
} cpa_streamer_plan;

// What reading has taken so far.
typedef struct cpa_streamer_report {
    int64_t bytes, windows; // read
    int64_t ahead;          // windows whose reading began before anyone asked for them
    double waited;          // seconds that training stood still for it
} cpa_streamer_report;

/** Bytes of memory that a stream for this plan holds, per rank: windows, threads, tables of chunks. Beside the matrix' indptr. In *one
 *  those of one window (may be NULL). */
cpa_status cpa_streamer_bytes(const cpa_streamer_plan *plan, size_t *bytes, size_t *one);

/** Takes all memory but that of a list. Rank-local. */
cpa_status cpa_streamer_create(const cpa_streamer_plan *plan, cpa_streamer **out);

/** Ends its threads and frees it, sets *s to NULL; NULL-safe. */
void cpa_streamer_destroy(cpa_streamer **s);

/** A list of cells that are visited in this order, again and again (validation), beside the training order, in batches of `batch` (a
 *  last one of fewer than 3 may join the one before), repeats allowed: kept in memory when `room` bytes are enough, else read window by window. At most
 *  once. `cell` [n] borrowed. Rank-local. */
cpa_status cpa_streamer_list(cpa_streamer *s, const int64_t *cell, int64_t n, int batch, size_t room);

/** Has the cells of a step at hand on all ranks, and reads on ahead. IO, BAD_DATA (the file was changed since it was judged); the same
 *  on all ranks, because all of them agree whenever a step of any of them needs a new window. Allocates nothing. Collective. */
cpa_status cpa_streamer_step(cpa_streamer *s, int64_t epoch, int64_t step);

/** Has the batch of the list that begins with its cell `at` at hand. Fails as cpa_streamer_step, but rank-local. */
cpa_status cpa_streamer_listed(cpa_streamer *s, int64_t at);

/** Where the n cells of an own lane's batch lie, in the step that is at hand; and those of the list from `at` on. */
void cpa_streamer_places(const cpa_streamer *s, int lane, int64_t step, int n, cpa_place *place);
void cpa_streamer_listed_places(const cpa_streamer *s, int64_t at, int n, cpa_place *place);

/** Unpacks what the windows of an epoch of this rank need, and nothing else: the most that reading could reach. Adds the cells
 *  and the bytes read from the file. */
cpa_status cpa_streamer_unpack(cpa_streamer *s, int64_t epoch, int64_t *cells, int64_t *bytes);

cpa_streamer_report cpa_streamer_reported(const cpa_streamer *s);

#endif
