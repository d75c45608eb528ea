// Owns: conformance of the scores of a batch: the most likely class, R2 of group means and variances. Never another
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

static void case_argmax(void)
{
    argmax_of(0, 3, 0);
    argmax_of(1, 1, 0);
    argmax_of(2, 7, 1);
    argmax_of(31, 33, 2);
    argmax_of(128, 5, 0);
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
    group_r2_of(128, 700, 6, false, true, 2);
    // Constant targets have no variance to explain, a broken prediction has no score.
    mat t = put_uniform(4, 8, 0, 1, 1), p = put_uniform(4, 8, 0, 2, 3), broken = put_nan(4, 8, 0);
    const int order[] = {0, 1, 2, 3}, offset[] = {0, 4};
    cpa_dev_int *dev_order = put_ints(order, 4), *dev_offset = put_ints(offset, 2);
    cpa_dev_f64 *r2 = new_sums(2);
    OK(cpa_op_group_r2(be, r2, p.m, CPA_NO_MAT, t.m, dev_order, dev_offset, 1, NULL, 0));
    assert_true(get_sums(r2, 2)[0] == 0);
    OK(cpa_op_group_r2(be, r2, broken.m, CPA_NO_MAT, t.m, dev_order, dev_offset, 1, NULL, 0));
    assert_true(get_sums(r2, 2)[0] == 0 && get_sums(r2, 2)[1] == 0);
    OK(cpa_op_group_r2(be, r2, t.m, CPA_NO_MAT, t.m, dev_order, dev_offset, 1, NULL, 0));
    assert_true(get_sums(r2, 2)[0] == 1 && get_sums(r2, 2)[1] == 1);
    drop(dev_order);
    drop(dev_offset);
    drop(r2);
    DROP(t, p, broken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_SCORE(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
