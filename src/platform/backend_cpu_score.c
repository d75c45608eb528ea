// Owns: what judges a batch on the CPU: cross-entropy, the most likely class, R2 of group means and variances. All in
// double or exact sums; never a policy of when a score is taken.
#include "backend_cpu_impl.h"

#include <float.h>
#include <string.h>

#include "cpa/platform/math_inl.h"

// One label of a cell, and the weight of its loss.
typedef struct target {
    int label;
    double weight;
} target;

// Loss of one cell; its logits become scale * gradient.
static double cross_entropy_row(cpa_real *z, int n, const target *targets, int n_targets, double gamma, double scale)
{
    cpa_real top = -INFINITY;
    for (int j = 0; j < n; j++) {
        top = z[j] > top ? z[j] : top;
    }
    double at[2], loss = 0, pull[2], pulls = 0, sum = 0;
    for (int i = 0; i < n_targets; i++) {
        at[i] = (double)z[targets[i].label] - (double)top;
    }
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) {
        z[j] = cpa_exp(z[j] - top);
        sum += (double)z[j];
    }
    for (int i = 0; i < n_targets; i++) {
        const target t = targets[i];
        loss += t.weight * cpa_focal_loss(at[i], (double)z[t.label], sum, gamma, &pull[i]);
        pull[i] *= scale * t.weight;
        pulls += pull[i];
    }
    const cpa_real share = (cpa_real)(pulls / sum);
#pragma omp simd
    for (int j = 0; j < n; j++) {
        z[j] *= share;
    }
    for (int i = 0; i < n_targets; i++) {
        z[targets[i].label] -= (cpa_real)pull[i];
    }
    return loss;
}

static target target_of(const cpa_dev_int *label, int b, cpa_mat weight, double factor)
{
    int k = cpa_ints(label)[b];
    return (target){k, factor * (weight.data != NULL ? (double)cpa_reals(weight.data)[k] : 1)};
}

cpa_status cpa_cpu_cross_entropy(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, const cpa_dev_int *label,
                                 const cpa_dev_int *label2, cpa_real mix, cpa_mat weight, cpa_real gamma,
                                 cpa_number scale)
{
    double *loss;
    cpa_status st = cpa_cpu_scratch(be, (size_t)logits.rows * sizeof *loss, &loss);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int b = 0; b < logits.rows; b++) {
        target t[2] = {target_of(label, b, weight, (double)mix)};
        if (label2 != NULL) {
            t[1] = target_of(label2, b, weight, 1 - (double)mix);
        }
        loss[b] =
            cross_entropy_row(cpa_row(logits, b), logits.cols, t, label2 != NULL ? 2 : 1, (double)gamma, scale.value);
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

// What upstream makes of a prediction before it scores it (torch.nan_to_num).
static inline double tamed(double x)
{
    double far = x > 0 ? 1e3 : -1e3, y = fabs(x) > DBL_MAX ? far : x;
    return x != x ? 0 : y;
}

// Means over the cells of a group, for some genes.
static void group_means(double *mean, cpa_mat a, bool predicted, const int *rows, int n, int g0, int width)
{
    memset(mean, 0, (size_t)width * sizeof *mean);
    for (int i = 0; i < n; i++) {
        const cpa_real *x = cpa_row(a, rows[i]) + g0;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            mean[j] += predicted ? tamed((double)x[j]) : (double)x[j];
        }
    }
    for (int j = 0; j < width; j++) {
        mean[j] /= n;
    }
}

