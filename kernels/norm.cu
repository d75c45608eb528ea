// Owns: batch norm with ReLU and dropout on the device, its first and second derivative, and dropout masks. The thread of a column
// sums its rows in double and in order; never a difference of large sums.
#include "kernel.h"

static const double eps = 1e-3;

// What outputs are cut at.
static inline cpa_real least_output(bool relu)
{
    return relu ? 0 : -INFINITY;
}

CPA_DEVICE double column_sum(cpa_mat a, int64_t j)
{
    double sum = 0;
    for (int i = 0; i < a.rows; i++) {
        sum += (double)cpa_row(a, i)[j];
    }
    return sum;
}

CPA_DEVICE double column_squares(cpa_mat a, int64_t j, double mean)
{
    double square = 0;
    for (int i = 0; i < a.rows; i++) {
        const double d = (double)cpa_row(a, i)[j] - mean;
        square += d * d;
    }
    return square;
}

CPA_KERNEL statistics(int64_t n, cpa_mat a, cpa_pooled pooled, cpa_mat mean, cpa_mat var_unbiased, cpa_mat rstd)
{
    const int64_t j = cpa_thread();
    if (j >= n) {
        return;
    }
    const double *all = cpa_f64s(pooled.all), rows = all != NULL ? (double)pooled.rows : (double)a.rows;
    const double m = (all != NULL ? all[j] : column_sum(a, j)) / rows;
    const double square = all != NULL ? all[n + j] : column_squares(a, j, m);
    cpa_reals(mean.data)[j] = (cpa_real)m;
    cpa_reals(var_unbiased.data)[j] = (cpa_real)(square / (rows - 1));
    cpa_reals(rstd.data)[j] = (cpa_real)(1 / sqrt(square / rows + eps));
}

CPA_KERNEL normalise(int64_t n, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat rstd, cpa_mat a, cpa_mat gamma,
                     cpa_mat beta, cpa_mat mask, cpa_real least)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(a, i), j = cpa_col_of(a, i);
    const cpa_real x = (cpa_row(a, row)[j] - cpa_reals(mean.data)[j]) * cpa_reals(rstd.data)[j];
    const cpa_real t = cpa_reals(gamma.data)[j] * x + cpa_reals(beta.data)[j];
    cpa_row(xhat, row)[j] = x;
    cpa_row(y, row)[j] = (t < least ? least : t) * cpa_or(mask, row, j, 1); // so that NaN stays NaN
}

cpa_status cpa_cuda_batch_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat var_unbiased,
                               cpa_mat rstd, cpa_mat a, cpa_mat gamma, cpa_mat beta, cpa_mat mask, bool relu,
                               cpa_pooled pooled)
{
    CPA_STEP(CPA_LAUNCH(be, statistics, (int64_t)a.cols, a, pooled, mean, var_unbiased, rstd));
    return CPA_LAUNCH(be, normalise, cpa_elements(a), y, xhat, mean, rstd, a, gamma, beta, mask, least_output(relu));
}

CPA_KERNEL norm_sums(int64_t n, cpa_dev_f64 *sums, cpa_mat a, cpa_pooled about)
{
    const int64_t j = cpa_thread();
    if (j < n) {
        const double *all = cpa_f64s(about.all);
        cpa_f64s(sums)[j] = all != NULL ? column_squares(a, j, all[j] / (double)about.rows) : column_sum(a, j);
    }
}

cpa_status cpa_cuda_batch_norm_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat a, cpa_pooled about)
{
    return CPA_LAUNCH(be, norm_sums, (int64_t)a.cols, sums, a, about);
}

// sums [2, n] = sums over rows of g, g xhat.
CPA_KERNEL grad_sums(int64_t n, double *sums, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_real keep, bool relu)
{
    const int64_t j = cpa_thread();
    if (j >= n) {
        return;
    }
    double g = 0, gx = 0;
    for (int i = 0; i < y.rows; i++) {
        const double t = (double)cpa_gated(cpa_row(dy, i)[j], cpa_row(y, i)[j], keep, relu);
        g += t;
        gx += t * (double)cpa_row(xhat, i)[j];
    }
    sums[j] = g;
    sums[n + j] = gx;
}

static inline double *sums_of(cpa_dev_f64 *sums)
{
    return (double *)(uintptr_t)sums;
}

cpa_status cpa_cuda_batch_norm_grad_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat dy, cpa_mat y, cpa_mat xhat,
                                         cpa_real keep, bool relu)
{
    return CPA_LAUNCH(be, grad_sums, (int64_t)y.cols, sums_of(sums), dy, y, xhat, keep, relu);
}

