// Owns: batch norm with ReLU and dropout on the CPU, its first and second derivative, and dropout masks. Statistics are
// summed in double down the rows; never across threads.
#include "backend_cpu_impl.h"

#include <string.h>

#include "cpa/base/rng.h"
#include "cpa/platform/math_inl.h"

static const double eps = 1e-3;

// Columns go to threads in strips; the sums of a strip stay in registers or the first cache.
enum { STRIP = 64 };

static int strip_width(int cols, int col)
{
    return cols - col < STRIP ? cols - col : STRIP;
}

static void strip_sums(cpa_mat a, int col, int n, double *sum)
{
    for (int i = 0; i < a.rows; i++) {
        const cpa_real *x = cpa_row(a, i) + col;
#pragma omp simd
        for (int j = 0; j < n; j++) {
            sum[j] += (double)x[j];
        }
    }
}

static void strip_squares(cpa_mat a, int col, int n, const double *mean, double *square)
{
    for (int i = 0; i < a.rows; i++) {
        const cpa_real *x = cpa_row(a, i) + col;
#pragma omp simd
        for (int j = 0; j < n; j++) {
            double d = (double)x[j] - mean[j];
            square[j] += d * d;
        }
    }
}

// The k-th sum of the columns [col, col + n) of [.., cols].
static void read_sums(double *to, const cpa_dev_f64 *from, int k, int cols, int col, int n)
{
    memcpy(to, cpa_f64s(from) + (int64_t)k * cols + col, (size_t)n * sizeof *to);
}

// Mean, unbiased variance and 1 / standard deviation of the columns [col, col + n) of A, or of all the rows that are pooled.
static void strip_statistics(cpa_mat a, int col, int n, cpa_pooled pooled, cpa_real *mean, cpa_real *var_unbiased,
                             cpa_real *rstd)
{
    double sum[STRIP] = {0}, square[STRIP] = {0}, rows = pooled.all != NULL ? (double)pooled.rows : a.rows;
    if (pooled.all != NULL) {
        read_sums(sum, pooled.all, 0, a.cols, col, n);
        read_sums(square, pooled.all, 1, a.cols, col, n);
    } else {
        strip_sums(a, col, n, sum);
    }
    for (int j = 0; j < n; j++) {
        sum[j] /= rows;
    }
    if (pooled.all == NULL) {
        strip_squares(a, col, n, sum, square);
    }
    for (int j = 0; j < n; j++) {
        mean[j] = (cpa_real)sum[j];
        var_unbiased[j] = (cpa_real)(square[j] / (rows - 1));
        rstd[j] = (cpa_real)(1 / sqrt(square[j] / rows + eps));
    }
}

cpa_status cpa_cpu_batch_norm_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat a, cpa_pooled about)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int col = 0; col < a.cols; col += STRIP) {
        int n = strip_width(a.cols, col);
        double sum[STRIP] = {0}, mean[STRIP];
        if (about.all != NULL) {
            read_sums(mean, about.all, 0, a.cols, col, n);
            for (int j = 0; j < n; j++) {
                mean[j] /= (double)about.rows;
            }
            strip_squares(a, col, n, mean, sum);
        } else {
            strip_sums(a, col, n, sum);
        }
        memcpy(cpa_f64s(sums) + col, sum, (size_t)n * sizeof *sum);
    }
    return CPA_OK;
}

// What outputs are cut at.
static cpa_real least_output(bool relu)
{
    return relu ? 0 : -INFINITY;
}

