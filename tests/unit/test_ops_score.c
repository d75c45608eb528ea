// Owns: conformance of the scores of a batch: the most likely class, R2 of group means and variances, exact sums by group. Never another
// family's.
#include "../support/ops.h"

static void argmax_of(int rows, int n, int pad)
{
    mat z = put_uniform(rows, n, pad, -1, 1);
    for (int i = 0; i < rows * n; i++) {
        z.h[i] = floor(3 * z.h[i]); // many ties: the first wins
    }
    mat tied = put_values(rows, n, pad, z.h);
    int *want = host((size_t)rows, sizeof *want), *got = host((size_t)rows, sizeof *got);
    for (int b = 0; b < rows; b++) {
        for (int j = 1; j < n; j++) {
            want[b] = tied.h[b * n + j] > tied.h[b * n + want[b]] ? j : want[b];
        }
    }
    cpa_dev_int *best = put_ints(got, rows);
    OK(cpa_op_argmax(be, best, tied.m));
    OK(cpa_op_download(be, got, best, (size_t)rows * sizeof *got));
    assert_true(rows == 0 || memcmp(got, want, (size_t)rows * sizeof *got) == 0);
    drop(best);
    DROP(z, tied);
}

// Nothing is larger than NaN, and NaN than nothing.
static void odd_logits(void)
{
    enum { N = 40 };
    int got[4];
    double *z = host((size_t)4 * N, sizeof *z);
    for (int i = 0; i < 4 * N; i++) {
        z[i] = i < 3 * N ? (double)(i % 7) : (double)-INFINITY;
    }
    z[0] = NAN;
    z[N + 1] = NAN;
    z[2 * N + 33] = NAN;
    z[2 * N + 35] = INFINITY;
    mat m = put_values(4, N, 0, z);
    cpa_dev_int *best = put_ints((const int[4]){0}, 4);
    OK(cpa_op_argmax(be, best, m.m));
    OK(cpa_op_download(be, got, best, sizeof got));
    assert_memory_equal(got, ((const int[]){0, 8, 35, 0}), sizeof got);
    drop(best);
    DROP(m);
}

static void case_argmax(void)
{
    argmax_of(0, 3, 0);
    argmax_of(1, 1, 0);
    argmax_of(2, 7, 1);
    argmax_of(31, 33, 2);
    argmax_of(128, 5, 0);
    argmax_of(9, 300, 1);
    odd_logits();
}

// The rule in words: R2 over genes, with torchmetrics' two exceptions, then NaN to 0.
static double r2_of(const double *p, const double *t, int genes)
{
    double rss = 0, sum = 0, squares = 0;
    for (int g = 0; g < genes; g++) {
        rss += (t[g] - p[g]) * (t[g] - p[g]);
        sum += t[g];
        squares += t[g] * t[g];
    }
    double tss = squares - sum * sum / genes;
    if (fabs(rss) <= 1e-4) {
        return 1;
    }
    if (fabs(tss) <= 1e-4) {
        return 0;
    }
    double r2 = 1 - rss / tss;
    return isnan(r2) ? 0 : r2;
}

// Mean and unbiased variance of a group, per gene; absent genes are 0.
static void moments_of(mat a, const int *rows, int n, const int *mask, double *mean, double *var)
{
    for (int g = 0; g < a.m.cols; g++) {
        double m = 0, q = 0;
        for (int i = 0; i < n; i++) {
            m += a.h[rows[i] * a.m.cols + g] / n;
        }
        for (int i = 0; i < n; i++) {
            q += (a.h[rows[i] * a.m.cols + g] - m) * (a.h[rows[i] * a.m.cols + g] - m) / (n - 1);
        }
        bool present = mask == NULL || ((unsigned)mask[g / 32] >> (g % 32) & 1u) != 0;
        mean[g] = present ? m : 0;
        var[g] = present ? q : 0;
    }
}

