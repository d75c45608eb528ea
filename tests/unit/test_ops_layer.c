// Owns: conformance of layer norm, its two derivatives, and the bare activation: values against two-pass formulas in
// double, derivatives against finite differences of them. Never another family's.
#include "../support/ops.h"

static const double eps = 1e-5;
static const int sizes[][2] = {{0, 7}, {1, 3}, {2, 1}, {3, 65}, {31, 33}, {33, 64}, {128, 31}, {130, 300}};
static const int many[] = {8193, 33}; // rows, so that each has fewer threads than columns on a device
enum { N_SIZES = sizeof sizes / sizeof *sizes, SMALL = 2500 }; // a difference for every element of more takes minutes

// Which of the optional inputs there are.
enum { BARE, BIAS, DROPOUT, BOTH, N_MODES };

// Everything a layer norm has, in double; P is a scalar made of its results.
typedef struct norm {
    int rows, cols;
    double keep;
    double *a, *bias, *mask;    // inputs
    double *rstd, *xhat, *y;    // results
    double *gate;               // keep where the recorded Y > 0
    double *dy, *da, *v;        // gradient in, gradient out, gradient of P by da
    mat on_a, on_bias, on_mask; // the inputs on the backend
    cpa_mat bias_given, mask_given;
} norm;

static double *doubles(int n)
{
    return host((size_t)n, sizeof(double));
}

static double *copy_of(const double *x, int n)
{
    double *c = doubles(n);
    memcpy(c, x, (size_t)n * sizeof *c);
    return c;
}

static void forward(norm *s)
{
    for (int i = 0; i < s->rows; i++) {
        const double *a = s->a + i * s->cols;
        double m = 0, q = 0;
        for (int j = 0; j < s->cols; j++) {
            m += (a[j] + s->bias[j]) / s->cols;
        }
        for (int j = 0; j < s->cols; j++) {
            q += (a[j] + s->bias[j] - m) * (a[j] + s->bias[j] - m) / s->cols;
        }
        s->rstd[i] = 1 / sqrt(q + eps);
        for (int j = 0; j < s->cols; j++) {
            int at = i * s->cols + j;
            s->xhat[at] = (a[j] + s->bias[j] - m) * s->rstd[i];
            s->y[at] = s->mask[at] * fmax(0, s->xhat[at]);
        }
    }
}

