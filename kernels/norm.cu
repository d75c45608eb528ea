// Owns: batch norm with ReLU and dropout on the device, its first and second derivative, and dropout masks. Blocks sum patches of
// columns in double and in a fixed order (columns.h); never a difference of large sums.
#include "columns.h"

static const double eps = 1e-3;

// What outputs are cut at.
static inline cpa_real least_output(bool relu)
{
    return relu ? 0 : -INFINITY;
}

// How a second launch, or the only one, cuts rows. Sums that were pooled need none here, so that rows can be spread further.
static inline cpa_cut cut_of(cpa_mat a, cpa_pooled pooled)
{
    return cpa_cut_of(a, pooled.all != NULL ? CPA_CHUNK : CPA_ALONE);
}

// The sum of a thread's rows.
CPA_DEVICE double share_sum(cpa_mat a, cpa_share s)
{
    double sum = 0;
    for (int i = s.first; i < s.end; i += s.step) {
        sum += (double)cpa_row(a, i)[s.col];
    }
    return sum;
}

// Their squares about a mean.
CPA_DEVICE double share_squares(cpa_mat a, cpa_share s, double mean)
{
    double square = 0;
    for (int i = s.first; i < s.end; i += s.step) {
        const double d = (double)cpa_row(a, i)[s.col] - mean;
        square += d * d;
    }
    return square;
}

// Of the block's rows and columns: moments[s.at] is a column's sum, moments[CPA_THREADS + s.at] its squares about the mean.
CPA_DEVICE void chunk_moments(double *moments, cpa_mat a, cpa_cut c)
{
    CPA_EACH(t)
    {
        moments[t] = share_sum(a, cpa_share_of(c, t));
    }
    cpa_add_lanes(moments, 1, c);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        moments[CPA_THREADS + t] = share_squares(a, s, moments[s.at] / cpa_rows_of_chunk(c, s.chunk));
    }
    cpa_add_lanes(moments + CPA_THREADS, 1, c);
}

// The same of all rows, from what the chunks have left in part [chunks, 2, cols], the mean instead of the sum: squares about the mean of
// all are those about a chunk's own and, for each of its rows, the square from one mean to the other.
CPA_DEVICE void all_moments(double *moments, const double *part, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        const int end = s.col < c.cols ? c.chunks : 0;
        double sum = 0;
        for (int chunk = s.lane; chunk < end; chunk += s.step) {
            sum += cpa_rows_of_chunk(c, chunk) * part[(int64_t)chunk * 2 * c.cols + s.col];
        }
        moments[t] = sum;
    }
    cpa_add_lanes(moments, 1, c);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        const int end = s.col < c.cols ? c.chunks : 0;
        const double mean = moments[s.at] / c.rows;
        double square = 0;
        for (int chunk = s.lane; chunk < end; chunk += s.step) {
            const double *own = part + (int64_t)chunk * 2 * c.cols + s.col, away = own[0] - mean;
            square += own[c.cols] + cpa_rows_of_chunk(c, chunk) * away * away;
        }
        moments[CPA_THREADS + t] = square;
    }
    cpa_add_lanes(moments + CPA_THREADS, 1, c);
}

CPA_KERNEL statistics(double *part, cpa_mat a, cpa_cut c)
{
    CPA_SHARED(double, moments, 2 * CPA_THREADS);
    chunk_moments(moments, a, c);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.lane == 0) {
            moments[s.at] /= cpa_rows_of_chunk(c, s.chunk);
        }
    }
    cpa_leave_sums(part, moments, 2, c);
}

typedef struct forward {
    cpa_mat y, xhat, mean, var_unbiased, rstd, a, gamma, beta, mask;
    cpa_real least;
    cpa_pooled pooled;
} forward;

