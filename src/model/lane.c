// Owns: one lane of a training step: reconstruction loss, autoencoder gradients, metrics of the batch. Never updates a parameter.
#include <string.h>

#include "model_impl.h"


// logits = hidden W^T, the bias left to the loss.
static cpa_status head(cpa_model *m, cpa_mat out)
{
    return cpa_op_gemm(m->be, cpa_mat_head(out, m->n), cpa_mlp_hidden(&m->decoder, m->n), false, cpa_value(&m->t, m->decoder.out_weight), true, 1, 0);
}

// Gradients of the embeddings and dosers from dz.
static cpa_status embedding_grad(cpa_model *m, cpa_mat dz)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    int mm = m->shape.max_comb_len;
    cpa_mat s = cpa_mat_head(m->s, m->n), ds = cpa_mat_head(m->ds, m->n);
    CPA_TRY(cpa_op_bag_grad(m->be, cpa_grad(t, m->pert_embedding), ds, dz, cpa_value(t, m->pert_embedding), m->batch.pert, mm, s, 1));
    CPA_TRY(cpa_op_doser_grad(m->be, cpa_grad(t, m->doser_w), cpa_grad(t, m->doser_b), ds, m->batch.pert,
                              cpa_mat_of(m->batch.dose, m->n, mm), cpa_value(t, m->doser_w), cpa_value(t, m->doser_b)));
    for (int c = 0; c < m->shape.n_covs; c++) {
        if (m->shape.cov_size[c] < 2) {
            continue; // a constant in front of the decoder's batch norm: its gradient is exactly 0, and stays so
        }
        CPA_TRY(cpa_op_bag_grad(m->be, cpa_grad(t, m->cov_embedding[c]), CPA_NO_MAT, dz, cpa_value(t, m->cov_embedding[c]),
                                cpa_int_at(m->batch.cov, (int64_t)c * m->shape.max_cells), 1, CPA_NO_MAT, 0));
    }
cleanup:
    return st;
}

cpa_status cpa_model_autoencoder_grad(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    cpa_mat dlogits = cpa_mat_head(m->logits, m->n), dz = cpa_mat_head(m->dz, m->n), dz_basal = cpa_mat_head(m->dz_basal, m->n);
    cpa_mat dh = cpa_mlp_dhidden(&m->decoder, m->n);
    CPA_TRY(cpa_op_nb_loss(m->be, cpa_f64_at(m->sums, CPA_SUM_RECON), dlogits, cpa_grad(t, m->px_r), cpa_grad(t, m->decoder.out_bias),
                           cpa_value(t, m->decoder.out_bias), cpa_value(t, m->px_r), m->batch.x, (cpa_real)(1.0 / (double)plan->n_cells)));
    CPA_TRY(cpa_op_gemm(m->be, cpa_grad(t, m->decoder.out_weight), dlogits, true, cpa_mlp_hidden(&m->decoder, m->n), false, 1, 0));
    CPA_TRY(cpa_op_gemm(m->be, dh, dlogits, false, cpa_value(t, m->decoder.out_weight), false, 1, 0));
    CPA_TRY(cpa_mlp_grad(&m->decoder, (cpa_input){.x = cpa_mat_head(m->z, m->n)}, dh, true, false, false, dz));
    CPA_TRY(embedding_grad(m, dz));
    CPA_TRY(cpa_op_axpby(m->be, dz_basal, 1, dz, 1));
    dh = cpa_mlp_dhidden(&m->encoder, m->n);
    CPA_TRY(cpa_mlp_output_grad(&m->encoder, dh, dz_basal, true, false));
    CPA_TRY(cpa_mlp_grad(&m->encoder, (cpa_input){.csr = &m->batch.x}, dh, true, false, false, CPA_NO_MAT));
cleanup:
    return st;
}

// R2 of this training batch, and its reconstruction loss; leaves the logits alone.
static cpa_status batch_metrics(cpa_model *m, const cpa_batch *batch, double *r2_mean, double *r2_var)
{
    cpa_status st = CPA_OK;
    int n_groups;
    cpa_mat means = cpa_mat_head(m->means, m->n);
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_mat_head(m->logits, m->n), 0));
    CPA_TRY(cpa_op_nb_mean_loss(m->be, cpa_f64_at(m->sums, CPA_SUM_RECON), means, cpa_value(&m->t, m->decoder.out_bias), cpa_value(&m->t, m->px_r),
                                m->batch.x));
    CPA_TRY(cpa_score_prepare(m, batch, &n_groups));
    CPA_TRY(cpa_score_r2(m, means, n_groups, r2_mean, r2_var));
cleanup:
    return st;
}

// Accuracies of the logits that the adversaries' last forward left (their argmax is taken before gradients overwrite them).
static cpa_status accuracies(cpa_model *m, const cpa_batch *batch, double *sums)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < m->n_adversaries; i++) {
        CPA_TRY(cpa_score_accuracy(m, &m->adversary[i], batch, &sums[m->adversary[i].sum_acc]));
    }
cleanup:
    return st;
}

cpa_status cpa_model_no_lane(cpa_model *m, double *sums)
{
    memset(sums, 0, (size_t)cpa_model_n_sums(m) * sizeof *sums);
    return cpa_op_zero(m->be, m->t.grad, (size_t)m->t.n_grad * sizeof(cpa_real));
}

cpa_status cpa_model_lane(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, double *sums)
{
    cpa_status st = CPA_OK;
    size_t bytes = (size_t)cpa_model_n_sums(m) * sizeof *sums;
    double r2_mean = 0, r2_var = 0;
    CPA_TRY(cpa_model_load(m, batch));
    CPA_TRY(cpa_op_zero(m->be, m->sums, bytes));
    CPA_TRY(cpa_model_forward(m));
    if (plan->update_autoencoder || plan->want_metrics) {
        CPA_TRY(head(m, m->logits));
    }
    if (plan->want_metrics) {
        CPA_TRY(batch_metrics(m, batch, &r2_mean, &r2_var));
    }
    if (plan->update_autoencoder) {
        CPA_TRY(cpa_op_zero(m->be, m->dz_basal.data, (size_t)m->n * (size_t)m->dz_basal.cols * sizeof(cpa_real)));
        if (plan->adversary_in_loss) {
            CPA_TRY(cpa_adversary_against(m, plan));
        }
        CPA_TRY(cpa_model_autoencoder_grad(m, plan));
    }
    if (plan->update_adversary) {
        CPA_TRY(cpa_adversary_train(m, plan));
    }
    CPA_TRY(cpa_op_download(m->be, sums, m->sums, bytes));
    for (int i = 0; i < m->n_adversaries; i++) {
        sums[m->adversary[i].sum_penalty] /= m->config.n_latent;
    }
    if (plan->want_metrics) {
        sums[CPA_SUM_R2_MEAN] = r2_mean;
        sums[CPA_SUM_R2_VAR] = r2_var;
        sums[CPA_SUM_METRIC_LANES] = 1;
        CPA_TRY(accuracies(m, batch, sums));
    }
cleanup:
    return st;
}
