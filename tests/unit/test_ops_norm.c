// Owns: conformance of batch norm, its two derivatives and dropout masks: values against two-pass formulas in double,
// derivatives against finite differences of them. Never another family's.
#include "../support/ops.h"

static const double eps = 1e-3;
static const int sizes[][2] = {{1, 3},    {2, 1},     {3, 65},  {31, 33},  {33, 64},
                               {128, 31}, {130, 300}, {513, 2}, {700, 40}, {8200, 3}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

// Everything a batch norm has, in double; P is a scalar made of its results.
typedef struct norm {
    int rows, cols;
    bool relu;
    double keep;
    double *a, *gamma, *beta, *mask;      // inputs
    double *mean, *var, *rstd, *xhat, *y; // results
    double *gate;                         // keep where the recorded Y > 0; 1 everywhere without relu
    double *dy, *da, *v;                  // gradient in, gradient out, gradient of P by da
} norm;

static double *doubles(int n)
{
    return host((size_t)n, sizeof(double));
}

static void column_statistics(norm *s, int j)
{
    double m = 0, q = 0;
    for (int i = 0; i < s->rows; i++) {
        m += s->a[i * s->cols + j] / s->rows;
    }
    for (int i = 0; i < s->rows; i++) {
        q += (s->a[i * s->cols + j] - m) * (s->a[i * s->cols + j] - m);
    }
    s->mean[j] = m;
    s->var[j] = q / (s->rows - 1);
    s->rstd[j] = 1 / sqrt(q / s->rows + eps);
}

static void forward(norm *s)
{
    for (int j = 0; j < s->cols; j++) {
        column_statistics(s, j);
        for (int i = 0; i < s->rows; i++) {
            int at = i * s->cols + j;
            s->xhat[at] = (s->a[at] - s->mean[j]) * s->rstd[j];
            double t = s->gamma[j] * s->xhat[at] + s->beta[j];
            s->y[at] = s->relu ? s->mask[at] * fmax(0, t) : t;
        }
    }
}

// dA as the definition of the operation has it, for the gate of the recorded Y.
static void backward(norm *s)
{
    forward(s);
    for (int j = 0; j < s->cols; j++) {
        double m1 = 0, m2 = 0;
        for (int i = 0; i < s->rows; i++) {
            int at = i * s->cols + j;
            m1 += s->dy[at] * s->gate[at] / s->rows;
            m2 += s->dy[at] * s->gate[at] * s->xhat[at] / s->rows;
        }
        for (int i = 0; i < s->rows; i++) {
            int at = i * s->cols + j;
            s->da[at] = s->gamma[j] * s->rstd[j] * (s->dy[at] * s->gate[at] - m1 - s->xhat[at] * m2);
        }
    }
}

// P = sum dY Y: its derivatives are what the backward operation gives.
static double first_order(void *arg)
{
    norm *s = arg;
    double p = 0;
    forward(s);
    for (int i = 0; i < s->rows * s->cols; i++) {
        p += s->dy[i] * s->y[i];
    }
    return p;
}

// P = sum v dA: its derivatives are what the second backward operation gives.
static double second_order(void *arg)
{
    norm *s = arg;
    double p = 0;
    backward(s);
    for (int i = 0; i < s->rows * s->cols; i++) {
        p += s->v[i] * s->da[i];
    }
    return p;
}

// Inputs on the backend, and their copies in double.
typedef struct setting {
    norm s;
    mat a, gamma, beta, mask;
} setting;

// What follows the norm: ReLU, ReLU and dropout, nothing. Without ReLU the keep that is given must not matter.
enum { RELU, DROPOUT, LINEAR, N_MODES };

static setting make(int rows, int cols, int mode, int pad)
{
    setting t = {.s = {.rows = rows, .cols = cols, .relu = mode != LINEAR, .keep = mode == RELU ? 1 : 1.25}};
    int n = rows * cols;
    t.a = put_uniform(rows, cols, pad, -2, 3);
    t.gamma = put_uniform(1, cols, 0, -1.5, 1.5);
    t.beta = put_uniform(1, cols, 0, -0.5, 0.5);
    double *mask = doubles(n);
    for (int i = 0; i < n; i++) {
        mask[i] = mode != DROPOUT ? 1 : uniform(0, 1) < 0.2 ? 0 : 1.25;
    }
    t.mask = put_values(rows, cols, pad, mask);
    norm *s = &t.s;
    s->a = t.a.h;
    s->gamma = t.gamma.h;
    s->beta = t.beta.h;
    s->mask = t.mask.h;
    s->mean = doubles(cols);
    s->var = doubles(cols);
    s->rstd = doubles(cols);
    s->xhat = doubles(n);
    s->y = doubles(n);
    s->gate = doubles(n);
    s->da = doubles(n);
    forward(s);
    for (int i = 0; i < n; i++) {
        s->gate[i] = !s->relu ? 1 : s->y[i] > 0 ? s->keep : 0;
    }
    return t;
}

static double *copy_of(const double *x, int n)
{
    double *c = doubles(n);
    memcpy(c, x, (size_t)n * sizeof *c);
    return c;
}

static void case_batch_norm(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_nan(rows, cols, 1), xhat = put_nan(rows, cols, 2);
        mat mean = put_nan(1, cols, 0), var = put_nan(1, cols, 0), rstd = put_nan(1, cols, 0);
        OK(cpa_op_batch_norm(be, y.m, xhat.m, mean.m, var.m, rstd.m, t.a.m, t.gamma.m, t.beta.m,
                             i % N_MODES == DROPOUT ? t.mask.m : CPA_NO_MAT, t.s.relu, CPA_NOT_POOLED));
        near("batch_norm, mean", get(mean), t.s.mean, cols, tolerance);
        near("batch_norm, rstd", get(rstd), t.s.rstd, cols, tolerance);
        if (rows > 1) {
            near("batch_norm, var", get(var), t.s.var, cols, tolerance);
            near("batch_norm, xhat", get(xhat), t.s.xhat, n, tolerance);
        }
        near("batch_norm, Y", get(y), t.s.y, n, tolerance);
        mat again = put_nan(rows, cols, 1);
        OK(cpa_op_batch_norm(be, again.m, t.a.m, mean.m, var.m, rstd.m, t.a.m, t.gamma.m, t.beta.m,
                             i % N_MODES == DROPOUT ? t.mask.m : CPA_NO_MAT, t.s.relu, CPA_NOT_POOLED));
        near("batch_norm, xhat in place of A", get(t.a), get(xhat), n, 0);
        near("batch_norm, Y where xhat is in place of A", get(again), get(y), n, 0);
        DROP(again);
        DROP(y, xhat, mean, var, rstd, t.a, t.gamma, t.beta, t.mask);
    }
    // A mean far from 0: the variance must not be a difference of squares. NaN must show.
    mat a = put_uniform(33, 5, 0, 1000, 1001), out = put_nan(33, 5, 0), xhat = put_nan(33, 5, 0);
    mat mean = put_nan(1, 5, 0), var = put_nan(1, 5, 0), rstd = put_nan(1, 5, 0), one = put_uniform(1, 5, 0, 1, 1);
    norm s = {.rows = 33, .cols = 5, .a = a.h, .mean = doubles(5), .var = doubles(5), .rstd = doubles(5)};
    for (int j = 0; j < 5; j++) {
        column_statistics(&s, j);
    }
    OK(cpa_op_batch_norm(be, out.m, xhat.m, mean.m, var.m, rstd.m, a.m, one.m, one.m, CPA_NO_MAT, true,
                         CPA_NOT_POOLED));
    near("batch_norm, var far from 0", get(var), s.var, 5, tolerance);
    a.h[7] = NAN;
    mat bad = put_values(33, 5, 0, a.h);
    for (int relu = 0; relu < 2; relu++) {
        OK(cpa_op_batch_norm(be, out.m, xhat.m, mean.m, var.m, rstd.m, bad.m, one.m, one.m, CPA_NO_MAT, relu,
                             CPA_NOT_POOLED));
        assert_true(isnan(get(out)[2]));
    }
    assert_int_equal(
        cpa_op_batch_norm(be, out.m, xhat.m, mean.m, var.m, rstd.m, a.m, one.m, one.m, a.m, false, CPA_NOT_POOLED),
        CPA_INTERNAL);
    DROP(a, out, xhat, mean, var, rstd, one, bad);
}

