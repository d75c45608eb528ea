// Owns: the batch of the step to come, filled while a device computes. Never used outside src/train/step.c and ahead.c.
#ifndef CPA_TRAIN_AHEAD_IMPL_H
#define CPA_TRAIN_AHEAD_IMPL_H

#include "cpa/data/feed.h"

// One lane's batch of one step, without counts (batch->all).
typedef struct cpa_ahead {
    cpa_batch *batch; // owned; NULL: nothing is filled ahead
    cpa_feed *feed;   // borrowed, as the rest
    const cpa_registry *registry;
    int64_t n_steps, epoch, step; // of the batch, while it is ready
    bool is_ready;
    double label_weight; // of its cells together
} cpa_ahead;

/** Says which step runs now, so that cpa_ahead_fill fills the next one's batch; in the last step of an epoch it does nothing. */
void cpa_ahead_aim(cpa_ahead *a, int64_t epoch, int64_t step);

/** Fills the batch aimed at. `ahead` is a cpa_ahead. Rank-local; allocates nothing. */
cpa_status cpa_ahead_fill(void *ahead);

/** Whether it holds the batch of this step. */
bool cpa_ahead_has(const cpa_ahead *a, int64_t epoch, int64_t step);

/** Gives that batch for another one, to be filled next. */
void cpa_ahead_swap(cpa_ahead *a, cpa_batch **batch);

#endif