cpa_status cpa_cpu_batch_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat var_unbiased,
                              cpa_mat rstd, cpa_mat a, cpa_mat gamma, cpa_mat beta, cpa_mat mask, bool relu,
                              cpa_pooled pooled)
{
    (void)be;
    const cpa_real least = least_output(relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int col = 0; col < a.cols; col += STRIP) {
        int n = strip_width(a.cols, col);
        cpa_real *m = cpa_reals(mean.data) + col, *r = cpa_reals(rstd.data) + col;
        const cpa_real *scale = cpa_reals(gamma.data) + col, *shift = cpa_reals(beta.data) + col;
        strip_statistics(a, col, n, pooled, m, cpa_reals(var_unbiased.data) + col, r);
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

// Sums over rows of what the backward formulas need, as columns begin there.
typedef struct strip {
    int n;
    double g[STRIP], gx[STRIP];            // g, g xhat
    double v[STRIP], vx[STRIP], vg[STRIP]; // v, v xhat, v g
} strip;

// Without ReLU there is no gate.
static cpa_gate gate_of(cpa_real keep, bool relu)
{
    return relu ? (cpa_gate){keep, 0} : (cpa_gate){1, 1};
}

static void strip_gradient_sums(strip *s, cpa_mat dy, cpa_mat y, cpa_mat xhat, int col, cpa_gate by)
{
    for (int i = 0; i < y.rows; i++) {
        const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
#pragma omp simd
        for (int j = 0; j < s->n; j++) {
            double g = (double)cpa_gated(d[j], out[j], by);
            s->g[j] += g;
            s->gx[j] += g * (double)xh[j];
        }
    }
}

static void strip_second_sums(strip *s, cpa_mat v, cpa_mat dy, cpa_mat y, cpa_mat xhat, int col, cpa_gate by)
{
    for (int i = 0; i < y.rows; i++) {
        const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
        const cpa_real *up = cpa_row(v, i) + col;
#pragma omp simd
        for (int j = 0; j < s->n; j++) {
            double t = (double)up[j];
            s->v[j] += t;
            s->vx[j] += t * (double)xh[j];
            s->vg[j] += t * (double)cpa_gated(d[j], out[j], by);
        }
    }
}

// The first `n_sums` sums of a strip, from or to [n_sums, cols].
static void strip_read(strip *s, const cpa_dev_f64 *from, int n_sums, int cols, int col)
{
    double *to[] = {s->g, s->gx, s->v, s->vx, s->vg};
    for (int k = 0; k < n_sums; k++) {
        read_sums(to[k], from, k, cols, col, s->n);
    }
}

static void strip_write(const strip *s, cpa_dev_f64 *to, int n_sums, int cols, int col)
{
    const double *from[] = {s->g, s->gx, s->v, s->vx, s->vg};
    for (int k = 0; k < n_sums; k++) {
        memcpy(cpa_f64s(to) + (int64_t)k * cols + col, from[k], (size_t)s->n * sizeof(double));
    }
}

cpa_status cpa_cpu_batch_norm_grad_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat dy, cpa_mat y, cpa_mat xhat,
                                        cpa_real keep, bool relu)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip s = {.n = strip_width(y.cols, col)};
        strip_gradient_sums(&s, dy, y, xhat, col, gate_of(keep, relu));
        strip_write(&s, sums, 2, y.cols, col);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_batch_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dgamma, cpa_mat dbeta, cpa_mat dy, cpa_mat y,
                                   cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, cpa_mat q, bool relu,
                                   cpa_pooled pooled)
{
    (void)be;
    const cpa_gate by = gate_of(keep, relu);
    const double rows = pooled.all != NULL ? (double)pooled.rows : y.rows;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip own = {.n = strip_width(y.cols, col)}, all = own;
        if (pooled.all != NULL) {
            strip_read(&own, pooled.own, 2, y.cols, col);
            strip_read(&all, pooled.all, 2, y.cols, col);
        } else {
            strip_gradient_sums(&own, dy, y, xhat, col, by);
            all = own;
        }
        cpa_real m1[STRIP], m2[STRIP], scale[STRIP];
        for (int j = 0; j < own.n; j++) {
            m1[j] = (cpa_real)(all.g[j] / rows);
            m2[j] = (cpa_real)(all.gx[j] / rows);
            scale[j] = cpa_reals(gamma.data)[col + j] * cpa_reals(rstd.data)[col + j];
            if (dgamma.data != NULL) {
                cpa_reals(dgamma.data)[col + j] = (cpa_real)own.gx[j];
            }
            if (dbeta.data != NULL) {
                cpa_reals(dbeta.data)[col + j] = (cpa_real)own.g[j];
            }
        }
        for (int i = 0; i < y.rows; i++) {
            const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
            const cpa_real *more = q.data != NULL ? cpa_row(q, i) + col : NULL;
            cpa_real *to = cpa_row(da, i) + col;
#pragma omp simd
            for (int j = 0; j < own.n; j++) {
                to[j] = scale[j] * (cpa_gated(d[j], out[j], by) - m1[j] - xh[j] * m2[j]);
            }
            if (more != NULL) {
#pragma omp simd
                for (int j = 0; j < own.n; j++) {
                    to[j] += more[j];
                }
            }
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_batch_norm_grad2_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat v, cpa_mat dy, cpa_mat y,
                                         cpa_mat xhat, cpa_real keep, bool relu)
{
    (void)be;
    const cpa_gate by = gate_of(keep, relu);
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip s = {.n = strip_width(y.cols, col)};
        strip_gradient_sums(&s, dy, y, xhat, col, by);
        strip_second_sums(&s, v, dy, y, xhat, col, by);
        strip_write(&s, sums, 5, y.cols, col);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_batch_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat dgamma, cpa_mat q, cpa_mat v, cpa_mat dy,
                                    cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, bool relu,
                                    cpa_pooled pooled)
{
    (void)be;
    const cpa_gate by = gate_of(keep, relu);
    const double rows = pooled.all != NULL ? (double)pooled.rows : y.rows;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int col = 0; col < y.cols; col += STRIP) {
        strip own = {.n = strip_width(y.cols, col)}, all = own;
        if (pooled.all != NULL) {
            strip_read(&own, pooled.own, 5, y.cols, col);
            strip_read(&all, pooled.all, 5, y.cols, col);
        } else {
            strip_gradient_sums(&own, dy, y, xhat, col, by);
            strip_second_sums(&own, v, dy, y, xhat, col, by);
            all = own;
        }
        cpa_real m1[STRIP], m2[STRIP], a[STRIP], b[STRIP], big_q[STRIP], scale[STRIP], rs[STRIP];
        for (int j = 0; j < own.n; j++) {
            double mean_v = all.v[j] / rows, mean_vx = all.vx[j] / rows;
            m1[j] = (cpa_real)(all.g[j] / rows);
            m2[j] = (cpa_real)(all.gx[j] / rows);
            a[j] = (cpa_real)mean_v;
            b[j] = (cpa_real)mean_vx;
            big_q[j] = (cpa_real)((all.vg[j] - mean_v * all.g[j] - mean_vx * all.gx[j]) / rows);
            rs[j] = cpa_reals(rstd.data)[col + j];
            scale[j] = cpa_reals(gamma.data)[col + j] * rs[j];
            cpa_reals(dgamma.data)[col + j] +=
                (cpa_real)((double)rs[j] * (own.vg[j] - mean_v * own.g[j] - mean_vx * own.gx[j]));
        }
        for (int i = 0; i < y.rows; i++) {
            const cpa_real *d = cpa_row(dy, i) + col, *out = cpa_row(y, i) + col, *xh = cpa_row(xhat, i) + col;
            const cpa_real *up = cpa_row(v, i) + col;
            cpa_real *to = cpa_row(ddy, i) + col, *to_q = cpa_row(q, i) + col;
#pragma omp simd
            for (int j = 0; j < own.n; j++) {
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

cpa_status cpa_cpu_dropout_mask(cpa_backend *be, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed, cpa_number epoch,
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
                       (const uint32_t[4]){(uint32_t)cpa_ints(cell)[b], (uint32_t)epoch.value, layer, (uint32_t)h / 4},
                       word);
            for (int w = 0; w < 4 && h + w < mask.cols; w++) {
                to[h + w] = (cpa_real)cpa_unit(word[w]) >= p ? keep : 0;
            }
        }
    }
    return CPA_OK;
}