// Groups: an empty one first, one cell next, the rest dealt evenly over the others.
// With `given`, the predicted variances come as a matrix of their own.
static void group_r2_of(int rows, int genes, int groups, bool masked, bool given, double noise)
{
    mat t = put_uniform(rows, genes, 1, 0, 3), p = put_uniform(rows, genes, 2, 0, 3);
    for (int i = 0; i < rows * genes; i++) {
        p.h[i] = t.h[i] + noise * (p.h[i] - 1.5);
    }
    mat near_t = put_values(rows, genes, 2, p.h), pv = put_uniform(rows, genes, 1, 0, 1.5);
    int *order = host((size_t)rows, sizeof *order), *offset = host((size_t)groups + 1, sizeof *offset);
    for (int i = 0; i < rows; i++) {
        order[i] = (i * 7 + 3) % rows; // rows are no multiple of 7
    }
    for (int k = 1; k < groups; k++) {
        offset[k + 1] = k == 1 ? 1 : 1 + (rows - 1) * (k - 1) / (groups - 2);
    }
    int words = (genes + 31) / 32 + 1;
    int *mask = host((size_t)(groups * words), sizeof *mask);
    for (int i = 0; i < groups * words; i++) {
        mask[i] = (int)uniform(-2e9, 2e9);
    }
    double *want = host(2 * (size_t)groups, sizeof *want);
    double *m[5];
    for (int i = 0; i < 5; i++) {
        m[i] = host((size_t)genes, sizeof **m);
    }
    for (int k = 0; k < groups; k++) {
        int n = offset[k + 1] - offset[k];
        const int *bits = masked ? mask + k * words : NULL;
        moments_of(near_t, order + offset[k], n, bits, m[0], m[1]);
        moments_of(t, order + offset[k], n, bits, m[2], m[3]);
        if (given) {
            moments_of(pv, order + offset[k], n, bits, m[1], m[4]);
        }
        want[2 * k] = n > 0 ? r2_of(m[0], m[2], genes) : 0;
        want[2 * k + 1] = n > 1 ? r2_of(m[1], m[3], genes) : 0;
    }
    cpa_dev_int *dev_order = put_ints(order, rows), *dev_offset = put_ints(offset, groups + 1);
    cpa_dev_int *dev_mask = put_ints(mask, groups * words);
    cpa_dev_f64 *r2 = new_sums(2 * groups);
    OK(cpa_op_group_r2(be, r2, near_t.m, given ? pv.m : CPA_NO_MAT, t.m, dev_order, dev_offset, groups,
                       masked ? dev_mask : NULL, masked ? words : 0));
    near("group_r2", get_sums(r2, 2 * groups), want, 2 * groups, 1e-9);
    drop(dev_order);
    drop(dev_offset);
    drop(dev_mask);
    drop(r2);
    DROP(t, p, near_t, pv);
}

// Predictions that are not finite count as upstream has it: NaN as 0, infinities as +-1000; then the rule as ever.
static void broken_predictions(void)
{
    enum { ROWS = 9, COLS = 40 };
    mat t = put_uniform(ROWS, COLS, 1, 0, 3), p = put_uniform(ROWS, COLS, 2, 0, 3);
    const int order[ROWS] = {8, 3, 1, 0, 2, 4, 5, 7, 6}, offset[] = {0, 4, ROWS};
    double *mean[4], want[4];
    for (int i = 0; i < 4; i++) {
        mean[i] = host(COLS, sizeof **mean);
    }
    for (int kind = 0; kind < 3; kind++) {
        double *tame = host(ROWS * COLS, sizeof *tame), *wild = host(ROWS * COLS, sizeof *wild);
        for (int i = 0; i < ROWS * COLS; i++) {
            bool hit = kind == 2 || i % 7 == kind;
            double to = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
            wild[i] = hit ? to : p.h[i];
            tame[i] = !hit ? p.h[i] : isnan(to) ? 0 : to > 0 ? 1e3 : -1e3;
        }
        mat tamed = put_values(ROWS, COLS, 0, tame), broken = put_values(ROWS, COLS, 2, wild);
        cpa_dev_int *dev_order = put_ints(order, ROWS), *dev_offset = put_ints(offset, 3);
        cpa_dev_f64 *r2 = new_sums(4);
        for (int given = 0; given < 2; given++) {
            for (int k = 0; k < 2; k++) {
                int n = offset[k + 1] - offset[k];
                moments_of(tamed, order + offset[k], n, NULL, mean[0], mean[1]);
                moments_of(t, order + offset[k], n, NULL, mean[2], mean[3]);
                want[2 * k] = r2_of(mean[0], mean[2], COLS);
                want[2 * k + 1] = r2_of(given ? mean[0] : mean[1], mean[3], COLS);
            }
            OK(cpa_op_group_r2(be, r2, broken.m, given ? broken.m : CPA_NO_MAT, t.m, dev_order, dev_offset, 2, NULL,
                               0));
            near("group_r2 of broken predictions", get_sums(r2, 4), want, 4, 1e-9);
        }
        drop(dev_order);
        drop(dev_offset);
        drop(r2);
        DROP(tamed, broken);
    }
    DROP(t, p);
}