// dA as the definition of the operation has it, for the gate of the recorded Y.
static void backward(norm *s)
{
    forward(s);
    for (int i = 0; i < s->rows; i++) {
        double m1 = 0, m2 = 0;
        for (int at = i * s->cols; at < (i + 1) * s->cols; at++) {
            m1 += s->dy[at] * s->gate[at] / s->cols;
            m2 += s->dy[at] * s->gate[at] * s->xhat[at] / s->cols;
        }
        for (int at = i * s->cols; at < (i + 1) * s->cols; at++) {
            s->da[at] = s->rstd[i] * (s->dy[at] * s->gate[at] - m1 - s->xhat[at] * m2);
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

static norm make(const int *size, int mode, int pad)
{
    norm s = {.rows = size[0], .cols = size[1]};
    bool bias = mode == BIAS || mode == BOTH, dropout = mode == DROPOUT || mode == BOTH;
    int n = s.rows * s.cols;
    s.keep = dropout ? 1.25 : 1;
    s.on_a = put_uniform(s.rows, s.cols, pad, -2, 3);
    s.on_bias = put_uniform(1, s.cols, 0, bias ? -1 : 0, bias ? 1 : 0);
    double *mask = doubles(n);
    for (int i = 0; i < n; i++) {
        mask[i] = !dropout ? 1 : uniform(0, 1) < 0.2 ? 0 : 1.25;
    }
    s.on_mask = put_values(s.rows, s.cols, pad, mask);
    s.bias_given = bias ? s.on_bias.m : CPA_NO_MAT;
    s.mask_given = dropout ? s.on_mask.m : CPA_NO_MAT;
    s.a = s.on_a.h;
    s.bias = s.on_bias.h;
    s.mask = s.on_mask.h;
    s.rstd = doubles(s.rows);
    s.xhat = doubles(n);
    s.y = doubles(n);
    s.gate = doubles(n);
    s.da = doubles(n);
    forward(&s);
    for (int i = 0; i < n; i++) {
        s.gate[i] = s.y[i] > 0 ? s.keep : 0;
    }
    return s;
}

static void layer_norm_of(const int *size, int mode, int pad)
{
    norm s = make(size, mode, pad);
    int n = s.rows * s.cols;
    mat y = put_nan(s.rows, s.cols, 1), xhat = put_nan(s.rows, s.cols, 2), rstd = put_nan(1, s.rows, 0);
    OK(cpa_op_layer_norm(be, y.m, xhat.m, rstd.m, s.on_a.m, s.bias_given, s.mask_given));
    near("layer_norm, rstd", get(rstd), s.rstd, s.rows, tolerance);
    near("layer_norm, xhat", get(xhat), s.xhat, n, tolerance);
    near("layer_norm, Y", get(y), s.y, n, tolerance);
    mat a = put_values(s.rows, s.cols, pad, copy_of(s.a, n)), again = put_nan(s.rows, s.cols, 1);
    OK(cpa_op_layer_norm(be, again.m, a.m, rstd.m, a.m, s.bias_given, s.mask_given));
    near("layer_norm, xhat in place of A", get(a), get(xhat), n, 0);
    near("layer_norm, Y where xhat is in place of A", get(again), get(y), n, 0);
    OK(cpa_op_layer_norm(be, s.on_a.m, CPA_NO_MAT, CPA_NO_MAT, s.on_a.m, s.bias_given, s.mask_given));
    near("layer_norm in place", get(s.on_a), get(y), n, 0);
    DROP(a, again);
    DROP(y, xhat, rstd, s.on_a, s.on_bias, s.on_mask);
}

static void case_layer_norm(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        layer_norm_of(sizes[i / N_MODES], i % N_MODES, i % 3);
    }
    layer_norm_of(many, BOTH, 1);
    // A mean far from 0: the variance must not be a difference of squares. Equal values have no variance: eps stands in.
    mat a = put_uniform(5, 33, 0, 1000, 1001), bias = put_uniform(1, 33, 0, 0, 0), y = put_nan(5, 33, 0);
    for (int j = 0; j < 33; j++) {
        a.h[4 * 33 + j] = 7;
    }
    mat far = put_values(5, 33, 0, a.h), rstd = put_nan(1, 5, 0);
    norm s = {.rows = 5, .cols = 33, .a = far.h, .bias = bias.h, .rstd = doubles(5)};
    s.xhat = doubles(5 * 33);
    s.y = doubles(5 * 33);
    s.mask = doubles(5 * 33);
    forward(&s);
    OK(cpa_op_layer_norm(be, y.m, CPA_NO_MAT, rstd.m, far.m, CPA_NO_MAT, CPA_NO_MAT));
    near("layer_norm, rstd far from 0", get(rstd), s.rstd, 5, tolerance);
    assert_true(get(y)[4 * 33] == 0);
    // NaN spoils its row and no other.
    far.h[33] = NAN;
    mat bad = put_values(5, 33, 0, far.h);
    OK(cpa_op_layer_norm(be, y.m, CPA_NO_MAT, CPA_NO_MAT, bad.m, CPA_NO_MAT, CPA_NO_MAT));
    assert_true(isnan(get(y)[33]) && isnan(get(y)[65]) && !isnan(get(y)[32]) && !isnan(get(y)[66]));
    DROP(a, bias, y, far, rstd, bad);
}

static void layer_norm_grad_of(const int *size, int mode, int pad)
{
    norm s = make(size, mode, pad);
    int n = s.rows * s.cols;
    mat y = put_values(s.rows, s.cols, 1, copy_of(s.y, n)), xhat = put_values(s.rows, s.cols, 2, copy_of(s.xhat, n));
    mat rstd = put_values(1, s.rows, 0, copy_of(s.rstd, s.rows)), dy = put_uniform(s.rows, s.cols, 1, -1, 1);
    mat da = put_nan(s.rows, s.cols, 3), q = put_uniform(s.rows, s.cols, 1, -1, 1);
    s.dy = dy.h;
    OK(cpa_op_layer_norm_grad(be, da.m, dy.m, y.m, xhat.m, rstd.m, (cpa_real)s.keep, CPA_NO_MAT));
    double *got = get(da);
    if (n <= SMALL) {
        near("layer_norm_grad", got, differences(first_order, &s, s.a, n, 1e-6), n, difference_tolerance);
    } else { // against the formula, which the differences have confirmed
        backward(&s);
        near("layer_norm_grad, large", got, s.da, n, tolerance);
    }
    for (int k = 0; k < n; k++) {
        got[k] += q.h[k];
    }
    OK(cpa_op_layer_norm_grad(be, dy.m, dy.m, y.m, xhat.m, rstd.m, (cpa_real)s.keep, q.m));
    near("layer_norm_grad, in place with q", get(dy), got, n, tolerance);
    DROP(y, xhat, rstd, dy, da, q, s.on_a, s.on_bias, s.on_mask);
}

static void case_layer_norm_grad(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        layer_norm_grad_of(sizes[i / N_MODES], i % N_MODES, i % 3);
    }
    layer_norm_grad_of(many, BOTH, 1);
}

// What the differences of second_order come to, as formulas: for sizes where differences take too long.
static void second_formulas(const norm *s, double *ddy, double *q)
{
    for (int i = 0; i < s->rows; i++) {
        double m1 = 0, m2 = 0, a = 0, b = 0, c = 0;
        for (int at = i * s->cols; at < (i + 1) * s->cols; at++) {
            double g = s->dy[at] * s->gate[at];
            m1 += g / s->cols;
            m2 += g * s->xhat[at] / s->cols;
            a += s->v[at] / s->cols;
            b += s->v[at] * s->xhat[at] / s->cols;
            c += s->v[at] * g / s->cols;
        }
        double r = s->rstd[i], big_q = c - a * m1 - b * m2;
        for (int at = i * s->cols; at < (i + 1) * s->cols; at++) {
            double x = s->xhat[at], v0 = s->v[at] - a - x * b, g0 = s->dy[at] * s->gate[at] - m1 - x * m2;
            ddy[at] = s->gate[at] * r * v0;
            q[at] = -r * r * (x * big_q + m2 * v0 + b * g0);
        }
    }
}

static void layer_norm_grad2_of(const int *size, int mode, int pad)
{
    norm s = make(size, mode, pad);
    int n = s.rows * s.cols;
    mat y = put_values(s.rows, s.cols, 1, copy_of(s.y, n)), xhat = put_values(s.rows, s.cols, 2, copy_of(s.xhat, n));
    mat rstd = put_values(1, s.rows, 0, copy_of(s.rstd, s.rows)), dy = put_uniform(s.rows, s.cols, 1, -1, 1);
    mat v = put_uniform(s.rows, s.cols, 2, -1, 1), q = put_nan(s.rows, s.cols, 1), ddy = put_nan(s.rows, s.cols, 0);
    s.dy = dy.h;
    s.v = v.h;
    double *want_dy = doubles(n), *want_q = doubles(n);
    second_formulas(&s, want_dy, want_q);
    OK(cpa_op_layer_norm_grad2(be, ddy.m, q.m, v.m, dy.m, y.m, xhat.m, rstd.m, (cpa_real)s.keep));
    near("layer_norm_grad2, d(dY)", get(ddy), want_dy, n, difference_tolerance);
    near("layer_norm_grad2, q", get(q), want_q, n, difference_tolerance);
    if (n <= SMALL) {
        near("second order, d(dY)", want_dy, differences(second_order, &s, s.dy, n, 1e-5), n, 1e-6);
        near("second order, q", want_q, differences(second_order, &s, s.a, n, 1e-5), n, 1e-6);
    }
    OK(cpa_op_layer_norm_grad2(be, v.m, q.m, v.m, dy.m, y.m, xhat.m, rstd.m, (cpa_real)s.keep));
    near("layer_norm_grad2, in place", get(v), get(ddy), n, 0);
    DROP(y, xhat, rstd, dy, v, q, ddy, s.on_a, s.on_bias, s.on_mask);
}

static void case_layer_norm_grad2(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        layer_norm_grad2_of(sizes[i / N_MODES], i % N_MODES, i % 3);
    }
    layer_norm_grad2_of(many, BOTH, 1);
}

