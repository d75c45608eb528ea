// Owns: what judges a batch on the device: cross-entropy, the most likely class, R2 of group means and variances, moments of groups.
// All in double or exact sums; never an atomic.
#include <float.h>

#include "kernel.h"

// Of a block: rows of logits, and threads of a row.
enum { LANES = 32, ROWS = CPA_THREADS / LANES };

static inline int64_t row_blocks(cpa_mat logits)
{
    return ((int64_t)logits.rows + ROWS - 1) / ROWS;
}

// The row of thread t of the block.
CPA_DEVICE int64_t row_of_thread(int t)
{
    return cpa_block() * ROWS + t / LANES;
}

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

// What a call looks at.
typedef struct entropy_call {
    cpa_mat logits, weight;
    const cpa_dev_int *label, *label2; // or NULL
    double mix, gamma;
    cpa_number scale;
} entropy_call;

// What is known of a row once its exps are added up: the gradient is factor * exp, less pull at its labels.
typedef struct entropy_row {
    double factor, pull[2];
    int label[2]; // -1: there is no second
} entropy_row;

// Makes a row's gradient known, given its sum of exps below its largest logit; its loss.
CPA_DEVICE double judge_row(entropy_row *row, entropy_call c, int b, cpa_real top, double sum)
{
    const cpa_real *z = cpa_row(c.logits, b);
    double total = 0, pulls = 0;
    row->label[1] = -1;
    for (int i = 0; i < (c.label2 != NULL ? 2 : 1); i++) {
        const target t = target_of(i == 0 ? c.label : c.label2, b, c.weight, i == 0 ? c.mix : 1 - c.mix);
        const double at = (double)z[t.label] - (double)top, exp_at = (double)cpa_exp(z[t.label] - top);
        double pull;
        total += t.weight * cpa_focal_loss(at, exp_at, sum, c.gamma, &pull);
        row->label[i] = t.label;
        row->pull[i] = pull * (cpa_value_of(c.scale) * t.weight);
        pulls += row->pull[i];
    }
    row->factor = pulls / sum;
    return total;
}

CPA_DEVICE cpa_real lane_top(const cpa_real *z, int n, int lane)
{
    cpa_real top = -INFINITY;
    for (int j = lane; j < n; j += LANES) {
        top = z[j] > top ? z[j] : top;
    }
    return top;
}

// Exps are computed twice, which is cheaper than to write them down.
CPA_KERNEL cross_entropy(double *loss, entropy_call c)
{
    CPA_SHARED(cpa_real, peak, CPA_THREADS);
    CPA_SHARED(double, exps, CPA_THREADS);
    CPA_SHARED(cpa_real, top, ROWS);
    CPA_SHARED(entropy_row, row, ROWS);
    const int n = c.logits.cols;
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b < c.logits.rows) {
            peak[t] = lane_top(cpa_row(c.logits, (int)b), n, t % LANES);
        }
    }
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b >= c.logits.rows) {
            continue;
        }
        const cpa_real *z = cpa_row(c.logits, (int)b), highest = lane_top(peak + t / LANES * LANES, LANES, 0);
        double sum = 0;
        for (int j = t % LANES; j < n; j += LANES) {
            sum += (double)cpa_exp(z[j] - highest);
        }
        exps[t] = sum;
        if (t % LANES == 0) {
            top[t / LANES] = highest;
        }
    }
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b < c.logits.rows && t % LANES == 0) {
            double sum = 0;
            for (int i = 0; i < LANES; i++) {
                sum += exps[t + i];
            }
            loss[b] = judge_row(&row[t / LANES], c, (int)b, top[t / LANES], sum);
        }
    }
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b >= c.logits.rows) {
            continue;
        }
        const entropy_row *r = &row[t / LANES];
        cpa_real *z = cpa_row(c.logits, (int)b);
        for (int j = t % LANES; j < n; j += LANES) {
            cpa_real d = cpa_exp(z[j] - top[t / LANES]) * (cpa_real)r->factor;
            d -= j == r->label[0] ? (cpa_real)r->pull[0] : 0;
            d -= j == r->label[1] ? (cpa_real)r->pull[1] : 0;
            z[j] = d;
        }
    }
}

