// Owns: conformance of the dense operations and of Adam, against plain loops in double. Never another family's.
#include "../support/ops.h"

static const int sizes[] = {0, 1, 2, 31, 33, 128};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void gemm_of(int m, int n, int k, bool ta, bool tb, double alpha, double beta, int pad)
{
    mat a = ta ? put_uniform(k, m, pad, -1, 1) : put_uniform(m, k, pad, -1, 1);
    mat b = tb ? put_uniform(n, k, pad, -1, 1) : put_uniform(k, n, pad, -1, 1);
    mat c = beta == 0 ? put_nan(m, n, pad) : put_uniform(m, n, pad, -1, 1);
    double *want = host((size_t)m * (size_t)n, sizeof *want);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double s = 0;
            for (int l = 0; l < k; l++) {
                s += a.h[ta ? l * m + i : i * k + l] * b.h[tb ? j * k + l : l * n + j];
            }
            want[i * n + j] = alpha * s + (beta == 0 ? 0 : beta * c.h[i * n + j]);
        }
    }
    OK(cpa_op_gemm(be, c.m, a.m, ta, b.m, tb, (cpa_real)alpha, (cpa_real)beta));
    near("gemm", get(c), want, m * n, tolerance);
    DROP(a, b, c);
}

// Bits of `which`: A, B and C are in bfloat16. Where one is, both factors are rounded to it.
static void gemm_in_bf16(int m, int n, int k, bool ta, bool tb, double beta, int pad, int which)
{
    mat a = (which & 1 ? put_bf16 : put_uniform)(ta ? k : m, ta ? m : k, pad, -1, 1);
    mat b = (which & 2 ? put_bf16 : put_uniform)(tb ? n : k, tb ? k : n, pad, -1, 1);
    mat c = (which & 4 ? put_bf16 : put_uniform)(m, n, pad, -1, 1);
    double *want = host((size_t)m * (size_t)n, sizeof *want);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double s = 0;
            for (int l = 0; l < k; l++) {
                s += from_bf16(to_bf16(a.h[ta ? l * m + i : i * k + l])) *
                     from_bf16(to_bf16(b.h[tb ? j * k + l : l * n + j]));
            }
            want[i * n + j] = s + beta * c.h[i * n + j];
        }
    }
    OK(cpa_op_gemm(be, c.m, a.m, ta, b.m, tb, 1, (cpa_real)beta));
    near("gemm in bfloat16", get(c), want, m * n, which & 4 ? bf16_tolerance : tolerance);
    DROP(a, b, c);
}

// Copies into bfloat16 and back, between rows of their own length.
static void copies_in_bf16(void)
{
    mat a = put_uniform(7, 33, 2, -9, 9), half = put_bf16(7, 33, 1, 0, 1), back = put_uniform(7, 33, 0, -1, 1);
    double *want = host(7 * 33, sizeof *want);
    for (int i = 0; i < 7 * 33; i++) {
        want[i] = from_bf16(to_bf16(a.h[i])) * 2 - back.h[i];
    }
    OK(cpa_op_axpby(be, half.m, 1, a.m, 0));
    OK(cpa_op_axpby(be, back.m, 2, half.m, -1));
    near("axpby of bfloat16", get(back), want, 7 * 33, tolerance);
    DROP(a, half, back);
}

static void case_gemm(void)
{
    for (int i = 0; i < 64 && on_kernels && sizeof(cpa_real) == sizeof(float); i++) {
        gemm_in_bf16(1 + i % 5 * 13, 40, 17 + i, i & 1, i & 2, i & 4 ? 1 : 0, i & 8 ? 3 : 0, 1 + i % 7);
    }
    if (on_kernels) {
        copies_in_bf16();
    }
    for (int i = 0; i < N_SIZES; i++) {
        for (int j = 0; j < N_SIZES; j++) {
            int t = i * N_SIZES + j;
            gemm_of(sizes[i], sizes[j], sizes[(i + 2 * j) % N_SIZES], t & 1, t & 2, 1.5, t % 3 == 0 ? 0 : -0.5,
                    3 * (t % 2));
        }
    }
    // Shapes that are cut into several tiles, and one whose inner dimension dwarfs the others.
    for (int t = 0; t < 4; t++) {
        gemm_of(130, 300, 65, t & 1, t & 2, 1, 0, 5);
        gemm_of(40, 70, 1500, t & 1, t & 2, 1, 1, 0);
    }
    gemm_of(1030, 33, 17, true, false, 1, 0, 1);
    gemm_of(65, 2100, 17, false, true, 1, 0, 1);
    for (int t = 0; t < 4; t++) { // large ones, that have larger tiles
        gemm_of(130, 2100, 17, t & 1, t & 2, 1, t % 2, 3);
        gemm_of(1030, 300, 17, t & 1, t & 2, -1, 0, 1);
    }
}

