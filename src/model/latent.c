// Owns: the latent space: the encoder's outputs, embeddings and their gradients, composing latents.
// Never touches the decoder or the adversaries.
#include "model_impl.h"

static cpa_mat rows(const cpa_model *m, cpa_mat x)
{
    return cpa_mat_head(x, m->n);
}

// The half of a mixed batch's components that belongs to the cell itself (0) or to its partner (1).
static cpa_mat half(const cpa_model *m, cpa_mat s, int which)
{
    int comb = m->batch.comb, own = comb / 2;
    return (cpa_mat){cpa_real_at(s.data, which * own), m->n, own, comb, false};
}

// [n, components] of the loaded batch.
static cpa_mat components(const cpa_model *m, cpa_mat s)
{
    return cpa_mat_of(s.data, m->n, m->batch.comb);
}

// Weights the components of a mixed batch by lambda and 1 - lambda.
static cpa_status weight_halves(cpa_model *m, cpa_mat s)
{
    cpa_status st = CPA_OK;
    double lambda = m->batch.lambda;
    if (m->batch.mixed) {
        CPA_TRY(cpa_op_axpby(m->be, half(m, s, 0), 0, half(m, s, 0), (cpa_real)lambda));
        CPA_TRY(cpa_op_axpby(m->be, half(m, s, 1), 0, half(m, s, 1), (cpa_real)(1 - lambda)));
    }
cleanup:
    return st;
}

cpa_status cpa_latent_doses(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_mat s = components(m, m->s);
    CPA_TRY(cpa_doser_forward(m, s));
    CPA_TRY(weight_halves(m, s));
cleanup:
    return st;
}

cpa_status cpa_latent_vectors(cpa_model *m, cpa_mat *vectors)
{
    cpa_status st = CPA_OK;
    *vectors = cpa_value(&m->t, m->pert_embedding);
    if (m->shape.n_pert_features) {
        CPA_TRY(cpa_op_gemm(m->be, m->vectors, *vectors, false, cpa_value(&m->t, m->project_weight), true, 1, 0));
        CPA_TRY(cpa_op_add_row(m->be, m->vectors, cpa_value(&m->t, m->project_bias)));
        *vectors = m->vectors;
    }
cleanup:
    return st;
}

// Codes of a covariate on the backend, how many a cell has, and their weights.
static const cpa_dev_int *codes(const cpa_model *m, int c, int *width, cpa_mat *weight)
{
    bool mixed = m->batch.mixed;
    *width = mixed ? 2 : 1;
    *weight = mixed ? cpa_mat_of(m->batch.cov_weight, m->n, 2) : CPA_NO_MAT;
    return cpa_int_at(mixed ? m->batch.cov : m->batch.cov_own, (int64_t)c * m->shape.max_cells * *width);
}

cpa_status cpa_model_compose(cpa_model *m, cpa_mat z, int parts)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_op_axpby(m->be, z, (cpa_real)((parts & CPA_LATENT_BASAL) != 0), rows(m, m->z_basal), 0));
    if (parts & CPA_LATENT_PERT) {
        cpa_mat vectors;
        CPA_TRY(cpa_latent_vectors(m, &vectors));
        CPA_TRY(cpa_op_bag_add(m->be, z, vectors, m->batch.pert, m->batch.comb, components(m, m->s),
                               cpa_first_perturbation(m)));
    }
    for (int c = 0; c < m->shape.n_covs; c++) {
        if (parts & (c == m->shape.batch_cov ? CPA_LATENT_BATCH : CPA_LATENT_COVS)) {
            int width;
            cpa_mat weight;
            const cpa_dev_int *code = codes(m, c, &width, &weight);
            CPA_TRY(cpa_op_bag_add(m->be, z, cpa_value(&m->t, m->cov_embedding[c]), code, width, weight, 0));
        }
    }
cleanup:
    return st;
}

// Mean and raw variance of a variational encoder from its last hidden layer.
static cpa_status variational_outputs(cpa_model *m)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_mlp_output(&m->encoder, rows(m, m->z_mean)));
    CPA_TRY(cpa_op_gemm(m->be, rows(m, m->z_raw), cpa_mlp_hidden(&m->encoder, m->n), false,
                        cpa_value(&m->t, m->var_weight), true, 1, 0));
    CPA_TRY(cpa_op_add_row(m->be, rows(m, m->z_raw), cpa_value(&m->t, m->var_bias)));
cleanup:
    return st;
}

static cpa_status sample(cpa_model *m, cpa_mat noise)
{
    return cpa_op_sample_latent(m->be, rows(m, m->z_basal), rows(m, m->z_std), cpa_f64_at(m->sums, CPA_SUM_KL),
                                rows(m, m->z_mean), rows(m, m->z_raw), noise);
}

cpa_status cpa_latent_eval(cpa_model *m)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_mlp_eval(&m->encoder, (cpa_input){.csr = &m->batch.x}, m->n));
    if (!m->config.variational) {
        return cpa_mlp_output(&m->encoder, rows(m, m->z_basal));
    }
    CPA_TRY(variational_outputs(m));
    CPA_TRY(sample(m, CPA_NO_MAT));
cleanup:
    return st;
}

cpa_status cpa_latent_draw(cpa_model *m, int draw, uint64_t seed)
{
    cpa_status st = CPA_OK;
    cpa_mat noise = rows(m, m->noise);
    if (draw == 0) {
        return sample(m, CPA_NO_MAT);
    }
    CPA_TRY(cpa_op_normal_noise(m->be, noise, m->batch.cell, seed, cpa_number_of(0),
                                (uint32_t)draw)); // training's are layer 0
    CPA_TRY(sample(m, noise));
cleanup:
    return st;
}

