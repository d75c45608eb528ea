// Owns: the negative binomial likelihood with softmax means on the CPU, value and gradient. A row is worked on while it
// is in cache; gamma functions are taken only where counts are stored. Never a difference of large gamma functions.
#include "backend_cpu_loss_impl.h"

#include <string.h>

#include "cpa/platform/math_inl.h"

// The formulas are in math_inl.h. The sums of T and E make a table for small counts, and Stirling's series goes on from its end.
enum { TABLE = CPA_NB_TABLE, LAST = CPA_NB_LAST }; // counts 0 .. 15

static size_t lines_of(int64_t n)
{
    return cpa_lines((size_t)n * sizeof(cpa_real));
}

// Carves `n` elements from scratch.
static cpa_real *carve(char **scratch, int64_t n)
{
    return cpa_carve(scratch, (size_t)n * sizeof(cpa_real));
}

static size_t row_bytes(int n_genes, int n_more)
{
    return (size_t)(4 + n_more) * lines_of(n_genes);
}

size_t cpa_cpu_nb_scratch(int rows, int n_genes, int n_more)
{
    int sums = n_more > 0 ? 3 : 2;
    return 3 * lines_of(n_genes) + 2 * lines_of((int64_t)TABLE * n_genes) +
           (size_t)sums * lines_of((int64_t)CPA_BLOCKS * n_genes) + cpa_lines((size_t)rows * sizeof(double)) +
           row_bytes(n_genes, n_more) * (size_t)omp_get_max_threads();
}

cpa_status cpa_nb_scratch(cpa_backend *be, cpa_nb *out, int rows, int n_genes, int n_more)
{
    char *p;
    cpa_status st = cpa_cpu_scratch(be, cpa_cpu_nb_scratch(rows, n_genes, n_more), &p);
    if (st != CPA_OK) {
        return st;
    }
    *out = (cpa_nb){.genes = {.n_genes = n_genes}, .row_bytes = row_bytes(n_genes, n_more), .n_more = n_more};
    out->genes.theta = carve(&p, n_genes);
    out->genes.inverse = carve(&p, n_genes);
    out->genes.step = carve(&p, n_genes);
    out->genes.t = carve(&p, (int64_t)TABLE * n_genes);
    out->genes.e = carve(&p, (int64_t)TABLE * n_genes);
    out->dpx_r = carve(&p, (int64_t)CPA_BLOCKS * n_genes);
    out->dbias = carve(&p, (int64_t)CPA_BLOCKS * n_genes);
    out->dmore = n_more > 0 ? carve(&p, (int64_t)CPA_BLOCKS * n_genes) : NULL;
    out->loss = (double *)p;
    out->rows = p + cpa_lines((size_t)rows * sizeof(double));
    return CPA_OK;
}

cpa_nb_row cpa_nb_row_of(const cpa_nb *s)
{
    char *p = s->rows + (size_t)omp_get_thread_num() * s->row_bytes;
    cpa_nb_row r = {0};
    r.mu_slope = carve(&p, s->genes.n_genes);
    r.t = carve(&p, s->genes.n_genes);
    r.e = carve(&p, s->genes.n_genes);
    r.other = (int *)carve(&p, s->genes.n_genes);
    for (int i = 0; i < s->n_more; i++) {
        r.more[i] = carve(&p, s->genes.n_genes);
    }
    return r;
}

// theta, its inverse and the tables for the genes [from, to).
static void prepare_genes(const cpa_nb_genes *g, const cpa_real *px_r, int from, int to)
{
    int n = g->n_genes;
#pragma omp simd
    for (int j = from; j < to; j++) {
        g->theta[j] = cpa_exp(px_r[j]);
        g->inverse[j] = 1 / (g->theta[j] + CPA_NB_EPS);
        g->t[j] = 0;
        g->e[j] = 0;
        g->t[n + j] = cpa_log(g->theta[j] * g->inverse[j]);
        g->e[n + j] = 0;
    }
    for (int x = 2; x < TABLE; x++) {
        const cpa_real i = (cpa_real)(x - 1);
        cpa_real *t = g->t + (int64_t)x * n, *e = g->e + (int64_t)x * n;
#pragma omp simd
        for (int j = from; j < to; j++) {
            t[j] = t[j - n] + cpa_nb_next_term(i, g->inverse[j]);
            e[j] = e[j - n] + i / (g->theta[j] + i);
        }
    }
#pragma omp simd
    for (int j = from; j < to; j++) {
        g->step[j] = cpa_nb_next_term(LAST, g->inverse[j]);
    }
}