static void add_row_of(int rows, int cols, int pad)
{
    mat y = put_uniform(rows, cols, pad, -1, 1), v = put_uniform(1, cols, 0, -1, 1);
    OK(cpa_op_add_row(be, y.m, v.m));
    for (int i = 0; i < rows * cols; i++) {
        y.h[i] += v.h[i % cols];
    }
    near("add_row", get(y), y.h, rows * cols, tolerance);
    DROP(y, v);
}

static void broadcast_row_of(int rows, int cols, int pad)
{
    mat y = put_nan(rows, cols, pad), v = put_uniform(1, cols, 0, -1, 1);
    OK(cpa_op_broadcast_row(be, y.m, v.m));
    for (int i = 0; i < rows * cols; i++) {
        y.h[i] = v.h[i % cols];
    }
    near("broadcast_row", get(y), y.h, rows * cols, 0);
    DROP(y, v);
}

static void case_add_row(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        add_row_of(sizes[i], 33, 2);
        add_row_of(31, sizes[i], 0);
    }
    add_row_of(3, 20000, 1); // several pieces a row
}

static void case_broadcast_row(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        broadcast_row_of(sizes[i], 31, 1);
        broadcast_row_of(33, sizes[i], 0);
    }
    broadcast_row_of(3, 20000, 1);
}

static void col_sum_of(int rows, int cols, int pad)
{
    mat a = put_uniform(rows, cols, pad, -1, 2), v = put_nan(1, cols, 0);
    double *want = host((size_t)cols, sizeof *want);
    for (int i = 0; i < rows * cols; i++) {
        want[i % cols] += a.h[i];
    }
    OK(cpa_op_col_sum(be, v.m, a.m, 0));
    near("col_sum", get(v), want, cols, tolerance);
    OK(cpa_op_col_sum(be, v.m, a.m, 2));
    for (int j = 0; j < cols; j++) {
        want[j] *= 3;
    }
    near("col_sum, added", get(v), want, cols, tolerance);
    DROP(a, v);
}

static void case_col_sum(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        col_sum_of(sizes[i], 65, 1);
        col_sum_of(33, sizes[i], 0);
    }
    col_sum_of(129, 700, 3);
    col_sum_of(1025, 9, 1);
    col_sum_of(1100, 950, 0);
    col_sum_of(20000, 2, 1);
}

static void axpby_of(int rows, int cols, int pad)
{
    mat x = put_uniform(rows, cols, pad, -1, 1), y = put_nan(rows, cols, pad);
    OK(cpa_op_axpby(be, y.m, (cpa_real)0.75, x.m, 0));
    double *want = host((size_t)rows * (size_t)cols, sizeof *want);
    for (int i = 0; i < rows * cols; i++) {
        want[i] = 0.75 * x.h[i];
    }
    near("axpby, overwriting", get(y), want, rows * cols, tolerance);
    OK(cpa_op_axpby(be, y.m, -2, x.m, (cpa_real)0.5));
    for (int i = 0; i < rows * cols; i++) {
        want[i] = -2 * x.h[i] + 0.5 * want[i];
    }
    near("axpby", get(y), want, rows * cols, tolerance);
    DROP(x, y);
}

static void case_axpby(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        axpby_of(sizes[i], 31, 4);
        axpby_of(2, sizes[i], 0);
    }
    axpby_of(1, 70001, 0);
}

static void log1p_of(int rows, int cols, double most)
{
    mat x = put_uniform(rows, cols, 1, 0, most), y = put_nan(rows, cols, 2);
    double *want = host((size_t)rows * (size_t)cols, sizeof *want);
    for (int i = 0; i < rows * cols; i++) {
        want[i] = log1p(x.h[i]);
    }
    OK(cpa_op_log1p(be, y.m, x.m));
    near("log1p", get(y), want, rows * cols, tolerance);
    OK(cpa_op_log1p(be, x.m, x.m));
    near("log1p in place", get(x), want, rows * cols, tolerance);
    DROP(x, y);
}

static void case_log1p(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        log1p_of(sizes[i], 33, 1e-6);
        log1p_of(3, sizes[i], 1e5);
    }
    log1p_of(200, 300, 5);
}

