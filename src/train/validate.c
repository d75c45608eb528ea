// Owns: validation. Batches are fixed, ranks take stretches of them, results are put together in batch order. Never trains.
#include <math.h>
#include <string.h>

#include "cpa/base/rng.h"
#include "cpa/base/signals.h"
#include "cpa/train/purity.h"
#include "cpa/train/soundness.h"
#include "validate_impl.h"

enum { METRIC_RECON, METRIC_KL, METRIC_R2_MEAN, METRIC_R2_VAR, METRIC_BASAL, METRIC_AFTER, N_METRICS };

struct cpa_validator {
    cpa_step_parts p;
    int64_t *cell, n_cells; // in validation order
    int n_batches, batch_size, n_latent;
    cpa_batch *batch;
    cpa_real *basal, *after; // [max batch, n_latent]
    double *mine, *all;      // metrics of this rank's batches; of all, rank after rank
    int per_rank;            // batches a rank has room for
    int first, end;          // its batches
    int64_t first_cell;      // of these in `cell`
    int n_query_batches;     // the first ones: the neighbours of their cells are looked for in the whole split
    cpa_whole *whole;        // NULL without validation cells
    bool seen;               // it knows the real cells
};

// The cells and their order: all mixed or, when they are more than a window of training, by blocks like the cells of a lane, so that
// they can be streamed.
static cpa_status collect_cells(cpa_validator *v)
{
    cpa_status st = CPA_OK;
    cpa_sampler *order = NULL;
    const cpa_registry *r = v->p.registry;
    CPA_TRY(cpa_alloc((size_t)r->n_valid, sizeof *v->cell, &v->cell));
    for (int64_t i = 0; i < r->n_cells; i++) {
        if (r->split[i] == CPA_SPLIT_VALID) {
            v->cell[v->n_cells++] = i;
        }
    }
    int64_t window = v->p.window * v->p.block, of_lane = v->p.window / v->p.config->lanes;
    if (window == 0 || v->n_cells <= window || v->n_cells < 3) {
        cpa_shuffle(v->p.seed, CPA_STREAM_VALID, 0, 0, v->cell, v->n_cells);
        goto cleanup;
    }
    CPA_TRY(cpa_sampler_create(v->cell, v->n_cells, 1, v->batch_size, v->p.block, of_lane > 0 ? of_lane : 1, v->p.seed,
                               &order));
    cpa_sampler_list(order, v->cell);
cleanup:
    cpa_sampler_destroy(&order);
    return st;
}

// Cells [*first, *first + n) of batch b.
static int batch_of(const cpa_validator *v, int b, int64_t *first)
{
    *first = (int64_t)b * v->batch_size;
    return (int)((b == v->n_batches - 1 ? v->n_cells : *first + v->batch_size) - *first);
}

// Neighbouring batches have cells of the same windows, so a rank takes neighbours.
static cpa_status share_batches(cpa_validator *v)
{
    int64_t first = (int64_t)cpa_comm_rank(v->p.comm) * v->per_rank, end = first + v->per_rank, end_cell;
    v->first = (int)(first < v->n_batches ? first : v->n_batches);
    v->end = (int)(end < v->n_batches ? end : v->n_batches);
    v->first_cell = (int64_t)v->first * v->batch_size;
    end_cell = v->end < v->n_batches ? (int64_t)v->end * v->batch_size : v->n_cells;
    return cpa_feed_list(v->p.feed, v->cell + v->first_cell, v->first < v->end ? end_cell - v->first_cell : 0);
}

// Fills the batch with one of this rank's batches.
static cpa_status fill(cpa_validator *v, int64_t first, int n)
{
    return cpa_feed_fill_listed(v->p.feed, v->p.registry, first - v->first_cell, n, v->batch);
}

int cpa_validator_max_batch(const cpa_validator *v)
{
    int most = 0;
    for (int b = 0; b < v->n_batches; b++) {
        int64_t first;
        int n = batch_of(v, b, &first);
        most = n > most ? n : most;
    }
    return most;
}

static cpa_status create_whole(cpa_validator *v, int max_batch)
{
    int most = CPA_MOST_QUERIES / v->batch_size > 1 ? CPA_MOST_QUERIES / v->batch_size : 1;
    int64_t first;
    v->n_query_batches = v->n_batches < most ? v->n_batches : most;
    int n = batch_of(v, v->n_query_batches - 1, &first);
    return cpa_whole_create(&v->p, v->cell, v->n_cells, (int)first + n, max_batch, &v->whole);
}