cpa_status cpa_cuda_cross_entropy(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, const cpa_dev_int *label,
                                  const cpa_dev_int *label2, cpa_real mix, cpa_mat weight, cpa_real gamma,
                                  cpa_number scale)
{
    double *loss;
    const entropy_call c = {logits, weight, label, label2, (double)mix, (double)gamma, scale};
    CPA_STEP(cpa_cuda_scratch(be, (size_t)logits.rows * sizeof *loss, &loss));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, cross_entropy, row_blocks(logits), 0, loss, c));
    return cpa_cuda_sum(be, loss_sum, loss, logits.rows);
}

// The first largest of z[from], z[from + by], ...; -1 where none is a number.
CPA_DEVICE int first_largest(const cpa_real *z, int n, int from, int by)
{
    int best = -1;
    cpa_real most = 0;
    for (int j = from; j < n; j += by) {
        if (best < 0 ? z[j] == z[j] : z[j] > most) {
            best = j;
            most = z[j];
        }
    }
    return best;
}

CPA_KERNEL argmax(cpa_dev_int *best, cpa_mat logits)
{
    CPA_SHARED(int, found, CPA_THREADS);
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b < logits.rows) {
            found[t] = first_largest(cpa_row(logits, (int)b), logits.cols, t % LANES, LANES);
        }
    }
    CPA_EACH(t)
    {
        const int64_t b = row_of_thread(t);
        if (b >= logits.rows || t % LANES != 0) {
            continue;
        }
        const cpa_real *z = cpa_row(logits, (int)b);
        int at = 0; // stays where z[0] is NaN: nothing is larger
        for (int i = 0; i < LANES; i++) {
            const int j = found[t + i];
            if (j >= 0 && (z[j] > z[at] || (z[j] == z[at] && j < at))) {
                at = j;
            }
        }
        ((int *)(uintptr_t)best)[b] = at;
    }
}

cpa_status cpa_cuda_argmax(cpa_backend *be, cpa_dev_int *best, cpa_mat logits)
{
    return CPA_LAUNCH_BLOCKS(be, argmax, row_blocks(logits), 0, best, logits);
}

// ---- R2 of groups ----

// Sums over genes that make an R2.
typedef struct r2_sums {
    double rss, t, t2;
} r2_sums;

// Of a group: the r2_sums of its means, those of its variances. They are folded FOLD-fold, at most.
enum { SUMS = 6, FOLD = 32 };

// What a call looks at, and how it is cut: a block has so many genes of a group, each of them so many threads that share its cells.
typedef struct r2_call {
    cpa_mat p, pv, t;
    const cpa_dev_int *order, *offsets, *gene_mask;
    int mask_words, genes, lanes, tiles;
} r2_call;

// What upstream makes of a prediction before it scores it (torch.nan_to_num).
CPA_DEVICE cpa_real tamed(cpa_real x)
{
    const cpa_real far = x != x ? (cpa_real)0 : x > 0 ? (cpa_real)1e3 : (cpa_real)-1e3;
    return x - x == 0 ? x : far; // infinity less infinity is NaN
}

// The cells of a group.
typedef struct r2_group {
    const int *cell;
    int n;
} r2_group;

CPA_DEVICE r2_group group_of(r2_call c, int k)
{
    const int from = cpa_ints(c.offsets)[k];
    r2_group s;
    s.cell = cpa_ints(c.order) + from;
    s.n = cpa_ints(c.offsets)[k + 1] - from;
    return s;
}

// Sums of a gene over a lane's cells, all counted from those of the group's first cell: so squares lose at most as many digits as the
// number of cells has, and one pass will do. v[0 ... 4] (CPA_THREADS apart) = p, p^2, t, t^2, pv.
CPA_DEVICE void add_cells(double *v, r2_call c, r2_group s, int g, int lane)
{
    const double p0 = (double)tamed(cpa_row(c.p, s.cell[0])[g]), t0 = (double)cpa_row(c.t, s.cell[0])[g];
    double p = 0, p2 = 0, t = 0, t2 = 0, pv = 0;
    for (int i = lane; i < s.n; i += c.lanes) {
        const double dp = (double)tamed(cpa_row(c.p, s.cell[i])[g]) - p0, dt = (double)cpa_row(c.t, s.cell[i])[g] - t0;
        p += dp;
        p2 += dp * dp;
        t += dt;
        t2 += dt * dt;
    }
    for (int i = lane; c.pv.data != NULL && i < s.n; i += c.lanes) {
        pv += (double)tamed(cpa_row(c.pv, s.cell[i])[g]);
    }
    const double sum[5] = {p, p2, t, t2, pv};
    for (int i = 0; i < 5; i++) {
        v[i * CPA_THREADS] = sum[i];
    }
}