// The sums that a backward formula goes by: those of the rows at hand, taken now into scratch, or the ones that were pooled.
typedef struct norm_sums_at {
    const double *own, *all;
    double rows;
} norm_sums_at;

static norm_sums_at sums_at(const double *own, cpa_mat y, cpa_pooled pooled)
{
    norm_sums_at at = {own, own, (double)y.rows};
    if (pooled.all != NULL) {
        at.own = (const double *)(uintptr_t)pooled.own;
        at.all = (const double *)(uintptr_t)pooled.all;
        at.rows = (double)pooled.rows;
    }
    return at;
}

CPA_KERNEL parameter_grad(int64_t n, cpa_mat dgamma, cpa_mat dbeta, norm_sums_at at)
{
    const int64_t j = cpa_thread();
    if (j < n && dgamma.data != NULL) {
        cpa_reals(dgamma.data)[j] = (cpa_real)at.own[n + j];
    }
    if (j < n && dbeta.data != NULL) {
        cpa_reals(dbeta.data)[j] = (cpa_real)at.own[j];
    }
}

CPA_KERNEL input_grad(int64_t n, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd,
                      cpa_real keep, cpa_mat q, bool relu, norm_sums_at at)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(y, i), j = cpa_col_of(y, i);
    const cpa_real m1 = (cpa_real)(at.all[j] / at.rows), m2 = (cpa_real)(at.all[y.cols + j] / at.rows);
    const cpa_real g = cpa_gated(cpa_row(dy, row)[j], cpa_row(y, row)[j], keep, relu);
    const cpa_real scale = cpa_reals(gamma.data)[j] * cpa_reals(rstd.data)[j];
    cpa_row(da, row)[j] = scale * (g - m1 - cpa_row(xhat, row)[j] * m2) + cpa_or(q, row, j, 0);
}

cpa_status cpa_cuda_batch_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dgamma, cpa_mat dbeta, cpa_mat dy, cpa_mat y,
                                    cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, cpa_mat q, bool relu,
                                    cpa_pooled pooled)
{
    double *own;
    CPA_STEP(cpa_cuda_scratch(be, 2 * (size_t)y.cols * sizeof *own, &own));
    const norm_sums_at at = sums_at(own, y, pooled);
    if (pooled.all == NULL) {
        CPA_STEP(CPA_LAUNCH(be, grad_sums, (int64_t)y.cols, own, dy, y, xhat, keep, relu));
    }
    CPA_STEP(CPA_LAUNCH(be, parameter_grad, (int64_t)y.cols, dgamma, dbeta, at));
    return CPA_LAUNCH(be, input_grad, cpa_elements(y), da, dy, y, xhat, gamma, rstd, keep, q, relu, at);
}

// sums [5, n] = sums over rows of g, g xhat, v, v xhat, v g.
CPA_KERNEL grad2_sums(int64_t n, double *sums, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_real keep, bool relu)
{
    const int64_t j = cpa_thread();
    if (j >= n) {
        return;
    }
    double s[5] = {0, 0, 0, 0, 0};
    for (int i = 0; i < y.rows; i++) {
        const cpa_real g = cpa_gated(cpa_row(dy, i)[j], cpa_row(y, i)[j], keep, relu);
        cpa_add_second_order(s, g, cpa_row(xhat, i)[j], cpa_row(v, i)[j]);
    }
    for (int k = 0; k < 5; k++) {
        sums[k * n + j] = s[k];
    }
}

cpa_status cpa_cuda_batch_norm_grad2_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat v, cpa_mat dy, cpa_mat y,
                                          cpa_mat xhat, cpa_real keep, bool relu)
{
    return CPA_LAUNCH(be, grad2_sums, (int64_t)y.cols, sums_of(sums), v, dy, y, xhat, keep, relu);
}

// sum(v g) - mean(v) sum(g) - mean(v xhat) sum(g xhat) of a column, with the means over all rows.
CPA_DEVICE double cross_sum(const double *sums, norm_sums_at at, int64_t n, int64_t j)
{
    return sums[4 * n + j] - at.all[2 * n + j] / at.rows * sums[j] - at.all[3 * n + j] / at.rows * sums[n + j];
}

