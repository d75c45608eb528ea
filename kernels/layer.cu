// Owns: layer norm and bare activation on the device, with their derivatives. The threads of a row take every so many of its columns,
// summed in double and in a fixed order; never a statistic over cells (batch norm has those).
#include "kernel.h"

static const double eps = 1e-5;

// A block takes CPA_THREADS >> shift rows, each of which has 1 << shift threads. By the shape alone, so that sums have the same order
// on every device.
typedef struct row_cut {
    int rows, cols, shift;
} row_cut;

// The fewer rows there are, the more threads each gets, up to one a column.
static inline row_cut row_cut_of(cpa_mat m)
{
    enum { WARP = 5, BLOCK = 8, ENOUGH = 1 << 18 };
    row_cut c = {m.rows, m.cols, WARP};
    while (c.shift < BLOCK && 1 << c.shift < m.cols && (int64_t)m.rows << c.shift < ENOUGH) {
        c.shift++;
    }
    return c;
}

static inline int64_t row_blocks(row_cut c)
{
    const int at_once = CPA_THREADS >> c.shift;
    return ((int64_t)c.rows + at_once - 1) / at_once;
}

// The share of a thread: columns lane, lane + step, ... < end of a row. Beyond the last row it is empty.
typedef struct row_share {
    int row, lane, end, step;
    int at; // the first thread of the row
} row_share;

CPA_DEVICE row_share row_share_of(row_cut c, int t)
{
    const int64_t row = cpa_block() * (CPA_THREADS >> c.shift) + (t >> c.shift);
    row_share s;
    s.row = row < c.rows ? (int)row : 0;
    s.step = 1 << c.shift;
    s.lane = t & (s.step - 1);
    s.end = row < c.rows ? c.cols : 0;
    s.at = t - s.lane;
    return s;
}

// v [n, CPA_THREADS] holds n sums of each thread. Afterwards v[k * CPA_THREADS + s.at] is sum k of the row.
CPA_DEVICE void add_lanes(double *v, int n, row_cut c)
{
    for (int half = 1 << c.shift >> 1; half > 0; half >>= 1) {
        CPA_EACH(t)
        {
            for (int k = 0; k < n && (t & ((1 << c.shift) - 1)) < half; k++) {
                v[k * CPA_THREADS + t] += v[k * CPA_THREADS + t + half];
            }
        }
    }
}

// sum[s.at] is the row's sum of A + bias, square[s.at] its squares about the mean.
CPA_DEVICE void row_moments(double *sum, double *square, cpa_mat a, cpa_mat bias, row_cut c)
{
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        const cpa_real *x = cpa_row(a, s.row);
        double own = 0;
        for (int j = s.lane; j < s.end; j += s.step) {
            own += (double)(x[j] + cpa_or(bias, 0, j, 0));
        }
        sum[t] = own;
    }
    add_lanes(sum, 1, c);
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        const cpa_real *x = cpa_row(a, s.row);
        const double mean = sum[s.at] / c.cols;
        double own = 0;
        for (int j = s.lane; j < s.end; j += s.step) {
            const double d = (double)(x[j] + cpa_or(bias, 0, j, 0)) - mean;
            own += d * d;
        }
        square[t] = own;
    }
    add_lanes(square, 1, c);
}

CPA_KERNEL normalise(cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_mat a, cpa_mat bias, cpa_mat mask, row_cut c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    CPA_SHARED(double, square, CPA_THREADS);
    row_moments(sum, square, a, bias, c);
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        const cpa_real mean = (cpa_real)(sum[s.at] / c.cols), r = (cpa_real)(1 / sqrt(square[s.at] / c.cols + eps));
        if (s.lane == 0 && s.end > 0 && rstd.data != NULL) {
            cpa_reals(rstd.data)[s.row] = r;
        }
        for (int j = s.lane; j < s.end; j += s.step) {
            const cpa_real keep = cpa_or(mask, s.row, j, 1);
            const cpa_real x = (cpa_row(a, s.row)[j] + cpa_or(bias, 0, j, 0) - mean) * r;
            if (xhat.data != NULL) {
                cpa_row(xhat, s.row)[j] = x;
            }
            cpa_row(y, s.row)[j] = (x < 0 ? 0 : x) * keep; // so that NaN stays NaN
        }
    }
}

cpa_status cpa_cuda_layer_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_mat a, cpa_mat bias,
                               cpa_mat mask)
{
    const row_cut c = row_cut_of(a);
    return CPA_LAUNCH_BLOCKS(be, normalise, row_blocks(c), 0, y, xhat, rstd, a, bias, mask, c);
}

