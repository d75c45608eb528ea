// Owns: metrics over the whole validation split: R2 of category means and variances, also over the categories' differential genes, and
// the purity of exact neighbours. Never depends on batches or ranks.
#include <math.h>

#include "cpa/base/log.h"
#include "cpa/model/moments.h"
#include "cpa/train/purity.h"
#include "validate_impl.h"

enum { R2_MEAN, R2_VAR, R2_PRED, R2_MEAN_DEG, R2_VAR_DEG, N_R2 };
static const char *const R2_NAME[N_R2] = {"r2_mean_split", "r2_var_split", "r2_var_pred", "r2_mean_deg", "r2_var_deg"};

enum { BASAL, AFTER, N_LATENTS };
static const char *const PURITY_NAME[N_LATENTS] = {"disnt_basal_split", "disnt_after_split"};

enum {
    MOST_SUMS = 1 << 22, // categories times genes that are summed up
    EXCHANGED = 1 << 20, // sums that ranks add up at once
};

// The categories whose sums are kept; numbered as they first occur in validation order.
typedef struct group {
    int32_t category;
    int64_t n;          // validation cells
    cpa_gene_list list; // the first n_deg_r2 genes of the category's list, those that the data have; owned
} group;

struct cpa_whole {
    cpa_step_parts p;
    int64_t n;
    int n_groups, n_sets, n_genes;
    int32_t *group_of; // [n] -1: none
    group *group;
    int32_t **label; // [n_sets][n] perturbation, then covariates with more than one value
    cpa_moments *moments;
    cpa_real *real;                // [n_groups, 3, n_genes] what cpa_moments_real says
    int64_t *sums;                 // [at_once, 4 n_genes]
    int at_once;                   // groups
    double *work;                  // [8, n_genes]
    cpa_purity *purity[N_LATENTS]; // NULL for a single cell
};

static cpa_status make_lists(cpa_whole *w)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < w->n_groups; k++) {
        group *g = &w->group[k];
        const cpa_gene_list *all = &w->p.registry->deg_list[g->category];
        int64_t most = all->n < w->p.config->n_deg_r2 ? all->n : w->p.config->n_deg_r2;
        CPA_TRY(cpa_alloc((size_t)most, sizeof *g->list.gene, &g->list.gene));
        for (int64_t i = 0; i < most; i++) {
            if (all->gene[i] >= 0) {
                g->list.gene[g->list.n++] = all->gene[i];
            }
        }
    }
cleanup:
    return st;
}

static cpa_status make_groups(cpa_whole *w, const int64_t *cell)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = w->p.registry;
    int32_t *number = NULL, seen = 0;
    int most = MOST_SUMS / r->n_genes > 1 ? MOST_SUMS / r->n_genes : 1;
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *number, &number));
    CPA_TRY(cpa_alloc((size_t)w->n, sizeof *w->group_of, &w->group_of));
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *w->group, &w->group));
    for (int64_t i = 0; i < w->n; i++) {
        int32_t *k = &number[r->category_of[cell[i]]]; // from 1
        if (*k == 0) {
            *k = ++seen;
            w->group[seen - 1].category = r->category_of[cell[i]];
        }
        w->group[*k - 1].n++;
        w->group_of[i] = *k <= most ? *k - 1 : -1;
    }
    w->n_groups = seen < most ? seen : most;
    if (seen > most) {
        cpa_info("validation: %s and the like over %d of %d categories (seeded), to bound their memory", R2_NAME[0],
                 most, seen);
    }
    CPA_TRY(make_lists(w));
cleanup:
    cpa_free(&number);
    return st;
}

static cpa_status make_labels(cpa_whole *w, const int64_t *cell)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = w->p.registry;
    CPA_TRY(cpa_alloc((size_t)r->n_covs + 1, sizeof *w->label, &w->label));
    for (int c = -1; c < r->n_covs; c++) {
        if (c >= 0 && r->cov[c].value.n < 2) {
            continue;
        }
        int32_t **label = &w->label[w->n_sets++];
        CPA_TRY(cpa_alloc((size_t)w->n, sizeof **label, label));
        for (int64_t i = 0; i < w->n; i++) {
            (*label)[i] = c < 0 ? r->condition[r->condition_of[cell[i]]].label : r->cov[c].code[cell[i]];
        }
    }
cleanup:
    return st;
}