cpa_status cpa_validator_create(const cpa_step_parts *parts, cpa_validator **out)
{
    cpa_status st = CPA_OK;
    cpa_validator *v = NULL;
    int64_t nnz;
    CPA_TRY(cpa_alloc(1, sizeof *v, &v));
    v->p = *parts;
    v->batch_size = parts->config->batch_size;
    CPA_TRY(collect_cells(v));
    v->n_batches = (int)((v->n_cells + v->batch_size - 1) / v->batch_size);
    if (v->n_batches > 1 && v->n_cells % v->batch_size > 0 && v->n_cells % v->batch_size < 3) {
        v->n_batches--;
    }
    int most = cpa_validator_max_batch(v), ranks = cpa_comm_size(parts->comm);
    v->per_rank = (v->n_batches + ranks - 1) / ranks;
    v->n_latent = cpa_model_n_latent(parts->model);
    CPA_TRY(cpa_feed_max_nnz(parts->feed, most, &nnz));
    CPA_TRY(cpa_batch_create(most, nnz, parts->registry->n_genes, parts->registry->n_covs,
                             parts->registry->max_comb_len, &v->batch));
    CPA_TRY(cpa_alloc((size_t)most * (size_t)v->n_latent, sizeof *v->basal, &v->basal));
    CPA_TRY(cpa_alloc((size_t)most * (size_t)v->n_latent, sizeof *v->after, &v->after));
    CPA_TRY(cpa_alloc((size_t)(v->per_rank * N_METRICS), sizeof *v->mine, &v->mine));
    CPA_TRY(cpa_alloc((size_t)(v->per_rank * N_METRICS * ranks), sizeof *v->all, &v->all));
    if (v->n_batches) {
        CPA_TRY(create_whole(v, most));
    }
    CPA_TRY(share_batches(v));
    *out = v;
    v = NULL;
cleanup:
    cpa_validator_destroy(&v);
    return st;
}

void cpa_validator_destroy(cpa_validator **v)
{
    if (*v) {
        cpa_batch_destroy(&(*v)->batch);
        cpa_whole_destroy(&(*v)->whole);
        void *memory[] = {(*v)->cell, (*v)->basal, (*v)->after, (*v)->mine, (*v)->all};
        for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
            cpa_free(&memory[i]);
        }
        cpa_free(v);
    }
}

// Purity summed over the perturbation and every covariate with more than one value.
static cpa_status purity(const cpa_validator *v, const cpa_real *z, int k, double *sum)
{
    cpa_status st = CPA_OK;
    const cpa_batch *b = v->batch;
    const int32_t **label = NULL;
    double *each = NULL;
    int n = 1;
    CPA_TRY(cpa_alloc((size_t)b->n_covs + 1, sizeof *label, &label));
    CPA_TRY(cpa_alloc((size_t)b->n_covs + 1, sizeof *each, &each));
    label[0] = b->label;
    for (int c = 0; c < b->n_covs; c++) {
        if (v->p.registry->cov[c].value.n > 1) {
            label[n++] = b->cov + (int64_t)c * b->max_cells;
        }
    }
    CPA_TRY(cpa_knn_purity(z, b->n_cells, v->n_latent, k, label, n, each));
    *sum = 0;
    for (int i = 0; i < n; i++) {
        *sum += each[i];
    }
cleanup:
    cpa_free(&label);
    cpa_free(&each);
    return st;
}

static cpa_status run_batch(cpa_validator *v, int b, double *metric)
{
    cpa_status st = CPA_OK;
    int64_t first;
    cpa_scores scores;
    int n = batch_of(v, b, &first), k = n - 1 < 30 ? n - 1 : 30;
    CPA_TRY(fill(v, first, n));
    CPA_TRY(cpa_model_validate(v->p.model, v->batch, &scores));
    CPA_TRY(cpa_model_latent(v->p.model, CPA_LATENT_BASAL, v->basal));
    CPA_TRY(cpa_model_latent(v->p.model, CPA_LATENT_ALL, v->after));
    metric[METRIC_RECON] = scores.recon_loss;
    metric[METRIC_KL] = scores.kl;
    metric[METRIC_R2_MEAN] = scores.r2_mean;
    metric[METRIC_R2_VAR] = scores.r2_var;
    if (k > 0) {
        CPA_TRY(purity(v, v->basal, k, &metric[METRIC_BASAL]));
        CPA_TRY(purity(v, v->after, k, &metric[METRIC_AFTER]));
    }
    CPA_TRY(cpa_whole_take(v->whole, first, n, v->basal, v->after));
cleanup:
    return st;
}