// ---- the rows as lanes, of unequal sizes and one of them empty, that pool their sums ----

enum { N_PIECES = 4 };

// The rows of piece k: [first(k), first(k + 1)).
static int first_row(int rows, int k)
{
    const int at[N_PIECES + 1] = {0, 1, 1, 1 + (rows - 1) / 3, rows};
    return at[k];
}

static cpa_mat piece(cpa_mat m, int k)
{
    int first = first_row(m.rows, k);
    return m.data ? (cpa_mat){cpa_real_at(m.data, (int64_t)first * m.ld), first_row(m.rows, k + 1) - first, m.cols,
                              m.ld, false}
                  : m;
}

// Sums of all pieces, on the host and on the backend.
typedef struct pool {
    cpa_dev_f64 *own[N_PIECES], *all;
    double *sum;
    int n;
    int64_t rows;
} pool;

static pool make_pool(int n, int rows)
{
    pool p = {.all = new_sums(n), .sum = doubles(n), .n = n, .rows = rows};
    for (int k = 0; k < N_PIECES; k++) {
        p.own[k] = new_sums(n);
    }
    return p;
}

// Adds up the sums [from, from + n) of the pieces.
static void fill_pool(pool *p, int from, int n)
{
    for (int k = 0; k < N_PIECES; k++) {
        const double *own = get_sums(cpa_f64_at(p->own[k], from), n);
        for (int i = 0; i < n; i++) {
            p->sum[from + i] += own[i];
        }
    }
    OK(cpa_op_upload(be, cpa_f64_at(p->all, from), p->sum + from, (size_t)n * sizeof(double)));
}

