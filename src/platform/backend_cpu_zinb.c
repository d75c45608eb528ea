// Owns: the zero-inflated negative binomial likelihood on the CPU, value and gradient. What it shares with the negative
// binomial stays there. Never a difference of two nearly equal softpluses.
#include "backend_cpu_loss_impl.h"

#include <string.h>

#include "cpa/platform/math_inl.h"

// With pi the logit of inflation and L = theta log1p(u) the loss of a 0 without it, a gene of a cell has
//   x = 0:  loss    = softplus(-pi) - softplus(-pi - L) = log1p((1 - e^-L) / (e^pi + e^-L))
//           dl/dL   = sigmoid(-pi - L)
//           dl/dpi  = -sigmoid(-pi) (1 - e^-L) sigmoid(pi + L)
//   x > 0:  loss    = softplus(pi) + L - [what the stored count adds, as without inflation]
//           dl/dL   = 1
//           dl/dpi  = sigmoid(pi)
// So every gene takes the first form, genes with counts are then given the second one, and the rest follows from dl/dL.
// None of these forms cancels or overflows.

// A thread's arrays of G.
typedef struct zinb_row {
    cpa_nb_row nb;
    cpa_real *l, *share, *dzi; // L, dl/dL, dl/dpi
    cpa_real *loss;            // of every gene, without the bracket
    cpa_real *plus, *chance;   // softplus(pi), sigmoid(pi) of the stored counts
} zinb_row;

enum { ARRAYS = CPA_NB_MORE };

static zinb_row zinb_row_of(const cpa_nb *s)
{
    zinb_row r = {.nb = cpa_nb_row_of(s)};
    cpa_real **more = r.nb.more;
    r.l = more[0];
    r.share = more[1];
    r.dzi = more[2];
    r.loss = more[3];
    r.plus = more[4];
    r.chance = more[5];
    return r;
}

// 0; NaN for a logit of minus infinity, where the loss is infinity less infinity.
static inline cpa_real defined(cpa_real pi)
{
    return 0 * (pi < 0 ? pi : 0);
}

// All genes as if every count were 0, from mu = scale * z; theta s, with s = u / (1 + u), goes to mu_slope.
static void as_zeros(const cpa_nb_genes *g, const cpa_real *restrict z, cpa_real scale, const cpa_real *restrict zi,
                     const cpa_real *restrict zi_bias, const zinb_row *r)
{
    const cpa_real *restrict theta = g->theta, *restrict inverse = g->inverse;
    cpa_real *restrict slope = r->nb.mu_slope, *restrict to_l = r->l, *restrict share = r->share;
    cpa_real *restrict dzi = r->dzi, *restrict loss = r->loss;
    const cpa_real far = 40; // e^-far is a number, and nothing beside 1
#pragma omp simd
    for (int j = 0; j < g->n_genes; j++) {
        cpa_real u = scale * z[j] * inverse[j], l = theta[j] * cpa_log1p(u), pi = zi[j] + zi_bias[j], less_1;
        // Where e^pi and e^-L are both tiny, both are taken e^lift times as large.
        cpa_real k = -pi < l ? -pi : l, lift = k > far ? k - far : 0;
        cpa_real p = cpa_exp(lift - (pi < 0 ? -pi : pi)), q = cpa_exp_both(lift - l, &less_1);
        cpa_real counted = pi < 0 ? 1 : p, inflated = pi < 0 ? p : 1; // their sum is 1 + p
        cpa_real share_of = 1 / (inflated + counted * q), to_zero = counted * share_of;
        slope[j] = theta[j] * (u / (1 + u));
        to_l[j] = l;
        share[j] = to_zero * q;
        dzi[j] = counted / (1 + p) * less_1 * (inflated * share_of);
        loss[j] = cpa_log1p(-less_1 * to_zero) + lift + defined(pi);
    }
}

// Genes with a count of cell `b` are no zeros.
static void as_counts(cpa_csr x, int b, const cpa_real *restrict zi, const cpa_real *restrict zi_bias,
                      const zinb_row *r)
{
    const int from = cpa_ints(x.indptr)[b], n = cpa_ints(x.indptr)[b + 1] - from;
    const int *restrict gene = cpa_ints(x.gene) + from;
    const cpa_real *count = cpa_reals(x.count) + from;
    cpa_real *restrict plus = r->plus, *restrict chance = r->chance;
#pragma omp simd
    for (int k = 0; k < n; k++) {
        cpa_real pi = zi[gene[k]] + zi_bias[gene[k]];
        plus[k] = cpa_softplus(pi) + defined(pi);
        chance[k] = cpa_logistic(pi);
    }
    for (int k = 0; k < n; k++) {
        int j = gene[k];
        if (count[k] >= CPA_NB_EPS) { // zeros may be stored
            r->share[j] = 1;
            r->dzi[j] = chance[k];
            r->loss[j] = plus[k] + r->l[j];
        }
    }
}

static double sum_of(const cpa_real *restrict a, int n)
{
    double sum = 0;
    for (int from = 0; from < n; from += CPA_CHUNK) {
        int to = n - from < CPA_CHUNK ? n : from + CPA_CHUNK;
        cpa_real part = 0;
#pragma omp simd reduction(+ : part)
        for (int j = from; j < to; j++) {
            part += a[j];
        }
        sum += (double)part;
    }
    return sum;
}