CPA_DEVICE void normalise_share(forward f, cpa_share s, cpa_real mean, cpa_real rstd)
{
    const cpa_real gamma = cpa_reals(f.gamma.data)[s.col], beta = cpa_reals(f.beta.data)[s.col];
    for (int i = s.first; i < s.end; i += CPA_AT_ONCE * s.step) {
        cpa_real a[CPA_AT_ONCE], keep[CPA_AT_ONCE];
        for (int u = 0; u < CPA_AT_ONCE; u++) {
            const int row = cpa_share_row(s, i, u);
            a[u] = cpa_row(f.a, row)[s.col];
            keep[u] = cpa_or(f.mask, row, s.col, 1);
        }
        for (int u = 0; u < CPA_AT_ONCE && i + u * s.step < s.end; u++) {
            const cpa_real x = (a[u] - mean) * rstd, t = gamma * x + beta;
            cpa_row(f.xhat, i + u * s.step)[s.col] = x;
            cpa_row(f.y, i + u * s.step)[s.col] = (t < f.least ? f.least : t) * keep[u]; // so that NaN stays NaN
        }
    }
}

CPA_KERNEL normalise(forward f, const double *part, cpa_cut c)
{
    CPA_SHARED(double, moments, 2 * CPA_THREADS);
    const double *all = cpa_f64s(f.pooled.all), rows = all != NULL ? (double)f.pooled.rows : (double)c.rows;
    if (all != NULL) {
        cpa_take_sums(moments, all, 2, c);
    } else if (c.chunks > 1) {
        all_moments(moments, part, c);
    } else {
        chunk_moments(moments, f.a, c);
    }
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.col >= c.cols) {
            continue;
        }
        const double mean = moments[s.at] / rows, square = moments[CPA_THREADS + s.at];
        const cpa_real rstd = (cpa_real)(1 / sqrt(square / rows + eps));
        if (s.chunk == 0 && s.lane == 0) {
            cpa_reals(f.mean.data)[s.col] = (cpa_real)mean;
            cpa_reals(f.var_unbiased.data)[s.col] = (cpa_real)(square / (rows - 1));
            cpa_reals(f.rstd.data)[s.col] = rstd;
        }
        normalise_share(f, s, (cpa_real)mean, rstd);
    }
}

cpa_status cpa_cuda_batch_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat var_unbiased,
                               cpa_mat rstd, cpa_mat a, cpa_mat gamma, cpa_mat beta, cpa_mat mask, bool relu,
                               cpa_pooled pooled)
{
    const forward f = {y, xhat, mean, var_unbiased, rstd, a, gamma, beta, mask, least_output(relu), pooled};
    const cpa_cut c = cut_of(a, pooled);
    double *part = NULL;
    if (pooled.all == NULL && c.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, cpa_cut_sums(c, 2) * sizeof *part, &part));
        CPA_STEP(CPA_LAUNCH_BLOCKS(be, statistics, cpa_cut_blocks(c), 0, part, a, c));
    }
    return CPA_LAUNCH_BLOCKS(be, normalise, cpa_cut_blocks(c), 0, f, part, c);
}

// ---- sums for others to pool ----

static inline double *sums_of(cpa_dev_f64 *sums)
{
    return (double *)(uintptr_t)sums;
}

// sums [width] = the sums of the chunks, part [chunks, width]; c is the cut of such a matrix with all its rows as one chunk.
CPA_KERNEL chunk_totals(double *sums, const double *part, cpa_cut c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        double own = 0;
        for (int i = s.first; i < s.end; i += s.step) {
            own += part[(int64_t)i * c.cols + s.col];
        }
        sum[t] = own;
    }
    cpa_add_lanes(sum, 1, c);
    cpa_leave_sums(sums, sum, 1, c);
}

// Where the chunks' n sums a column go: into scratch, for add_chunks, or where they are wanted if there is only one chunk.
static cpa_status room_for_sums(cpa_backend *be, cpa_cut c, int n, double *sums, double **room)
{
    *room = sums;
    return c.chunks > 1 ? cpa_cuda_scratch(be, cpa_cut_sums(c, n) * sizeof **room, room) : CPA_OK;
}