static cpa_pooled pooled(const pool *p, int k)
{
    return (cpa_pooled){p->own[k], p->all, p->rows};
}

static void drop_pool(pool p)
{
    for (int k = 0; k < N_PIECES; k++) {
        drop(p.own[k]);
    }
    drop(p.all);
}

static void case_batch_norm_sums(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        if (rows < 2) {
            continue;
        }
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_nan(rows, cols, 1), xhat = put_nan(rows, cols, 2);
        mat mean = put_nan(1, cols, 0), var = put_nan(1, cols, 0), rstd = put_nan(1, cols, 0);
        pool p = make_pool(2 * cols, rows);
        double *want = doubles(2 * cols);
        for (int j = 0; j < cols; j++) {
            want[j] = rows * t.s.mean[j];
            want[cols + j] = (rows - 1) * t.s.var[j];
        }
        for (int k = 0; k < N_PIECES; k++) {
            OK(cpa_op_batch_norm_sums(be, p.own[k], piece(t.a.m, k), CPA_NOT_POOLED));
        }
        fill_pool(&p, 0, cols);
        for (int k = 0; k < N_PIECES; k++) {
            OK(cpa_op_batch_norm_sums(be, cpa_f64_at(p.own[k], cols), piece(t.a.m, k), pooled(&p, k)));
        }
        fill_pool(&p, cols, cols);
        near("batch_norm_sums", p.sum, want, 2 * cols, tolerance);
        for (int k = 0; k < N_PIECES; k++) {
            if (piece(y.m, k).rows > 0) {
                OK(cpa_op_batch_norm(be, piece(y.m, k), piece(xhat.m, k), mean.m, var.m, rstd.m, piece(t.a.m, k),
                                     t.gamma.m, t.beta.m, i % N_MODES == DROPOUT ? piece(t.mask.m, k) : CPA_NO_MAT,
                                     t.s.relu, pooled(&p, k)));
                near("batch_norm of a piece, mean", get(mean), t.s.mean, cols, tolerance);
                near("batch_norm of a piece, var", get(var), t.s.var, cols, tolerance);
                near("batch_norm of a piece, rstd", get(rstd), t.s.rstd, cols, tolerance);
            }
        }
        near("batch_norm of pieces, xhat", get(xhat), t.s.xhat, n, tolerance);
        near("batch_norm of pieces, Y", get(y), t.s.y, n, tolerance);
        drop_pool(p);
        DROP(y, xhat, mean, var, rstd, t.a, t.gamma, t.beta, t.mask);
    }
}

