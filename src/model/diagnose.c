// Owns: why a loss is not finite: the parameter, layer, cell or gene where the first such value stands. Runs the model once more
// to look at it, so it may be slow; it is never called while all is well.
#include <math.h>
#include <stdio.h>

#include "model_impl.h"

// What is looked at. `found` ends the search; its sentence is then in `why`.
typedef struct search {
    cpa_model *m;
    const cpa_batch *batch;
    const cpa_lane_plan *plan; // NULL: evaluation
    const cpa_strings *gene;   // names, or NULL
    cpa_text *why;
    bool found;
} search;

// The first element that is NaN or infinite: its position (-1: there is none), its value, and how many there are.
typedef struct fault {
    int64_t at;
    double value, count;
} fault;

static cpa_status find_fault(cpa_model *m, cpa_mat a, fault *out)
{
    cpa_status st = CPA_OK;
    int64_t n = (int64_t)a.rows * a.cols;
    cpa_real *host = NULL;
    *out = (fault){.at = -1};
    CPA_TRY(cpa_op_nonfinite(m->be, m->t.norm, a));
    CPA_TRY(cpa_op_download(m->be, &out->count, m->t.norm, sizeof out->count));
    if (out->count > 0) {
        CPA_TRY(cpa_alloc((size_t)n, sizeof *host, &host));
        CPA_TRY(cpa_op_download(m->be, host, a.data, (size_t)n * sizeof *host));
        for (out->at = 0; isfinite(host[out->at]); out->at++) {
        }
        out->value = isnan(host[out->at]) ? NAN : (double)host[out->at]; // a NaN has no sign
    }
cleanup:
    cpa_free(&host);
    return st;
}

static cpa_status add_gene(const search *s, int64_t gene)
{
    return s->gene != NULL ? cpa_text_add(s->why, "gene '%s' (column %lld)", s->gene->s[gene], (long long)gene)
                           : cpa_text_add(s->why, "the gene in column %lld", (long long)gene);
}

cpa_status cpa_model_find_parameter(cpa_model *m, cpa_text *why, bool *found)
{
    cpa_status st = CPA_OK;
    *found = false;
    for (int id = 0; id < m->t.n && !*found; id++) {
        const cpa_param *p = &m->t.p[id];
        fault f;
        CPA_TRY(find_fault(m, cpa_value(&m->t, id), &f));
        if (f.at >= 0) {
            int width = p->transposed ? p->rows : p->cols;
            long long major = f.at / width, minor = f.at % width;
            *found = true;
            CPA_TRY(cpa_text_add(why,
                                 "the parameter '%s' has %.0f of %lld values that are not finite, the first (%g) at ",
                                 p->name, f.count, (long long)cpa_param_size(p), f.value));
            CPA_TRY(p->rank == 1 ? cpa_text_add(why, "%lld", minor)
                                 : cpa_text_add(why, "%lld, %lld", p->transposed ? minor : major,
                                                p->transposed ? major : minor));
        }
    }
cleanup:
    return st;
}

// Looks at values [cells, ...] of `who`, of its hidden layer `layer` unless that is 0.
static cpa_status look_at(search *s, cpa_mat a, const char *who, int layer)
{
    cpa_status st = CPA_OK;
    fault f;
    if (s->found || a.data == NULL) {
        return CPA_OK;
    }
    a = cpa_mat_head(a, s->m->n);
    CPA_TRY(find_fault(s->m, a, &f));
    if (f.at < 0) {
        return CPA_OK;
    }
    s->found = true;
    CPA_TRY(cpa_text_add(s->why, "%s", who));
    CPA_TRY(layer > 0 ? cpa_text_add(s->why, ", layer %d,", layer) : CPA_OK);
    CPA_TRY(cpa_text_add(s->why, " is %g for the cell in row %d, ", f.value, s->batch->cell[f.at / a.cols]));
    if (a.cols == s->m->shape.n_genes) {
        CPA_TRY(add_gene(s, f.at % a.cols));
    } else {
        CPA_TRY(cpa_text_add(s->why, "unit %lld", (long long)(f.at % a.cols)));
    }
cleanup:
    return st;
}