static void case_activate(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        norm s = make(sizes[i / N_MODES], i % N_MODES, i % 3);
        int n = s.rows * s.cols;
        double *want = doubles(n);
        for (int k = 0; k < n; k++) {
            want[k] = s.mask[k] * fmax(0, s.a[k] + s.bias[k % s.cols]);
        }
        mat y = put_nan(s.rows, s.cols, 1);
        OK(cpa_op_activate(be, y.m, s.on_a.m, s.bias_given, s.mask_given));
        near("activate", get(y), want, n, tolerance);
        OK(cpa_op_activate(be, s.on_a.m, s.on_a.m, s.bias_given, s.mask_given));
        near("activate in place", get(s.on_a), want, n, tolerance);
        DROP(y, s.on_a, s.on_bias, s.on_mask);
    }
    mat bad = put_nan(2, 3, 0); // must show, also where a cell is dropped
    mat none = put_uniform(2, 3, 0, 0, 0);
    OK(cpa_op_activate(be, bad.m, bad.m, CPA_NO_MAT, none.m));
    for (int k = 0; k < 6; k++) {
        assert_true(isnan(get(bad)[k]));
    }
    DROP(bad, none);
}

// P = sum dY Y of the bare activation.
static double activation_sum(void *arg)
{
    const norm *s = arg;
    double p = 0;
    for (int k = 0; k < s->rows * s->cols; k++) {
        p += s->dy[k] * s->mask[k] * fmax(0, s->a[k] + s->bias[k % s->cols]);
    }
    return p;
}