static void add_to(double *sum, const double *x, int n)
{
    for (int i = 0; i < n; i++) {
        sum[i] += x[i];
    }
}

static void case_batch_norm_grad_sums(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        if (rows < 3) {
            continue;
        }
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_values(rows, cols, 1, copy_of(t.s.y, n)), xhat = put_values(rows, cols, 2, copy_of(t.s.xhat, n));
        mat rstd = put_values(1, cols, 0, copy_of(t.s.rstd, cols)), dy = put_uniform(rows, cols, 1, -1, 1);
        mat da = put_nan(rows, cols, 3), dgamma = put_nan(1, cols, 0), dbeta = put_nan(1, cols, 0);
        pool p = make_pool(2 * cols, rows);
        double *want = doubles(2 * cols), *got = doubles(2 * cols);
        t.s.dy = dy.h;
        backward(&t.s);
        for (int e = 0; e < n; e++) {
            want[e % cols] += dy.h[e] * t.s.gate[e];
            want[cols + e % cols] += dy.h[e] * t.s.gate[e] * t.s.xhat[e];
        }
        for (int k = 0; k < N_PIECES; k++) {
            OK(cpa_op_batch_norm_grad_sums(be, p.own[k], piece(dy.m, k), piece(y.m, k), piece(xhat.m, k),
                                           (cpa_real)t.s.keep, t.s.relu));
        }
        fill_pool(&p, 0, 2 * cols);
        near("batch_norm_grad_sums", p.sum, want, 2 * cols, tolerance);
        for (int k = 0; k < N_PIECES; k++) {
            if (piece(y.m, k).rows > 0) {
                OK(cpa_op_batch_norm_grad(be, piece(da.m, k), dgamma.m, dbeta.m, piece(dy.m, k), piece(y.m, k),
                                          piece(xhat.m, k), t.gamma.m, rstd.m, (cpa_real)t.s.keep, CPA_NO_MAT, t.s.relu,
                                          pooled(&p, k)));
                add_to(got, get(dbeta), cols);
                add_to(got + cols, get(dgamma), cols);
            }
        }
        near("batch_norm_grad of pieces, dbeta and dgamma", got, want, 2 * cols, tolerance);
        near("batch_norm_grad of pieces, dA", get(da), t.s.da, n, tolerance);
        drop_pool(p);
        DROP(y, xhat, rstd, dy, da, dgamma, dbeta, t.a, t.gamma, t.beta, t.mask);
    }
}

static void case_batch_norm_grad2_sums(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        if (rows < 3 || n > 1100) {
            continue; // a difference for every element would take minutes
        }
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_values(rows, cols, 1, copy_of(t.s.y, n)), xhat = put_values(rows, cols, 2, copy_of(t.s.xhat, n));
        mat rstd = put_values(1, cols, 0, copy_of(t.s.rstd, cols)), dy = put_uniform(rows, cols, 1, -1, 1);
        mat v = put_uniform(rows, cols, 2, -1, 1), q = put_nan(rows, cols, 1);
        mat dgamma = put_values(1, cols, 0, doubles(cols)); // adds up over the pieces
        pool p = make_pool(5 * cols, rows);
        double *want = doubles(5 * cols);
        t.s.dy = dy.h;
        t.s.v = v.h;
        for (int e = 0; e < n; e++) {
            double g = dy.h[e] * t.s.gate[e];
            const double term[] = {g, g * t.s.xhat[e], v.h[e], v.h[e] * t.s.xhat[e], v.h[e] * g};
            for (int k = 0; k < 5; k++) {
                want[k * cols + e % cols] += term[k];
            }
        }
        double *want_dy = differences(second_order, &t.s, t.s.dy, n, 1e-5);
        double *want_q = differences(second_order, &t.s, t.s.a, n, 1e-5);
        double *want_gamma = differences(second_order, &t.s, t.s.gamma, cols, 1e-5);
        for (int k = 0; k < N_PIECES; k++) {
            OK(cpa_op_batch_norm_grad2_sums(be, p.own[k], piece(v.m, k), piece(dy.m, k), piece(y.m, k),
                                            piece(xhat.m, k), (cpa_real)t.s.keep, t.s.relu));
        }
        fill_pool(&p, 0, 5 * cols);
        near("batch_norm_grad2_sums", p.sum, want, 5 * cols, tolerance);
        for (int k = 0; k < N_PIECES; k++) {
            if (piece(y.m, k).rows > 0) {
                OK(cpa_op_batch_norm_grad2(be, piece(v.m, k), dgamma.m, piece(q.m, k), piece(v.m, k), piece(dy.m, k),
                                           piece(y.m, k), piece(xhat.m, k), t.gamma.m, rstd.m, (cpa_real)t.s.keep,
                                           t.s.relu, pooled(&p, k)));
            }
        }
        near("batch_norm_grad2 of pieces, d(dY)", get(v), want_dy, n, difference_tolerance);
        near("batch_norm_grad2 of pieces, dgamma", get(dgamma), want_gamma, cols, difference_tolerance);
        near("batch_norm_grad2 of pieces, q", get(q), want_q, n, difference_tolerance);
        drop_pool(p);
        DROP(y, xhat, rstd, dy, v, q, dgamma, t.a, t.gamma, t.beta, t.mask);
    }
}

