// Owns: batch norm with ReLU and dropout on the CPU, its first and second derivative, and dropout masks. Statistics are
// summed in double down the rows; never across threads.
#include "backend_cpu_impl.h"

#include "cpa/base/rng.h"
#include "cpa/platform/math_inl.h"

static const double eps = 1e-3;

// Columns go to threads in strips; the sums of a strip stay in registers or the first cache.
enum { STRIP = 64 };

static int strip_width(int cols, int col)
{
    return cols - col < STRIP ? cols - col : STRIP;
}

// Mean, unbiased variance and 1 / standard deviation of the columns [col, col + n) of A.
static void strip_statistics(cpa_mat a, int col, int n, cpa_real *mean, cpa_real *var_unbiased, cpa_real *rstd)
{
    double sum[STRIP] = {0}, square[STRIP] = {0};
    for (int i = 0; i < a.rows; i++) {
        const cpa_real *x = cpa_row(a, i) + col;
#pragma omp simd
        for (int j = 0; j < n; j++) {
            sum[j] += (double)x[j];
        }
    }
    for (int j = 0; j < n; j++) {
        sum[j] /= a.rows;
    }
    for (int i = 0; i < a.rows; i++) {
        const cpa_real *x = cpa_row(a, i) + col;
#pragma omp simd
        for (int j = 0; j < n; j++) {
            double d = (double)x[j] - sum[j];
            square[j] += d * d;
        }
    }
    for (int j = 0; j < n; j++) {
        mean[j] = (cpa_real)sum[j];
        var_unbiased[j] = (cpa_real)(square[j] / (a.rows - 1));
        rstd[j] = (cpa_real)(1 / sqrt(square[j] / a.rows + eps));
    }
}

// What outputs are cut at.
static cpa_real least_output(bool relu)
{
    return relu ? 0 : -INFINITY;
}

cpa_status cpa_cpu_batch_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat var_unbiased,
                              cpa_mat rstd, cpa_mat a, cpa_mat gamma, cpa_mat beta, cpa_mat mask, bool relu)
{
    (void)be;
    const cpa_real least = least_output(relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int col = 0; col < a.cols; col += STRIP) {
        int n = strip_width(a.cols, col);
        cpa_real *m = cpa_reals(mean.data) + col, *r = cpa_reals(rstd.data) + col;
        const cpa_real *scale = cpa_reals(gamma.data) + col, *shift = cpa_reals(beta.data) + col;
        strip_statistics(a, col, n, m, cpa_reals(var_unbiased.data) + col, r);
        for (int i = 0; i < a.rows; i++) {
            const cpa_real *x = cpa_row(a, i) + col, *keep = mask.data != NULL ? cpa_row(mask, i) + col : NULL;
            cpa_real *xh = cpa_row(xhat, i) + col, *out = cpa_row(y, i) + col;
#pragma omp simd
            for (int j = 0; j < n; j++) {
                xh[j] = (x[j] - m[j]) * r[j];
                cpa_real t = scale[j] * xh[j] + shift[j];
                out[j] = t < least ? least : t; // so that NaN stays NaN
            }
            if (keep != NULL) {
#pragma omp simd
                for (int j = 0; j < n; j++) {
                    out[j] *= keep[j];
                }
            }
        }
    }
    return CPA_OK;
}

// What the backward formulas need of a strip, as columns begin there.
typedef struct strip {
    int n, rows;
    double m1[STRIP], m2[STRIP];         // mean(g), mean(g xhat)
    double a[STRIP], b[STRIP], c[STRIP]; // mean(v), mean(v xhat), mean(v g)
} strip;

// Without ReLU there is no gate.
static cpa_gate gate_of(cpa_real keep, bool relu)
{
    return relu ? (cpa_gate){keep, 0} : (cpa_gate){1, 1};
}

static void strip_gradient_means(strip *s, cpa_mat dy, cpa_mat y, cpa_mat xhat, int col, cpa_gate by)
{
    for (int i = 0; i < s->rows; i++) {
        const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
#pragma omp simd
        for (int j = 0; j < s->n; j++) {
            double g = (double)cpa_gated(d[j], out[j], by);
            s->m1[j] += g;
            s->m2[j] += g * (double)xh[j];
        }
    }
    for (int j = 0; j < s->n; j++) {
        s->m1[j] /= s->rows;
        s->m2[j] /= s->rows;
    }
}

cpa_status cpa_cpu_batch_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dgamma, cpa_mat dbeta, cpa_mat dy, cpa_mat y,
                                   cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, cpa_mat q, bool relu)
{
    (void)be;
    const cpa_gate by = gate_of(keep, relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip s = {.n = strip_width(y.cols, col), .rows = y.rows};
        strip_gradient_means(&s, dy, y, xhat, col, by);
        cpa_real m1[STRIP], m2[STRIP], scale[STRIP];
        for (int j = 0; j < s.n; j++) {
            m1[j] = (cpa_real)s.m1[j];
            m2[j] = (cpa_real)s.m2[j];
            scale[j] = cpa_reals(gamma.data)[col + j] * cpa_reals(rstd.data)[col + j];
            if (dgamma.data != NULL) {
                cpa_reals(dgamma.data)[col + j] = (cpa_real)(s.rows * s.m2[j]);
            }
            if (dbeta.data != NULL) {
                cpa_reals(dbeta.data)[col + j] = (cpa_real)(s.rows * s.m1[j]);
            }
        }
        for (int i = 0; i < s.rows; i++) {
            const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
            const cpa_real *more = q.data != NULL ? cpa_row(q, i) + col : NULL;
            cpa_real *to = cpa_row(da, i) + col;
#pragma omp simd
            for (int j = 0; j < s.n; j++) {
                to[j] = scale[j] * (cpa_gated(d[j], out[j], by) - m1[j] - xh[j] * m2[j]);
            }
            if (more != NULL) {
#pragma omp simd
                for (int j = 0; j < s.n; j++) {
                    to[j] += more[j];
                }
            }
        }
    }
    return CPA_OK;
}

