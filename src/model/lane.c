// Owns: one lane of a training step, or several side by side: reconstruction loss, autoencoder gradients, metrics of the batch. Never updates
// a parameter.
#include <string.h>

#include "model_impl.h"

// From the decoder's input to the encoder's last hidden layer.
static cpa_status latent_grad(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_mat dz = cpa_mat_head(m->dz, m->n);
    CPA_TRY(cpa_latent_embedding_grad(m, dz));
    CPA_TRY(cpa_op_axpby(m->be, cpa_mat_head(m->dz_basal, m->n), 1, dz, 1));
    CPA_TRY(cpa_latent_encoder_grad(m, plan));
cleanup:
    return st;
}

cpa_status cpa_model_autoencoder_grad(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(cpa_likelihood_loss(l, (cpa_real)(1.0 / (double)plan->n_cells)));
        CPA_TRY(cpa_likelihood_head_grad(l, cpa_mlp_dhidden(&l->decoder, l->n)));
    }
    CPA_TRY(cpa_model_reached(plan, 1));
    CPA_TRY(cpa_mlp_grad(&m->decoder, true, false, false, true));
    CPA_TRY(cpa_model_reached(plan, 2));
    CPA_TRY(cpa_mlp_recall(&m->encoder));
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(latent_grad(l, plan));
    }
    CPA_TRY(cpa_model_reached(plan, 2));
    CPA_TRY(cpa_mlp_grad(&m->encoder, true, false, false, false));
    CPA_TRY(cpa_model_reached(plan, 3));
cleanup:
    return st;
}

// R2 of this training batch, and its reconstruction loss; leaves the logits alone.
static cpa_status batch_metrics(cpa_model *m, const cpa_batch *batch)
{
    cpa_status st = CPA_OK;
    int n_groups;
    cpa_mat means = cpa_mat_head(m->means, m->n), second = cpa_mat_head(m->means2, m->n);
    CPA_TRY(cpa_op_axpby(m->be, means, 1, cpa_likelihood_trained(m, m->logits), 0));
    if (second.data) {
        CPA_TRY(cpa_op_axpby(m->be, second, 1, cpa_likelihood_trained(m, m->head2), 0));
    }
    CPA_TRY(cpa_likelihood_mean_loss(m, means, second));
    CPA_TRY(cpa_score_prepare(m, batch, &n_groups));
    CPA_TRY(cpa_score_r2(m, means, second, n_groups, &m->batch_r2[0], &m->batch_r2[1]));
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

// What a lane does before its losses; batch [lanes].
static cpa_status begin(cpa_model *m, const cpa_batch *const *batch, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next, batch++) {
        if (plan->update_autoencoder || plan->want_metrics) {
            CPA_TRY(cpa_likelihood_head(l, true));
        }
        if (plan->want_metrics) {
            CPA_TRY(batch_metrics(l, *batch));
        }
        if (plan->update_autoencoder) {
            CPA_TRY(cpa_op_zero(l->be, l->dz_basal.data, (size_t)l->n * (size_t)l->dz_basal.cols * sizeof(cpa_real)));
        }
    }
cleanup:
    return st;
}

// The sums of a lane, on the host.
static cpa_status report(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, double *sums)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_op_download(m->be, sums, m->sums, (size_t)cpa_model_n_sums(m) * sizeof *sums));
    for (int i = 0; i < m->n_adversaries; i++) {
        sums[m->adversary[i].sum_penalty] /= m->config.n_latent;
    }
    if (plan->want_metrics) {
        sums[CPA_SUM_R2_MEAN] = m->batch_r2[0];
        sums[CPA_SUM_R2_VAR] = m->batch_r2[1];
        sums[CPA_SUM_METRIC_LANES] = 1;
        CPA_TRY(accuracies(m, batch, sums));
    }
cleanup:
    return st;
}

// Everything between the batches and the sums.
static cpa_status compute(cpa_model *m, const cpa_batch *const *batch, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(cpa_op_zero(l->be, l->sums, (size_t)cpa_model_n_sums(m) * sizeof(double)));
    }
    CPA_TRY(cpa_model_forward(m, plan));
    CPA_TRY(begin(m, batch, plan));
    if (plan->update_autoencoder) {
        if (plan->adversary_in_loss) {
            CPA_TRY(cpa_adversary_against(m, plan));
        }
        CPA_TRY(cpa_model_autoencoder_grad(m, plan));
    }
    if (plan->update_adversary) {
        CPA_TRY(cpa_adversary_train(m, plan));
    }
