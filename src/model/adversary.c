// Owns: the adversaries: against the autoencoder, and their own training with the gradient penalty (second order through batch norm).
// Never updates a parameter.
#include "model_impl.h"

static const cpa_dev_int *labels_of(const cpa_model *m, const cpa_adversary *a)
{
    return a->cov < 0 ? m->batch.label : cpa_int_at(m->batch.cov_own, (int64_t)a->cov * m->shape.max_cells);
}

// The labels of a mixed batch's partners that count, NULL for none: upstream forgets the covariates'.
static const cpa_dev_int *labels_of_partners(const cpa_model *m, const cpa_adversary *a, const cpa_lane_plan *plan)
{
    if (!m->batch.mixed || (a->cov >= 0 && !plan->mix_covariates)) {
        return NULL;
    }
    return a->cov < 0 ? m->batch.label2 : cpa_int_at(m->batch.cov_partner, (int64_t)a->cov * m->shape.max_cells);
}

// Number by which recorded masks and random draws know a classifier.
static int number_of(const cpa_adversary *a)
{
    return a->cov + 1;
}

double cpa_adversary_scale(const cpa_adversary *a, const cpa_lane_plan *plan, bool own)
{
    // A focal loss is a mean over cells, weights or not.
    double denominator = a->cov < 0 && plan->focal_gamma == 0 ? plan->label_weight : (double)plan->n_cells;
    return denominator > 0 ? (double)(cpa_real)((own ? 1 : -plan->adv_lambda) / denominator) : 0;
}

// From the classifier's last hidden layer to its logits, and its weighted cross-entropy into its sum; logits become scale * gradient.
static cpa_status judge(cpa_model *m, int i, const cpa_lane_plan *plan, bool own)
{
    cpa_status st = CPA_OK;
    cpa_adversary *a = &m->adversary[i];
    cpa_mat logits = cpa_mat_head(a->logits, m->n);
    const cpa_dev_int *label2 = labels_of_partners(m, a, plan);
    CPA_TRY(cpa_mlp_output(&a->mlp, logits));
    if (plan->want_metrics) {
        CPA_TRY(cpa_op_argmax(m->be, cpa_int_at(m->best, (int64_t)number_of(a) * m->shape.max_cells), logits));
    }
    CPA_TRY(cpa_op_cross_entropy(m->be, cpa_f64_at(m->sums, a->sum_adv), logits, labels_of(m, a), label2,
                                 (cpa_real)(m->batch.mixed ? m->batch.lambda : 1), a->class_weight,
                                 (cpa_real)plan->focal_gamma,
                                 cpa_model_number(m, CPA_NUMBER_ADVERSARIES + 2 * i + own)));
cleanup:
    return st;
}

// The i-th classifier in training mode, and its loss, inside the autoencoder's or in its own training.
static cpa_status classify(cpa_model *m, int i, const cpa_lane_plan *plan, int pass, bool own)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next) {
        cpa_adversary *a = &l->adversary[i];
        cpa_model_masks(l, &a->mlp, &a->masks, number_of(a), plan, pass);
    }
    CPA_TRY(cpa_mlp_forward(&m->adversary[i].mlp, !own));
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(judge(l, i, plan, own));
    }
cleanup:
    return st;
}

// From the gradients of the logits to that of the last hidden layer.
static cpa_status logits_grad(cpa_model *m, int i, bool params)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next) {
        cpa_adversary *a = &l->adversary[i];
        CPA_TRY(cpa_mlp_output_grad(&a->mlp, cpa_mlp_dhidden(&a->mlp, l->n), cpa_mat_head(a->logits, l->n), params,
                                    params));
    }
cleanup:
    return st;
}

cpa_status cpa_adversary_against(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < m->n_adversaries; i++) {
        CPA_TRY(classify(m, i, plan, 0, false));
        CPA_TRY(logits_grad(m, i, false));
        CPA_TRY(cpa_mlp_grad(&m->adversary[i].mlp, false, false, false, true));
        for (cpa_model *l = m; l; l = l->next) {
            CPA_TRY(cpa_op_axpby(l->be, cpa_mat_head(l->dz_basal, l->n), 1, cpa_mat_head(l->g, l->n), 1));
        }
    }
cleanup:
    return st;
}

// Which run of an adversary in this step its own training is.
static int own_pass(const cpa_lane_plan *plan)
{
    return plan->update_autoencoder && plan->adversary_in_loss;
}

cpa_status cpa_adversary_show(cpa_model *m, int i, const cpa_lane_plan *plan)
{
    return classify(m, i, plan, plan->update_adversary ? own_pass(plan) : 0, plan->update_adversary);
}

cpa_status cpa_adversary_train(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    int pass = own_pass(plan);
    double elements = (double)plan->n_cells * m->config.n_latent;
    for (int i = 0; i < m->n_adversaries; i++) {
        cpa_mlp *mlp = &m->adversary[i].mlp;
        CPA_TRY(classify(m, i, plan, pass, true));
        CPA_TRY(cpa_mlp_sum_gradient(mlp));
        for (cpa_model *l = m; l; l = l->next) {
            CPA_TRY(cpa_op_square_sum_scale(l->be, cpa_f64_at(l->sums, l->adversary[i].sum_penalty),
                                            cpa_mat_head(l->g, l->n), (cpa_real)(2 * plan->pen_adv / elements)));
        }
        CPA_TRY(cpa_mlp_penalty(mlp));
        CPA_TRY(logits_grad(m, i, true));
        CPA_TRY(cpa_mlp_grad(mlp, true, true, true, false));
    }
cleanup:
    return st;
}