// Noise of the loaded cells: recorded, or drawn.
static cpa_status draw_noise(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_mat noise = rows(m, m->noise);
    if (!plan->draws) {
        return cpa_op_normal_noise(m->be, noise, m->batch.cell, plan->seed, cpa_model_number(m, CPA_NUMBER_EPOCH), 0);
    }
    const cpa_real *recorded = plan->draws->noise(plan->draws->ctx);
    CPA_REQUIRE(recorded, CPA_BAD_DATA, "no recorded reparametrisation noise");
    CPA_TRY(cpa_op_upload(m->be, noise.data, recorded, (size_t)m->n * (size_t)noise.cols * sizeof(cpa_real)));
cleanup:
    return st;
}

// From the encoder's last hidden layer to the decoder's input.
static cpa_status latents(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    if (m->config.variational) {
        CPA_TRY(variational_outputs(m));
        CPA_TRY(draw_noise(m, plan));
        CPA_TRY(sample(m, rows(m, m->noise)));
    } else {
        CPA_TRY(cpa_mlp_output(&m->encoder, rows(m, m->z_basal)));
    }
    CPA_TRY(cpa_latent_doses(m));
    CPA_TRY(cpa_model_compose(m, rows(m, m->z), CPA_LATENT_ALL));
cleanup:
    return st;
}

cpa_status cpa_model_forward(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    for (cpa_model *l = m; l; l = l->next) {
        cpa_model_masks(l, &l->encoder, &l->encoder_masks, CPA_PART_ENCODER, plan, 0);
    }
    CPA_TRY(cpa_mlp_forward(&m->encoder, false));
    for (cpa_model *l = m; l; l = l->next) {
        CPA_TRY(latents(l, plan));
        cpa_model_masks(l, &l->decoder, &l->decoder_masks, CPA_PART_DECODER, plan, 0);
    }
    CPA_TRY(cpa_mlp_forward(&m->decoder, false));
cleanup:
    return st;
}

// Through a variational encoder's two outputs: dz_basal becomes the gradient of the mean; dh of the last hidden layer.
static cpa_status variational_grad(cpa_model *m, const cpa_lane_plan *plan, cpa_mat dh)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    cpa_mat dz = rows(m, m->dz_basal), draw = rows(m, m->dz_raw);
    CPA_TRY(cpa_op_sample_latent_grad(m->be, dz, draw, dz, rows(m, m->z_mean), rows(m, m->z_raw), rows(m, m->z_std),
                                      rows(m, m->noise), (cpa_real)(plan->kl_weight / (double)plan->n_cells)));
    CPA_TRY(cpa_mlp_output_grad(&m->encoder, dh, dz, true, false));
    CPA_TRY(cpa_op_gemm(m->be, cpa_grad(t, m->var_weight), draw, true, cpa_mlp_hidden(&m->encoder, m->n), false, 1, 0));
    CPA_TRY(cpa_op_col_sum(m->be, cpa_grad(t, m->var_bias), draw, 0));
    CPA_TRY(cpa_op_gemm(m->be, dh, draw, false, cpa_value(t, m->var_weight), false, 1, 1));
cleanup:
    return st;
}

cpa_status cpa_latent_encoder_grad(cpa_model *m, const cpa_lane_plan *plan)
{
    cpa_mat dh = cpa_mlp_dhidden(&m->encoder, m->n);
    return m->config.variational ? variational_grad(m, plan, dh)
                                 : cpa_mlp_output_grad(&m->encoder, dh, rows(m, m->dz_basal), true, false);
}

// Gradients of the perturbations' vectors, or of what projects external ones, and ds.
static cpa_status vector_grad(cpa_model *m, cpa_mat dz, cpa_mat ds)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    bool external = m->shape.n_pert_features > 0;
    cpa_mat vectors = external ? m->vectors : cpa_value(t, m->pert_embedding);
    cpa_mat dvectors = external ? m->dvectors : cpa_grad(t, m->pert_embedding);
    CPA_TRY(cpa_op_bag_grad(m->be, dvectors, ds, dz, vectors, m->batch.pert, m->batch.comb, components(m, m->s),
                            cpa_first_perturbation(m)));
    if (external && !m->config.freeze_pert_projection) {
        CPA_TRY(cpa_op_gemm(m->be, cpa_grad(t, m->project_weight), dvectors, true, cpa_value(t, m->pert_embedding),
                            false, 1, 0));
        CPA_TRY(cpa_op_col_sum(m->be, cpa_grad(t, m->project_bias), dvectors, 0));
    }
cleanup:
    return st;
}

cpa_status cpa_latent_embedding_grad(cpa_model *m, cpa_mat dz)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    cpa_mat ds = components(m, m->ds);
    CPA_TRY(vector_grad(m, dz, ds));
    if (cpa_doser_has_gradient(m)) {
        CPA_TRY(weight_halves(m, ds));
        CPA_TRY(cpa_doser_grad(m, ds));
    }
    for (int c = 0; c < m->shape.n_covs; c++) {
        int width;
        cpa_mat weight;
        const cpa_dev_int *code = codes(m, c, &width, &weight);
        if (m->shape.cov_size[c] < 2 && m->config.use_batch_norm_decoder) {
            continue; // a constant in front of the decoder's batch norm: its gradient is exactly 0, and stays so
        }
        CPA_TRY(cpa_op_bag_grad(m->be, cpa_grad(t, m->cov_embedding[c]), CPA_NO_MAT, dz,
                                cpa_value(t, m->cov_embedding[c]), code, width, weight, 0));
    }
cleanup:
    return st;
}