// mu_slope = dl/dL times what is in it, and the same for dl/dpx_r.
static void take_shares(const cpa_nb_genes *g, const zinb_row *r, cpa_real *restrict dpx)
{
    const cpa_real *restrict theta = g->theta, *restrict inverse = g->inverse, *restrict l = r->l;
    const cpa_real *restrict share = r->share;
    cpa_real *restrict slope = r->nb.mu_slope;
#pragma omp simd
    for (int j = 0; j < g->n_genes; j++) {
        dpx[j] += share[j] * (l[j] - theta[j] * inverse[j] * slope[j]);
        slope[j] *= share[j];
    }
}

// The block's sums of gradients, arrays of G.
typedef struct zinb_sums {
    cpa_real *dpx_r, *dbias, *dzi_bias;
} zinb_sums;

static zinb_sums sums_of(const cpa_nb *s, int block)
{
    const int n = s->genes.n_genes;
    const int64_t at = (int64_t)block * n;
    zinb_sums to = {s->dpx_r + at, s->dbias + at, s->dmore + at};
    memset(to.dpx_r, 0, (size_t)n * sizeof *to.dpx_r);
    memset(to.dbias, 0, (size_t)n * sizeof *to.dbias);
    memset(to.dzi_bias, 0, (size_t)n * sizeof *to.dzi_bias);
    return to;
}

static double loss_row(const cpa_nb *s, cpa_real *logits, cpa_real *restrict zi, cpa_csr x, int b, const cpa_real *bias,
                       const cpa_real *zi_bias, zinb_sums to, cpa_real scale)
{
    const cpa_nb_genes *g = &s->genes;
    zinb_row r = zinb_row_of(s);
    cpa_real to_p = cpa_softmax_row(logits, bias, g->n_genes, 1), to_mu = cpa_reals(x.library)[b] * to_p;
    as_zeros(g, logits, to_mu, zi, zi_bias, &r);
    as_counts(x, b, zi, zi_bias, &r);
    take_shares(g, &r, to.dpx_r);
    double more, slope = sum_of(r.nb.mu_slope, g->n_genes);
    double loss = sum_of(r.loss, g->n_genes) + cpa_nb_stored(g, x, b, logits, to_mu, &r.nb, &more);
    cpa_nb_gradient(g, x, b, &r.nb, slope + more, to_p, logits, to.dpx_r, to.dbias, scale);
    const cpa_real *restrict dzi = r.dzi;
    cpa_real *restrict sum = to.dzi_bias;
#pragma omp simd
    for (int j = 0; j < g->n_genes; j++) {
        sum[j] += dzi[j];
        zi[j] = scale * dzi[j];
    }
    return loss;
}

cpa_status cpa_cpu_zinb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                             cpa_mat zi, cpa_mat dzi_bias, cpa_mat bias, cpa_mat zi_bias, cpa_mat px_r, cpa_csr x,
                             cpa_real scale)
{
    cpa_nb s;
    int n = logits.cols;
    cpa_status st = cpa_nb_scratch(be, &s, logits.rows, n, ARRAYS);
    if (st != CPA_OK) {
        return st;
    }
    cpa_nb_prepare(&s.genes, cpa_reals(px_r.data), cpa_parallel(logits));
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int i = 0; i < CPA_BLOCKS; i++) {
        zinb_sums to = sums_of(&s, i);
        int end = cpa_block_begin(logits.rows, i + 1);
        for (int b = cpa_block_begin(logits.rows, i); b < end; b++) {
            s.loss[b] = loss_row(&s, cpa_row(logits, b), cpa_row(zi, b), x, b, cpa_reals(bias.data),
                                 cpa_reals(zi_bias.data), to, scale);
        }
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int col = 0; col < n; col += CPA_CHUNK) {
        cpa_blocks_sum(cpa_reals(dpx_r.data), s.dpx_r, n, col, scale);
        cpa_blocks_sum(cpa_reals(dbias.data), s.dbias, n, col, scale);
        cpa_blocks_sum(cpa_reals(dzi_bias.data), s.dmore, n, col, scale);
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, logits.rows);
    return CPA_OK;
}

cpa_status cpa_cpu_zinb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat zi, cpa_mat bias,
                                  cpa_mat zi_bias, cpa_mat px_r, cpa_csr x)
{
    cpa_nb s;
    cpa_status st = cpa_nb_scratch(be, &s, logits.rows, logits.cols, ARRAYS);
    if (st != CPA_OK) {
        return st;
    }
    cpa_nb_prepare(&s.genes, cpa_reals(px_r.data), cpa_parallel(logits));
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int b = 0; b < logits.rows; b++) {
        zinb_row r = zinb_row_of(&s);
        cpa_real *mu = cpa_row(logits, b);
        double slope;
        cpa_softmax_means(mu, cpa_reals(bias.data), logits.cols, cpa_reals(x.library)[b]);
        as_zeros(&s.genes, mu, 1, cpa_row(zi, b), cpa_reals(zi_bias.data), &r);
        as_counts(x, b, cpa_row(zi, b), cpa_reals(zi_bias.data), &r);
        s.loss[b] = sum_of(r.loss, logits.cols) + cpa_nb_stored(&s.genes, x, b, mu, 1, &r.nb, &slope);
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, logits.rows);
    return CPA_OK;
}

cpa_status cpa_cpu_zinb_thin(cpa_backend *be, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    (void)be;
    const cpa_real *restrict bias = cpa_reals(zi_bias.data);
#pragma omp parallel for schedule(static) if (cpa_parallel(mu))
    for (int b = 0; b < mu.rows; b++) {
        cpa_real *restrict to = cpa_row(mu, b);
        const cpa_real *restrict logit = cpa_row(zi, b);
#pragma omp simd
        for (int j = 0; j < mu.cols; j++) {
            to[j] *= cpa_logistic(-(logit[j] + bias[j]));
        }
    }
    return CPA_OK;
}