CPA_DEVICE bool is_present(r2_call c, int k, int g)
{
    const int *mask = c.gene_mask != NULL ? cpa_ints(c.gene_mask) + (int64_t)k * c.mask_words : NULL;
    return g < c.p.cols && (mask == NULL || ((unsigned)mask[g / 32] >> (g % 32) & 1u) != 0);
}

CPA_DEVICE void put_r2(double *v, double p, double t)
{
    v[0] = (t - p) * (t - p);
    v[CPA_THREADS] = t;
    v[2 * CPA_THREADS] = t * t;
}

// A gene's share of the SUMS, out of what its lanes have added up; 0 where it is absent. inverse: of n and of n - 1.
CPA_DEVICE void finish_gene(double *v, r2_call c, r2_group s, int g, bool present, const double inverse[2])
{
    double sum[5] = {0, 0, 0, 0, 0}, p = 0, t = 0, pv = 0, tv = 0;
    if (present) {
        for (int lane = 0; lane < c.lanes; lane++) {
            for (int i = 0; i < 5; i++) {
                sum[i] += v[i * CPA_THREADS + lane * c.genes];
            }
        }
        p = (double)tamed(cpa_row(c.p, s.cell[0])[g]) + sum[0] * inverse[0];
        t = (double)cpa_row(c.t, s.cell[0])[g] + sum[2] * inverse[0];
        pv = c.pv.data != NULL ? sum[4] * inverse[0] : (sum[1] - sum[0] * sum[0] * inverse[0]) * inverse[1];
        tv = (sum[3] - sum[2] * sum[2] * inverse[0]) * inverse[1];
    }
    put_r2(v, p, t);
    put_r2(v + 3 * CPA_THREADS, pv, tv);
}

// A block for a tile of the genes of a group. part [groups, SUMS, tiles].
CPA_KERNEL r2_parts(double *part, r2_call c)
{
    CPA_SHARED(double, v, SUMS *CPA_THREADS);
    CPA_SHARED(double, inverse, 2);
    const int k = (int)(cpa_block() / c.tiles), tile = (int)(cpa_block() % c.tiles), from = tile * c.genes;
    const r2_group s = group_of(c, k);
    if (s.n == 0) {
        return; // nobody will look
    }
    CPA_EACH(t)
    {
        const int g = from + t % c.genes;
        if (t < 2) {
            inverse[t] = 1.0 / (s.n - t); // no variance of one cell will be looked at
        }
        if (is_present(c, k, g)) {
            add_cells(v + t, c, s, g, t / c.genes);
        }
    }
    CPA_EACH(t)
    {
        if (t < c.genes) {
            finish_gene(v + t, c, s, from + t, is_present(c, k, from + t), inverse);
        }
    }
    CPA_EACH(t)
    {
        double sum = 0;
        for (int i = t % FOLD; t < SUMS * FOLD && i < c.genes; i += FOLD) {
            sum += v[t / FOLD * CPA_THREADS + i];
        }
        if (t < SUMS * FOLD) {
            v[t / FOLD * CPA_THREADS + t % FOLD] = sum;
        }
    }
    CPA_EACH(t)
    {
        if (t < SUMS) {
            double sum = 0;
            for (int i = 0; i < FOLD; i++) {
                sum += v[t * CPA_THREADS + i];
            }
            part[((int64_t)k * SUMS + t) * c.tiles + tile] = sum;
        }
    }
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

// A block a group.
CPA_KERNEL r2_scores(cpa_dev_f64 *r2, const double *part, r2_call c)
{
    CPA_SHARED(double, v, CPA_THREADS);
    const int64_t k = cpa_block();
    CPA_EACH(t)
    {
        double sum = 0;
        for (int i = t % FOLD; t < SUMS * FOLD && i < c.tiles; i += FOLD) {
            sum += part[(k * SUMS + t / FOLD) * c.tiles + i];
        }
        v[t] = sum;
    }
    CPA_EACH(t)
    {
        if (t < 2) {
            const double *of = v + t * 3 * FOLD;
            r2_sums s = {0, 0, 0};
            for (int i = 0; i < FOLD; i++) {
                s.rss += of[i];
                s.t += of[FOLD + i];
                s.t2 += of[2 * FOLD + i];
            }
            // A variance takes two cells.
            cpa_f64s(r2)[2 * k + t] = group_of(c, (int)k).n > t ? r2_score(s, c.p.cols) : 0;
        }
    }
}

cpa_status cpa_cuda_group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat pv, cpa_mat t,
                             const cpa_dev_int *order, const cpa_dev_int *offsets, int n_groups,
                             const cpa_dev_int *gene_mask, int mask_words)
{
    double *part;
    r2_call c = {p, pv, t, order, offsets, gene_mask, mask_words, CPA_THREADS, 1, 0};
    while (c.lanes < 8 && (int64_t)16 * c.lanes * n_groups <= p.rows) { // 16 cells of a group of middling size a thread
        c.lanes *= 2;
        c.genes /= 2;
    }
    c.tiles = (p.cols + c.genes - 1) / c.genes;
    const int64_t blocks = (int64_t)n_groups * c.tiles;
    CPA_STEP(cpa_cuda_scratch(be, (size_t)blocks * SUMS * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, r2_parts, blocks, 0, part, c));
    return CPA_LAUNCH_BLOCKS(be, r2_scores, (int64_t)n_groups, 0, r2, part, c);
}

