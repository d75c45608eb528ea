// Owns: the negative binomial likelihoods with softmax means on the device, with and without zero inflation, value and gradient: a block
// a cell, the few genes that are stored in it first, then all the others. Never a search for a gene.
#include "nb.h"
#include "softmax.h"

enum { TABLE_GENES = 16, TABLE_COUNTS = CPA_THREADS / TABLE_GENES }; // of a block: a thread a gene and count

// Step i of T and E leads to count i + 1.
CPA_KERNEL tables(nb_genes g, cpa_mat px_r, cpa_mat bias)
{
    const int n = px_r.cols, first = (int)cpa_block() * TABLE_GENES;
    CPA_SHARED(cpa_real, step_t, CPA_THREADS);
    CPA_SHARED(cpa_real, step_e, CPA_THREADS);
    CPA_EACH(t)
    {
        const int i = t / TABLE_GENES, j = first + t % TABLE_GENES;
        const cpa_real theta = j < n ? cpa_exp(cpa_reals(px_r.data)[j]) : 1, inverse = 1 / (theta + CPA_NB_EPS);
        step_t[t] = i == 0 ? cpa_log(theta * inverse) : cpa_nb_next_term((cpa_real)i, inverse);
        step_e[t] = i == 0 ? 0 : (cpa_real)i / (theta + (cpa_real)i);
        if (i == 0 && j < n) {
            g.theta[j] = theta;
            g.inverse[j] = inverse;
            g.bias[j] = cpa_reals(bias.data)[j];
        }
    }
    CPA_EACH(t)
    {
        const int i = t / TABLE_GENES, j = first + t % TABLE_GENES;
        cpa_real sum_t = 0, sum_e = 0;
        for (int at = t % TABLE_GENES; at <= t; at += TABLE_GENES) {
            sum_t += step_t[at];
            sum_e += step_e[at];
        }
        if (i < CPA_NB_LAST && j < n) {
            g.t[(int64_t)i * n + j] = sum_t;
            g.e[(int64_t)i * n + j] = sum_e;
        }
    }
}

static cpa_status start(cpa_backend *be, nb_call *c, cpa_mat px_r, int arrays, int n_sums)
{
    const int n = c->logits.cols;
    CPA_STEP(cpa_cuda_cut_cells(be, &c->cut, c->logits.rows, n, CPA_DEVICE_NB_TABLES, arrays, n_sums));
    c->genes.theta = c->cut.table;
    c->genes.inverse = c->genes.theta + n;
    c->genes.bias = c->genes.inverse + n;
    c->genes.t = c->genes.bias + n;
    c->genes.e = c->genes.t + (int64_t)CPA_NB_LAST * n;
    return CPA_LAUNCH_BLOCKS(be, tables, (n + TABLE_GENES - 1) / TABLE_GENES, 0, c->genes, px_r, c->bias);
}

// ---- a gene of a cell ----

// Its loss, mu dl/dmu, and the derivatives by px_r and by the logit of inflation.
typedef struct nb_point {
    double loss;
    cpa_real slope, dpx, dzi;
} nb_point;

// 0; NaN for a logit of minus infinity, where the loss is infinity less infinity.
CPA_DEVICE cpa_real defined_for(cpa_real pi)
{
    return 0 * (pi < 0 ? pi : 0);
}

