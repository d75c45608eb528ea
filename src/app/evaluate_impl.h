// Owns: what the files of evaluate share: the scores of a group and how they are shown. Never included outside
// src/app/evaluate*.c, cmd_evaluate.c and their tests.
#ifndef CPA_APP_EVALUATE_IMPL_H
#define CPA_APP_EVALUATE_IMPL_H

#include "cpa/app/scores.h"
#include "cpa/base/text.h"
#include "predict_impl.h"

// Who predicts, over which genes, which score: the columns of the file in all combinations.
enum { BY_MODEL, BY_NO_CHANGE, BY_MEAN_EFFECT, BY_ADDITIVE, N_PREDICTORS };
enum { OVER_ALL, OVER_TOP20, N_GENE_SETS };
enum { R2_MEAN, R2_VAR, R2_DELTA, PSEUDOBULK_R2, PEARSON_DELTA, N_SCORES };

// Scores of one held-out group; NaN where there is no answer.
typedef struct cpa_group_scores {
    const char *group; // borrowed
    int64_t n_cells, n_control;
    double score[N_PREDICTORS][N_GENE_SETS][N_SCORES];
} cpa_group_scores;

// Effects on both scales: of the mean of log1p(CP10k), and of the log1p of the mean CP10k; of log-normalised data both
// are effects on the mean.
typedef struct cpa_baselines {
    cpa_effects *log, *bulk;
} cpa_baselines;

/** Effects of all conditions from the training cells, for the components of the plan's targets. Identical on every
 *  rank. */
cpa_status cpa_baselines_create(const cpa_trained *t, const cpa_plan *plan, cpa_baselines *out);

/** Frees them. */
void cpa_baselines_fini(cpa_baselines *b);

/** Non-control components of a condition, in the file's numbers, into component[c->n]; how many into *n. */
void cpa_components_of(const cpa_condition *c, int *component, int *n);

/** Scores the held-out groups of a plan, in its order, into a fresh array of *n. `chosen`: the held-out cells.
 *  Collective. */
cpa_status cpa_evaluate_groups(cpa_trained *t, const cpa_plan *plan, const cpa_cell_list *chosen,
                               cpa_group_scores **out, int64_t *n);

/** The file: a header and a row per group. */
cpa_status cpa_scores_csv(const cpa_group_scores *g, int64_t n, cpa_text *out);

/** What people read: the main scores, of that scale, beside the baselines, and a sentence a group. */
cpa_status cpa_scores_table(const cpa_group_scores *g, int64_t n, cpa_scale scale, cpa_text *out);

#endif