static cpa_status make_moments(cpa_whole *w)
{
    cpa_status st = CPA_OK;
    int64_t most = 1;
    size_t genes = (size_t)w->n_genes;
    for (int k = 0; k < w->n_groups; k++) {
        most = w->group[k].n > most ? w->group[k].n : most;
    }
    w->at_once = EXCHANGED / (4 * w->n_genes) > 1 ? EXCHANGED / (4 * w->n_genes) : 1;
    CPA_TRY(cpa_moments_create(w->p.model, w->n_groups, most, cpa_feed_max_count(w->p.feed), &w->moments));
    CPA_TRY(cpa_alloc((size_t)w->n_groups * 3 * genes, sizeof *w->real, &w->real));
    CPA_TRY(cpa_alloc((size_t)w->at_once * 4 * genes, sizeof *w->sums, &w->sums));
    CPA_TRY(cpa_alloc(8 * genes, sizeof *w->work, &w->work));
cleanup:
    return st;
}

static cpa_status make_purities(cpa_whole *w, int n_queries, int max_batch)
{
    cpa_status st = CPA_OK;
    for (int i = 0; w->n > 1 && i < N_LATENTS; i++) {
        CPA_TRY(cpa_purity_create(w->p.comm, w->p.be, w->n, n_queries, cpa_model_n_latent(w->p.model), max_batch,
                                  &w->purity[i]));
    }
    if (n_queries < w->n) {
        cpa_info("validation: %s and %s of %d of %lld cells (seeded), each among all of them", PURITY_NAME[BASAL],
                 PURITY_NAME[AFTER], n_queries, (long long)w->n);
    }
cleanup:
    return st;
}

cpa_status cpa_whole_create(const cpa_step_parts *parts, const int64_t *cell, int64_t n, int n_queries, int max_batch,
                            cpa_whole **out)
{
    cpa_status st = CPA_OK;
    cpa_whole *w = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *w, &w));
    w->p = *parts;
    w->n = n;
    w->n_genes = parts->registry->n_genes;
    CPA_TRY(make_groups(w, cell));
    CPA_TRY(make_labels(w, cell));
    CPA_TRY(make_moments(w));
    CPA_TRY(make_purities(w, n_queries, max_batch));
    *out = w;
    w = NULL;
cleanup:
    cpa_whole_destroy(&w);
    return st;
}

void cpa_whole_destroy(cpa_whole **out)
{
    cpa_whole *w = *out;
    if (!w) {
        return;
    }
    for (int k = 0; w->group && k < w->n_groups; k++) {
        cpa_free(&w->group[k].list.gene);
    }
    for (int i = 0; w->label && i < w->n_sets; i++) {
        cpa_free(&w->label[i]);
    }
    for (int i = 0; i < N_LATENTS; i++) {
        cpa_purity_destroy(&w->purity[i]);
    }
    cpa_moments_destroy(&w->moments);
    void *memory[] = {w->group_of, w->group, w->label, w->real, w->sums, w->work};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        cpa_free(&memory[i]);
    }
    cpa_free(out);
}

// Rows of the workspace, three of which make a view.
static cpa_moment_view view_at(const cpa_whole *w, int row)
{
    double *first = w->work + (int64_t)row * w->n_genes;
    return (cpa_moment_view){first, first + w->n_genes, first + 2 * (int64_t)w->n_genes};
}

cpa_status cpa_whole_see(cpa_whole *w, const cpa_batch *batch, int64_t first)
{
    return cpa_moments_add_real(w->moments, batch, w->group_of + first);
}

// Sums of some groups over all ranks, into w->sums.
static cpa_status gather(cpa_whole *w, int first, int n)
{
    cpa_status st = CPA_OK;
    int64_t width = 4 * (int64_t)w->n_genes;
    for (int k = 0; st == CPA_OK && k < n; k++) {
        st = cpa_moments_sums(w->moments, first + k, w->sums + k * width);
    }
    CPA_TRY(cpa_comm_agree(w->p.comm, st));
    CPA_TRY(cpa_comm_sum_i64(w->p.comm, w->sums, (int)(n * width)));
cleanup:
    return st;
}

// Calls `use` for every group with its sums over all ranks.
static cpa_status for_groups(cpa_whole *w, void (*use)(cpa_whole *w, int k, const int64_t *sums, void *ctx), void *ctx)
{
    cpa_status st = CPA_OK;
    for (int first = 0; first < w->n_groups; first += w->at_once) {
        int n = w->n_groups - first < w->at_once ? w->n_groups - first : w->at_once;
        CPA_TRY(gather(w, first, n));
        for (int k = 0; k < n; k++) {
            use(w, first + k, w->sums + (int64_t)k * 4 * w->n_genes, ctx);
        }
    }
cleanup:
    return st;
}