// Shows the real cells of this rank's batches to the whole-split metrics, once.
static cpa_status see_cells(cpa_validator *v)
{
    cpa_status st = CPA_OK;
    for (int b = v->first; st == CPA_OK && b < v->end; b++) {
        int64_t first;
        int n = batch_of(v, b, &first);
        st = fill(v, first, n);
        if (st == CPA_OK) {
            st = cpa_whole_see(v->whole, v->batch, first);
        }
    }
    CPA_TRY(cpa_comm_agree(v->p.comm, st));
    CPA_TRY(cpa_whole_seen(v->whole));
    v->seen = true;
cleanup:
    return st;
}

// Runs this rank's batches among [begin, end).
static cpa_status run_batches(cpa_validator *v, int begin, int end)
{
    cpa_status st = CPA_OK;
    for (int b = begin > v->first ? begin : v->first; st == CPA_OK && b < end && b < v->end; b++) {
        st = cpa_stop_wanted() ? cpa_fail(CPA_AGAIN, "validation was put off: %s wants a stop", cpa_stop_reason())
                               : run_batch(v, b, v->mine + (b - v->first) * N_METRICS);
    }
    return cpa_comm_agree(v->p.comm, st);
}

static cpa_status run_all(cpa_validator *v)
{
    cpa_status st = CPA_OK;
    memset(v->mine, 0, (size_t)(v->per_rank * N_METRICS) * sizeof *v->mine);
    if (!v->seen) {
        CPA_TRY(see_cells(v));
    }
    CPA_TRY(cpa_comm_agree(v->p.comm, cpa_whole_begin(v->whole)));
    CPA_TRY(run_batches(v, 0, v->n_query_batches));
    CPA_TRY(cpa_whole_share(v->whole));
    CPA_TRY(run_batches(v, v->n_query_batches, v->n_batches));
    CPA_TRY(cpa_comm_allgather(v->p.comm, v->mine, v->all, (size_t)(v->per_rank * N_METRICS) * sizeof *v->mine));
cleanup:
    return st;
}

// Batch b has a loss that is not finite: the rank that ran it says why. Collective.
static cpa_status blame_batch(cpa_validator *v, int b, double loss)
{
    cpa_status st = CPA_OK;
    cpa_text why = {0};
    int64_t first;
    int n = batch_of(v, b, &first);
    if (b >= v->first && b < v->end) {
        CPA_TRY(fill(v, first, n));
        CPA_TRY(cpa_model_diagnose(v->p.model, v->batch, NULL, v->p.gene, &why));
        st = cpa_fail(
            CPA_NONFINITE,
            "the reconstruction loss of the validation cells is %g: %s; a smaller learning rate (--lr) may help",
            isnan(loss) ? NAN : loss, cpa_text_str(&why));
    }
cleanup:
    cpa_text_fini(&why);
    return cpa_comm_agree(v->p.comm, st);
}

cpa_status cpa_validator_run(cpa_validator *v, cpa_history *h, double *cpa_metric)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_soundness_replicas(v->p.comm, cpa_model_params(v->p.model)));
    if (v->n_batches) {
        CPA_TRY(run_all(v));
        CPA_TRY(cpa_whole_finish(v->whole, h));
    }
    double sum = 0;
    for (int b = 0; b < v->n_batches; b++) {
        const double *m = v->all + b * N_METRICS;
        if (!isfinite(m[METRIC_RECON])) { // the metric can look fine beside it
            return blame_batch(v, b, m[METRIC_RECON]);
        }
        double metric = m[METRIC_R2_MEAN] + 0.5 * m[METRIC_R2_VAR] + exp(m[METRIC_AFTER] - m[METRIC_BASAL]);
        cpa_history_take(h, "recon_loss", m[METRIC_RECON]);
        cpa_history_take(h, "KL", m[METRIC_KL]);
        cpa_history_take(h, "r2_mean", m[METRIC_R2_MEAN]);
        cpa_history_take(h, "r2_var", m[METRIC_R2_VAR]);
        cpa_history_take(h, "disnt_basal", m[METRIC_BASAL]);
        cpa_history_take(h, "disnt_after", m[METRIC_AFTER]);
        cpa_history_take(h, "cpa_metric", metric);
        sum += metric;
    }
    *cpa_metric = v->n_batches ? sum / v->n_batches : NAN;
cleanup:
    return st;
}
