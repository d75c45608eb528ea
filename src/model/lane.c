// Owns: one lane of a training step: reconstruction loss, autoencoder gradients, metrics of the batch. Never updates a parameter.
#include <string.h>

#include "model_impl.h"

cpa_status cpa_model_autoencoder_grad(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_mat dz = cpa_mat_head(m->dz, m->n), dh = cpa_mlp_dhidden(&m->decoder, m->n);
    CPA_TRY(cpa_likelihood_loss(m, (cpa_real)(1.0 / (double)plan->n_cells)));
    CPA_TRY(cpa_likelihood_head_grad(m, dh));
    CPA_TRY(cpa_model_reached(plan, 1));
    CPA_TRY(cpa_mlp_grad(&m->decoder, (cpa_input){.x = cpa_mat_head(m->z, m->n)}, dh, true, false, false, dz));
    CPA_TRY(cpa_model_reached(plan, 2));
    CPA_TRY(cpa_latent_embedding_grad(m, dz));
    CPA_TRY(cpa_op_axpby(m->be, cpa_mat_head(m->dz_basal, m->n), 1, dz, 1));
    CPA_TRY(cpa_latent_encoder_grad(m, plan));
    CPA_TRY(cpa_model_reached(plan, 3));
cleanup:
    return st;
}

// R2 of this training batch, and its reconstruction loss; leaves the logits alone.
static cpa_status batch_metrics(cpa_model *m, const cpa_batch *batch, double *r2_mean, double *r2_var)
{
    cpa_status st = CPA_OK;
    int n_groups;
    cpa_mat means = cpa_mat_head(m->means, m->n), second = cpa_mat_head(m->means2, m->n);
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_mat_head(m->logits, m->n), 0));
    if (second.data) {
        CPA_TRY(cpa_op_axpby(m->be, second, 1, cpa_mat_head(m->head2, m->n), 0));
    }
    CPA_TRY(cpa_likelihood_mean_loss(m, means, second));
    CPA_TRY(cpa_score_prepare(m, batch, &n_groups));
    CPA_TRY(cpa_score_r2(m, means, second, n_groups, r2_mean, r2_var));
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

void cpa_model_pieces(const cpa_model *m, cpa_range piece[CPA_MODEL_PIECES])
{
    int64_t heads = m->t.p[m->decoder.out_weight].at, encoder = m->t.p[m->encoder.layer[0].weight].at,
            adversaries = m->t.begin[CPA_GROUP_ADVERSARY];
    piece[0] = (cpa_range){heads, encoder - heads};
    piece[1] = (cpa_range){0, heads};
    piece[2] = (cpa_range){encoder, adversaries - encoder};
    piece[3] = (cpa_range){adversaries, m->t.n_grad - adversaries};
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
    CPA_TRY(cpa_model_forward(m, plan));
    if (plan->update_autoencoder || plan->want_metrics) {
        CPA_TRY(cpa_likelihood_head(m));
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
