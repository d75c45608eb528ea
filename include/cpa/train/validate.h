// Owns: validation metrics on fixed batches of the validation cells.
// Never depends on the number of ranks.
#ifndef CPA_TRAIN_VALIDATE_H
#define CPA_TRAIN_VALIDATE_H

#include "cpa/train/history.h"

typedef struct cpa_validator cpa_validator;

/** Fixes the batches: validation cells in a seeded order, cut into batch_size (a last batch of fewer than 3 joins the one before).
 *  Rank-local; no validation cells are fine. */
cpa_status cpa_validator_create(const cpa_step_parts *parts, cpa_validator **out);

/** Frees it and sets *v to NULL; NULL-safe. */
void cpa_validator_destroy(cpa_validator **v);

/** Cells of its largest batch, 0 without validation cells. */
int cpa_validator_max_batch(const cpa_validator *v);

/** Computes all metrics with the model in evaluation mode and adds them to the history batch by batch; *cpa_metric is their mean of
 *  r2_mean + r2_var / 2 + exp(disnt_after - disnt_basal), NaN without validation cells. AGAIN, with the history as it was, when some
 *  rank has been asked to stop. INTERNAL when the ranks do not hold the same parameters; NONFINITE, with the place, when a
 *  reconstruction loss is not finite. Collective. */
cpa_status cpa_validator_run(cpa_validator *v, cpa_history *h, double *cpa_metric);

#endif