// What the ways back read.
typedef struct way_back {
    cpa_mat dy, y, xhat, rstd;
    cpa_real keep;
} way_back;

CPA_DEVICE cpa_real gated(way_back w, int row, int j)
{
    return cpa_gated(cpa_row(w.dy, row)[j], cpa_row(w.y, row)[j], w.keep, true);
}

enum { FIRST = 2, SECOND = 5 }; // sums a row

CPA_KERNEL input_grad(cpa_mat da, way_back w, cpa_mat q, row_cut c)
{
    CPA_SHARED(double, sums, FIRST *CPA_THREADS); // of g, g xhat
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        double g = 0, gx = 0;
        for (int j = s.lane; j < s.end; j += s.step) {
            const double d = (double)gated(w, s.row, j);
            g += d;
            gx += d * (double)cpa_row(w.xhat, s.row)[j];
        }
        sums[t] = g;
        sums[CPA_THREADS + t] = gx;
    }
    add_lanes(sums, FIRST, c);
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        const double *sum = sums + s.at;
        const cpa_real m1 = (cpa_real)(sum[0] / c.cols), m2 = (cpa_real)(sum[CPA_THREADS] / c.cols);
        const cpa_real r = cpa_reals(w.rstd.data)[s.row];
        for (int j = s.lane; j < s.end; j += s.step) {
            const cpa_real d = gated(w, s.row, j) - m1 - cpa_row(w.xhat, s.row)[j] * m2;
            cpa_row(da, s.row)[j] = r * d + cpa_or(q, s.row, j, 0);
        }
    }
}

cpa_status cpa_cuda_layer_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd,
                                    cpa_real keep, cpa_mat q)
{
    const way_back w = {dy, y, xhat, rstd, keep};
    const row_cut c = row_cut_of(y);
    return CPA_LAUNCH_BLOCKS(be, input_grad, row_blocks(c), 0, da, w, q, c);
}

// A block's sums over its rows' columns of g, g xhat, v, v xhat, v g.
CPA_DEVICE void second_sums(double *sums, way_back w, cpa_mat v, row_cut c)
{
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        double own[SECOND] = {0, 0, 0, 0, 0};
        for (int j = s.lane; j < s.end; j += s.step) {
            cpa_add_second_order(own, gated(w, s.row, j), cpa_row(w.xhat, s.row)[j], cpa_row(v, s.row)[j]);
        }
        for (int k = 0; k < SECOND; k++) {
            sums[k * CPA_THREADS + t] = own[k];
        }
    }
    add_lanes(sums, SECOND, c);
}

CPA_KERNEL input_grad2(cpa_mat ddy, cpa_mat q, cpa_mat v, way_back w, row_cut c)
{
    CPA_SHARED(double, sums, SECOND *CPA_THREADS);
    second_sums(sums, w, v, c);
    CPA_EACH(t)
    {
        const row_share s = row_share_of(c, t);
        const double *sum = sums + s.at, per = 1 / (double)c.cols;
        const double g = sum[0] * per, gx = sum[CPA_THREADS] * per, mv = sum[2 * CPA_THREADS] * per;
        const double vx = sum[3 * CPA_THREADS] * per;
        const cpa_real m1 = (cpa_real)g, m2 = (cpa_real)gx, a = (cpa_real)mv, b = (cpa_real)vx;
        const cpa_real big_q = (cpa_real)(sum[4 * CPA_THREADS] * per - mv * g - vx * gx);
        const cpa_real r = cpa_reals(w.rstd.data)[s.row];
        for (int j = s.lane; j < s.end; j += s.step) {
            const cpa_real x = cpa_row(w.xhat, s.row)[j], out = cpa_row(w.y, s.row)[j];
            const cpa_real v0 = cpa_row(v, s.row)[j] - a - x * b, g0 = gated(w, s.row, j) - m1 - x * m2;
            cpa_row(q, s.row)[j] = -r * r * (x * big_q + m2 * v0 + b * g0);
            cpa_row(ddy, s.row)[j] = cpa_gated(r * v0, out, w.keep, true);
        }
    }
}

cpa_status cpa_cuda_layer_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y,
                                     cpa_mat xhat, cpa_mat rstd, cpa_real keep)
{
    const way_back w = {dy, y, xhat, rstd, keep};
    const row_cut c = row_cut_of(y);
    return CPA_LAUNCH_BLOCKS(be, input_grad2, row_blocks(c), 0, ddy, q, v, w, c);
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