static void strip_second_means(strip *s, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, int col, cpa_gate by)
{
    for (int i = 0; i < s->rows; i++) {
        const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
        const cpa_real *up = cpa_row(v, i) + col;
#pragma omp simd
        for (int j = 0; j < s->n; j++) {
            double t = (double)up[j];
            s->a[j] += t;
            s->b[j] += t * (double)xh[j];
            s->c[j] += t * (double)cpa_gated(d[j], out[j], by);
        }
    }
    for (int j = 0; j < s->n; j++) {
        s->a[j] /= s->rows;
        s->b[j] /= s->rows;
        s->c[j] /= s->rows;
    }
}

cpa_status cpa_cpu_batch_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat dgamma, cpa_mat q, cpa_mat v, cpa_mat dy,
                                    cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, bool relu)
{
    (void)be;
    const cpa_gate by = gate_of(keep, relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip s = {.n = strip_width(y.cols, col), .rows = y.rows};
        strip_gradient_means(&s, dy, y, xhat, col, by);
        strip_second_means(&s, v, dy, y, xhat, col, by);
        cpa_real m1[STRIP], m2[STRIP], a[STRIP], b[STRIP], big_q[STRIP], scale[STRIP], rs[STRIP];
        for (int j = 0; j < s.n; j++) {
            double qj = s.c[j] - s.a[j] * s.m1[j] - s.b[j] * s.m2[j];
            m1[j] = (cpa_real)s.m1[j];
            m2[j] = (cpa_real)s.m2[j];
            a[j] = (cpa_real)s.a[j];
            b[j] = (cpa_real)s.b[j];
            big_q[j] = (cpa_real)qj;
            rs[j] = cpa_reals(rstd.data)[col + j];
            scale[j] = cpa_reals(gamma.data)[col + j] * rs[j];
            cpa_reals(dgamma.data)[col + j] += (cpa_real)(s.rows * (double)rs[j] * qj);
        }
        for (int i = 0; i < s.rows; i++) {
            const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
            const cpa_real *up = cpa_row(v, i) + col;
            cpa_real *to = cpa_row(ddy, i) + col, *to_q = cpa_row(q, i) + col;
#pragma omp simd
            for (int j = 0; j < s.n; j++) {
                cpa_real v0 = up[j] - a[j] - xh[j] * b[j];
                cpa_real g0 = cpa_gated(d[j], out[j], by) - m1[j] - xh[j] * m2[j];
                to_q[j] = -scale[j] * rs[j] * (xh[j] * big_q[j] + m2[j] * v0 + b[j] * g0);
                to[j] = cpa_gated(scale[j] * v0, out[j], by);
            }
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_batch_norm_eval(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var,
                                   cpa_mat gamma, cpa_mat beta, bool relu)
{
    (void)be;
    const cpa_real least = least_output(relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int col = 0; col < a.cols; col += STRIP) {
        int n = strip_width(a.cols, col);
        cpa_real centre[STRIP], scale[STRIP];
        const cpa_real *shift = cpa_reals(beta.data) + col;
        for (int j = 0; j < n; j++) {
            double deviation = sqrt((double)cpa_reals(var.data)[col + j] + eps);
            centre[j] = cpa_reals(mean.data)[col + j] - cpa_reals(bias.data)[col + j];
            scale[j] = (cpa_real)((double)cpa_reals(gamma.data)[col + j] / deviation);
        }
        for (int i = 0; i < a.rows; i++) {
            const cpa_real *x = cpa_row(a, i) + col;
            cpa_real *out = cpa_row(y, i) + col;
#pragma omp simd
            for (int j = 0; j < n; j++) {
                cpa_real t = scale[j] * (x[j] - centre[j]) + shift[j];
                out[j] = t < least ? least : t;
            }
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_dropout_mask(cpa_backend *be, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed, uint32_t epoch,
                                uint32_t layer, cpa_real p)
{
    (void)be;
    const cpa_real keep = 1 / (1 - p);
#pragma omp parallel for schedule(static) if (cpa_parallel(mask))
    for (int b = 0; b < mask.rows; b++) {
        cpa_real *to = cpa_row(mask, b);
        for (int h = 0; h < mask.cols; h += 4) {
            uint32_t word[4];
            cpa_philox(seed, CPA_STREAM_DROPOUT,
                       (const uint32_t[4]){(uint32_t)cpa_ints(cell)[b], epoch, layer, (uint32_t)h / 4}, word);
            for (int w = 0; w < 4 && h + w < mask.cols; w++) {
                to[h + w] = (cpa_real)cpa_unit(word[w]) >= p ? keep : 0;
            }
        }
    }
    return CPA_OK;
}
