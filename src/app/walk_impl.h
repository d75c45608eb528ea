// Owns: what the commands that take single steps share (scale, bench step): a run that takes one full step after the other.
// Never used outside these files.
#ifndef CPA_APP_WALK_IMPL_H
#define CPA_APP_WALK_IMPL_H

#include "train_impl.h"

typedef struct cpa_walk {
    cpa_train_run run; // its strings, files and registry are those that it began with
    cpa_stepper *stepper;
    int64_t n_full; // steps of an epoch in which every lane has a whole batch, in whole cycles
    int64_t epoch, step;
} cpa_walk;

/** Steps after which the schedule repeats. */
int cpa_walk_cycle(const cpa_train_config *c);

/** Data and options of the walks to come: registry and, where cells are resident, their feed. Collective. */
cpa_status cpa_walk_read(cpa_train_run *base, const cpa_options *o, int lanes);

/** Sets a walk up, for the ranks of `part`, behind all warm-ups. BAD_DATA: too few cells for full steps. w must be zero. Collective over
 *  part. */
cpa_status cpa_walk_begin(const cpa_train_run *base, cpa_comm *part, int lanes, cpa_walk *w);

/** Takes everything down that is the walk's. */
void cpa_walk_end(cpa_walk *w);

/** The next step. Collective. */
cpa_status cpa_walk_step(cpa_walk *w, cpa_step_result *result);

#endif
