// Owns: loading a batch, dropout masks, evaluation and what is read from it. Never touches gradients.
#include "model_impl.h"

// Labels and covariates of the partners of a mixed batch, the latter beside the cells' own with their weights.
static cpa_status load_partners(cpa_model *m, const cpa_batch *b)
{
    cpa_status st = CPA_OK;
    int n = b->n_cells;
    cpa_device_batch *d = &m->batch;
    for (int i = 0; i < n; i++) {
        m->host_weight[2 * i] = (cpa_real)b->mixup_lambda;
        m->host_weight[2 * i + 1] = (cpa_real)(1 - b->mixup_lambda);
    }
    CPA_TRY(cpa_op_upload(m->be, d->cov_weight, m->host_weight, 2 * (size_t)n * sizeof(cpa_real)));
    CPA_TRY(cpa_op_upload(m->be, d->label2, b->label2, (size_t)n * 4));
    for (int c = 0; c < b->n_covs; c++) {
        for (int i = 0; i < n; i++) {
            m->host_cov[2 * i] = b->cov[(int64_t)c * b->max_cells + i];
            m->host_cov[2 * i + 1] = b->cov2[(int64_t)c * b->max_cells + i];
        }
        CPA_TRY(cpa_op_upload(m->be, cpa_int_at(d->cov, (int64_t)c * m->shape.max_cells * 2), m->host_cov,
                              2 * (size_t)n * 4));
        CPA_TRY(cpa_op_upload(m->be, cpa_int_at(d->cov_partner, (int64_t)c * m->shape.max_cells),
                              b->cov2 + (int64_t)c * b->max_cells, (size_t)n * 4));
    }
cleanup:
    return st;
}

static cpa_status upload_counts(cpa_model *m, const cpa_batch *b)
{
    cpa_status st;
    cpa_device_batch *d = &m->batch;
    const size_t real = sizeof(cpa_real), n = (size_t)b->n_cells, nnz = (size_t)b->nnz;
    CPA_TRY(cpa_op_upload(m->be, d->indptr, b->indptr, (n + 1) * 4));
    CPA_TRY(cpa_op_upload(m->be, d->gene, b->gene, nnz * 4));
    CPA_TRY(cpa_op_upload(m->be, d->count, b->count, nnz * real));
    CPA_TRY(cpa_op_upload(m->be, d->log1p, b->log1p, nnz * real));
    CPA_TRY(cpa_op_upload(m->be, d->library, b->library, n * real));
cleanup:
    return st;
}

// From all cells, which the backend has.
static cpa_status take_counts(cpa_model *m, const cpa_batch *b)
{
    cpa_status st;
    cpa_device_batch *d = &m->batch;
    CPA_TRY(cpa_op_upload(m->be, d->row, b->row, (size_t)b->n_cells * 4));
    if (b->partner) {
        CPA_TRY(cpa_op_upload(m->be, d->partner, b->partner, (size_t)b->n_cells * 4));
    }
    CPA_TRY(cpa_op_take_cells(m->be, d->x, *b->all, d->row, b->partner ? d->partner : NULL, b->mixup_lambda));
cleanup:
    return st;
}

cpa_status cpa_model_load(cpa_model *m, const cpa_batch *b)
{
    cpa_status st = CPA_OK;
    cpa_device_batch *d = &m->batch;
    int n = b->n_cells, twice = m->shape.mixup ? 2 : 1;
    CPA_REQUIRE(n <= m->shape.max_cells && b->nnz <= twice * m->shape.max_nnz &&
                    b->max_comb_len <= twice * m->shape.max_comb_len,
                CPA_INTERNAL, "a batch of %d cells, %lld values, %d components in a model sized for %d, %lld and %d", n,
                (long long)b->nnz, b->max_comb_len, m->shape.max_cells, (long long)m->shape.max_nnz,
                m->shape.max_comb_len);
    m->n = n;
    d->comb = b->max_comb_len;
    d->mixed = b->label2 != NULL;
    d->lambda = b->mixup_lambda;
    d->x = (cpa_csr){n, m->shape.n_genes, (int)b->nnz, d->indptr, d->gene, d->count, d->log1p, d->library};
    CPA_TRY(b->all ? take_counts(m, b) : upload_counts(m, b));
    size_t real = sizeof(cpa_real), mm = (size_t)n * (size_t)b->max_comb_len;
    CPA_TRY(cpa_op_upload(m->be, d->pert, b->pert, mm * 4));
    CPA_TRY(cpa_op_upload(m->be, d->dose, b->dose, mm * real));
    CPA_TRY(cpa_op_upload(m->be, d->label, b->label, (size_t)n * 4));
    CPA_TRY(cpa_op_upload(m->be, d->cell, b->cell, (size_t)n * 4));
    for (int c = 0; c < b->n_covs; c++) {
        CPA_TRY(cpa_op_upload(m->be, cpa_int_at(d->cov_own, (int64_t)c * m->shape.max_cells),
                              b->cov + (int64_t)c * b->max_cells, (size_t)n * 4));
    }
    if (d->mixed) {
        CPA_TRY(load_partners(m, b));
    }
    cpa_mlp_load(&m->encoder, (cpa_input){.csr = &d->x}, n, CPA_NO_MAT);
    cpa_mlp_load(&m->decoder, (cpa_input){.x = cpa_mat_head(m->z, n)}, n, cpa_mat_head(m->dz, n));
    for (int i = 0; i < m->n_adversaries; i++) {
        cpa_mlp_load(&m->adversary[i].mlp, (cpa_input){.x = cpa_mat_head(m->z_basal, n)}, n, cpa_mat_head(m->g, n));
    }
cleanup:
    return st;
}

