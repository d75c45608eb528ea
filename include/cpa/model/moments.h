// Owns: means and variances by group of cells, of real values and of predicted ones, over any number of batches. Sums are exact
// integers, so they depend on the cells and not on batches, their order, or who adds them up. Never knows what a group means.
#ifndef CPA_MODEL_MOMENTS_H
#define CPA_MODEL_MOMENTS_H

#include "cpa/model/model.h"

typedef struct cpa_moments cpa_moments;

/** Sums for n_groups groups of at most `most` cells each, all 0. The model is borrowed; it must be one that trains. `largest`: the
 *  largest real value; predictions beyond four times of it (at least 4) count as that much, NaN counts as 0. */
cpa_status cpa_moments_create(cpa_model *m, int n_groups, int64_t most, double largest, cpa_moments **out);

/** Frees it and sets *mo to NULL; NULL-safe. */
void cpa_moments_destroy(cpa_moments **mo);

/** Sets the sums to 0, and reads what the likelihood has by gene: call it again when parameters have changed. */
cpa_status cpa_moments_clear(cpa_moments *mo);

/** Adds the real values of a batch, which is loaded into the model. group [n_cells]: negative for cells that do not count. */
cpa_status cpa_moments_add_real(cpa_moments *mo, const cpa_batch *batch, const int32_t *group);

/** Adds what the last cpa_model_validate predicted for its cells. */
cpa_status cpa_moments_add_predicted(cpa_moments *mo, const int32_t *group);

/** The sums of a group into sums[4 n_genes], to be added up over ranks. */
cpa_status cpa_moments_sums(cpa_moments *mo, int group, int64_t *sums);

// What the sums of n cells say, gene by gene, on the scale of the R2 metrics: log(1 + count), or (gauss) the values.
typedef struct cpa_moment_view {
    double *mean; // [n_genes]
    double *var; // unbiased variance, of what is predicted the variance of the means (gauss: the mean of the variances)
    double *
        total; // log(1 + variance of the counts), (gauss) the variance; of what is predicted by the law of total variance
} cpa_moment_view;

/** Reads real sums; `var` and `total` are NaN for one cell. */
void cpa_moments_real(const cpa_moments *mo, const int64_t *sums, int64_t n, cpa_moment_view view);

/** Reads predicted sums; `var` is NaN for one cell unless gauss. */
void cpa_moments_predicted(const cpa_moments *mo, const int64_t *sums, int64_t n, cpa_moment_view view);

#endif