static cpa_status add_chunks(cpa_backend *be, double *sums, const double *part, int n, cpa_cut c)
{
    if (c.chunks == 1) {
        return CPA_OK;
    }
    const cpa_mat as_matrix = {NULL, c.chunks, n * c.cols, n * c.cols, false};
    const cpa_cut whole = cpa_cut_of(as_matrix, c.chunks);
    return CPA_LAUNCH_BLOCKS(be, chunk_totals, cpa_cut_blocks(whole), 0, sums, part, whole);
}

CPA_KERNEL norm_sums(double *sums, cpa_mat a, cpa_pooled about, cpa_cut c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    const double *all = cpa_f64s(about.all);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        sum[t] = s.end == 0 ? 0 : all != NULL ? share_squares(a, s, all[s.col] / (double)about.rows) : share_sum(a, s);
    }
    cpa_add_lanes(sum, 1, c);
    cpa_leave_sums(sums, sum, 1, c);
}

cpa_status cpa_cuda_batch_norm_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat a, cpa_pooled about)
{
    const cpa_cut c = cpa_cut_of(a, CPA_ALONE);
    double *part;
    CPA_STEP(room_for_sums(be, c, 1, sums_of(sums), &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, norm_sums, cpa_cut_blocks(c), 0, part, a, about, c));
    return add_chunks(be, sums_of(sums), part, 1, c);
}

// ---- derivatives ----

// What the ways back read; v in the second order alone.
typedef struct way_back {
    cpa_mat v, dy, y, xhat;
    cpa_real keep;
    bool relu;
} way_back;

enum { FIRST = 2, SECOND = 5 }; // sums a column

// A block's sums over its rows of g, g xhat.
CPA_DEVICE void first_sums(double *sums, way_back w, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        double g = 0, gx = 0;
        for (int i = s.first; i < s.end; i += s.step) {
            const double d = (double)cpa_gated(cpa_row(w.dy, i)[s.col], cpa_row(w.y, i)[s.col], w.keep, w.relu);
            g += d;
            gx += d * (double)cpa_row(w.xhat, i)[s.col];
        }
        sums[t] = g;
        sums[CPA_THREADS + t] = gx;
    }
    cpa_add_lanes(sums, FIRST, c);
}

// Of g, g xhat, v, v xhat, v g.
CPA_DEVICE void second_sums(double *sums, way_back w, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        double own[SECOND] = {0, 0, 0, 0, 0};
        for (int i = s.first; i < s.end; i += s.step) {
            const cpa_real g = cpa_gated(cpa_row(w.dy, i)[s.col], cpa_row(w.y, i)[s.col], w.keep, w.relu);
            cpa_add_second_order(own, g, cpa_row(w.xhat, i)[s.col], cpa_row(w.v, i)[s.col]);
        }
        for (int k = 0; k < SECOND; k++) {
            sums[k * CPA_THREADS + t] = own[k];
        }
    }
    cpa_add_lanes(sums, SECOND, c);
}

CPA_KERNEL grad_sums(double *to, way_back w, cpa_cut c)
{
    CPA_SHARED(double, sums, FIRST *CPA_THREADS);
    first_sums(sums, w, c);
    cpa_leave_sums(to, sums, FIRST, c);
}

CPA_KERNEL grad2_sums(double *to, way_back w, cpa_cut c)
{
    CPA_SHARED(double, sums, SECOND *CPA_THREADS);
    second_sums(sums, w, c);
    cpa_leave_sums(to, sums, SECOND, c);
}

cpa_status cpa_cuda_batch_norm_grad_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat dy, cpa_mat y, cpa_mat xhat,
                                         cpa_real keep, bool relu)
{
    const way_back w = {CPA_NO_MAT, dy, y, xhat, keep, relu};
    const cpa_cut c = cpa_cut_of(y, CPA_ALONE);
    double *part;
    CPA_STEP(room_for_sums(be, c, FIRST, sums_of(sums), &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, grad_sums, cpa_cut_blocks(c), 0, part, w, c));
    return add_chunks(be, sums_of(sums), part, FIRST, c);
}

