// Owns: the training history. Never computes a metric.
#include "cpa/train/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct cpa_history {
    const cpa_registry *registry; // borrowed
    bool exact;
    cpa_strings column;
    double *sum;
    int64_t *n;
    cpa_text csv;
};

// Columns that every data set has, in upstream's order.
static const char *const COMMON[] = {"recon_loss", "KL",        "disnt_basal",   "disnt_after",
                                     "r2_mean",    "r2_var",    "adv_loss",      "penalty_adv",
                                     "adv_perts",  "acc_perts", "penalty_perts", "cpa_metric"};

// Columns beside upstream's: metrics over the whole validation split.
static const char *const WHOLE[] = {"r2_mean_split", "r2_var_split",      "r2_var_pred",      "r2_mean_deg",
                                    "r2_var_deg",    "disnt_basal_split", "disnt_after_split"};

static cpa_status add_column(cpa_history *h, const char *prefix, const char *name)
{
    cpa_status st = CPA_OK;
    char *s = NULL;
    CPA_TRY(cpa_sprintf(&s, "%s%s", prefix, name));
    CPA_TRY(cpa_strings_add(&h->column, s));
cleanup:
    cpa_free(&s);
    return st;
}

static bool has_adversary(const cpa_covariate *c)
{
    return c->value.n > 1;
}

cpa_status cpa_history_create(const cpa_registry *registry, bool exact, cpa_history **out)
{
    cpa_status st = CPA_OK;
    cpa_history *h = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *h, &h));
    h->registry = registry;
    h->exact = exact;
    for (size_t i = 0; i < sizeof COMMON / sizeof *COMMON; i++) {
        CPA_TRY(add_column(h, "", COMMON[i]));
    }
    for (int c = 0; c < registry->n_covs; c++) {
        if (has_adversary(&registry->cov[c])) {
            CPA_TRY(add_column(h, "adv_", registry->cov[c].name));
            CPA_TRY(add_column(h, "penalty_", registry->cov[c].name));
            CPA_TRY(add_column(h, "acc_", registry->cov[c].name));
        }
    }
    for (size_t i = 0; i < sizeof WHOLE / sizeof *WHOLE; i++) {
        CPA_TRY(add_column(h, "", WHOLE[i]));
    }
    CPA_TRY(cpa_alloc((size_t)h->column.n, sizeof *h->sum, &h->sum));
    CPA_TRY(cpa_alloc((size_t)h->column.n, sizeof *h->n, &h->n));
    CPA_TRY(cpa_text_add(&h->csv, "epoch,mode"));
    for (int64_t i = 0; i < h->column.n; i++) {
        CPA_TRY(cpa_text_add(&h->csv, ",%s", h->column.s[i]));
    }
    CPA_TRY(cpa_text_add(&h->csv, "\n"));
    *out = h;
    h = NULL;
cleanup:
    cpa_history_destroy(&h);
    return st;
}

void cpa_history_destroy(cpa_history **h)
{
    if (*h) {
        cpa_strings_fini(&(*h)->column);
        cpa_free(&(*h)->sum);
        cpa_free(&(*h)->n);
        cpa_text_fini(&(*h)->csv);
        cpa_free(h);
    }
}

void cpa_history_take(cpa_history *h, const char *column, double value)
{
    int64_t i = cpa_strings_find(&h->column, column);
    if (i >= 0 && (value != 0 || h->exact)) {
        h->sum[i] += value;
        h->n[i]++;
    }
}

void cpa_history_give(cpa_history *h, const char *column, double value)
{
    int64_t i = cpa_strings_find(&h->column, column);
    if (i >= 0 && isfinite(value)) {
        h->sum[i] = value;
        h->n[i] = 1;
    }
}

static void take_covariate(cpa_history *h, const char *prefix, const char *name, double value)
{
    char column[256];
    snprintf(column, sizeof column, "%s%s", prefix, name);
    cpa_history_take(h, column, value);
}

// Losses and penalties of the adversaries, if they ran in this step; accuracies with the metrics.
static void take_adversaries(cpa_history *h, const cpa_step_result *r)
{
    double elements = (double)r->n_cells, adv = r->sums[CPA_SUM_ADV_PERT] / (r->adv_weight > 0 ? r->adv_weight : 1);
    double penalty = r->sums[CPA_SUM_PENALTY_PERT] / elements, adv_all = adv, penalty_all = penalty;
    cpa_history_take(h, "adv_perts", adv);
    cpa_history_take(h, "penalty_perts", penalty);
    for (int c = 0; c < h->registry->n_covs; c++) {
        const cpa_covariate *cov = &h->registry->cov[c];
        const double *sums = r->sums + CPA_SUM_COVS + CPA_SUMS_PER_COV * c;
        if (has_adversary(cov)) {
            adv = sums[CPA_SUM_COV_ADV] / elements;
            penalty = sums[CPA_SUM_COV_PENALTY] / elements;
            take_covariate(h, "adv_", cov->name, adv);
            take_covariate(h, "penalty_", cov->name, penalty);
            adv_all += adv;
            penalty_all += penalty;
        }
        if (has_adversary(cov) && r->has_metrics) {
            take_covariate(h, "acc_", cov->name, sums[CPA_SUM_COV_ACC] / r->sums[CPA_SUM_METRIC_LANES]);
        }
    }
    cpa_history_take(h, "adv_loss", adv_all);
    cpa_history_take(h, "penalty_adv", penalty_all);
}

void cpa_history_step(cpa_history *h, const cpa_step_result *r)
{
    if (r->has_recon) {
        cpa_history_take(h, "recon_loss", r->sums[CPA_SUM_RECON] / (double)r->n_cells);
    }
    cpa_history_take(h, "KL", r->sums[CPA_SUM_KL] / (double)r->n_cells);
    if (r->phase.adversary_in_loss || r->phase.update_adversary) {
        take_adversaries(h, r);
    }
    if (r->has_metrics) {
        double lanes = r->sums[CPA_SUM_METRIC_LANES];
        cpa_history_take(h, "r2_mean", r->sums[CPA_SUM_R2_MEAN] / lanes);
        cpa_history_take(h, "r2_var", r->sums[CPA_SUM_R2_VAR] / lanes);
        cpa_history_take(h, "acc_perts", r->sums[CPA_SUM_ACC_PERT] / lanes);
    }
}

double cpa_history_mean(const cpa_history *h, const char *column)
{
    int64_t i = cpa_strings_find(&h->column, column);
    return i >= 0 && h->n[i] ? h->sum[i] / (double)h->n[i] : NAN;
}

cpa_status cpa_history_row(cpa_history *h, int64_t epoch, const char *mode)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_text_add(&h->csv, "%lld,%s", (long long)epoch, mode));
    for (int64_t i = 0; i < h->column.n; i++) {
        CPA_TRY(cpa_text_add(&h->csv, ","));
        if (h->n[i]) {
            CPA_TRY(cpa_text_add(&h->csv, "%.9g", h->sum[i] / (double)h->n[i]));
        }
        h->sum[i] = 0;
        h->n[i] = 0;
    }
    CPA_TRY(cpa_text_add(&h->csv, "\n"));
cleanup:
    return st;
}

const char *cpa_history_csv(const cpa_history *h)
{
    return cpa_text_str(&h->csv);
}

int cpa_history_sums(cpa_history *h, double **sum, int64_t **n)
{
    *sum = h->sum;
    *n = h->n;
    return (int)h->column.n;
}

cpa_status cpa_history_restore(cpa_history *h, const char *csv)
{
    cpa_text_fini(&h->csv);
    return cpa_text_add(&h->csv, "%s", csv);
}
