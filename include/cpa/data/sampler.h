// Owns: the order of cells. A function of (cells of the split, seed, lanes, block, window) and of nothing else: not of ranks,
// threads or memory.
#ifndef CPA_DATA_SAMPLER_H
#define CPA_DATA_SAMPLER_H

#include <stdbool.h>

#include "cpa/base/mem.h"

// Training order. The training cells, in file order, are cut into blocks of `block` neighbours. A seeded permutation deals the
// blocks to lanes once (block j goes to lane perm[j] mod n_lanes). Each epoch every lane shuffles its blocks, then the cells
// within windows of window/n_lanes blocks. A batch is the next batch_size cells of the lane; a last batch of fewer than 3
// cells joins the one before; a lane that has run out has no cells in that step.
typedef struct cpa_sampler cpa_sampler;

enum { CPA_MIN_BATCH = 3 }; // batch normalisation over fewer cells means nothing

/** `cell` [n]: the training cells in ascending order (copied). n_lanes a power of two. window 0: all blocks. BAD_DATA: a lane gets too
 *  few cells; a cell beyond 32 bits. Rank-local, the same on all ranks. */
cpa_status cpa_sampler_create(const int64_t *cell, int64_t n, int n_lanes, int batch_size, int block, int64_t window,
                              uint64_t seed, cpa_sampler **out);

/** Frees it and sets *s to NULL; NULL-safe. */
void cpa_sampler_destroy(cpa_sampler **s);

/** Steps of an epoch: batches of the longest lane. The same in every epoch. */
int64_t cpa_sampler_steps(const cpa_sampler *s);

/** The largest number of cells a batch can have. */
int cpa_sampler_max_batch(const cpa_sampler *s);

/** Builds the order of an epoch (allocates nothing). */
cpa_status cpa_sampler_epoch(cpa_sampler *s, int64_t epoch);

/** Cells of lane `lane` in step `step` of the current epoch: *rows borrowed until the next cpa_sampler_epoch, *n may be 0. */
void cpa_sampler_batch(const cpa_sampler *s, int lane, int64_t step, const int64_t **rows, int *n);

/** The order of the current epoch of all lanes, one after another, into cell[all training cells]. */
void cpa_sampler_list(const cpa_sampler *s, int64_t *cell);

// ---- Windows: what a lane must have at hand

// Neighbouring training cells, ascending.
typedef struct cpa_block {
    const uint32_t *cell;
    int64_t n;
} cpa_block;

/** The cells of a lane, ascending, cut into blocks: all of cpa_sampler_block_size but the last. Borrowed. */
cpa_block cpa_sampler_lane(const cpa_sampler *s, int lane);
int cpa_sampler_block_size(const cpa_sampler *s);

/** Blocks of a lane's window, and the windows of the lane that has most. */
int64_t cpa_sampler_window_blocks(const cpa_sampler *s);
int64_t cpa_sampler_windows(const cpa_sampler *s);

/** A window of a lane in any epoch: its blocks into block[cpa_sampler_window_blocks], *n of them (may be 0); and the order of its
 *  cells: the j-th is number order[j] when the blocks are listed one after another (room for all). Returns how many cells. */
int64_t cpa_sampler_window(cpa_sampler *s, int64_t epoch, int lane, int64_t window, cpa_block *block, int64_t *n,
                           int64_t *order);

// Where in the order of the current epoch a batch lies: from the cell `offset` of the window `first` up to the window `last`.
typedef struct cpa_span {
    int64_t first, last, offset;
} cpa_span;

/** The span of a batch; false when it has no cells. */
bool cpa_sampler_span(const cpa_sampler *s, int lane, int64_t step, cpa_span *out);

/** Whether --shuffle auto means full for n training cells: up to 65,536. */
bool cpa_sampler_is_full(int64_t n);

#endif
