// Owns: the likelihoods: their decoder's heads, losses and means. A new likelihood is a new case here and its operations.
// Never goes below the decoder's last hidden layer.
#include "model_impl.h"

static cpa_mat head(cpa_model *m, cpa_mat x)
{
    return cpa_mat_head(x, m->n);
}

cpa_mat cpa_likelihood_trained(const cpa_model *m, cpa_mat x)
{
    x.rows = m->n;
    x.bf16 = x.data != NULL && cpa_backend_precision(m->be) == CPA_BF16;
    return x;
}

cpa_status cpa_likelihood_declare(cpa_model *m)
{
    cpa_status st = CPA_OK;
    const cpa_model_config *c = &m->config;
    cpa_params *t = &m->t;
    int genes = m->shape.n_genes, hidden = c->n_hidden_decoder;
    bool gauss = m->likelihood == CPA_GAUSS;
    double bound = 1.0 / __builtin_sqrt(hidden);
    if (!gauss) {
        CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, 1, genes, 1, CPA_INIT_NORMAL, 0, &m->px_r, "module/px_r"));
    }
    CPA_TRY(cpa_mlp_declare(&m->decoder, t, CPA_GROUP_AUTOENCODER, CPA_GROUP_STAT_MODULE, c->n_latent, hidden,
                            c->n_layers_decoder, genes,
                            (cpa_norms){c->use_batch_norm_decoder, c->use_layer_norm_decoder}, false,
                            gauss ? "module/decoder.encoder.fc_layers." : "module/decoder.px_decoder.fc_layers.",
                            gauss ? "module/decoder.mean_encoder" : "module/decoder.px_scale_decoder.0"));
    if (m->likelihood != CPA_NB) {
        const char *name = gauss ? "module/decoder.var_encoder" : "module/decoder.px_dropout_decoder";
        CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, genes, hidden, 2, CPA_INIT_UNIFORM, bound, &m->head2_weight,
                               "%s.weight", name));
        CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, 1, genes, 1, CPA_INIT_UNIFORM, bound, &m->head2_bias,
                               "%s.bias", name));
    }
cleanup:
    return st;
}

// The head products, their biases left to the loss.
cpa_status cpa_likelihood_head(cpa_model *m, bool training)
{
    cpa_status st = CPA_OK;
    cpa_mat h = cpa_mlp_hidden(&m->decoder, m->n), a = head(m, m->logits), b = head(m, m->head2);
    if (training) {
        a = cpa_likelihood_trained(m, a);
        b = cpa_likelihood_trained(m, b);
    }
    CPA_TRY(cpa_op_gemm(m->be, a, h, false, cpa_value(&m->t, m->decoder.out_weight), true, 1, 0));
    if (m->likelihood != CPA_NB) {
        CPA_TRY(cpa_op_gemm(m->be, b, h, false, cpa_value(&m->t, m->head2_weight), true, 1, 0));
    }
cleanup:
    return st;
}

cpa_status cpa_likelihood_loss(cpa_model *m, cpa_real scale)
{
    cpa_params *t = &m->t;
    cpa_dev_f64 *sum = cpa_f64_at(m->sums, CPA_SUM_RECON);
    cpa_mat a = cpa_likelihood_trained(m, m->logits), b = cpa_likelihood_trained(m, m->head2),
            bias = cpa_value(t, m->decoder.out_bias), dbias = cpa_grad(t, m->decoder.out_bias);
    switch (m->likelihood) {
    case CPA_NB:
        return cpa_op_nb_loss(m->be, sum, a, cpa_grad(t, m->px_r), dbias, bias, cpa_value(t, m->px_r), m->batch.x,
                              scale);
    case CPA_ZINB:
        return cpa_op_zinb_loss(m->be, sum, a, cpa_grad(t, m->px_r), dbias, b, cpa_grad(t, m->head2_bias), bias,
                                cpa_value(t, m->head2_bias), cpa_value(t, m->px_r), m->batch.x, scale);
    case CPA_GAUSS:
        return cpa_op_gauss_loss(m->be, sum, a, b, dbias, cpa_grad(t, m->head2_bias), bias, cpa_value(t, m->head2_bias),
                                 m->batch.x, scale);
    }
    return CPA_INTERNAL;
}

cpa_status cpa_likelihood_head_grad(cpa_model *m, cpa_mat dh)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    cpa_mat h = cpa_mlp_hidden(&m->decoder, m->n), a = cpa_likelihood_trained(m, m->logits),
            b = cpa_likelihood_trained(m, m->head2);
    CPA_TRY(cpa_op_gemm(m->be, cpa_grad(t, m->decoder.out_weight), a, true, h, false, 1, 0));
    CPA_TRY(cpa_op_gemm(m->be, dh, a, false, cpa_value(t, m->decoder.out_weight), false, 1, 0));
    if (m->likelihood != CPA_NB) {
        CPA_TRY(cpa_op_gemm(m->be, cpa_grad(t, m->head2_weight), b, true, h, false, 1, 0));
        CPA_TRY(cpa_op_gemm(m->be, dh, b, false, cpa_value(t, m->head2_weight), false, 1, 1));
    }
cleanup:
    return st;
}

cpa_status cpa_likelihood_mean_loss(cpa_model *m, cpa_mat means, cpa_mat second)
{
    cpa_params *t = &m->t;
    cpa_dev_f64 *sum = cpa_f64_at(m->sums, CPA_SUM_RECON);
    cpa_mat bias = cpa_value(t, m->decoder.out_bias);
    switch (m->likelihood) {
    case CPA_NB:
        return cpa_op_nb_mean_loss(m->be, sum, means, bias, cpa_value(t, m->px_r), m->batch.x);
    case CPA_ZINB:
        return cpa_op_zinb_mean_loss(m->be, sum, means, second, bias, cpa_value(t, m->head2_bias),
                                     cpa_value(t, m->px_r), m->batch.x);
    case CPA_GAUSS:
        return cpa_op_gauss_mean_loss(m->be, sum, means, second, bias, cpa_value(t, m->head2_bias), m->batch.x);
    }
    return CPA_INTERNAL;
}

cpa_status cpa_likelihood_means(cpa_model *m, bool thin)
{
    cpa_status st = CPA_OK;
    cpa_mat means = head(m, m->logits), bias = cpa_value(&m->t, m->decoder.out_bias);
    if (m->likelihood == CPA_GAUSS) {
        return cpa_op_add_row(m->be, means, bias);
    }
    CPA_TRY(cpa_op_softmax_scale(m->be, means, bias, cpa_mat_of(m->batch.library, 1, m->n)));
    if (m->likelihood == CPA_ZINB && thin) {
        CPA_TRY(cpa_op_zinb_thin(m->be, means, head(m, m->head2), cpa_value(&m->t, m->head2_bias)));
    }
cleanup:
    return st;
}
