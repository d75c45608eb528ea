// Owns: layer norm and bare activation on the CPU, with their derivatives. The sums of a cell are in double and stay on
// one thread; never a statistic over cells (batch norm has those).
#include "backend_cpu_impl.h"

#include <math.h>
#include <string.h>

static const double eps = 1e-5;

// One row of a matrix, or NULL for a view without data.
static cpa_real *row_or_none(cpa_mat m, int row)
{
    return m.data != NULL ? cpa_row(m, row) : NULL;
}

static void add(cpa_real *to, const cpa_real *from, int n)
{
#pragma omp simd
    for (int j = 0; j < n; j++) {
        to[j] += from[j];
    }
}

// to = mask * relu(to), so that NaN stays NaN.
static void rectify(cpa_real *to, const cpa_real *mask, int n)
{
#pragma omp simd
    for (int j = 0; j < n; j++) {
        to[j] = to[j] < 0 ? 0 : to[j];
    }
    if (mask != NULL) {
#pragma omp simd
        for (int j = 0; j < n; j++) {
            to[j] *= mask[j];
        }
    }
}

// to = a + bias.
static void shift(cpa_real *to, const cpa_real *a, const cpa_real *bias, int n)
{
    memmove(to, a, (size_t)n * sizeof *to);
    if (bias != NULL) {
        add(to, bias, n);
    }
}

// Normalises a row in place; returns 1 / its standard deviation.
static cpa_real normalise(cpa_real *x, int n)
{
    double mean = 0, square = 0;
#pragma omp simd reduction(+ : mean)
    for (int j = 0; j < n; j++) {
        mean += (double)x[j];
    }
    mean /= n;
#pragma omp simd reduction(+ : square)
    for (int j = 0; j < n; j++) {
        double d = (double)x[j] - mean;
        square += d * d;
    }
    const cpa_real m = (cpa_real)mean, r = (cpa_real)(1 / sqrt(square / n + eps));
#pragma omp simd
    for (int j = 0; j < n; j++) {
        x[j] = (x[j] - m) * r;
    }
    return r;
}

cpa_status cpa_cpu_layer_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_mat a, cpa_mat bias,
                              cpa_mat mask)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int i = 0; i < a.rows; i++) {
        cpa_real *out = cpa_row(y, i), *xh = row_or_none(xhat, i);
        shift(out, cpa_row(a, i), cpa_reals(bias.data), a.cols);
        cpa_real r = normalise(out, a.cols);
        if (xh != NULL) {
            memcpy(xh, out, (size_t)a.cols * sizeof *xh);
        }
        if (rstd.data != NULL) {
            cpa_reals(rstd.data)[i] = r;
        }
        rectify(out, row_or_none(mask, i), a.cols);
    }
    return CPA_OK;
}

// What the backward formulas need of a row.
typedef struct means {
    double g, gx;     // mean(g), mean(g xhat)
    double v, vx, vg; // mean(v), mean(v xhat), mean(v g)
} means;

cpa_status cpa_cpu_layer_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd,
                                   cpa_real keep, cpa_mat q)
{
    (void)be;
    const cpa_gate by = {keep, 0};
    const int n = y.cols;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int i = 0; i < y.rows; i++) {
        const cpa_real *d = cpa_row(dy, i), *out = cpa_row(y, i), *xh = cpa_row(xhat, i), *more = row_or_none(q, i);
        double g = 0, gx = 0;
#pragma omp simd reduction(+ : g, gx)
        for (int j = 0; j < n; j++) {
            double t = (double)cpa_gated(d[j], out[j], by);
            g += t;
            gx += t * (double)xh[j];
        }
        const cpa_real m1 = (cpa_real)(g / n), m2 = (cpa_real)(gx / n), r = cpa_reals(rstd.data)[i];
        cpa_real *to = cpa_row(da, i);
#pragma omp simd
        for (int j = 0; j < n; j++) {
            to[j] = r * (cpa_gated(d[j], out[j], by) - m1 - xh[j] * m2);
        }
        if (more != NULL) {
            add(to, more, n);
        }
    }
    return CPA_OK;
}

static means second_means(const cpa_real *up, const cpa_real *d, const cpa_real *y, const cpa_real *xh, cpa_gate by,
                          int n)
{
    double g = 0, gx = 0, v = 0, vx = 0, vg = 0;
#pragma omp simd reduction(+ : g, gx, v, vx, vg)
    for (int j = 0; j < n; j++) {
        double t = (double)cpa_gated(d[j], y[j], by), x = (double)xh[j], u = (double)up[j];
        g += t;
        gx += t * x;
        v += u;
        vx += u * x;
        vg += u * t;
    }
    return (means){g / n, gx / n, v / n, vx / n, vg / n};
}

cpa_status cpa_cpu_layer_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y,
                                    cpa_mat xhat, cpa_mat rstd, cpa_real keep)
{
    (void)be;
    const cpa_gate by = {keep, 0};
    const int n = y.cols;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int i = 0; i < y.rows; i++) {
        const cpa_real *d = cpa_row(dy, i), *out = cpa_row(y, i), *xh = cpa_row(xhat, i), *up = cpa_row(v, i);
        means s = second_means(up, d, out, xh, by, n);
        const cpa_real m1 = (cpa_real)s.g, m2 = (cpa_real)s.gx, a = (cpa_real)s.v, b = (cpa_real)s.vx;
        const cpa_real big_q = (cpa_real)(s.vg - s.v * s.g - s.vx * s.gx), r = cpa_reals(rstd.data)[i];
        cpa_real *to = cpa_row(ddy, i), *to_q = cpa_row(q, i);
#pragma omp simd
        for (int j = 0; j < n; j++) {
            cpa_real v0 = up[j] - a - xh[j] * b;
            cpa_real g0 = cpa_gated(d[j], out[j], by) - m1 - xh[j] * m2;
            to_q[j] = -r * r * (xh[j] * big_q + m2 * v0 + b * g0);
            to[j] = cpa_gated(r * v0, out[j], by);
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_activate(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mask)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int i = 0; i < a.rows; i++) {
        shift(cpa_row(y, i), cpa_row(a, i), cpa_reals(bias.data), a.cols);
        rectify(cpa_row(y, i), row_or_none(mask, i), a.cols);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_activate_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_real keep, cpa_mat q)
{
    (void)be;
    const cpa_gate by = {keep, 0};
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int i = 0; i < y.rows; i++) {
        const cpa_real *d = cpa_row(dy, i), *out = cpa_row(y, i), *more = row_or_none(q, i);
        cpa_real *to = cpa_row(da, i);
#pragma omp simd
        for (int j = 0; j < y.cols; j++) {
            to[j] = cpa_gated(d[j], out[j], by);
        }
        if (more != NULL) {
            add(to, more, y.cols);
        }
    }
    return CPA_OK;
}