static void case_group_r2(void)
{
    group_r2_of(2, 1, 3, false, false, 0.5);
    group_r2_of(31, 33, 3, false, false, 0.3);
    group_r2_of(33, 64, 5, true, false, 0.3);
    group_r2_of(128, 700, 6, true, false, 2);
    group_r2_of(128, 31, 4, false, false, 0); // a perfect prediction scores 1
    group_r2_of(20, 40, 3, true, false, 1e-4);
    group_r2_of(2, 1, 3, false, true, 0.5);
    group_r2_of(33, 64, 5, true, true, 0.3);
    group_r2_of(65, 520, 4, true, false, 0.3); // genes and cells cut in other ways
    group_r2_of(200, 70, 3, true, true, 0.5);
    group_r2_of(128, 700, 6, false, true, 2);
    // Constant targets have no variance to explain.
    mat t = put_uniform(4, 8, 0, 1, 1), p = put_uniform(4, 8, 0, 2, 3);
    const int order[] = {0, 1, 2, 3}, offset[] = {0, 4};
    broken_predictions();
    cpa_dev_int *dev_order = put_ints(order, 4), *dev_offset = put_ints(offset, 2);
    cpa_dev_f64 *r2 = new_sums(2);
    OK(cpa_op_group_r2(be, r2, p.m, CPA_NO_MAT, t.m, dev_order, dev_offset, 1, NULL, 0));
    assert_true(get_sums(r2, 2)[0] == 0);
    OK(cpa_op_group_r2(be, r2, t.m, CPA_NO_MAT, t.m, dev_order, dev_offset, 1, NULL, 0));
    assert_true(get_sums(r2, 2)[0] == 1 && get_sums(r2, 2)[1] == 1);
    drop(dev_order);
    drop(dev_offset);
    drop(r2);
    DROP(t, p);
}

// Sums of integers by group, row after row.
static void group_moments_of(int rows, int genes, int groups, bool weighted, double limit)
{
    mat a = put_uniform(rows, genes, 1, -3, 5);
    mat zi = put_uniform(rows, genes, 2, -4, 4), bias = put_uniform(1, genes, 0, -1, 1);
    const double scale = 0x1p51 / 8, scale2 = 0x1p51 / 64;
    int *group = host((size_t)rows, sizeof *group);
    int n = 2 * groups * genes;
    double *want = host((size_t)n, sizeof *want);
    if (rows > 3 && genes > 3) {
        a.h[genes + 2] = NAN;
        a.h[2 * genes + 1] = INFINITY;
        a.h[3 * genes] = -INFINITY;
        drop(a.m.data);
        a = put_values(rows, genes, 1, a.h);
    }
    for (int b = 0; b < rows; b++) {
        group[b] = (b * 5 + 1) % (groups + 1) - 1;
        for (int g = 0; group[b] >= 0 && g < genes; g++) {
            double v = a.h[b * genes + g], w = weighted ? 1 / (1 + exp(zi.h[b * genes + g] + bias.h[g])) : 1;
            v = isnan(v) ? 0 : fmin(fmax(v, -limit), limit);
            want[2 * group[b] * genes + g] += w * v;
            want[(2 * group[b] + 1) * genes + g] += w * v * v;
        }
    }
    void *sums;
    int64_t *got = host((size_t)n, sizeof *got), *again = host((size_t)n, sizeof *again);
    OK(cpa_op_alloc(be, (size_t)n * sizeof *got, &sums));
    OK(cpa_op_zero(be, sums, (size_t)n * sizeof *got));
    cpa_dev_int *dev = put_ints(group, rows);
    cpa_mat z = weighted ? zi.m : CPA_NO_MAT, zb = weighted ? bias.m : CPA_NO_MAT;
    OK(cpa_op_group_moments(be, sums, a.m, dev, groups, z, zb, limit, scale, scale2));
    OK(cpa_op_download(be, got, sums, (size_t)n * sizeof *got));
    double *value = host((size_t)n, sizeof *value);
    for (int i = 0; i < n; i++) {
        value[i] = (double)got[i] / (i / genes % 2 == 0 ? scale : scale2);
        digest = digest * 31 + (uint64_t)got[i];
    }
    near("group_moments", value, want, n, weighted ? tolerance : 1e-12);
    // The same rows in two parts and backwards give the same bits.
    OK(cpa_op_zero(be, sums, (size_t)n * sizeof *got));
    for (int b = rows - 1; b >= 0; b--) {
        cpa_mat row = {cpa_real_at(a.m.data, (int64_t)b * a.m.ld), 1, genes, a.m.ld, false};
        cpa_mat row_z =
            weighted ? (cpa_mat){cpa_real_at(zi.m.data, (int64_t)b * zi.m.ld), 1, genes, zi.m.ld, false} : z;
        OK(cpa_op_group_moments(be, sums, row, cpa_int_at(dev, b), groups, row_z, zb, limit, scale, scale2));
    }
    OK(cpa_op_download(be, again, sums, (size_t)n * sizeof *got));
    assert_true(n == 0 || memcmp(got, again, (size_t)n * sizeof *got) == 0);
    drop(dev);
    drop(sums);
    DROP(a, zi, bias);
}

static void case_group_moments(void)
{
    group_moments_of(0, 5, 2, false, 8);
    group_moments_of(1, 1, 1, false, 8);
    group_moments_of(31, 33, 3, false, 4.5);
    group_moments_of(31, 33, 3, true, 4.5);
    group_moments_of(128, 1100, 7, false, 8);
    group_moments_of(65, 513, 1, true, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_SCORE(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