// ---- moments of groups ----

// What a call adds up.
typedef struct moments_call {
    cpa_mat a, zi, zi_bias;
    double limit, scale, scale2;
} moments_call;

// A thread for a gene of the groups whose number leaves a rest that is the thread's own: so nobody shares a sum. Integers have no order, so
// runs of a group are added up before they are written down.
enum { GENES = 32, IN_BLOCK = CPA_THREADS / GENES, RESTS = 2 * IN_BLOCK };

CPA_DEVICE void add_moments(int64_t *to, int64_t n, const int64_t run[2])
{
    to[0] += run[0];
    to[n] += run[1];
}

CPA_DEVICE void walk_groups(int64_t *sums, const int *group, moments_call c, int g, int rest)
{
    const int64_t n = c.a.cols;
    int64_t run[2] = {0, 0};
    int of = -1;
    for (int b = 0; b < c.a.rows; b++) {
        const int k = group[b];
        if (k < 0 || k % RESTS != rest) {
            continue;
        }
        if (k != of && of >= 0) {
            add_moments(sums + 2 * of * n + g, n, run);
            run[0] = run[1] = 0;
        }
        of = k;
        double v = (double)cpa_row(c.a, b)[g], w = 1;
        if (c.zi.data != NULL) {
            w = (double)cpa_logistic(-(cpa_row(c.zi, b)[g] + cpa_reals(c.zi_bias.data)[g]));
        }
        v = v > c.limit ? c.limit : v < -c.limit ? -c.limit : v != v ? 0 : v;
        run[0] += (int64_t)rint(w * v * c.scale);
        run[1] += (int64_t)rint(w * (v * v) * c.scale2);
    }
    if (of >= 0) {
        add_moments(sums + 2 * of * n + g, n, run);
    }
}

CPA_KERNEL group_moments(cpa_dev_i64 *sums, const cpa_dev_int *group, moments_call c)
{
    const int part = (int)(cpa_block() % (RESTS / IN_BLOCK));
    const int64_t from = cpa_block() / (RESTS / IN_BLOCK) * GENES;
    CPA_EACH(t)
    {
        const int64_t g = from + t % GENES;
        if (g < c.a.cols) {
            walk_groups(cpa_i64s(sums), cpa_ints(group), c, (int)g, part * IN_BLOCK + t / GENES);
        }
    }
}

cpa_status cpa_cuda_group_moments(cpa_backend *be, cpa_dev_i64 *sums, cpa_mat a, const cpa_dev_int *group, int n_groups,
                                  cpa_mat zi, cpa_mat zi_bias, double limit, double scale, double scale2)
{
    (void)n_groups;
    const moments_call c = {a, zi, zi_bias, limit, scale, scale2};
    const int64_t tiles = ((int64_t)a.cols + GENES - 1) / GENES;
    return CPA_LAUNCH_BLOCKS(be, group_moments, tiles * (RESTS / IN_BLOCK), 0, sums, group, c);
}