static void case_batch_norm_grad(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        if (rows * cols > 5000) {
            continue; // a difference for every element would take minutes
        }
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_values(rows, cols, 1, copy_of(t.s.y, n)), xhat = put_values(rows, cols, 2, copy_of(t.s.xhat, n));
        mat rstd = put_values(1, cols, 0, copy_of(t.s.rstd, cols)), dy = put_uniform(rows, cols, 1, -1, 1);
        mat da = put_nan(rows, cols, 3), dgamma = put_nan(1, cols, 0), dbeta = put_nan(1, cols, 0);
        mat q = put_uniform(rows, cols, 1, -1, 1);
        t.s.dy = dy.h;
        double *want = differences(first_order, &t.s, t.s.a, n, 1e-6);
        double *want_gamma = differences(first_order, &t.s, t.s.gamma, cols, 1e-6);
        double *want_beta = differences(first_order, &t.s, t.s.beta, cols, 1e-6);
        OK(cpa_op_batch_norm_grad(be, da.m, dgamma.m, dbeta.m, dy.m, y.m, xhat.m, t.gamma.m, rstd.m, (cpa_real)t.s.keep,
                                  CPA_NO_MAT, t.s.relu, CPA_NOT_POOLED));
        if (rows > 1) { // of one cell, xhat is 0 and so is dA
            near("batch_norm_grad, dA", get(da), want, n, difference_tolerance);
            near("batch_norm_grad, dgamma", get(dgamma), want_gamma, cols, difference_tolerance);
        }
        near("batch_norm_grad, dbeta", get(dbeta), want_beta, cols, difference_tolerance);
        // With q, in place, and without the parameters.
        double *plain = get(da);
        for (int k = 0; k < n; k++) {
            plain[k] += q.h[k];
        }
        OK(cpa_op_batch_norm_grad(be, dy.m, CPA_NO_MAT, CPA_NO_MAT, dy.m, y.m, xhat.m, t.gamma.m, rstd.m,
                                  (cpa_real)t.s.keep, q.m, t.s.relu, CPA_NOT_POOLED));
        near("batch_norm_grad, with q", get(dy), plain, n, tolerance);
        DROP(y, xhat, rstd, dy, da, dgamma, dbeta, q, t.a, t.gamma, t.beta, t.mask);
    }
}

