// Owns: the three Adams and the running statistics. Knows nothing of lanes' order or of ranks.
#ifndef CPA_TRAIN_OPTIMIZER_H
#define CPA_TRAIN_OPTIMIZER_H

#include "cpa/nn/params.h"
#include "cpa/platform/tree.h"
#include "cpa/train/schedule.h"

// Updates taken by each Adam (their bias corrections), and by all of them together (upstream's global step).
typedef struct cpa_optimizer {
    int64_t taken[CPA_N_OPTIMIZERS];
    int64_t steps;
} cpa_optimizer;

/** Applies a step: the Adams that the phase updates, from the gradient arena; running statistics by the mean over `n_lanes` lanes of
 *  the batch statistics whose sum lies in the gradient arena (momentum 0.01). Not collective. */
cpa_status cpa_optimizer_step(cpa_optimizer *o, cpa_params *t, const cpa_train_config *c, const cpa_phase *phase,
                              int n_lanes);

/** The pieces of the gradient arena that a phase fills (at most 3), to be summed over lanes; returns how many. */
int cpa_optimizer_spans(const cpa_params *t, const cpa_phase *phase, cpa_range span[3]);

#endif