void cpa_nb_prepare(const cpa_nb_genes *g, const cpa_real *px_r, bool parallel)
{
#pragma omp parallel for schedule(static) if (parallel)
    for (int j = 0; j < g->n_genes; j += CPA_CHUNK) {
        prepare_genes(g, px_r, j, g->n_genes - j < CPA_CHUNK ? g->n_genes : j + CPA_CHUNK);
    }
}

// The count's row in the tables; the last one when it has none.
static inline int table_row(cpa_real count)
{
    return (int)(count < LAST ? count : LAST);
}

// T and E of all stored counts of a row.
static void stored_terms(const cpa_nb_genes *g, const int *restrict gene, const cpa_real *restrict count, int n,
                         cpa_nb_row *r)
{
    cpa_real *restrict t = r->t, *restrict e = r->e;
    int *restrict other = r->other, others = 0;
#pragma omp simd
    for (int k = 0; k < n; k++) {
        int i = table_row(count[k]);
        t[k] = g->t[i * g->n_genes + gene[k]];
        e[k] = g->e[i * g->n_genes + gene[k]];
    }
    for (int k = 0; k < n; k++) { // without a branch: which counts are large is not predictable
        other[others] = k;
        others += (cpa_real)table_row(count[k]) != count[k];
    }
#pragma omp simd
    for (int i = 0; i < others; i++) {
        int k = other[i];
        cpa_nb_large_terms(count[k], g->theta[gene[k]], g->step[gene[k]], &t[k], &e[k]);
    }
    for (int i = 0; i < others; i++) {
        int k = other[i], j = gene[k];
        if (count[k] < LAST) {
            cpa_nb_fraction_terms((double)count[k], (double)g->theta[j], (double)g->inverse[j], &t[k], &e[k]);
        }
    }
}

cpa_real cpa_softmax_row(cpa_real *restrict z, const cpa_real *restrict bias, int n, cpa_real total)
{
    cpa_real top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int j = 0; j < n; j++) {
        cpa_real t = z[j] + bias[j];
        z[j] = t;
        top = t > top ? t : top;
    }
    double sum = 0;
    for (int from = 0; from < n; from += CPA_CHUNK) {
        int to = n - from < CPA_CHUNK ? n : from + CPA_CHUNK;
        cpa_real part = 0;
#pragma omp simd reduction(+ : part)
        for (int j = from; j < to; j++) {
            cpa_real e = cpa_exp(z[j] - top);
            z[j] = e;
            part += e;
        }
        sum += (double)part;
    }
    return (cpa_real)((double)total / sum);
}

// Terms of all genes as if every count were 0, from mu = scale * z. Adds to dpx; gives the loss, and the sum of
// mu dl/dmu.
static double zero_terms(const cpa_nb_genes *g, const cpa_real *restrict z, cpa_real scale, cpa_real *restrict mu_slope,
                         cpa_real *restrict dpx, double *slope_sum)
{
    const cpa_real *restrict theta = g->theta, *restrict inverse = g->inverse;
    double loss = 0, slope = 0;
    for (int from = 0; from < g->n_genes; from += CPA_CHUNK) {
        int to = g->n_genes - from < CPA_CHUNK ? g->n_genes : from + CPA_CHUNK;
        cpa_real loss_part = 0, slope_part = 0;
#pragma omp simd reduction(+ : loss_part, slope_part)
        for (int j = from; j < to; j++) {
            cpa_real u = scale * z[j] * inverse[j];
            cpa_real l = theta[j] * cpa_log1p(u);
            cpa_real m = theta[j] * (u / (1 + u));
            loss_part += l;
            slope_part += m;
            mu_slope[j] = m;
            dpx[j] += l - theta[j] * inverse[j] * m;
        }
        loss += (double)loss_part;
        slope += (double)slope_part;
    }
    *slope_sum = slope;
    return loss;
}