// With pi the logit of inflation and L = theta log1p(u) the loss of a 0 without it, a gene of a cell has
//   x = 0:  loss    = softplus(-pi) - softplus(-pi - L) = log1p((1 - e^-L) / (e^pi + e^-L))
//           dl/dL   = sigmoid(-pi - L)
//           dl/dpi  = -sigmoid(-pi) (1 - e^-L) sigmoid(pi + L)
//   x > 0:  loss    = softplus(pi) + L - [what the stored count adds, as without inflation]
//           dl/dL   = 1
//           dl/dpi  = sigmoid(pi)
// *share is dl/dL. None of these forms cancels or overflows.
CPA_DEVICE void inflate(nb_point *at, cpa_real *share, cpa_real l, cpa_real pi, bool counted)
{
    if (counted) {
        at->loss = (double)(cpa_softplus(pi) + defined_for(pi) + l);
        at->dzi = cpa_logistic(pi);
        return;
    }
    // Where e^pi and e^-L are both tiny, both are taken e^lift times as large.
    const cpa_real far = 40; // e^-far is a number, and nothing beside 1
    const cpa_real k = -pi < l ? -pi : l, lift = k > far ? k - far : 0;
    cpa_real less_1;
    const cpa_real p = cpa_exp(lift - (pi < 0 ? -pi : pi)), q = cpa_exp_both(lift - l, &less_1);
    const cpa_real not_zero = pi < 0 ? 1 : p, inflated = pi < 0 ? p : 1; // their sum is 1 + p
    const cpa_real share_of = cpa_over(1, inflated + not_zero * q), to_zero = not_zero * share_of;
    *share = to_zero * q;
    at->dzi = cpa_over(not_zero, 1 + p) * less_1 * (inflated * share_of);
    at->loss = (double)(cpa_log1p(-less_1 * to_zero) + lift + defined_for(pi));
}

// As if nothing of it were stored, or `counted`: as if its count added nothing. pi is there with inflation.
CPA_DEVICE nb_point uncounted(const nb_genes *g, int j, cpa_real mu, bool inflated, cpa_real pi, bool counted)
{
    const cpa_real theta = g->theta[j], inverse = g->inverse[j];
    const cpa_real u = mu * inverse, s = cpa_over(u, 1 + u), l = theta * cpa_log1p(u), m = theta * s;
    nb_point at = {(double)l, 0, 0, 0};
    cpa_real share = 1;
    if (inflated) {
        inflate(&at, &share, l, pi, counted);
    }
    at.slope = share * m;
    at.dpx = share * (l - theta * inverse * m);
    return at;
}

// With a count x > 0.
CPA_DEVICE nb_point counted(const nb_call *c, int j, cpa_real mu, bool inflated, cpa_real pi, cpa_real x)
{
    const cpa_real theta = c->genes.theta[j], inverse = c->genes.inverse[j];
    const cpa_real u = mu * inverse, s = cpa_over(u, 1 + u), near = mu + CPA_NB_EPS;
    nb_point at = uncounted(&c->genes, j, mu, inflated, pi, true);
    cpa_real t, e;
    nb_count_terms(&c->genes, c->cut.n_genes, j, x, &t, &e);
    at.loss -= (double)(x * (cpa_log(near) - cpa_log1p(u)) + t);
    at.slope -= x * cpa_over(theta * s, near);
    // 1 - (1 - s) theta / t, in a form without cancellation
    at.dpx += e - x * (CPA_NB_EPS * inverse + theta * inverse * s);
    return at;
}

// The logit of inflation, 0 where there is none.
CPA_DEVICE cpa_real pi_at(const nb_call *c, bool inflated, int b, int j)
{
    return inflated ? cpa_get(c->zi, (int64_t)b * c->zi.ld + j) + cpa_reals(c->zi_bias.data)[j] : 0;
}

// ---- gradients ----

// What a block has at hand: arrays of genes, and of threads.
typedef struct nb_block {
    cpa_real *row, *slope;          // the exps of the cell; mu dl/dmu, LATER where not known yet
    cpa_real *dpx, *dbias, *dzi;    // over the block's cells
    double *exps, *slopes, *losses; // [CPA_THREADS]
} nb_block;

// No gene has this slope: its count would have to be infinite.
#define LATER ((cpa_real)INFINITY)