static cpa_status look_at_layers(search *s, cpa_mlp *mlp, const char *who)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < mlp->n_layers && !s->found; k++) {
        const cpa_layer *l = &mlp->layer[k];
        CPA_TRY(cpa_mlp_show(mlp, k, s->plan != NULL));
        // Only a training run fills what its backward needs.
        const cpa_mat value[] = {s->plan != NULL ? l->xhat : CPA_NO_MAT, s->plan != NULL ? l->lhat : CPA_NO_MAT, l->y};
        for (size_t i = 0; i < sizeof value / sizeof *value; i++) {
            CPA_TRY(look_at(s, value[i], who, k + 1));
        }
    }
cleanup:
    return st;
}

// From the counts to the head, as far as the batch went.
static cpa_status look_at_autoencoder(search *s, bool decodes)
{
    cpa_status st = CPA_OK;
    cpa_model *m = s->m;
    CPA_TRY(look_at_layers(s, &m->encoder, "the encoder"));
    CPA_TRY(look_at(s, m->config.variational ? m->z_mean : CPA_NO_MAT, "the encoder's mean", 0));
    CPA_TRY(look_at(s, m->config.variational ? m->z_raw : CPA_NO_MAT, "the encoder's variance", 0));
    CPA_TRY(look_at(s, m->z_basal, "the basal latent", 0));
    CPA_TRY(look_at(s, cpa_mat_of(m->s.data, m->n, m->batch.comb), "the dose response", 0));
    CPA_TRY(look_at(s, m->z, "the latent", 0));
    CPA_TRY(look_at_layers(s, &m->decoder, "the decoder"));
    if (decodes) {
        CPA_TRY(look_at(s, m->logits, "the decoder's output", 0));
        CPA_TRY(look_at(s, m->likelihood != CPA_NB ? m->head2 : CPA_NO_MAT, "the decoder's second output", 0));
    }
cleanup:
    return st;
}

// ---- The loss, cell by cell and count by count

enum { ALL_COUNTS = -1, NO_COUNTS = -2 };

// Reconstruction loss of one cell from the head products of the batch, with all of its counts, with none, or with one of them.
static cpa_status loss_of(search *s, int row, int64_t only, double *loss)
{
    cpa_status st = CPA_OK;
    cpa_model *m = s->m;
    const cpa_batch *b = s->batch;
    cpa_device_batch *d = &m->batch;
    int64_t first = only >= 0 ? only : b->indptr[row];
    int32_t n = only >= 0 ? 1 : only == NO_COUNTS ? 0 : b->indptr[row + 1] - b->indptr[row], indptr[] = {0, n};
    cpa_mat means = cpa_mat_head(m->means, 1), second = CPA_NO_MAT;
    CPA_TRY(cpa_op_upload(m->be, d->indptr, indptr, sizeof indptr));
    CPA_TRY(cpa_op_upload(m->be, d->gene, b->gene + first, (size_t)n * sizeof *b->gene));
    CPA_TRY(cpa_op_upload(m->be, d->count, b->count + first, (size_t)n * sizeof *b->count));
    CPA_TRY(cpa_op_upload(m->be, d->log1p, b->log1p + first, (size_t)n * sizeof *b->log1p));
    CPA_TRY(cpa_op_upload(m->be, d->library, b->library + row, sizeof *b->library));
    d->x = (cpa_csr){1, m->shape.n_genes, n, d->indptr, d->gene, d->count, d->log1p, d->library};
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_mat_row(m->logits, row), 0));
    if (m->likelihood != CPA_NB) {
        second = cpa_mat_head(m->means2, 1);
        CPA_TRY(cpa_op_axpby(m->be, second, 1, cpa_mat_row(m->head2, row), 0));
    }
    CPA_TRY(cpa_likelihood_mean_loss(m, means, second));
    CPA_TRY(cpa_op_download(m->be, loss, cpa_f64_at(m->sums, CPA_SUM_RECON), sizeof *loss));
cleanup:
    return st;
}