CPA_KERNEL gamma_grad2(int64_t n, cpa_mat dgamma, cpa_mat rstd, norm_sums_at at)
{
    const int64_t j = cpa_thread();
    if (j < n) {
        cpa_reals(dgamma.data)[j] += (cpa_real)((double)cpa_reals(rstd.data)[j] * cross_sum(at.own, at, n, j));
    }
}

CPA_KERNEL input_grad2(int64_t n, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat gamma,
                       cpa_mat rstd, cpa_real keep, bool relu, norm_sums_at at)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(y, i), j = cpa_col_of(y, i), cols = y.cols;
    const cpa_real m1 = (cpa_real)(at.all[j] / at.rows), m2 = (cpa_real)(at.all[cols + j] / at.rows);
    const cpa_real a = (cpa_real)(at.all[2 * cols + j] / at.rows), b = (cpa_real)(at.all[3 * cols + j] / at.rows);
    const cpa_real big_q = (cpa_real)(cross_sum(at.all, at, cols, j) / at.rows);
    const cpa_real r = cpa_reals(rstd.data)[j], scale = cpa_reals(gamma.data)[j] * r, out = cpa_row(y, row)[j];
    const cpa_real x = cpa_row(xhat, row)[j], v0 = cpa_row(v, row)[j] - a - x * b;
    const cpa_real g0 = cpa_gated(cpa_row(dy, row)[j], out, keep, relu) - m1 - x * m2;
    cpa_row(q, row)[j] = -scale * r * (x * big_q + m2 * v0 + b * g0);
    cpa_row(ddy, row)[j] = cpa_gated(scale * v0, out, keep, relu);
}

cpa_status cpa_cuda_batch_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat dgamma, cpa_mat q, cpa_mat v, cpa_mat dy,
                                     cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, bool relu,
                                     cpa_pooled pooled)
{
    double *own;
    CPA_STEP(cpa_cuda_scratch(be, 5 * (size_t)y.cols * sizeof *own, &own));
    const norm_sums_at at = sums_at(own, y, pooled);
    if (pooled.all == NULL) {
        CPA_STEP(CPA_LAUNCH(be, grad2_sums, (int64_t)y.cols, own, v, dy, y, xhat, keep, relu));
    }
    CPA_STEP(CPA_LAUNCH(be, gamma_grad2, (int64_t)y.cols, dgamma, rstd, at));
    return CPA_LAUNCH(be, input_grad2, cpa_elements(y), ddy, q, v, dy, y, xhat, gamma, rstd, keep, relu, at);
}

CPA_KERNEL norm_eval(int64_t n, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var, cpa_mat gamma,
                     cpa_mat beta, cpa_real least)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(a, i), j = cpa_col_of(a, i);
    const double deviation = sqrt((double)cpa_reals(var.data)[j] + eps);
    const cpa_real centre = cpa_reals(mean.data)[j] - cpa_reals(bias.data)[j];
    const cpa_real scale = (cpa_real)((double)cpa_reals(gamma.data)[j] / deviation);
    const cpa_real t = scale * (cpa_row(a, row)[j] - centre) + cpa_reals(beta.data)[j];
    cpa_row(y, row)[j] = t < least ? least : t;
}

cpa_status cpa_cuda_batch_norm_eval(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var,
                                    cpa_mat gamma, cpa_mat beta, bool relu)
{
    return CPA_LAUNCH(be, norm_eval, cpa_elements(a), y, a, bias, mean, var, gamma, beta, least_output(relu));
}

// A thread for four columns of a row, which share a draw.
CPA_KERNEL dropout_mask(int64_t n, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed, uint32_t epoch, uint32_t layer,
                        cpa_real p)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int quads = (mask.cols + 3) / 4, row = (int)(i / quads), quad = (int)(i % quads);
    const uint32_t counter[4] = {(uint32_t)cpa_ints(cell)[row], epoch, layer, (uint32_t)quad};
    uint32_t word[4];
    cpa_philox(seed, CPA_STREAM_DROPOUT, counter, word);
    for (int w = 0; w < 4 && 4 * quad + w < mask.cols; w++) {
        cpa_row(mask, row)[4 * quad + w] = (cpa_real)cpa_unit(word[w]) >= p ? 1 / (1 - p) : 0;
    }
}

cpa_status cpa_cuda_dropout_mask(cpa_backend *be, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed, uint32_t epoch,
                                 uint32_t layer, cpa_real p)
{
    return CPA_LAUNCH(be, dropout_mask, (int64_t)mask.rows * ((mask.cols + 3) / 4), mask, cell, seed, epoch, layer, p);
}
