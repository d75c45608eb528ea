// Owns: what judges a batch on the CPU: cross-entropy, the most likely class, R2 of group means and variances. All in
// double sums; never a policy of when a score is taken.
#include "backend_cpu_impl.h"

#include <float.h>
#include <string.h>

#include "cpa/platform/math_inl.h"

// Loss of one cell; its logits become scale * gradient.
static double cross_entropy_row(cpa_real *z, int n, int label, double weight, double scale)
{
    cpa_real top = -INFINITY;
    for (int j = 0; j < n; j++) {
        top = z[j] > top ? z[j] : top;
    }
    const double at = (double)z[label] - (double)top;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) {
        z[j] = cpa_exp(z[j] - top);
        sum += (double)z[j];
    }
    const cpa_real up = (cpa_real)(scale * weight), share = (cpa_real)(scale * weight / sum);
#pragma omp simd
    for (int j = 0; j < n; j++) {
        z[j] *= share;
    }
    z[label] -= up;
    return weight * (log(sum) - at);
}

cpa_status cpa_cpu_cross_entropy(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, const cpa_dev_int *label,
                                 cpa_mat weight, cpa_real scale)
{
    double *loss;
    cpa_status st = cpa_cpu_scratch(be, (size_t)logits.rows * sizeof *loss, &loss);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int b = 0; b < logits.rows; b++) {
        int k = cpa_ints(label)[b];
        double w = weight.data != NULL ? (double)cpa_reals(weight.data)[k] : 1;
        loss[b] = cross_entropy_row(cpa_row(logits, b), logits.cols, k, w, (double)scale);
    }
    double sum = 0;
    for (int b = 0; b < logits.rows; b++) {
        sum += loss[b];
    }
    cpa_f64s(loss_sum)[0] = sum;
    return CPA_OK;
}

cpa_status cpa_cpu_argmax(cpa_backend *be, cpa_dev_int *best, cpa_mat logits)
{
    (void)be;
    int *out = (int *)(uintptr_t)best;
    for (int b = 0; b < logits.rows; b++) {
        const cpa_real *z = cpa_row(logits, b);
        int at = 0;
        for (int j = 1; j < logits.cols; j++) {
            at = z[j] > z[at] ? j : at;
        }
        out[b] = at;
    }
    return CPA_OK;
}

// Genes of one task of group_r2.
enum { GENES = 512 };

// Sums over genes that make an R2.
typedef struct r2_sums {
    double rss, t, t2;
} r2_sums;

// Means and unbiased variances of some genes over the cells of a group, in two passes.
typedef struct moments {
    double mean[GENES], var[GENES];
} moments;

static void group_moments(moments *out, cpa_mat a, const int *rows, int n, int g0, int width)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < n; i++) {
        const cpa_real *x = cpa_row(a, rows[i]) + g0;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            out->mean[j] += (double)x[j];
        }
    }
    for (int j = 0; j < width; j++) {
        out->mean[j] /= n;
    }
    for (int i = 0; i < n; i++) {
        const cpa_real *x = cpa_row(a, rows[i]) + g0;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            double d = (double)x[j] - out->mean[j];
            out->var[j] += d * d;
        }
    }
    for (int j = 0; j < width; j++) {
        out->var[j] /= n - 1;
    }
}

// `mask`: the bits of the group, or NULL for all genes. An absent gene is 0 in both, so it adds nothing.
static r2_sums add_genes(const double *p, const double *t, int g0, int width, const int *mask)
{
    r2_sums s = {0};
    for (int j = 0; j < width; j++) {
        int g = g0 + j;
        if (mask == NULL || ((unsigned)mask[g / 32] >> (g % 32) & 1u) != 0) {
            s.rss += (t[j] - p[j]) * (t[j] - p[j]);
            s.t += t[j];
            s.t2 += t[j] * t[j];
        }
    }
    return s;
}

// The rule of torchmetrics for near-constant targets; NaN scores 0, as upstream has it.
static double r2_score(r2_sums s, int n_genes)
{
    double tss = s.t2 - s.t * s.t / n_genes, score;
    if (fabs(s.rss) <= 1e-4) {
        score = 1;
    } else if (fabs(tss) <= 1e-4) {
        score = 0;
    } else {
        score = 1 - s.rss / tss;
    }
    if (isnan(score)) {
        return 0;
    }
    return score > FLT_MAX ? FLT_MAX : score < -FLT_MAX ? -FLT_MAX : score;
}

cpa_status cpa_cpu_group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat t, const cpa_dev_int *order,
                            const cpa_dev_int *offsets, int n_groups, const cpa_dev_int *gene_mask, int mask_words)
{
    int blocks = (p.cols + GENES - 1) / GENES;
    r2_sums *part; // [blocks, n_groups, mean and variance]
    cpa_status st = cpa_cpu_scratch(be, (size_t)blocks * (size_t)n_groups * 2 * sizeof *part, &part);
    if (st != CPA_OK) {
        return st;
    }
    const int *rows = cpa_ints(order), *offset = cpa_ints(offsets), *masks = cpa_ints(gene_mask);
#pragma omp parallel for schedule(static) if (cpa_parallel(p))
    for (int i = 0; i < blocks; i++) {
        int g0 = i * GENES, width = p.cols - g0 < GENES ? p.cols - g0 : GENES;
        moments of_p, of_t;
        for (int k = 0; k < n_groups; k++) {
            int n = offset[k + 1] - offset[k];
            const int *mask = masks != NULL ? masks + (int64_t)k * mask_words : NULL;
            group_moments(&of_p, p, rows + offset[k], n, g0, width);
            group_moments(&of_t, t, rows + offset[k], n, g0, width);
            r2_sums *to = part + ((int64_t)i * n_groups + k) * 2;
            to[0] = add_genes(of_p.mean, of_t.mean, g0, width, mask);
            to[1] = add_genes(of_p.var, of_t.var, g0, width, mask);
        }
    }
    for (int k = 0; k < 2 * n_groups; k++) {
        r2_sums s = {0};
        for (int i = 0; i < blocks; i++) {
            r2_sums add = part[(int64_t)i * 2 * n_groups + k];
            s = (r2_sums){s.rss + add.rss, s.t + add.t, s.t2 + add.t2};
        }
        int cells = offset[k / 2 + 1] - offset[k / 2];
        bool defined = cells > k % 2; // a variance takes two cells
        cpa_f64s(r2)[k] = defined ? r2_score(s, p.cols) : 0;
    }
    return CPA_OK;
}
