// Owns: mixing the cells of a batch with partners of the same batch (mixup). Never draws a partner across lanes.
#ifndef CPA_DATA_MIXUP_H
#define CPA_DATA_MIXUP_H

#include "cpa/data/batch.h"

/** Draws lambda ~ Beta(alpha, alpha) and a permutation of the n cells of a batch. The draws depend on (seed, epoch, lane, step) alone. */
void cpa_mixup_draw(uint64_t seed, int64_t epoch, int lane, int64_t step, double alpha, int n, double *lambda,
                    int32_t *partner);

/** out = lambda * batch + (1 - lambda) * batch[partner]: counts are mixed (as CSR, so log1p is taken of the mixed count), libraries
 *  follow; perturbations, doses, labels and covariates of both are kept side by side. `out` is a batch made with
 *  cpa_batch_create_mixed. Rank-local; allocates nothing. */
cpa_status cpa_mixup_apply(const cpa_batch *batch, double lambda, const int32_t *partner, cpa_batch *out);

#endif