cpa_status cpa_cuda_batch_norm_grad2_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat v, cpa_mat dy, cpa_mat y,
                                          cpa_mat xhat, cpa_real keep, bool relu)
{
    const way_back w = {v, dy, y, xhat, keep, relu};
    const cpa_cut c = cpa_cut_of(y, CPA_ALONE);
    double *part;
    CPA_STEP(room_for_sums(be, c, SECOND, sums_of(sums), &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, grad2_sums, cpa_cut_blocks(c), 0, part, w, c));
    return add_chunks(be, sums_of(sums), part, SECOND, c);
}

typedef struct gradient {
    way_back w;
    cpa_mat da, dgamma, dbeta, gamma, rstd, q;
    cpa_pooled pooled;
} gradient;

// da of a thread's rows, with the means of g and g xhat.
CPA_DEVICE void input_grad_share(gradient f, cpa_share s, cpa_real m1, cpa_real m2)
{
    const cpa_real scale = cpa_reals(f.gamma.data)[s.col] * cpa_reals(f.rstd.data)[s.col];
    for (int i = s.first; i < s.end; i += CPA_AT_ONCE * s.step) {
        cpa_real dy[CPA_AT_ONCE], y[CPA_AT_ONCE], x[CPA_AT_ONCE], q[CPA_AT_ONCE];
        for (int u = 0; u < CPA_AT_ONCE; u++) {
            const int row = cpa_share_row(s, i, u);
            dy[u] = cpa_row(f.w.dy, row)[s.col];
            y[u] = cpa_row(f.w.y, row)[s.col];
            x[u] = cpa_row(f.w.xhat, row)[s.col];
            q[u] = cpa_or(f.q, row, s.col, 0);
        }
        for (int u = 0; u < CPA_AT_ONCE && i + u * s.step < s.end; u++) {
            const cpa_real g = cpa_gated(dy[u], y[u], f.w.keep, f.w.relu);
            cpa_row(f.da, i + u * s.step)[s.col] = scale * (g - m1 - x[u] * m2) + q[u];
        }
    }
}

CPA_KERNEL input_grad(gradient f, const double *part, cpa_cut c)
{
    CPA_SHARED(double, sums, FIRST *CPA_THREADS);
    const double *all = cpa_f64s(f.pooled.all), *own = cpa_f64s(f.pooled.own);
    const double rows = all != NULL ? (double)f.pooled.rows : (double)c.rows;
    if (all != NULL) {
        cpa_take_sums(sums, all, FIRST, c);
    } else if (c.chunks > 1) {
        cpa_add_chunks(sums, part, FIRST, c);
    } else {
        first_sums(sums, f.w, c);
    }
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.col >= c.cols) {
            continue;
        }
        const double g = sums[s.at], gx = sums[CPA_THREADS + s.at];
        if (s.chunk == 0 && s.lane == 0 && f.dgamma.data != NULL) {
            cpa_reals(f.dgamma.data)[s.col] = (cpa_real)(all != NULL ? own[c.cols + s.col] : gx);
        }
        if (s.chunk == 0 && s.lane == 0 && f.dbeta.data != NULL) {
            cpa_reals(f.dbeta.data)[s.col] = (cpa_real)(all != NULL ? own[s.col] : g);
        }
        input_grad_share(f, s, (cpa_real)(g / rows), (cpa_real)(gx / rows));
    }
}