static void keep_real(cpa_whole *w, int k, const int64_t *sums, void *ctx)
{
    (void)ctx;
    cpa_moments_real(w->moments, sums, w->group[k].n, view_at(w, 0));
    cpa_real *real = w->real + 3 * (int64_t)k * w->n_genes;
    for (int64_t i = 0; i < 3 * (int64_t)w->n_genes; i++) {
        real[i] = (cpa_real)w->work[i];
    }
}

cpa_status cpa_whole_seen(cpa_whole *w)
{
    return for_groups(w, keep_real, NULL);
}

// 1 - residual / total sum of squares; NaN where there is nothing to explain.
static double r2_of(const double *real, const double *predicted, int64_t n)
{
    double mean = 0, residual = 0, total = 0;
#pragma omp simd reduction(+ : mean)
    for (int64_t i = 0; i < n; i++) {
        mean += real[i];
    }
    mean /= (double)n;
#pragma omp simd reduction(+ : residual, total)
    for (int64_t i = 0; i < n; i++) {
        residual += (real[i] - predicted[i]) * (real[i] - predicted[i]);
        total += (real[i] - mean) * (real[i] - mean);
    }
    return n > 1 && total > 0 ? 1 - residual / total : NAN;
}

// The same over the genes of a list.
static double r2_listed(cpa_whole *w, const group *g, const double *real, const double *predicted)
{
    double *listed = w->work + 6 * (int64_t)w->n_genes;
    for (int64_t i = 0; i < g->list.n; i++) {
        listed[i] = real[g->list.gene[i]];
        listed[g->list.n + i] = predicted[g->list.gene[i]];
    }
    return r2_of(listed, listed + g->list.n, g->list.n);
}

// A mean over groups.
typedef struct average {
    double sum;
    int n;
} average;

static void score(cpa_whole *w, int k, const int64_t *sums, void *ctx)
{
    average *out = ctx;
    const group *g = &w->group[k];
    const cpa_real *kept = w->real + 3 * (int64_t)k * w->n_genes;
    cpa_moment_view real = view_at(w, 0), predicted = view_at(w, 3);
    for (int64_t i = 0; i < 3 * (int64_t)w->n_genes; i++) {
        w->work[i] = (double)kept[i];
    }
    cpa_moments_predicted(w->moments, sums, g->n, predicted);
    double r2[N_R2] = {
        [R2_MEAN] = r2_of(real.mean, predicted.mean, w->n_genes),
        [R2_VAR] = r2_of(real.var, predicted.var, w->n_genes),
        [R2_PRED] = r2_of(real.total, predicted.total, w->n_genes),
        [R2_MEAN_DEG] = r2_listed(w, g, real.mean, predicted.mean),
        [R2_VAR_DEG] = r2_listed(w, g, real.var, predicted.var),
    };
    for (int i = 0; i < N_R2; i++) {
        if (isfinite(r2[i])) {
            out[i].sum += r2[i];
            out[i].n++;
        }
    }
}

cpa_status cpa_whole_begin(cpa_whole *w)
{
    for (int i = 0; i < N_LATENTS && w->purity[i]; i++) {
        cpa_purity_begin(w->purity[i]);
    }
    return cpa_moments_clear(w->moments);
}

cpa_status cpa_whole_take(cpa_whole *w, int64_t first, int n, const cpa_real *basal, const cpa_real *after)
{
    cpa_status st = CPA_OK;
    const cpa_real *z[N_LATENTS] = {basal, after};
    CPA_TRY(cpa_moments_add_predicted(w->moments, w->group_of + first));
    for (int i = 0; i < N_LATENTS && w->purity[i]; i++) {
        CPA_TRY(cpa_purity_take(w->purity[i], first, n, z[i]));
    }
cleanup:
    return st;
}

cpa_status cpa_whole_share(cpa_whole *w)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < N_LATENTS && w->purity[i]; i++) {
        CPA_TRY(cpa_purity_share(w->purity[i]));
    }
cleanup:
    return st;
}

cpa_status cpa_whole_finish(cpa_whole *w, cpa_history *h)
{
    cpa_status st = CPA_OK;
    average r2[N_R2] = {{0}};
    CPA_TRY(for_groups(w, score, r2));
    for (int i = 0; i < N_R2; i++) {
        cpa_history_give(h, R2_NAME[i], r2[i].n ? r2[i].sum / r2[i].n : NAN);
    }
    for (int i = 0; i < N_LATENTS && w->purity[i]; i++) {
        double sum;
        CPA_TRY(cpa_purity_score(w->purity[i], w->label, w->n_sets, &sum));
        cpa_history_give(h, PURITY_NAME[i], sum);
    }
cleanup:
    return st;
}