cleanup:
    return st;
}

// Whether a lane does what others like it do, and nobody listens meanwhile.
static bool may_repeat(const cpa_model *m, const cpa_lane_plan *plan)
{
    return cpa_backend_can_record(m->be) && !m->next && !plan->meeting && !plan->draws && !plan->final &&
           !plan->want_metrics && !m->batch.mixed && !m->shape.checkpointing;
}

static cpa_repeat *find_repeat(cpa_model *m, const cpa_lane_plan *plan)
{
    const cpa_lane_kind kind = {.n_cells = plan->n_cells,
                                .seed = plan->seed,
                                .kl_weight = plan->kl_weight,
                                .pen_adv = plan->pen_adv,
                                .focal_gamma = plan->focal_gamma,
                                .n = m->n,
                                .comb = m->batch.comb,
                                .update_autoencoder = plan->update_autoencoder,
                                .update_adversary = plan->update_adversary,
                                .adversary_in_loss = plan->adversary_in_loss};
    for (int i = 0; i < CPA_REPEATS; i++) {
        if (m->repeat[i].is_known && memcmp(&m->repeat[i].kind, &kind, sizeof kind) == 0) {
            return &m->repeat[i];
        }
    }
    cpa_repeat *r = &m->repeat[m->next_repeat];
    m->next_repeat = (m->next_repeat + 1) % CPA_REPEATS;
    cpa_backend_forget(m->be, &r->what);
    r->kind = kind;
    r->is_known = false;
    return r;
}

// Half a lane is never kept, and what went wrong in it is what is said.
static cpa_status record(cpa_model *m, const cpa_batch *const *batch, const cpa_lane_plan *plan, cpa_recording **out)
{
    cpa_status st, ended;
    cpa_text why = {0};
    CPA_TRY(cpa_backend_record(m->be));
    st = compute(m, batch, plan);
    if (st != CPA_OK) {
        cpa_text_add(&why, "%s", cpa_message());
    }
    ended = cpa_backend_recorded(m->be, out);
    if (st != CPA_OK) {
        cpa_backend_forget(m->be, out);
        st = cpa_fail(st, "%s", cpa_text_str(&why));
        goto cleanup;
    }
    st = ended;
cleanup:
    cpa_text_fini(&why);
    return st;
}

// The first lane of a kind is run, for whatever memory it takes; the second is recorded, which repeats from then on.
static cpa_status compute_or_repeat(cpa_model *m, const cpa_batch *const *batch, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    if (!may_repeat(m, plan)) {
        return compute(m, batch, plan);
    }
    cpa_repeat *r = find_repeat(m, plan);
    if (!r->is_known) {
        CPA_TRY(compute(m, batch, plan));
        r->is_known = true;
        return CPA_OK;
    }
    if (r->what && !cpa_backend_holds(m->be, r->what)) {
        cpa_backend_forget(m->be, &r->what);
    }
    if (!r->what) {
        CPA_TRY(record(m, batch, plan, &r->what));
    }
    CPA_TRY(cpa_backend_replay(m->be, r->what));
cleanup:
    return st;
}

cpa_status cpa_model_lanes(cpa_model *m, const cpa_batch *const *batch, int n, const cpa_lane_plan *plan, double *sums)
{
    cpa_status st = CPA_OK;
    int n_sums = cpa_model_n_sums(m), i = 0;
    CPA_TRY(cpa_model_join(m, n, plan->meeting));
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(cpa_model_load(l, batch[i++]));
        CPA_TRY(cpa_model_set_numbers(l, plan));
    }
    CPA_TRY(compute_or_repeat(m, batch, plan));
    CPA_TRY(plan->meanwhile ? plan->meanwhile(plan->meanwhile_ctx) : CPA_OK);
    for (cpa_model *l = m; l; l = l->next, batch++, sums += n_sums) {
        CPA_TRY(report(l, *batch, plan, sums));
    }
cleanup:
    return st;
}

cpa_status cpa_model_lane(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, double *sums)
{
    return cpa_model_lanes(m, &batch, 1, plan, sums);
}