// Thread t's share of the genes with counts of cell b.
CPA_DEVICE void with_counts(const nb_call *c, nb_block k, bool inflated, int b, int t)
{
    const int *gene = cpa_ints(c->x.gene), end = cpa_ints(c->x.indptr)[b + 1];
    const cpa_real to_mean = nb_to_means(c, b, k.exps[0]);
    double loss = 0, slope = 0;
    for (int i = cpa_ints(c->x.indptr)[b] + t; i < end; i += CPA_THREADS) {
        const cpa_real x = cpa_reals(c->x.count)[i];
        const int j = gene[i];
        if (x > 0) { // zeros may be stored
            const nb_point at = counted(c, j, to_mean * k.row[j], inflated, pi_at(c, inflated, b, j), x);
            loss += at.loss;
            slope += (double)at.slope;
            k.slope[j] = at.slope;
            k.dpx[j] += at.dpx;
            if (inflated) {
                k.dzi[j] += at.dzi;
                cpa_put(c->zi, (int64_t)b * c->zi.ld + j, c->scale * at.dzi);
            }
        }
    }
    k.losses[t] += loss;
    k.slopes[t] = slope;
}

// And of the others, thread t's genes all of them. What it computes of a gene with counts is dropped: branches would cost more.
CPA_DEVICE void without_counts(const nb_call *c, nb_block k, bool inflated, int b, int t)
{
    const int n = c->cut.n_genes;
    const cpa_real to_mean = nb_to_means(c, b, k.exps[0]);
    double loss = 0, slope = 0;
    for (int from = t; from < n; from += CPA_AT_ONCE * CPA_THREADS) {
        nb_point at[CPA_AT_ONCE];
        bool later[CPA_AT_ONCE];
        cpa_real losses = 0, slopes = 0;
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int next = from + i * CPA_THREADS, j = next < n ? next : from;
            later[i] = next < n && k.slope[j] == LATER;
            at[i] = uncounted(&c->genes, j, to_mean * k.row[j], inflated, pi_at(c, inflated, b, j), false);
        }
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int j = from + i * CPA_THREADS;
            if (later[i]) {
                losses += (cpa_real)at[i].loss;
                slopes += at[i].slope;
                k.slope[j] = at[i].slope;
                k.dpx[j] += at[i].dpx;
                if (inflated) {
                    k.dzi[j] += at[i].dzi;
                    cpa_put(c->zi, (int64_t)b * c->zi.ld + j, c->scale * at[i].dzi);
                }
            }
        }
        loss += (double)losses;
        slope += (double)slopes;
    }
    k.losses[t] += loss;
    k.slopes[t] += slope;
}

// The gradient by the logits of cell b, from its slopes and what is to be taken from them for every exp; the next cell's are to be made.
CPA_DEVICE void by_logits(cpa_mat z, nb_block k, cpa_real pull, cpa_real scale, int b, int t)
{
    const int n = z.cols;
    for (int from = t; from < n; from += CPA_AT_ONCE * CPA_THREADS) {
        cpa_real d[CPA_AT_ONCE];
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int next = from + i * CPA_THREADS, j = next < n ? next : from;
            d[i] = k.slope[j] - pull * k.row[j];
        }
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int j = from + i * CPA_THREADS;
            if (j < n) {
                k.slope[j] = LATER;
                k.dbias[j] += d[i];
                cpa_put(z, (int64_t)b * z.ld + j, scale * d[i]);
            }
        }
    }
}

CPA_DEVICE void gradients_of_block(const nb_call *c, cpa_real *cell, cpa_real *sums, bool inflated)
{
    const int n = c->cut.n_genes;
    CPA_SHARED(cpa_real, top, CPA_THREADS);
    CPA_SHARED(double, exps, CPA_THREADS);
    CPA_SHARED(double, slopes, CPA_THREADS);
    CPA_SHARED(double, losses, CPA_THREADS);
    const nb_block k = {cell, cell + n, sums, sums + n, sums + 2 * n, exps, slopes, losses};
    CPA_EACH(t)
    {
        losses[t] = 0;
        for (int j = t; j < n; j += CPA_THREADS) {
            k.slope[j] = LATER;
            k.dpx[j] = k.dbias[j] = 0;
            if (inflated) {
                k.dzi[j] = 0;
            }
        }
    }
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        cpa_exps_of_row(k.row, top, exps, c->logits, c->bias, b);
        CPA_EACH(t)
        {
            with_counts(c, k, inflated, b, t);
        }
        CPA_EACH(t)
        {
            without_counts(c, k, inflated, b, t);
        }
        cpa_block_sum(slopes);
        CPA_EACH(t)
        {
            const cpa_real pull = (cpa_real)slopes[0] * (cpa_real)(1.0 / exps[0]);
            if (c->logits.bf16) {
                by_logits(cpa_as(c->logits, true), k, pull, c->scale, b, t);
            } else {
                by_logits(cpa_as(c->logits, false), k, pull, c->scale, b, t);
            }
        }
    }
    cpa_end_block(&c->cut, losses, sums);
}