cpa_status cpa_cuda_batch_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dgamma, cpa_mat dbeta, cpa_mat dy, cpa_mat y,
                                    cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, cpa_mat q, bool relu,
                                    cpa_pooled pooled)
{
    const gradient f = {{CPA_NO_MAT, dy, y, xhat, keep, relu}, da, dgamma, dbeta, gamma, rstd, q, pooled};
    const cpa_cut c = cut_of(y, pooled);
    double *part = NULL;
    if (pooled.all == NULL && c.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, cpa_cut_sums(c, FIRST) * sizeof *part, &part));
        CPA_STEP(CPA_LAUNCH_BLOCKS(be, grad_sums, cpa_cut_blocks(c), 0, part, f.w, c));
    }
    return CPA_LAUNCH_BLOCKS(be, input_grad, cpa_cut_blocks(c), 0, f, part, c);
}

typedef struct gradient2 {
    way_back w;
    cpa_mat ddy, dgamma, q, gamma, rstd;
    cpa_pooled pooled;
} gradient2;

// The means of a column that its rows' second order takes.
typedef struct means2 {
    cpa_real m1, m2, a, b, big_q;
} means2;

CPA_DEVICE void input_grad2_share(gradient2 f, cpa_share s, means2 m)
{
    const cpa_real r = cpa_reals(f.rstd.data)[s.col], scale = cpa_reals(f.gamma.data)[s.col] * r;
    for (int i = s.first; i < s.end; i += CPA_AT_ONCE * s.step) {
        cpa_real v[CPA_AT_ONCE], dy[CPA_AT_ONCE], y[CPA_AT_ONCE], x[CPA_AT_ONCE];
        for (int u = 0; u < CPA_AT_ONCE; u++) {
            const int row = cpa_share_row(s, i, u);
            v[u] = cpa_row(f.w.v, row)[s.col];
            dy[u] = cpa_row(f.w.dy, row)[s.col];
            y[u] = cpa_row(f.w.y, row)[s.col];
            x[u] = cpa_row(f.w.xhat, row)[s.col];
        }
        for (int u = 0; u < CPA_AT_ONCE && i + u * s.step < s.end; u++) {
            const int row = i + u * s.step;
            const cpa_real v0 = v[u] - m.a - x[u] * m.b;
            const cpa_real g0 = cpa_gated(dy[u], y[u], f.w.keep, f.w.relu) - m.m1 - x[u] * m.m2;
            cpa_row(f.q, row)[s.col] = -scale * r * (x[u] * m.big_q + m.m2 * v0 + m.b * g0);
            cpa_row(f.ddy, row)[s.col] = cpa_gated(scale * v0, y[u], f.w.keep, f.w.relu);
        }
    }
}

// What the sums of a column over all rows come to, and dgamma's share of the rows at hand: their sum(v g) - mean(v) sum(g) -
// mean(v xhat) sum(g xhat).
CPA_DEVICE means2 column_means2(gradient2 f, const double *sums, cpa_share s, cpa_cut c)
{
    const double *own = cpa_f64s(f.pooled.own);
    const bool pooled = f.pooled.all != NULL;
    const double g = sums[s.at], gx = sums[CPA_THREADS + s.at], vg = sums[4 * CPA_THREADS + s.at];
    const double per_row = 1 / (pooled ? (double)f.pooled.rows : (double)c.rows);
    const double a = sums[2 * CPA_THREADS + s.at] * per_row, b = sums[3 * CPA_THREADS + s.at] * per_row;
    const double cross = vg - a * g - b * gx;
    if (s.chunk == 0 && s.lane == 0) {
        const double share =
            pooled ? own[4 * (int64_t)c.cols + s.col] - a * own[s.col] - b * own[c.cols + s.col] : cross;
        cpa_reals(f.dgamma.data)[s.col] += (cpa_real)((double)cpa_reals(f.rstd.data)[s.col] * share);
    }
    const means2 m = {(cpa_real)(g * per_row), (cpa_real)(gx * per_row), (cpa_real)a, (cpa_real)b,
                      (cpa_real)(cross * per_row)};
    return m;
}