static void case_activate_grad(void)
{
    for (int i = 0; i < N_MODES * N_SIZES; i++) {
        norm s = make(sizes[i / N_MODES], i % N_MODES, i % 3);
        int n = s.rows * s.cols;
        mat y = put_nan(s.rows, s.cols, 1), da = put_nan(s.rows, s.cols, 2);
        mat dy = put_uniform(s.rows, s.cols, 1, -1, 1), q = put_uniform(s.rows, s.cols, 0, -1, 1);
        s.dy = dy.h;
        OK(cpa_op_activate(be, y.m, s.on_a.m, s.bias_given, s.mask_given));
        double *want = doubles(n), *with_q = doubles(n);
        for (int k = 0; k < n; k++) {
            want[k] = s.a[k] + s.bias[k % s.cols] > 0 ? s.mask[k] * s.dy[k] : 0;
            with_q[k] = want[k] + q.h[k];
        }
        if (n <= SMALL) {
            near("activation", want, differences(activation_sum, &s, s.a, n, 1e-6), n, 1e-6);
        }
        OK(cpa_op_activate_grad(be, da.m, dy.m, y.m, (cpa_real)s.keep, CPA_NO_MAT));
        near("activate_grad", get(da), want, n, tolerance);
        OK(cpa_op_activate_grad(be, dy.m, dy.m, y.m, (cpa_real)s.keep, q.m));
        near("activate_grad, in place with q", get(dy), with_q, n, tolerance);
        DROP(y, da, dy, q, s.on_a, s.on_bias, s.on_mask);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_LAYER(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