CPA_DEVICE void nb_gradients(const nb_call *c, cpa_real *cell, cpa_real *sums)
{
    gradients_of_block(c, cell, sums, false);
}

CPA_DEVICE void zinb_gradients(const nb_call *c, cpa_real *cell, cpa_real *sums)
{
    gradients_of_block(c, cell, sums, true);
}

CPA_CELLS_KERNELS(nb_loss, nb_call, nb_gradients)
CPA_CELLS_KERNELS(zinb_loss, nb_call, zinb_gradients)

cpa_status cpa_cuda_nb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                            cpa_mat bias, cpa_mat px_r, cpa_csr x, cpa_real scale)
{
    const cpa_mat none = CPA_NO_MAT;
    nb_call c = {{0}, {0}, logits, bias, none, none, x, scale};
    CPA_STEP(start(be, &c, px_r, CPA_DEVICE_NB_ARRAYS, 2));
    CPA_STEP(cpa_cuda_nb_is_wide(logits.cols) ? cpa_cuda_nb_wide(be, c) : CPA_LAUNCH_CELLS(be, nb_loss, c));
    return cpa_cuda_add_blocks(be, loss_sum, dpx_r, dbias, none, &c.cut, scale);
}

cpa_status cpa_cuda_zinb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                              cpa_mat zi, cpa_mat dzi_bias, cpa_mat bias, cpa_mat zi_bias, cpa_mat px_r, cpa_csr x,
                              cpa_real scale)
{
    nb_call c = {{0}, {0}, logits, bias, zi, zi_bias, x, scale};
    CPA_STEP(start(be, &c, px_r, CPA_DEVICE_NB_ARRAYS, 3));
    CPA_STEP(CPA_LAUNCH_CELLS(be, zinb_loss, c));
    return cpa_cuda_add_blocks(be, loss_sum, dpx_r, dbias, dzi_bias, &c.cut, scale);
}

// ---- means and losses ----

// No exp is negative: what stands for one whose gene has been dealt with.
#define DONE ((cpa_real)-1)

// Thread t's share of the genes with counts of cell b: their losses and means.
CPA_DEVICE void means_with_counts(const nb_call *c, cpa_real *row, double *losses, double total, bool inflated, int b,
                                  int t)
{
    const int *gene = cpa_ints(c->x.gene), end = cpa_ints(c->x.indptr)[b + 1];
    const cpa_real to_mean = nb_to_means(c, b, total);
    double loss = 0;
    for (int i = cpa_ints(c->x.indptr)[b] + t; i < end; i += CPA_THREADS) {
        const cpa_real x = cpa_reals(c->x.count)[i];
        const int j = gene[i];
        if (x > 0) {
            const cpa_real mu = to_mean * row[j];
            loss += counted(c, j, mu, inflated, pi_at(c, inflated, b, j), x).loss;
            row[j] = DONE;
            cpa_put(c->logits, (int64_t)b * c->logits.ld + j, mu);
        }
    }
    losses[t] += loss;
}

