// Owns: what the files of validation share: metrics over the whole validation split. Never included elsewhere.
#ifndef CPA_TRAIN_VALIDATE_IMPL_H
#define CPA_TRAIN_VALIDATE_IMPL_H

#include "cpa/train/validate.h"

// Metrics over all validation cells at once, beside those of batches.
typedef struct cpa_whole cpa_whole;

/** For the cells cell[n] in validation order (borrowed), in batches of at most max_batch, the first n_queries of which are looked up
 *  among all. Says what it leaves out. Rank-local, the same on all ranks. */
cpa_status cpa_whole_create(const cpa_step_parts *parts, const int64_t *cell, int64_t n, int n_queries, int max_batch,
                            cpa_whole **out);

/** Frees it and sets *w to NULL; NULL-safe. */
void cpa_whole_destroy(cpa_whole **w);

/** Takes the real values of a batch that begins with cell `first`; before the first validation, every rank its batches. */
cpa_status cpa_whole_see(cpa_whole *w, const cpa_batch *batch, int64_t first);

/** Puts together what the ranks have seen. Collective. */
cpa_status cpa_whole_seen(cpa_whole *w);

/** Starts a validation. */
cpa_status cpa_whole_begin(cpa_whole *w);

/** Takes the batch that the model has just validated: cells first .. first + n - 1, their latents [n, n_latent]. Batches of queries
 *  come before cpa_whole_share, the others after it. */
cpa_status cpa_whole_take(cpa_whole *w, int64_t first, int n, const cpa_real *basal, const cpa_real *after);

/** Gives the queries of every rank to all, and looks for neighbours among them. Collective. */
cpa_status cpa_whole_share(cpa_whole *w);

/** Ends a validation: adds the metrics to the history. Collective. */
cpa_status cpa_whole_finish(cpa_whole *w, cpa_history *h);

#endif
