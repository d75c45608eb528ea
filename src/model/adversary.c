// Owns: the adversaries: against the autoencoder, and their own training with the gradient penalty (second order through batch norm).
// Never updates a parameter.
#include "model_impl.h"

// Masks of this run: recorded ones, or drawn per cell.
static cpa_status set_masks(cpa_model *m, cpa_adversary *a, int classifier, const cpa_lane_plan *plan, int pass)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < a->mlp.n_layers && a->mlp.layer[k].mask.data; k++) {
        cpa_mat mask = cpa_mat_head(a->mlp.layer[k].mask, m->n);
        if (plan->masks) {
            const cpa_real *recorded = plan->masks->get(plan->masks->ctx, classifier, k, pass);
            CPA_REQUIRE(recorded, CPA_BAD_DATA, "no recorded dropout mask for classifier %d, layer %d, pass %d", classifier, k, pass);
            CPA_TRY(cpa_op_upload(m->be, mask.data, recorded, (size_t)m->n * (size_t)mask.cols * sizeof(cpa_real)));
            CPA_TRY(cpa_op_axpby(m->be, mask, 0, mask, a->mlp.keep));
        } else {
            uint32_t layer = (uint32_t)((pass * 256 + classifier) * CPA_MAX_LAYERS + k);
            CPA_TRY(cpa_op_dropout_mask(m->be, mask, m->batch.cell, plan->seed, plan->epoch, layer, (cpa_real)m->config.dropout_rate_adv));
        }
    }
cleanup:
    return st;
}

static const cpa_dev_int *labels_of(const cpa_model *m, const cpa_adversary *a)
{
    return a->cov < 0 ? m->batch.label : cpa_int_at(m->batch.cov, (int64_t)a->cov * m->shape.max_cells);
}

// Number by which recorded masks and random draws know a classifier.
static int number_of(const cpa_adversary *a)
{
    return a->cov + 1;
}

// Logits of the classifier in training mode; the weighted cross-entropy into its sum; logits become scale * gradient.
static cpa_status classify(cpa_model *m, cpa_adversary *a, const cpa_lane_plan *plan, int pass, bool inside_autoencoder, double factor)
{
    cpa_status st = CPA_OK;
    cpa_mat logits = cpa_mat_head(a->logits, m->n);
    double denominator = a->cov < 0 ? plan->label_weight : (double)plan->n_cells;
    CPA_TRY(set_masks(m, a, number_of(a), plan, pass));
    CPA_TRY(cpa_mlp_forward(&a->mlp, (cpa_input){.x = cpa_mat_head(m->z_basal, m->n)}, m->n, inside_autoencoder));
    CPA_TRY(cpa_mlp_output(&a->mlp, logits));
    if (plan->want_metrics) {
        CPA_TRY(cpa_op_argmax(m->be, cpa_int_at(m->best, (int64_t)number_of(a) * m->shape.max_cells), logits));
    }
    CPA_TRY(cpa_op_cross_entropy(m->be, cpa_f64_at(m->sums, a->sum_adv), logits, labels_of(m, a), a->class_weight,
                                 denominator > 0 ? (cpa_real)(factor / denominator) : 0));
cleanup:
    return st;
}

cpa_status cpa_adversary_against(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_mat g = cpa_mat_head(m->g, m->n);
    for (int i = 0; i < m->n_adversaries; i++) {
        cpa_adversary *a = &m->adversary[i];
        cpa_mat dh = cpa_mlp_dhidden(&a->mlp, m->n);
        CPA_TRY(classify(m, a, plan, 0, true, -plan->adv_lambda));
        CPA_TRY(cpa_mlp_output_grad(&a->mlp, dh, cpa_mat_head(a->logits, m->n), false, false));
        CPA_TRY(cpa_mlp_grad(&a->mlp, (cpa_input){.x = cpa_mat_head(m->z_basal, m->n)}, dh, false, false, false, g));
        CPA_TRY(cpa_op_axpby(m->be, cpa_mat_head(m->dz_basal, m->n), 1, g, 1));
    }
cleanup:
    return st;
}

cpa_status cpa_adversary_train(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_mat g = cpa_mat_head(m->g, m->n);
    int pass = plan->update_autoencoder && plan->adversary_in_loss;
    double elements = (double)plan->n_cells * m->config.n_latent;
    for (int i = 0; i < m->n_adversaries; i++) {
        cpa_adversary *a = &m->adversary[i];
        cpa_mat dh = cpa_mlp_dhidden(&a->mlp, m->n);
        CPA_TRY(classify(m, a, plan, pass, false, 1));
        CPA_TRY(cpa_mlp_sum_gradient(&a->mlp, g, m->n));
        CPA_TRY(cpa_op_square_sum_scale(m->be, cpa_f64_at(m->sums, a->sum_penalty), g, (cpa_real)(2 * plan->pen_adv / elements)));
        CPA_TRY(cpa_mlp_penalty(&a->mlp, g, m->n));
        CPA_TRY(cpa_mlp_output_grad(&a->mlp, dh, cpa_mat_head(a->logits, m->n), true, true));
        CPA_TRY(cpa_mlp_grad(&a->mlp, (cpa_input){.x = cpa_mat_head(m->z_basal, m->n)}, dh, true, true, true, CPA_NO_MAT));
    }
cleanup:
    return st;
}