static cpa_status draw_mask(void *ctx, cpa_mat mask, int layer)
{
    cpa_status st = CPA_OK;
    const cpa_mask_source *s = ctx;
    const cpa_lane_plan *plan = s->plan;
    cpa_backend *be = s->m->be;
    if (!plan->draws) {
        uint32_t number = (uint32_t)((s->pass * 256 + s->part) * CPA_MAX_LAYERS + layer);
        return cpa_op_dropout_mask(be, mask, s->m->batch.cell, plan->seed, cpa_model_number(s->m, CPA_NUMBER_EPOCH),
                                   number, s->rate);
    }
    const cpa_real *recorded = plan->draws->mask(plan->draws->ctx, s->part, layer, s->pass);
    CPA_REQUIRE(recorded, CPA_BAD_DATA, "no recorded dropout mask for part %d, layer %d, pass %d", s->part, layer,
                s->pass);
    CPA_TRY(cpa_op_upload(be, mask.data, recorded, (size_t)mask.rows * (size_t)mask.cols * sizeof(cpa_real)));
    CPA_TRY(cpa_op_axpby(be, mask, 0, mask, s->keep));
cleanup:
    return st;
}

void cpa_model_masks(cpa_model *m, cpa_mlp *mlp, cpa_mask_source *source, int part, const cpa_lane_plan *plan, int pass)
{
    *source = (cpa_mask_source){m, plan, part, pass, mlp->keep, mlp->rate};
    mlp->masks = (cpa_masks){draw_mask, source};
}

cpa_status cpa_model_heads(cpa_model *m, int parts)
{
    cpa_status st = CPA_OK;
    cpa_mat z = cpa_mat_head(m->z, m->n);
    CPA_TRY(cpa_model_compose(m, z, parts));
    CPA_TRY(cpa_mlp_eval(&m->decoder, (cpa_input){.x = z}, m->n));
    CPA_TRY(cpa_likelihood_head(m, false));
cleanup:
    return st;
}

cpa_status cpa_model_infer(cpa_model *m, const cpa_batch *batch)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_model_load(m, batch));
    CPA_TRY(cpa_latent_eval(m));
    CPA_TRY(cpa_latent_doses(m));
cleanup:
    return st;
}

cpa_status cpa_model_decode(cpa_model *m, const cpa_decoding *how)
{
    cpa_status st = CPA_OK;
    if (m->config.variational) {
        CPA_TRY(cpa_latent_draw(m, how->draw, how->seed));
    }
    CPA_TRY(cpa_model_heads(m, how->parts));
    CPA_TRY(cpa_likelihood_means(m, how->thin));
cleanup:
    return st;
}

cpa_status cpa_model_validate(cpa_model *m, const cpa_batch *batch, cpa_scores *scores)
{
    cpa_status st = CPA_OK;
    int n_groups;
    double sums[CPA_SUM_COVS];
    cpa_mat means = cpa_mat_head(m->means, batch->n_cells);
    CPA_TRY(cpa_op_zero(m->be, m->sums, sizeof sums));
    CPA_TRY(cpa_model_infer(m, batch));
    CPA_TRY(cpa_model_heads(m, CPA_LATENT_ALL));
    CPA_TRY(cpa_likelihood_mean_loss(m, cpa_mat_head(m->logits, m->n), cpa_mat_head(m->head2, m->n)));
    CPA_TRY(cpa_op_download(m->be, sums, m->sums, sizeof sums));
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_mat_head(m->logits, m->n), 0));
    CPA_TRY(cpa_score_prepare(m, batch, &n_groups));
    CPA_TRY(cpa_score_r2(m, means, cpa_mat_head(m->head2, m->n), n_groups, &scores->r2_mean, &scores->r2_var));
    scores->recon_loss = sums[CPA_SUM_RECON] / m->n;
    scores->kl = sums[CPA_SUM_KL] / m->n;
cleanup:
    return st;
}

cpa_status cpa_model_latent(cpa_model *m, int parts, cpa_real *host)
{
    cpa_status st = CPA_OK;
    cpa_mat z = cpa_mat_head(m->z, m->n);
    CPA_TRY(cpa_model_compose(m, z, parts));
    CPA_TRY(cpa_op_download(m->be, host, z.data, (size_t)m->n * (size_t)z.cols * sizeof(cpa_real)));
cleanup:
    return st;
}

cpa_status cpa_model_means(cpa_model *m, cpa_real *host)
{
    return cpa_op_download(m->be, host, m->logits.data, (size_t)m->n * (size_t)m->shape.n_genes * sizeof(cpa_real));
}