// The cell's loss is not finite: because of one of its counts, of what the decoder says, or of all together.
static cpa_status blame_count(search *s, int row, double loss)
{
    cpa_status st = CPA_OK;
    const cpa_batch *b = s->batch;
    double part;
    s->found = true;
    CPA_TRY(cpa_text_add(s->why, "the loss of the cell in row %d is %g", b->cell[row], isnan(loss) ? NAN : loss));
    CPA_TRY(loss_of(s, row, NO_COUNTS, &part));
    if (!isfinite(part)) {
        return cpa_text_add(s->why, " whatever its counts are: what the decoder says of it is too large");
    }
    for (int64_t i = b->indptr[row]; i < b->indptr[row + 1]; i++) {
        CPA_TRY(loss_of(s, row, i, &part));
        if (!isfinite(part)) {
            CPA_TRY(cpa_text_add(s->why, " because of its count %g of ", (double)b->count[i]));
            return add_gene(s, b->gene[i]);
        }
    }
    CPA_TRY(cpa_text_add(s->why, ", but not for one gene alone"));
cleanup:
    return st;
}

static cpa_status look_at_losses(search *s)
{
    cpa_status st = CPA_OK;
    for (int row = 0; row < s->batch->n_cells && !s->found; row++) {
        double loss;
        CPA_TRY(loss_of(s, row, ALL_COUNTS, &loss));
        if (!isfinite(loss)) {
            CPA_TRY(blame_count(s, row, loss));
        }
    }
cleanup:
    return st;
}

// ---- The adversaries

// Runs the lane once more, so that the sums tell which adversary it is, and that one's activations where.
static cpa_status look_at_adversaries(search *s)
{
    cpa_status st = CPA_OK;
    cpa_model *m = s->m;
    double *sums = NULL;
    CPA_TRY(cpa_alloc((size_t)cpa_model_n_sums(m), sizeof *sums, &sums));
    CPA_TRY(cpa_model_lane(m, s->batch, s->plan, sums));
    for (int i = 0; i < m->n_adversaries && !s->found; i++) {
        cpa_adversary *a = &m->adversary[i];
        double loss = sums[a->sum_adv], penalty = sums[a->sum_penalty];
        if (isfinite(loss) && isfinite(penalty)) {
            continue;
        }
        char who[256];
        snprintf(who, sizeof who, "the adversary of %s", a->cov < 0 ? "the perturbation" : m->shape.cov_name[a->cov]);
        CPA_TRY(cpa_adversary_show(m, i, s->plan));
        CPA_TRY(look_at_layers(s, &a->mlp, who));
        if (!s->found) {
            s->found = true;
            CPA_TRY(cpa_text_add(s->why, "the loss of %s is %g, its gradient penalty %g", who, loss, penalty));
        }
    }
cleanup:
    cpa_free(&sums);
    return st;
}

cpa_status cpa_model_diagnose(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, const cpa_strings *gene,
                              cpa_text *why)
{
    cpa_status st = CPA_OK;
    search s = {.m = m, .batch = batch, .plan = plan, .gene = gene, .why = why};
    bool decodes = plan == NULL || plan->update_autoencoder || plan->want_metrics;
    CPA_TRY(cpa_model_find_parameter(m, why, &s.found));
    if (!s.found && plan == NULL) {
        CPA_TRY(cpa_model_infer(m, batch));
        CPA_TRY(cpa_model_heads(m, CPA_LATENT_ALL));
    } else if (!s.found) {
        CPA_TRY(cpa_model_join(m, 1, NULL));
        CPA_TRY(cpa_model_load(m, batch));
        CPA_TRY(cpa_model_set_numbers(m, plan));
        CPA_TRY(cpa_model_forward(m, plan));
        CPA_TRY(decodes ? cpa_likelihood_head(m, false) : CPA_OK);
    }
    if (!s.found) {
        CPA_TRY(look_at_autoencoder(&s, decodes));
    }
    if (!s.found && decodes) {
        CPA_TRY(look_at_losses(&s));
    }
    if (!s.found && plan != NULL) {
        CPA_TRY(look_at_adversaries(&s));
    }
    if (!s.found) {
        CPA_TRY(cpa_text_add(why, "no cell is to blame alone"));
    }
cleanup:
    return st;
}
