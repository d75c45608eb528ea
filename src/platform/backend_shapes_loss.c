// Owns: the shape checks in front of the losses and of the latent state. Never looks at device memory.
#include "backend_shapes_impl.h"

cpa_status cpa_shape_nb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                             cpa_mat bias, cpa_mat px_r, cpa_csr x, cpa_real scale)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(logits, logits.rows, logits.cols);
    FIT(dpx_r, 1, logits.cols);
    FIT(dbias, 1, logits.cols);
    FIT(bias, 1, logits.cols);
    FIT(px_r, 1, logits.cols);
    FIT_CELLS(x, logits.rows, logits.cols, true);
cleanup:
    return st;
}

cpa_status cpa_shape_nb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat bias, cpa_mat px_r,
                                  cpa_csr x)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(logits, logits.rows, logits.cols);
    FIT(bias, 1, logits.cols);
    FIT(px_r, 1, logits.cols);
    FIT_CELLS(x, logits.rows, logits.cols, true);
cleanup:
    return st;
}

cpa_status cpa_shape_softmax_scale(cpa_backend *be, cpa_mat logits, cpa_mat bias, cpa_mat library)
{
    cpa_status st;
    FIT_HALF(logits, logits.rows, logits.cols);
    FIT(bias, 1, logits.cols);
    FIT(library, 1, logits.rows);
cleanup:
    return st;
}

cpa_status cpa_shape_zinb_thin(cpa_backend *be, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    cpa_status st;
    FIT_HALF(mu, mu.rows, mu.cols);
    FIT_HALF(zi, mu.rows, mu.cols);
    FIT(zi_bias, 1, mu.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_cross_entropy(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, const cpa_dev_int *label,
                                   const cpa_dev_int *label2, cpa_real mix, cpa_mat weight, cpa_real gamma,
                                   cpa_number scale)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT(logits, logits.rows, logits.cols);
    THERE(label, logits.rows > 0);
    FIT_OR_NONE(weight, 1, logits.cols);
    SENSIBLE(gamma >= 0, "gamma %g", OP, (double)gamma);
cleanup:
    return st;
}

cpa_status cpa_shape_zinb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                               cpa_mat zi, cpa_mat dzi_bias, cpa_mat bias, cpa_mat zi_bias, cpa_mat px_r, cpa_csr x,
                               cpa_real scale)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(logits, logits.rows, logits.cols);
    FIT(dpx_r, 1, logits.cols);
    FIT(dbias, 1, logits.cols);
    FIT_HALF(zi, logits.rows, logits.cols);
    FIT(dzi_bias, 1, logits.cols);
    FIT(bias, 1, logits.cols);
    FIT(zi_bias, 1, logits.cols);
    FIT(px_r, 1, logits.cols);
    FIT_CELLS(x, logits.rows, logits.cols, true);
cleanup:
    return st;
}

cpa_status cpa_shape_zinb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat zi, cpa_mat bias,
                                    cpa_mat zi_bias, cpa_mat px_r, cpa_csr x)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(logits, logits.rows, logits.cols);
    FIT_HALF(zi, logits.rows, logits.cols);
    FIT(bias, 1, logits.cols);
    FIT(zi_bias, 1, logits.cols);
    FIT(px_r, 1, logits.cols);
    FIT_CELLS(x, logits.rows, logits.cols, true);
cleanup:
    return st;
}

cpa_status cpa_shape_gauss_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat dmean_bias,
                                cpa_mat draw_bias, cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x, cpa_real scale)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(mean, mean.rows, mean.cols);
    FIT_HALF(raw, mean.rows, mean.cols);
    FIT(dmean_bias, 1, mean.cols);
    FIT(draw_bias, 1, mean.cols);
    FIT(mean_bias, 1, mean.cols);
    FIT(raw_bias, 1, mean.cols);
    FIT_CELLS(x, mean.rows, mean.cols, false);
cleanup:
    return st;
}

cpa_status cpa_shape_gauss_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw,
                                     cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x)
{
    cpa_status st;
    THERE(loss_sum, true);
    FIT_HALF(mean, mean.rows, mean.cols);
    FIT_HALF(raw, mean.rows, mean.cols);
    FIT(mean_bias, 1, mean.cols);
    FIT(raw_bias, 1, mean.cols);
    FIT_CELLS(x, mean.rows, mean.cols, false);
cleanup:
    return st;
}

cpa_status cpa_shape_sample_latent(cpa_backend *be, cpa_mat z, cpa_mat std, cpa_dev_f64 *kl_sum, cpa_mat mean,
                                   cpa_mat raw, cpa_mat noise)
{
    cpa_status st;
    THERE(kl_sum, true);
    FIT(mean, mean.rows, mean.cols);
    FIT(z, mean.rows, mean.cols);
    FIT(std, mean.rows, mean.cols);
    FIT(raw, mean.rows, mean.cols);
    FIT_OR_NONE(noise, mean.rows, mean.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_sample_latent_grad(cpa_backend *be, cpa_mat dmean, cpa_mat draw, cpa_mat dz, cpa_mat mean,
                                        cpa_mat raw, cpa_mat std, cpa_mat noise, cpa_real kl_scale)
{
    cpa_status st;
    FIT(dz, dz.rows, dz.cols);
    FIT(dmean, dz.rows, dz.cols);
    FIT(draw, dz.rows, dz.cols);
    FIT(mean, dz.rows, dz.cols);
    FIT(raw, dz.rows, dz.cols);
    FIT(std, dz.rows, dz.cols);
    FIT_OR_NONE(noise, dz.rows, dz.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_normal_noise(cpa_backend *be, cpa_mat noise, const cpa_dev_int *cell, uint64_t seed,
                                  cpa_number epoch, uint32_t layer)
{
    cpa_status st;
    FIT(noise, noise.rows, noise.cols);
    THERE(cell, noise.rows > 0);
cleanup:
    return st;
}