// Their unbiased variances, given the means.
static void group_variances(double *var, const double *mean, cpa_mat a, bool predicted, const int *rows, int n, int g0,
                            int width)
{
    memset(var, 0, (size_t)width * sizeof *var);
    for (int i = 0; i < n; i++) {
        const cpa_real *x = cpa_row(a, rows[i]) + g0;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            double d = (predicted ? tamed((double)x[j]) : (double)x[j]) - mean[j];
            var[j] += d * d;
        }
    }
    for (int j = 0; j < width; j++) {
        var[j] /= n - 1;
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

static int gene_blocks(int n_genes)
{
    return (n_genes + GENES - 1) / GENES;
}

size_t cpa_cpu_group_r2_scratch(int n_genes, int n_groups)
{
    return (size_t)gene_blocks(n_genes) * (size_t)n_groups * 2 * sizeof(r2_sums);
}

cpa_status cpa_cpu_group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat pv, cpa_mat t,
                            const cpa_dev_int *order, const cpa_dev_int *offsets, int n_groups,
                            const cpa_dev_int *gene_mask, int mask_words)
{
    int blocks = gene_blocks(p.cols);
    r2_sums *part; // [blocks, n_groups, mean and variance]
    cpa_status st = cpa_cpu_scratch(be, cpa_cpu_group_r2_scratch(p.cols, n_groups), &part);
    if (st != CPA_OK) {
        return st;
    }
    const int *rows = cpa_ints(order), *offset = cpa_ints(offsets), *masks = cpa_ints(gene_mask);
#pragma omp parallel for schedule(static) if (cpa_parallel(p))
    for (int i = 0; i < blocks; i++) {
        int g0 = i * GENES, width = p.cols - g0 < GENES ? p.cols - g0 : GENES;
        double p_mean[GENES], p_var[GENES], t_mean[GENES], t_var[GENES];
        for (int k = 0; k < n_groups; k++) {
            const int n = offset[k + 1] - offset[k], *cell = rows + offset[k];
            const int *mask = masks != NULL ? masks + (int64_t)k * mask_words : NULL;
            group_means(p_mean, p, true, cell, n, g0, width);
            group_means(t_mean, t, false, cell, n, g0, width);
            group_variances(t_var, t_mean, t, false, cell, n, g0, width);
            if (pv.data != NULL) {
                group_means(p_var, pv, true, cell, n, g0, width);
            } else {
                group_variances(p_var, p_mean, p, true, cell, n, g0, width);
            }
            r2_sums *to = part + ((int64_t)i * n_groups + k) * 2;
            to[0] = add_genes(p_mean, t_mean, g0, width, mask);
            to[1] = add_genes(p_var, t_var, g0, width, mask);
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

// Adding it leaves the nearest integer of a number below 2^51 in the low bits.
static const double INTEGER = 0x1.8p52;

static inline int64_t integer(double x)
{
    const double shifted = x + INTEGER, zero = INTEGER;
    int64_t bits, none;
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&none, &zero, sizeof none);
    return bits - none;
}

cpa_status cpa_cpu_group_moments(cpa_backend *be, cpa_dev_i64 *sums, cpa_mat a, const cpa_dev_int *group, int n_groups,
                                 cpa_mat zi, cpa_mat zi_bias, double limit, double scale, double scale2)
{
    (void)be;
    (void)n_groups;
    int blocks = (a.cols + GENES - 1) / GENES;
    const int *group_of = cpa_ints(group);
    const bool weighted = zi.data != NULL;
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int i = 0; i < blocks; i++) {
        int g0 = i * GENES, width = a.cols - g0 < GENES ? a.cols - g0 : GENES;
        for (int b = 0; b < a.rows; b++) {
            if (group_of[b] < 0) {
                continue;
            }
            const cpa_real *restrict x = cpa_row(a, b) + g0;
            const cpa_real *restrict logit = weighted ? cpa_row(zi, b) + g0 : x;
            const cpa_real *restrict bias = weighted ? cpa_reals(zi_bias.data) + g0 : x;
            int64_t *restrict first = cpa_i64s(sums) + 2 * (int64_t)group_of[b] * a.cols + g0;
            int64_t *restrict second = first + a.cols;
#pragma omp simd
            for (int j = 0; j < width; j++) {
                double v = (double)x[j], w = weighted ? (double)cpa_logistic(-(logit[j] + bias[j])) : 1;
                v = v > limit ? limit : v < -limit ? -limit : v != v ? 0 : v;
                first[j] += integer(w * v * scale);
                second[j] += integer(w * (v * v) * scale2);
            }
        }
    }
    return CPA_OK;
}