static double zero_loss(const cpa_nb_genes *g, const cpa_real *restrict z)
{
    const cpa_real *restrict theta = g->theta, *restrict inverse = g->inverse;
    double loss = 0;
    for (int from = 0; from < g->n_genes; from += CPA_CHUNK) {
        int to = g->n_genes - from < CPA_CHUNK ? g->n_genes : from + CPA_CHUNK;
        cpa_real part = 0;
#pragma omp simd reduction(+ : part)
        for (int j = from; j < to; j++) {
            part += theta[j] * cpa_log1p(z[j] * inverse[j]);
        }
        loss += (double)part;
    }
    return loss;
}

// What stored counts add, mu = scale * z. r holds T and E, and afterwards what they add to mu dl/dmu and to dl/dpx_r.
static double stored_loss(const cpa_nb_genes *g, const int *restrict gene, const cpa_real *restrict count, int n,
                          const cpa_real *restrict z, cpa_real scale, cpa_nb_row *r, double *slope_sum)
{
    double loss = 0, slope = 0;
    cpa_real *restrict rt = r->t, *restrict re = r->e;
#pragma omp simd reduction(+ : loss, slope)
    for (int k = 0; k < n; k++) {
        int j = gene[k];
        cpa_real x = count[k], mu = scale * z[j], u = mu * g->inverse[j], s = u / (1 + u), near = mu + CPA_NB_EPS;
        loss -= (double)(x * (cpa_log(near) - cpa_log1p(u)) + rt[k]);
        cpa_real m = -x * (g->theta[j] * s / near);
        slope += (double)m;
        rt[k] = m;
        // 1 - (1 - s) theta / t, in a form without cancellation
        re[k] -= x * (CPA_NB_EPS * g->inverse[j] + g->theta[j] * g->inverse[j] * s);
    }
    *slope_sum = slope;
    return loss;
}

double cpa_nb_stored(const cpa_nb_genes *g, cpa_csr x, int b, const cpa_real *z, cpa_real scale, cpa_nb_row *r,
                     double *slope_sum)
{
    const int from = cpa_ints(x.indptr)[b], n = cpa_ints(x.indptr)[b + 1] - from, *gene = cpa_ints(x.gene) + from;
    const cpa_real *count = cpa_reals(x.count) + from;
    stored_terms(g, gene, count, n, r);
    return stored_loss(g, gene, count, n, z, scale, r, slope_sum);
}

void cpa_nb_gradient(const cpa_nb_genes *g, cpa_csr x, int b, const cpa_nb_row *r, double slope, cpa_real to_p,
                     cpa_real *z, cpa_real *dpx, cpa_real *dbias, cpa_real scale)
{
    const int from = cpa_ints(x.indptr)[b], n = cpa_ints(x.indptr)[b + 1] - from, *gene = cpa_ints(x.gene) + from;
    for (int k = 0; k < n; k++) {
        r->mu_slope[gene[k]] += r->t[k];
        dpx[gene[k]] += r->e[k];
    }
    const cpa_real pull = (cpa_real)slope * to_p;
    const cpa_real *restrict mu_slope = r->mu_slope;
#pragma omp simd
    for (int j = 0; j < g->n_genes; j++) {
        cpa_real d = mu_slope[j] - pull * z[j];
        dbias[j] += d;
        z[j] = scale * d;
    }
}

void cpa_blocks_sum(cpa_real *out, const cpa_real *blocks, int n, int col, cpa_real scale)
{
    double sum[CPA_CHUNK] = {0};
    const int width = n - col < CPA_CHUNK ? n - col : CPA_CHUNK;
    for (int i = 0; i < CPA_BLOCKS; i++) {
        const cpa_real *from = blocks + (int64_t)i * n + col;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            sum[j] += (double)from[j];
        }
    }
    for (int j = 0; j < width; j++) {
        out[col + j] = (cpa_real)((double)scale * sum[j]);
    }
}