CPA_KERNEL input_grad2(gradient2 f, const double *part, cpa_cut c)
{
    CPA_SHARED(double, sums, SECOND *CPA_THREADS);
    if (f.pooled.all != NULL) {
        cpa_take_sums(sums, cpa_f64s(f.pooled.all), SECOND, c);
    } else if (c.chunks > 1) {
        cpa_add_chunks(sums, part, SECOND, c);
    } else {
        second_sums(sums, f.w, c);
    }
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.col < c.cols) {
            input_grad2_share(f, s, column_means2(f, sums, s, c));
        }
    }
}

cpa_status cpa_cuda_batch_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat dgamma, cpa_mat q, cpa_mat v, cpa_mat dy,
                                     cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, bool relu,
                                     cpa_pooled pooled)
{
    const gradient2 f = {{v, dy, y, xhat, keep, relu}, ddy, dgamma, q, gamma, rstd, pooled};
    const cpa_cut c = cut_of(y, pooled);
    double *part = NULL;
    if (pooled.all == NULL && c.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, cpa_cut_sums(c, SECOND) * sizeof *part, &part));
        CPA_STEP(CPA_LAUNCH_BLOCKS(be, grad2_sums, cpa_cut_blocks(c), 0, part, f.w, c));
    }
    return CPA_LAUNCH_BLOCKS(be, input_grad2, cpa_cut_blocks(c), 0, f, part, c);
}

// ---- evaluation, masks ----

CPA_KERNEL norm_eval(cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var, cpa_mat gamma, cpa_mat beta,
                     cpa_real least, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        const int j = s.col;
        if (j >= c.cols) {
            continue;
        }
        const double deviation = sqrt((double)cpa_reals(var.data)[j] + eps);
        const cpa_real centre = cpa_reals(mean.data)[j] - cpa_reals(bias.data)[j], shift = cpa_reals(beta.data)[j];
        const cpa_real scale = (cpa_real)((double)cpa_reals(gamma.data)[j] / deviation);
        for (int i = s.first; i < s.end; i += CPA_AT_ONCE * s.step) {
            cpa_real x[CPA_AT_ONCE];
            for (int u = 0; u < CPA_AT_ONCE; u++) {
                x[u] = cpa_row(a, cpa_share_row(s, i, u))[j];
            }
            for (int u = 0; u < CPA_AT_ONCE && i + u * s.step < s.end; u++) {
                const cpa_real out = scale * (x[u] - centre) + shift;
                cpa_row(y, i + u * s.step)[j] = out < least ? least : out;
            }
        }
    }
}

cpa_status cpa_cuda_batch_norm_eval(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var,
                                    cpa_mat gamma, cpa_mat beta, bool relu)
{
    const cpa_cut c = cpa_cut_of(a, CPA_CHUNK);
    return CPA_LAUNCH_BLOCKS(be, norm_eval, cpa_cut_blocks(c), 0, y, a, bias, mean, var, gamma, beta,
                             least_output(relu), c);
}

// A thread for four columns of a row, which share a draw.
CPA_KERNEL dropout_mask(int64_t n, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed, cpa_number epoch,
                        uint32_t layer, cpa_real p)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int quads = (mask.cols + 3) / 4, row = (int)cpa_quotient(i, quads), quad = (int)(i - (int64_t)row * quads);
    const uint32_t counter[4] = {(uint32_t)cpa_ints(cell)[row], (uint32_t)cpa_value_of(epoch), layer, (uint32_t)quad};
    uint32_t word[4];
    cpa_philox(seed, CPA_STREAM_DROPOUT, counter, word);
    for (int w = 0; w < 4 && 4 * quad + w < mask.cols; w++) {
        cpa_row(mask, row)[4 * quad + w] = (cpa_real)cpa_unit(word[w]) >= p ? 1 / (1 - p) : 0;
    }
}

cpa_status cpa_cuda_dropout_mask(cpa_backend *be, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed,
                                 cpa_number epoch, uint32_t layer, cpa_real p)
{
    return CPA_LAUNCH(be, dropout_mask, (int64_t)mask.rows * ((mask.cols + 3) / 4), mask, cell, seed, epoch, layer, p);
}
