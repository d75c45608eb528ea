// Owns: how far a prediction is from the truth, and what the simple baselines predict instead. Plain
// arithmetic on vectors of genes; never reads cells or files.
#ifndef CPA_APP_SCORES_H
#define CPA_APP_SCORES_H

#include <stdbool.h>

#include "cpa/base/mem.h"

// Which genes a score is taken over; NULL: all of the n genes of the vectors.
typedef struct cpa_genes {
    const int32_t *gene; // borrowed
    int n;
} cpa_genes;

/** Coefficient of determination of `predicted` for `real`, as scikit-learn's r2_score: 1 - residual / total sum of
 *  squares; with a constant `real` 1 when met exactly, else 0. NaN for fewer than two genes. */
double cpa_score_r2_of(const double *real, const double *predicted, cpa_genes genes);

/** Pearson correlation, as numpy's corrcoef. NaN for fewer than two genes or a constant vector. */
double cpa_score_pearson(const double *a, const double *b, cpa_genes genes);

// The effects of conditions against the control of the same context (combination of covariate values), on one scale.
// Training cells only, at least CPA_EFFECT_CELLS of them. Contexts and components are numbered by the caller.
typedef struct cpa_effects cpa_effects;

enum { CPA_EFFECT_CELLS = 10 };

/** `wanted` [n_components]: components whose effects will be added up. */
cpa_status cpa_effects_create(int n_genes, int n_contexts, int n_components, const unsigned char *wanted,
                              cpa_effects **out);

/** Frees it and sets *e to NULL; NULL-safe. */
void cpa_effects_destroy(cpa_effects **e);

/** Adds the effect (condition mean - control mean) of a condition in a context; `component` >= 0 when the condition
 *  is that component alone, else -1. Contexts without control must not be added. */
cpa_status cpa_effects_add(cpa_effects *e, int context, int component, const double *mean, const double *control);

/** The mean effect of the conditions seen in this context, else of all, into out[n_genes]; false when there is none. */
bool cpa_effects_mean(const cpa_effects *e, int context, double *out);

/** The sum of the components' effects: each in this context, else its mean over the other contexts; false when one
 *  has none, or there is no component. */
bool cpa_effects_additive(const cpa_effects *e, int context, const int *component, int n, double *out);

#endif