// And of the others, thread t's genes all of them.
CPA_DEVICE void means_without_counts(const nb_call *c, const cpa_real *row, double *losses, double total, bool inflated,
                                     int b, int t)
{
    const int n = c->cut.n_genes;
    const cpa_real to_mean = nb_to_means(c, b, total);
    for (int from = t; from < n; from += CPA_RUN) {
        const int to = cpa_run_end(from, n);
        cpa_real loss = 0;
        for (int j = from; j < to; j += CPA_THREADS) {
            if (row[j] != DONE) {
                const cpa_real mu = to_mean * row[j];
                loss += (cpa_real)uncounted(&c->genes, j, mu, inflated, pi_at(c, inflated, b, j), false).loss;
                cpa_put(c->logits, (int64_t)b * c->logits.ld + j, mu);
            }
        }
        losses[t] += (double)loss;
    }
}

CPA_DEVICE void means_of_block(const nb_call *c, cpa_real *row, cpa_real *sums, bool inflated)
{
    CPA_SHARED(cpa_real, top, CPA_THREADS);
    CPA_SHARED(double, exps, CPA_THREADS);
    CPA_SHARED(double, losses, CPA_THREADS);
    CPA_EACH(t)
    {
        losses[t] = 0;
    }
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        cpa_exps_of_row(row, top, exps, c->logits, c->bias, b);
        CPA_EACH(t)
        {
            means_with_counts(c, row, losses, exps[0], inflated, b, t);
        }
        CPA_EACH(t)
        {
            means_without_counts(c, row, losses, exps[0], inflated, b, t);
        }
    }
    cpa_end_block(&c->cut, losses, sums);
}

CPA_DEVICE void nb_means(const nb_call *c, cpa_real *row, cpa_real *sums)
{
    means_of_block(c, row, sums, false);
}

CPA_DEVICE void zinb_means(const nb_call *c, cpa_real *row, cpa_real *sums)
{
    means_of_block(c, row, sums, true);
}

CPA_CELLS_KERNELS(nb_mean_loss, nb_call, nb_means)
CPA_CELLS_KERNELS(zinb_mean_loss, nb_call, zinb_means)

cpa_status cpa_cuda_nb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat bias, cpa_mat px_r,
                                 cpa_csr x)
{
    const cpa_mat none = CPA_NO_MAT;
    nb_call c = {{0}, {0}, logits, bias, none, none, x, 1};
    CPA_STEP(start(be, &c, px_r, 1, 0));
    CPA_STEP(CPA_LAUNCH_CELLS(be, nb_mean_loss, c));
    return cpa_cuda_sum(be, loss_sum, c.cut.loss, c.cut.blocks);
}

cpa_status cpa_cuda_zinb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat zi, cpa_mat bias,
                                   cpa_mat zi_bias, cpa_mat px_r, cpa_csr x)
{
    nb_call c = {{0}, {0}, logits, bias, zi, zi_bias, x, 1};
    CPA_STEP(start(be, &c, px_r, 1, 0));
    CPA_STEP(CPA_LAUNCH_CELLS(be, zinb_mean_loss, c));
    return cpa_cuda_sum(be, loss_sum, c.cut.loss, c.cut.blocks);
}

// ---- the mean of the counts ----

enum { THIN = CPA_AT_ONCE * CPA_THREADS }; // genes of a block

CPA_KERNEL zinb_thin(int tiles, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    const int64_t b = cpa_block() / tiles;
    const int first = (int)(cpa_block() % tiles) * THIN;
    CPA_EACH(t)
    {
        cpa_real thin[CPA_AT_ONCE];
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int j = first + t + i * CPA_THREADS;
            thin[i] = j < mu.cols ? cpa_get(zi, b * zi.ld + j) + cpa_reals(zi_bias.data)[j] : 0;
        }
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int j = first + t + i * CPA_THREADS;
            if (j < mu.cols) {
                cpa_put(mu, b * mu.ld + j, cpa_get(mu, b * mu.ld + j) * cpa_logistic(-thin[i]));
            }
        }
    }
}

cpa_status cpa_cuda_zinb_thin(cpa_backend *be, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    const int tiles = (mu.cols + THIN - 1) / THIN;
    return CPA_LAUNCH_BLOCKS(be, zinb_thin, (int64_t)mu.rows * tiles, 0, tiles, mu, zi, zi_bias);
}
