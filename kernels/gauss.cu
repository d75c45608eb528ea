// Owns: the Gaussian likelihood with predicted variances on the device, value and gradient. Never a dense copy of the counts.
#include "softmax.h"

static const double half_log_2pi = 0.91893853320467274178;

// Added to every variance.
static const cpa_real floor_var = (cpa_real)1e-4;

// What a call knows of its cells.
typedef struct gauss_call {
    cpa_mat mean, raw, mean_bias, raw_bias;
    cpa_csr x;
} gauss_call;

// A gene of a cell.
typedef struct gauss_point {
    cpa_real away, e, var; // loc - x, exp of the raw variance, variance
} gauss_point;

CPA_DEVICE gauss_point point_at(const gauss_call *c, int b, int j)
{
    const int k = cpa_stored(c->x, b, j);
    const cpa_real x = k >= 0 ? cpa_reals(c->x.count)[k] : 0;
    gauss_point at;
    at.away = cpa_row(c->mean, b)[j] + cpa_reals(c->mean_bias.data)[j] - x;
    at.e = cpa_exp(cpa_row(c->raw, b)[j] + cpa_reals(c->raw_bias.data)[j]);
    at.var = at.e + floor_var;
    return at;
}

CPA_KERNEL loss_parts(int64_t n, double *part, gauss_call c)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    double loss = 0;
    for (int j = (int)(i % CPA_PARTS); j < c.mean.cols; j += CPA_PARTS) {
        const gauss_point at = point_at(&c, (int)(i / CPA_PARTS), j);
        loss += half_log_2pi + (double)((cpa_real)0.5 * (at.away * (at.away / at.var) + cpa_log(at.var)));
    }
    part[i] = loss;
}

static cpa_status losses(cpa_backend *be, cpa_dev_f64 *loss_sum, gauss_call c)
{
    double *part;
    const int rows = c.mean.rows;
    CPA_STEP(cpa_cuda_scratch(be, (size_t)(cpa_parts(rows) + rows) * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH(be, loss_parts, cpa_parts(rows), part, c));
    CPA_STEP(cpa_cuda_totals(be, part + cpa_parts(rows), part, rows));
    return cpa_cuda_sum(be, loss_sum, part + cpa_parts(rows), rows);
}

// A thread a gene.
CPA_KERNEL gradients(int64_t n, cpa_mat dmean_bias, cpa_mat draw_bias, gauss_call c, cpa_real scale)
{
    const int64_t thread = cpa_thread();
    if (thread >= n) {
        return;
    }
    const int j = (int)thread;
    double dmean = 0, draw = 0;
    for (int b = 0; b < c.mean.rows; b++) {
        const gauss_point at = point_at(&c, b, j);
        const cpa_real inverse = 1 / at.var, d = at.away * inverse;
        const cpa_real dr = (cpa_real)0.5 * (at.e * inverse) * (1 - at.away * d);
        dmean += (double)d;
        draw += (double)dr;
        cpa_row(c.mean, b)[j] = scale * d;
        cpa_row(c.raw, b)[j] = scale * dr;
    }
    cpa_reals(dmean_bias.data)[j] = (cpa_real)((double)scale * dmean);
    cpa_reals(draw_bias.data)[j] = (cpa_real)((double)scale * draw);
}

cpa_status cpa_cuda_gauss_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat dmean_bias,
                               cpa_mat draw_bias, cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x, cpa_real scale)
{
    const gauss_call c = {mean, raw, mean_bias, raw_bias, x};
    CPA_STEP(losses(be, loss_sum, c));
    return CPA_LAUNCH(be, gradients, (int64_t)mean.cols, dmean_bias, draw_bias, c, scale);
}

CPA_KERNEL locations(int64_t n, gauss_call c)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(c.mean, i), j = cpa_col_of(c.mean, i);
        const cpa_real var = point_at(&c, b, j).var;
        cpa_row(c.mean, b)[j] += cpa_reals(c.mean_bias.data)[j];
        cpa_row(c.raw, b)[j] = var;
    }
}

cpa_status cpa_cuda_gauss_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw,
                                    cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x)
{
    const gauss_call c = {mean, raw, mean_bias, raw_bias, x};
    CPA_STEP(losses(be, loss_sum, c));
    return CPA_LAUNCH(be, locations, cpa_elements(mean), c);
}