static void square_sum_scale_of(int rows, int cols)
{
    mat a = put_uniform(rows, cols, 1, -1, 1);
    cpa_dev_f64 *sum = new_sums(1);
    double want = 0;
    for (int i = 0; i < rows * cols; i++) {
        want += a.h[i] * a.h[i];
        a.h[i] *= -3;
    }
    OK(cpa_op_square_sum_scale(be, sum, a.m, -3));
    near("square_sum_scale, the sum", get_sums(sum, 1), &want, 1, 1e-12);
    near("square_sum_scale", get(a), a.h, rows * cols, tolerance);
    drop(sum);
    DROP(a);
}

static void case_square_sum_scale(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        square_sum_scale_of(sizes[i], 33);
        square_sum_scale_of(2, sizes[i]);
    }
    square_sum_scale_of(3, 40000);
    square_sum_scale_of(1, 2048);
}

static void nonfinite_of(int rows, int cols, const int *where, int n)
{
    mat a = put_uniform(rows, cols, 1, -1, 1);
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < n; i++) {
        a.h[where[i]] = bad[i % 3];
    }
    mat b = put_values(rows, cols, 2, a.h);
    cpa_dev_f64 *count = new_sums(1);
    OK(cpa_op_nonfinite(be, count, b.m));
    assert_true(get_sums(count, 1)[0] == n);
    drop(count);
    DROP(a, b);
}

static void case_nonfinite(void)
{
    nonfinite_of(0, 5, NULL, 0);
    nonfinite_of(3, 33, NULL, 0);
    nonfinite_of(1, 1, (const int[]){0}, 1);
    nonfinite_of(31, 33, (const int[]){0, 5, 32, 33, 500, 1022}, 6);
    nonfinite_of(2, 50000, (const int[]){7, 49999, 50000, 99999}, 4);
}

static void adam_of(int n, double wd)
{
    mat p = put_uniform(1, n, 0, -1, 1), m = put_uniform(1, n, 0, 0, 0), v = put_uniform(1, n, 0, 0, 0);
    double lr = 3e-3, b1 = 1, b2 = 1;
    for (int step = 0; step < 3; step++) {
        mat g = put_uniform(1, n, 0, -1, 1);
        b1 *= 0.9;
        b2 *= 0.999;
        OK(cpa_op_adam(be, p.m, m.m, v.m, g.m, lr, wd, 1 - b1, 1 - b2));
        for (int i = 0; i < n; i++) {
            double d = g.h[i] + wd * p.h[i];
            m.h[i] = 0.9 * m.h[i] + 0.1 * d;
            v.h[i] = 0.999 * v.h[i] + 0.001 * d * d;
            p.h[i] -= lr / (1 - b1) * m.h[i] / (sqrt(v.h[i] / (1 - b2)) + 1e-8);
        }
        DROP(g);
    }
    near("adam, parameters", get(p), p.h, n, tolerance);
    near("adam, first moment", get(m), m.h, n, tolerance);
    near("adam, second moment", get(v), v.h, n, tolerance);
    DROP(p, m, v);
}

static void clip_of(int n, double max_norm)
{
    mat a = put_uniform(1, n, 0, -1, 1);
    double *want = host((size_t)n, sizeof *want), norm = 0;
    for (int i = 0; i < n; i++) {
        norm += a.h[i] * a.h[i];
    }
    norm = sqrt(norm);
    for (int i = 0; i < n; i++) {
        want[i] = a.h[i] * fmin(1, max_norm / (norm + 1e-6));
    }
    cpa_dev_f64 *got = new_sums(1);
    OK(cpa_op_clip(be, got, a.m, max_norm));
    near("clip, norm", get_sums(got, 1), &norm, 1, 1e-12);
    near("clip", get(a), want, n, tolerance);
    drop(got);
    DROP(a);
}

static void case_clip(void)
{
    clip_of(0, 1);
    clip_of(1, 0.25);
    clip_of(33, 3);
    clip_of(33, 1e6); // short enough: stays as it is
    clip_of(100000, 3);
    clip_of(100000, 0);
    clip_of(2049, 3); // two parts, one of them a single number
    // A broken vector must stay broken.
    const double bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        mat a = put_uniform(1, 5, 0, -1, 1);
        a.h[3] = bad[i];
        mat broken = put_values(1, 5, 0, a.h);
        cpa_dev_f64 *norm = new_sums(1);
        OK(cpa_op_clip(be, norm, broken.m, 3));
        assert_false(isfinite(get_sums(norm, 1)[0]));
        assert_true(isnan(get(broken)[3]));
        assert_true(isnan(get(broken)[0]) == (i == 0)); // a NaN norm spoils everything, as with torch
        drop(norm);
        DROP(a, broken);
    }
}

static void case_adam(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        adam_of(sizes[i], i % 2 == 0 ? 0 : 1e-2);
    }
    adam_of(100003, 4e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_DENSE(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