// The larger sizes, where the work on a column is shared: against the formulas, which the differences have confirmed.
static void large(int rows, int cols)
{
    int n = rows * cols;
    setting t = make(rows, cols, DROPOUT, 1);
    mat y = put_values(rows, cols, 1, copy_of(t.s.y, n)), xhat = put_values(rows, cols, 2, copy_of(t.s.xhat, n));
    mat rstd = put_values(1, cols, 0, copy_of(t.s.rstd, cols)), dy = put_uniform(rows, cols, 1, -1, 1);
    mat v = put_uniform(rows, cols, 2, -1, 1), da = put_nan(rows, cols, 3), q = put_nan(rows, cols, 1);
    mat dgamma = put_values(1, cols, 0, doubles(cols));
    double *want_q = doubles(n), *want_dy = doubles(n), *want_gamma = doubles(cols);
    t.s.dy = dy.h;
    backward(&t.s);
    for (int j = 0; j < cols; j++) {
        double m[5] = {0}; // of g, g xhat, v, v xhat, v g
        for (int at = j; at < n; at += cols) {
            double g = dy.h[at] * t.s.gate[at];
            const double term[] = {g, g * xhat.h[at], v.h[at], v.h[at] * xhat.h[at], v.h[at] * g};
            for (int k = 0; k < 5; k++) {
                m[k] += term[k] / rows;
            }
        }
        double big_q = m[4] - m[2] * m[0] - m[3] * m[1], scale = t.gamma.h[j] * rstd.h[j];
        want_gamma[j] = rows * rstd.h[j] * big_q;
        for (int at = j; at < n; at += cols) {
            double v0 = v.h[at] - m[2] - xhat.h[at] * m[3];
            double g0 = dy.h[at] * t.s.gate[at] - m[0] - xhat.h[at] * m[1];
            want_dy[at] = t.s.gate[at] * scale * v0;
            want_q[at] = -scale * rstd.h[j] * (xhat.h[at] * big_q + m[1] * v0 + m[3] * g0);
        }
    }
    mat mean = put_nan(1, cols, 0), var = put_nan(1, cols, 0);
    OK(cpa_op_batch_norm(be, da.m, q.m, mean.m, var.m, rstd.m, t.a.m, t.gamma.m, t.beta.m, t.mask.m, true,
                         CPA_NOT_POOLED));
    near("batch_norm, xhat, large", get(q), t.s.xhat, n, tolerance);
    near("batch_norm, Y, large", get(da), t.s.y, n, tolerance);
    OK(cpa_op_batch_norm_grad(be, da.m, CPA_NO_MAT, CPA_NO_MAT, dy.m, y.m, xhat.m, t.gamma.m, rstd.m,
                              (cpa_real)t.s.keep, CPA_NO_MAT, true, CPA_NOT_POOLED));
    near("batch_norm_grad, large", get(da), t.s.da, n, tolerance);
    OK(cpa_op_batch_norm_grad2(be, v.m, dgamma.m, q.m, v.m, dy.m, y.m, xhat.m, t.gamma.m, rstd.m, (cpa_real)t.s.keep,
                               true, CPA_NOT_POOLED));
    near("batch_norm_grad2, d(dY), large", get(v), want_dy, n, tolerance);
    near("batch_norm_grad2, dgamma, large", get(dgamma), want_gamma, cols, tolerance);
    near("batch_norm_grad2, q, large", get(q), want_q, n, tolerance);
    DROP(mean, var);
    DROP(y, xhat, rstd, dy, v, da, q, dgamma, t.a, t.gamma, t.beta, t.mask);
}

static void case_batch_norm_grad2(void)
{
    large(130, 300);
    large(8200, 3);
    large(520, 1700); // several chunks of wide tiles
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        int rows = sizes[i / N_MODES][0], cols = sizes[i / N_MODES][1], n = rows * cols;
        if (rows < 3 || n > 5000) {
            continue;
        }
        setting t = make(rows, cols, i % N_MODES, i % 4);
        mat y = put_values(rows, cols, 1, copy_of(t.s.y, n)), xhat = put_values(rows, cols, 2, copy_of(t.s.xhat, n));
        mat rstd = put_values(1, cols, 0, copy_of(t.s.rstd, cols)), dy = put_uniform(rows, cols, 1, -1, 1);
        mat v = put_uniform(rows, cols, 2, -1, 1), q = put_nan(rows, cols, 1), dgamma = put_uniform(1, cols, 0, -1, 1);
        t.s.dy = dy.h;
        t.s.v = v.h;
        double *want_dy = differences(second_order, &t.s, t.s.dy, n, 1e-5);
        double *want_q = differences(second_order, &t.s, t.s.a, n, 1e-5);
        double *want_gamma = differences(second_order, &t.s, t.s.gamma, cols, 1e-5);
        for (int j = 0; j < cols; j++) {
            want_gamma[j] += dgamma.h[j];
        }
        OK(cpa_op_batch_norm_grad2(be, v.m, dgamma.m, q.m, v.m, dy.m, y.m, xhat.m, t.gamma.m, rstd.m,
                                   (cpa_real)t.s.keep, t.s.relu, CPA_NOT_POOLED));
        near("batch_norm_grad2, d(dY)", get(v), want_dy, n, difference_tolerance);
        near("batch_norm_grad2, dgamma", get(dgamma), want_gamma, cols, difference_tolerance);
        near("batch_norm_grad2, q", get(q), want_q, n, difference_tolerance);
        DROP(y, xhat, rstd, dy, v, q, dgamma, t.a, t.gamma, t.beta, t.mask);
    }
}