double cpa_losses_sum(const double *loss, int n)
{
    double sum = 0;
    for (int b = 0; b < n; b++) {
        sum += loss[b];
    }
    return sum;
}

static double nb_row(const cpa_nb *s, cpa_real *logits, cpa_csr x, int b, const cpa_real *bias, cpa_real *dpx,
                     cpa_real *dbias, cpa_real scale)
{
    const cpa_nb_genes *g = &s->genes;
    cpa_nb_row r = cpa_nb_row_of(s);
    double slope, more;
    cpa_real to_p = cpa_softmax_row(logits, bias, g->n_genes, 1), to_mu = cpa_reals(x.library)[b] * to_p;
    double loss = zero_terms(g, logits, to_mu, r.mu_slope, dpx, &slope);
    loss += cpa_nb_stored(g, x, b, logits, to_mu, &r, &more);
    cpa_nb_gradient(g, x, b, &r, slope + more, to_p, logits, dpx, dbias, scale);
    return loss;
}

cpa_status cpa_cpu_nb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                           cpa_mat bias, cpa_mat px_r, cpa_csr x, cpa_real scale)
{
    cpa_nb s;
    int n = logits.cols;
    cpa_status st = cpa_nb_scratch(be, &s, logits.rows, n, 0);
    if (st != CPA_OK) {
        return st;
    }
    cpa_nb_prepare(&s.genes, cpa_reals(px_r.data), cpa_parallel(logits));
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int i = 0; i < CPA_BLOCKS; i++) {
        cpa_real *dpx = s.dpx_r + (int64_t)i * n, *db = s.dbias + (int64_t)i * n;
        memset(dpx, 0, (size_t)n * sizeof *dpx);
        memset(db, 0, (size_t)n * sizeof *db);
        int end = cpa_block_begin(logits.rows, i + 1);
        for (int b = cpa_block_begin(logits.rows, i); b < end; b++) {
            s.loss[b] = nb_row(&s, cpa_row(logits, b), x, b, cpa_reals(bias.data), dpx, db, scale);
        }
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int col = 0; col < n; col += CPA_CHUNK) {
        cpa_blocks_sum(cpa_reals(dpx_r.data), s.dpx_r, n, col, scale);
        cpa_blocks_sum(cpa_reals(dbias.data), s.dbias, n, col, scale);
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, logits.rows);
    return CPA_OK;
}

void cpa_softmax_means(cpa_real *z, const cpa_real *bias, int n, cpa_real library)
{
    cpa_real to_mu = cpa_softmax_row(z, bias, n, library);
#pragma omp simd
    for (int j = 0; j < n; j++) {
        z[j] *= to_mu;
    }
}

cpa_status cpa_cpu_nb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat bias, cpa_mat px_r,
                                cpa_csr x)
{
    cpa_nb s;
    cpa_status st = cpa_nb_scratch(be, &s, logits.rows, logits.cols, 0);
    if (st != CPA_OK) {
        return st;
    }
    cpa_nb_prepare(&s.genes, cpa_reals(px_r.data), cpa_parallel(logits));
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int b = 0; b < logits.rows; b++) {
        cpa_nb_row r = cpa_nb_row_of(&s);
        cpa_real *mu = cpa_row(logits, b);
        double slope;
        cpa_softmax_means(mu, cpa_reals(bias.data), logits.cols, cpa_reals(x.library)[b]);
        s.loss[b] = zero_loss(&s.genes, mu) + cpa_nb_stored(&s.genes, x, b, mu, 1, &r, &slope);
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, logits.rows);
    return CPA_OK;
}

cpa_status cpa_cpu_softmax_scale(cpa_backend *be, cpa_mat logits, cpa_mat bias, cpa_mat library)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(logits))
    for (int b = 0; b < logits.rows; b++) {
        cpa_softmax_means(cpa_row(logits, b), cpa_reals(bias.data), logits.cols, cpa_reals(library.data)[b]);
    }
    return CPA_OK;
}
