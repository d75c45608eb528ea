// Owns: what judges a batch on the device: cross-entropy, the most likely class, R2 of group means and variances, moments of groups.
// All in double or exact sums; never an atomic.
#include <float.h>

#include "kernel.h"

// One label of a cell, and the weight of its loss.
typedef struct target {
    int label;
    double weight;
} target;

CPA_DEVICE target target_of(const cpa_dev_int *label, int b, cpa_mat weight, double factor)
{
    target t;
    t.label = cpa_ints(label)[b];
    t.weight = factor * (double)cpa_or(weight, 0, t.label, 1);
    return t;
}

// A thread a cell.
CPA_KERNEL cross_entropy(int64_t n, double *loss, cpa_mat logits, const cpa_dev_int *label, const cpa_dev_int *label2,
                         cpa_real mix, cpa_mat weight, double gamma, double scale)
{
    const int64_t b = cpa_thread();
    if (b >= n) {
        return;
    }
    cpa_real *z = cpa_row(logits, (int)b), top = -INFINITY;
    const int targets = label2 != NULL ? 2 : 1;
    target t[2];
    t[0] = target_of(label, (int)b, weight, (double)mix);
    t[1] = target_of(label2 != NULL ? label2 : label, (int)b, weight, 1 - (double)mix);
    for (int j = 0; j < logits.cols; j++) {
        top = z[j] > top ? z[j] : top;
    }
    double at[2], pull[2], total = 0, pulls = 0, sum = 0;
    for (int i = 0; i < targets; i++) {
        at[i] = (double)z[t[i].label] - (double)top;
    }
    for (int j = 0; j < logits.cols; j++) {
        z[j] = cpa_exp(z[j] - top);
        sum += (double)z[j];
    }
    for (int i = 0; i < targets; i++) {
        total += t[i].weight * cpa_focal_loss(at[i], (double)z[t[i].label], sum, gamma, &pull[i]);
        pull[i] *= scale * t[i].weight;
        pulls += pull[i];
    }
    for (int j = 0; j < logits.cols; j++) {
        z[j] *= (cpa_real)(pulls / sum);
    }
    for (int i = 0; i < targets; i++) {
        z[t[i].label] -= (cpa_real)pull[i];
    }
    loss[b] = total;
}

cpa_status cpa_cuda_cross_entropy(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, const cpa_dev_int *label,
                                  const cpa_dev_int *label2, cpa_real mix, cpa_mat weight, cpa_real gamma,
                                  cpa_real scale)
{
    double *loss;
    CPA_STEP(cpa_cuda_scratch(be, (size_t)logits.rows * sizeof *loss, &loss));
    CPA_STEP(CPA_LAUNCH(be, cross_entropy, (int64_t)logits.rows, loss, logits, label, label2, mix, weight,
                        (double)gamma, (double)scale));
    return cpa_cuda_sum(be, loss_sum, loss, logits.rows);
}

CPA_KERNEL argmax(int64_t n, cpa_dev_int *best, cpa_mat logits)
{
    const int64_t b = cpa_thread();
    if (b < n) {
        const cpa_real *z = cpa_row(logits, (int)b);
        int at = 0;
        for (int j = 1; j < logits.cols; j++) {
            at = z[j] > z[at] ? j : at;
        }
        ((int *)(uintptr_t)best)[b] = at;
    }
}

cpa_status cpa_cuda_argmax(cpa_backend *be, cpa_dev_int *best, cpa_mat logits)
{
    return CPA_LAUNCH(be, argmax, (int64_t)logits.rows, best, logits);
}

// ---- R2 of groups ----

// Sums over genes that make an R2.
typedef struct r2_sums {
    double rss, t, t2;
} r2_sums;

// What a call looks at.
typedef struct r2_call {
    cpa_mat p, pv, t;
    const cpa_dev_int *order, *offsets, *gene_mask;
    int mask_words;
} r2_call;

// What upstream makes of a prediction before it scores it (torch.nan_to_num).
CPA_DEVICE double tamed(double x)
{
    const double far = x > 0 ? 1e3 : -1e3, y = fabs(x) > DBL_MAX ? far : x;
    return x != x ? 0 : y;
}

CPA_DEVICE double value_at(cpa_mat a, bool predicted, int row, int g)
{
    const double x = (double)cpa_row(a, row)[g];
    return predicted ? tamed(x) : x;
}

// Mean of gene g over n cells; and their unbiased variance, given the mean.
CPA_DEVICE double group_mean(cpa_mat a, bool predicted, const int *cell, int n, int g)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += value_at(a, predicted, cell[i], g);
    }
    return sum / n;
}

CPA_DEVICE double group_variance(cpa_mat a, bool predicted, const int *cell, int n, int g, double mean)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const double d = value_at(a, predicted, cell[i], g) - mean;
        sum += d * d;
    }
    return sum / (n - 1);
}

CPA_DEVICE void add_gene(r2_sums *s, double p, double t)
{
    s->rss += (t - p) * (t - p);
    s->t += t;
    s->t2 += t * t;
}

