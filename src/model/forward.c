// Owns: loading a batch, composing latents, forward passes. Never touches gradients.
#include "model_impl.h"

cpa_status cpa_model_load(cpa_model *m, const cpa_batch *b)
{
    cpa_status st = CPA_OK;
    cpa_device_batch *d = &m->batch;
    int n = b->n_cells;
    CPA_REQUIRE(n <= m->shape.max_cells && b->nnz <= m->shape.max_nnz, CPA_INTERNAL,
                "a batch of %d cells and %lld values in a model sized for %d and %lld", n, (long long)b->nnz, m->shape.max_cells,
                (long long)m->shape.max_nnz);
    m->n = n;
    size_t real = sizeof(cpa_real), nnz = (size_t)b->nnz, mm = (size_t)n * (size_t)b->max_comb_len;
    CPA_TRY(cpa_op_upload(m->be, d->indptr, b->indptr, ((size_t)n + 1) * 4));
    CPA_TRY(cpa_op_upload(m->be, d->gene, b->gene, nnz * 4));
    CPA_TRY(cpa_op_upload(m->be, d->count, b->count, nnz * real));
    CPA_TRY(cpa_op_upload(m->be, d->log1p, b->log1p, nnz * real));
    CPA_TRY(cpa_op_upload(m->be, d->library, b->library, (size_t)n * real));
    CPA_TRY(cpa_op_upload(m->be, d->pert, b->pert, mm * 4));
    CPA_TRY(cpa_op_upload(m->be, d->dose, b->dose, mm * real));
    CPA_TRY(cpa_op_upload(m->be, d->label, b->label, (size_t)n * 4));
    CPA_TRY(cpa_op_upload(m->be, d->cell, b->cell, (size_t)n * 4));
    for (int c = 0; c < b->n_covs; c++) {
        CPA_TRY(cpa_op_upload(m->be, cpa_int_at(d->cov, (int64_t)c * m->shape.max_cells), b->cov + (int64_t)c * b->max_cells, (size_t)n * 4));
    }
    d->x = (cpa_csr){n, m->shape.n_genes, (int)b->nnz, d->indptr, d->gene, d->count, d->log1p, d->library};
cleanup:
    return st;
}

// s = dose response of every component of every cell.
static cpa_status scale_doses(cpa_model *m)
{
    return cpa_op_doser(m->be, cpa_mat_head(m->s, m->n), m->batch.pert, cpa_mat_of(m->batch.dose, m->n, m->shape.max_comb_len),
                        cpa_value(&m->t, m->doser_w), cpa_value(&m->t, m->doser_b));
}

cpa_status cpa_model_compose(cpa_model *m, cpa_mat z, int parts)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_op_axpby(m->be, z, (cpa_real)((parts & CPA_LATENT_BASAL) != 0), cpa_mat_head(m->z_basal, m->n), 0));
    if (parts & CPA_LATENT_PERT) {
        CPA_TRY(cpa_op_bag_add(m->be, z, cpa_value(&m->t, m->pert_embedding), m->batch.pert, m->shape.max_comb_len, cpa_mat_head(m->s, m->n), 1));
    }
    for (int c = 0; c < m->shape.n_covs; c++) {
        if (parts & (c == m->shape.batch_cov ? CPA_LATENT_BATCH : CPA_LATENT_COVS)) {
            CPA_TRY(cpa_op_bag_add(m->be, z, cpa_value(&m->t, m->cov_embedding[c]), cpa_int_at(m->batch.cov, (int64_t)c * m->shape.max_cells),
                                   1, CPA_NO_MAT, 0));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_model_forward(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_mat z = cpa_mat_head(m->z, m->n);
    CPA_TRY(cpa_mlp_forward(&m->encoder, (cpa_input){.csr = &m->batch.x}, m->n, false));
    CPA_TRY(cpa_mlp_output(&m->encoder, cpa_mat_head(m->z_basal, m->n)));
    CPA_TRY(scale_doses(m));
    CPA_TRY(cpa_model_compose(m, z, CPA_LATENT_ALL));
    CPA_TRY(cpa_mlp_forward(&m->decoder, (cpa_input){.x = z}, m->n, false));
cleanup:
    return st;
}

// Evaluation forward up to the logits without their bias (when decoding).
static cpa_status evaluate(cpa_model *m, const cpa_batch *batch, bool decode)
{
    cpa_status st = CPA_OK;
    cpa_mat z = cpa_mat_head(m->z, batch->n_cells);
    CPA_TRY(cpa_model_load(m, batch));
    CPA_TRY(cpa_mlp_eval(&m->encoder, (cpa_input){.csr = &m->batch.x}, m->n));
    CPA_TRY(cpa_mlp_output(&m->encoder, cpa_mat_head(m->z_basal, m->n)));
    CPA_TRY(scale_doses(m));
    if (decode) {
        CPA_TRY(cpa_model_compose(m, z, CPA_LATENT_ALL));
        CPA_TRY(cpa_mlp_eval(&m->decoder, (cpa_input){.x = z}, m->n));
        CPA_TRY(cpa_op_gemm(m->be, cpa_mat_head(m->logits, m->n), cpa_mlp_hidden(&m->decoder, m->n), false,
                            cpa_value(&m->t, m->decoder.out_weight), true, 1, 0));
    }
cleanup:
    return st;
}

cpa_status cpa_model_infer(cpa_model *m, const cpa_batch *batch, bool decode)
{
    cpa_status st = CPA_OK;
    CPA_TRY(evaluate(m, batch, decode));
    if (decode) {
        CPA_TRY(cpa_op_softmax_scale(m->be, cpa_mat_head(m->logits, m->n), cpa_value(&m->t, m->decoder.out_bias),
                                     cpa_mat_of(m->batch.library, 1, m->n)));
    }
cleanup:
    return st;
}

cpa_status cpa_model_validate(cpa_model *m, const cpa_batch *batch, cpa_scores *scores)
{
    cpa_status st = CPA_OK;
    int n_groups;
    double loss;
    cpa_mat means = cpa_mat_head(m->means, batch->n_cells);
    CPA_TRY(evaluate(m, batch, true));
    CPA_TRY(cpa_op_nb_mean_loss(m->be, m->sums, cpa_mat_head(m->logits, m->n), cpa_value(&m->t, m->decoder.out_bias), cpa_value(&m->t, m->px_r),
                                m->batch.x));
    CPA_TRY(cpa_op_download(m->be, &loss, m->sums, sizeof loss));
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_mat_head(m->logits, m->n), 0));
    CPA_TRY(cpa_score_prepare(m, batch, &n_groups));
    CPA_TRY(cpa_score_r2(m, means, n_groups, &scores->r2_mean, &scores->r2_var));
    scores->recon_loss = loss / m->n;
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
