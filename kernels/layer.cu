// Owns: layer norm and bare activation on the device, with their derivatives. The thread of a row sums its columns in double and in
// order; never a statistic over cells (batch norm has those).
#include "kernel.h"

static const double eps = 1e-5;

// moments [2, rows] = mean and 1 / standard deviation of the rows of A + bias.
CPA_KERNEL row_statistics(int64_t n, cpa_real *moments, cpa_mat rstd, cpa_mat a, cpa_mat bias)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const cpa_real *x = cpa_row(a, (int)i);
    double mean = 0, square = 0;
    for (int j = 0; j < a.cols; j++) {
        mean += (double)(x[j] + cpa_or(bias, 0, j, 0));
    }
    mean /= a.cols;
    for (int j = 0; j < a.cols; j++) {
        const double d = (double)(x[j] + cpa_or(bias, 0, j, 0)) - mean;
        square += d * d;
    }
    const cpa_real r = (cpa_real)(1 / sqrt(square / a.cols + eps));
    moments[i] = (cpa_real)mean;
    moments[n + i] = r;
    if (rstd.data != NULL) {
        cpa_reals(rstd.data)[i] = r;
    }
}

CPA_KERNEL normalise(int64_t n, cpa_mat y, cpa_mat xhat, const cpa_real *moments, cpa_mat a, cpa_mat bias, cpa_mat mask)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(a, i), j = cpa_col_of(a, i);
    const cpa_real x = (cpa_row(a, row)[j] + cpa_or(bias, 0, j, 0) - moments[row]) * moments[a.rows + row];
    if (xhat.data != NULL) {
        cpa_row(xhat, row)[j] = x;
    }
    cpa_row(y, row)[j] = (x < 0 ? 0 : x) * cpa_or(mask, row, j, 1); // so that NaN stays NaN
}

cpa_status cpa_cuda_layer_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_mat a, cpa_mat bias,
                               cpa_mat mask)
{
    cpa_real *moments;
    CPA_STEP(cpa_cuda_scratch(be, 2 * (size_t)a.rows * sizeof *moments, &moments));
    CPA_STEP(CPA_LAUNCH(be, row_statistics, (int64_t)a.rows, moments, rstd, a, bias));
    return CPA_LAUNCH(be, normalise, cpa_elements(a), y, xhat, moments, a, bias, mask);
}

// means [2, rows] = mean(g), mean(g xhat) of the rows.
CPA_KERNEL grad_means(int64_t n, double *means, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_real keep)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = (int)i;
    double g = 0, gx = 0;
    for (int j = 0; j < y.cols; j++) {
        const double t = (double)cpa_gated(cpa_row(dy, row)[j], cpa_row(y, row)[j], keep, true);
        g += t;
        gx += t * (double)cpa_row(xhat, row)[j];
    }
    means[i] = g / y.cols;
    means[n + i] = gx / y.cols;
}

CPA_KERNEL input_grad(int64_t n, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_real keep,
                      cpa_mat q, const double *means)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(y, i), j = cpa_col_of(y, i);
    const cpa_real m1 = (cpa_real)means[row], m2 = (cpa_real)means[y.rows + row];
    const cpa_real g = cpa_gated(cpa_row(dy, row)[j], cpa_row(y, row)[j], keep, true);
    cpa_row(da, row)[j] = cpa_reals(rstd.data)[row] * (g - m1 - cpa_row(xhat, row)[j] * m2) + cpa_or(q, row, j, 0);
}

cpa_status cpa_cuda_layer_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd,
                                    cpa_real keep, cpa_mat q)
{
    double *means;
    CPA_STEP(cpa_cuda_scratch(be, 2 * (size_t)y.rows * sizeof *means, &means));
    CPA_STEP(CPA_LAUNCH(be, grad_means, (int64_t)y.rows, means, dy, y, xhat, keep));
    return CPA_LAUNCH(be, input_grad, cpa_elements(y), da, dy, y, xhat, rstd, keep, q, means);
}

// means [5, rows] = means of g, g xhat, v, v xhat, v g of the rows.
CPA_KERNEL grad2_means(int64_t n, double *means, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_real keep)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = (int)i;
    double s[5] = {0, 0, 0, 0, 0};
    for (int j = 0; j < y.cols; j++) {
        const cpa_real g = cpa_gated(cpa_row(dy, row)[j], cpa_row(y, row)[j], keep, true);
        cpa_add_second_order(s, g, cpa_row(xhat, row)[j], cpa_row(v, row)[j]);
    }
    for (int k = 0; k < 5; k++) {
        means[k * n + i] = s[k] / y.cols;
    }
}

CPA_KERNEL input_grad2(int64_t n, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd,
                       cpa_real keep, const double *means)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int row = cpa_row_of(y, i), j = cpa_col_of(y, i), rows = y.rows;
    const double g = means[row], gx = means[rows + row], mv = means[2 * rows + row], vx = means[3 * rows + row];
    const cpa_real m1 = (cpa_real)g, m2 = (cpa_real)gx, a = (cpa_real)mv, b = (cpa_real)vx;
    const cpa_real big_q = (cpa_real)(means[4 * rows + row] - mv * g - vx * gx), r = cpa_reals(rstd.data)[row];
    const cpa_real x = cpa_row(xhat, row)[j], out = cpa_row(y, row)[j], v0 = cpa_row(v, row)[j] - a - x * b;
    const cpa_real g0 = cpa_gated(cpa_row(dy, row)[j], out, keep, true) - m1 - x * m2;
    cpa_row(q, row)[j] = -r * r * (x * big_q + m2 * v0 + b * g0);
    cpa_row(ddy, row)[j] = cpa_gated(r * v0, out, keep, true);
}

cpa_status cpa_cuda_layer_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y,
                                     cpa_mat xhat, cpa_mat rstd, cpa_real keep)
{
    double *means;
    CPA_STEP(cpa_cuda_scratch(be, 5 * (size_t)y.rows * sizeof *means, &means));
    CPA_STEP(CPA_LAUNCH(be, grad2_means, (int64_t)y.rows, means, v, dy, y, xhat, keep));
    return CPA_LAUNCH(be, input_grad2, cpa_elements(y), ddy, q, v, dy, y, xhat, rstd, keep, means);
}

CPA_KERNEL activate(int64_t n, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mask)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int row = cpa_row_of(a, i), j = cpa_col_of(a, i);
        const cpa_real x = cpa_row(a, row)[j] + cpa_or(bias, 0, j, 0);
        cpa_row(y, row)[j] = (x < 0 ? 0 : x) * cpa_or(mask, row, j, 1);
    }
}

cpa_status cpa_cuda_activate(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mask)
{
    return CPA_LAUNCH(be, activate, cpa_elements(a), y, a, bias, mask);
}

CPA_KERNEL activate_grad(int64_t n, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_real keep, cpa_mat q)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int row = cpa_row_of(y, i), j = cpa_col_of(y, i);
        const cpa_real g = cpa_gated(cpa_row(dy, row)[j], cpa_row(y, row)[j], keep, true);
        cpa_row(da, row)[j] = g + cpa_or(q, row, j, 0);
    }
}

cpa_status cpa_cuda_activate_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_real keep, cpa_mat q)
{
    return CPA_LAUNCH(be, activate_grad, cpa_elements(y), da, dy, y, keep, q);
}