// The thread of a part of the genes of a group; an absent gene is 0 in both, so it adds nothing. part [groups, 2, CPA_PARTS].
CPA_KERNEL r2_parts(int64_t n, r2_sums *part, r2_call c)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int k = (int)(i / CPA_PARTS), *offset = cpa_ints(c.offsets), *cell = cpa_ints(c.order) + offset[k];
    const int *mask = c.gene_mask != NULL ? cpa_ints(c.gene_mask) + (int64_t)k * c.mask_words : NULL;
    const int cells = offset[k + 1] - offset[k];
    r2_sums mean = {0, 0, 0}, variance = {0, 0, 0};
    for (int g = (int)(i % CPA_PARTS); g < c.p.cols; g += CPA_PARTS) {
        if (mask != NULL && ((unsigned)mask[g / 32] >> (g % 32) & 1u) == 0) {
            continue;
        }
        const double p = group_mean(c.p, true, cell, cells, g), t = group_mean(c.t, false, cell, cells, g);
        const double pv =
            c.pv.data != NULL ? group_mean(c.pv, true, cell, cells, g) : group_variance(c.p, true, cell, cells, g, p);
        add_gene(&mean, p, t);
        add_gene(&variance, pv, group_variance(c.t, false, cell, cells, g, t));
    }
    part[(int64_t)(2 * k) * CPA_PARTS + i % CPA_PARTS] = mean;
    part[(int64_t)(2 * k + 1) * CPA_PARTS + i % CPA_PARTS] = variance;
}

// The rule of torchmetrics for near-constant targets; NaN scores 0, as upstream has it.
CPA_DEVICE double r2_score(r2_sums s, int n_genes)
{
    const double tss = s.t2 - s.t * s.t / n_genes;
    double score = 1 - s.rss / tss;
    if (fabs(s.rss) <= 1e-4) {
        score = 1;
    } else if (fabs(tss) <= 1e-4) {
        score = 0;
    }
    if (score != score) {
        return 0;
    }
    return score > FLT_MAX ? FLT_MAX : score < -FLT_MAX ? -FLT_MAX : score;
}

// The thread of a group's mean or variance.
CPA_KERNEL r2_scores(int64_t n, cpa_dev_f64 *r2, const r2_sums *part, r2_call c)
{
    const int64_t k = cpa_thread();
    if (k >= n) {
        return;
    }
    r2_sums s = {0, 0, 0};
    for (int p = 0; p < CPA_PARTS; p++) {
        const r2_sums add = part[k * CPA_PARTS + p];
        s.rss += add.rss;
        s.t += add.t;
        s.t2 += add.t2;
    }
    const int cells = cpa_ints(c.offsets)[k / 2 + 1] - cpa_ints(c.offsets)[k / 2];
    cpa_f64s(r2)[k] = cells > k % 2 ? r2_score(s, c.p.cols) : 0; // a variance takes two cells
}

cpa_status cpa_cuda_group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat pv, cpa_mat t,
                             const cpa_dev_int *order, const cpa_dev_int *offsets, int n_groups,
                             const cpa_dev_int *gene_mask, int mask_words)
{
    r2_sums *part;
    const r2_call c = {p, pv, t, order, offsets, gene_mask, mask_words};
    CPA_STEP(cpa_cuda_scratch(be, (size_t)cpa_parts(2 * n_groups) * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH(be, r2_parts, cpa_parts(n_groups), part, c));
    return CPA_LAUNCH(be, r2_scores, (int64_t)n_groups * 2, r2, part, c);
}

// ---- moments of groups ----

// What a call adds up.
typedef struct moments_call {
    cpa_mat a, zi, zi_bias;
    double limit, scale, scale2;
} moments_call;

// A thread a gene.
CPA_KERNEL group_moments(int64_t n, cpa_dev_i64 *sums, const cpa_dev_int *group, moments_call c)
{
    const int64_t g = cpa_thread();
    for (int b = 0; g < n && b < c.a.rows; b++) {
        const int k = cpa_ints(group)[b];
        if (k < 0) {
            continue;
        }
        double v = (double)cpa_row(c.a, b)[g], w = 1;
        if (c.zi.data != NULL) {
            w = (double)cpa_logistic(-(cpa_row(c.zi, b)[g] + cpa_reals(c.zi_bias.data)[g]));
        }
        v = v > c.limit ? c.limit : v < -c.limit ? -c.limit : v != v ? 0 : v;
        int64_t *to = cpa_i64s(sums) + 2 * k * n + g;
        to[0] += (int64_t)rint(w * v * c.scale);
        to[n] += (int64_t)rint(w * (v * v) * c.scale2);
    }
}

cpa_status cpa_cuda_group_moments(cpa_backend *be, cpa_dev_i64 *sums, cpa_mat a, const cpa_dev_int *group, int n_groups,
                                  cpa_mat zi, cpa_mat zi_bias, double limit, double scale, double scale2)
{
    (void)n_groups;
    const moments_call c = {a, zi, zi_bias, limit, scale, scale2};
    return CPA_LAUNCH(be, group_moments, (int64_t)a.cols, sums, group, c);
}