static void case_batch_norm_eval(void)
{
    for (int i = 0; i < 2 * N_SIZES + 2; i++) {
        int rows = i / 2 < N_SIZES ? sizes[i / 2][0] : 0, cols = i / 2 < N_SIZES ? sizes[i / 2][1] : 7, n = rows * cols;
        bool relu = i % 2 == 0;
        mat a = put_uniform(rows, cols, i % 3, -2, 2), y = put_nan(rows, cols, 1),
            bias = put_uniform(1, cols, 0, -1, 1);
        mat mean = put_uniform(1, cols, 0, -1, 1), var = put_uniform(1, cols, 0, 0, 2);
        mat gamma = put_uniform(1, cols, 0, -1, 1), beta = put_uniform(1, cols, 0, -1, 1);
        double *want = doubles(n);
        for (int k = 0; k < n; k++) {
            int j = k % cols;
            want[k] = gamma.h[j] * (a.h[k] + bias.h[j] - mean.h[j]) / sqrt(var.h[j] + eps) + beta.h[j];
            want[k] = relu ? fmax(0, want[k]) : want[k];
        }
        OK(cpa_op_batch_norm_eval(be, y.m, a.m, bias.m, mean.m, var.m, gamma.m, beta.m, relu));
        near("batch_norm_eval", get(y), want, n, tolerance);
        OK(cpa_op_batch_norm_eval(be, a.m, a.m, bias.m, mean.m, var.m, gamma.m, beta.m, relu));
        near("batch_norm_eval in place", get(a), want, n, tolerance);
        DROP(a, y, bias, mean, var, gamma, beta);
    }
}

static void dropout_of(int rows, int cols, double p)
{
    int *cell = host((size_t)rows, sizeof *cell), kept = 0;
    for (int b = 0; b < rows; b++) {
        cell[b] = 1000 - 3 * b;
    }
    cpa_dev_int *ids = put_ints(cell, rows);
    mat mask = put_nan(rows, cols, 1);
    const uint64_t seed = 0x123456789abcdef0u;
    OK(cpa_op_dropout_mask(be, mask.m, ids, seed, cpa_number_of(7), 2, (cpa_real)p));
    double *got = get(mask);
    for (int b = 0; b < rows; b++) {
        for (int h = 0; h < cols; h++) {
            uint32_t w[4];
            cpa_philox(seed, CPA_STREAM_DROPOUT, (const uint32_t[4]){(uint32_t)cell[b], 7, 2, (uint32_t)h / 4}, w);
            bool keep = (cpa_real)cpa_unit(w[h % 4]) >= (cpa_real)p;
            assert_true(got[b * cols + h] == (keep ? (double)(1 / (1 - (cpa_real)p)) : 0));
            kept += keep;
        }
    }
    double n = rows * cols;
    assert_true(fabs(kept - n * (1 - p)) <= 5 * sqrt(n * p * (1 - p)) + 1e-9);
    drop(ids);
    DROP(mask);
}

static void case_dropout_mask(void)
{
    dropout_of(0, 4, 0.5);
    dropout_of(1, 1, 0.1);
    dropout_of(2, 31, 0);
    dropout_of(33, 33, 0.25);
    dropout_of(128, 300, 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_NORM(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
