// Owns: the Gaussian likelihood with predicted variances on the CPU, value and gradient. A cell's counts are densified in
// a thread's scratch alone; never a dense copy of the batch.
#include "backend_cpu_loss_impl.h"

#include <string.h>

#include "cpa/platform/math_inl.h"

static const double half_log_2pi = 0.91893853320467274178;

// Added to every variance.
static const cpa_real floor_var = (cpa_real)1e-4;

// A call's scratch.
typedef struct gauss {
    cpa_real *x;            // [threads, G] dense counts of a cell
    cpa_real *dmean, *draw; // [CPA_BLOCKS, G] partial sums
    double *loss;           // [B]
} gauss;

static size_t scratch_bytes(int rows, int n_genes, int blocks)
{
    const size_t sums = cpa_lines((size_t)blocks * (size_t)n_genes * sizeof(cpa_real));
    return cpa_lines((size_t)rows * sizeof(double)) + 2 * sums +
           (size_t)omp_get_max_threads() * (size_t)n_genes * sizeof(cpa_real);
}

size_t cpa_cpu_gauss_scratch(int rows, int n_genes)
{
    return scratch_bytes(rows, n_genes, CPA_BLOCKS);
}

static cpa_status gauss_scratch(cpa_backend *be, gauss *out, int rows, int n_genes, int blocks)
{
    char *p;
    const size_t losses = cpa_lines((size_t)rows * sizeof(double));
    const size_t sums = cpa_lines((size_t)blocks * (size_t)n_genes * sizeof(cpa_real));
    cpa_status st = cpa_cpu_scratch(be, scratch_bytes(rows, n_genes, blocks), &p);
    if (st == CPA_OK) {
        *out = (gauss){.loss = (double *)p, .dmean = (cpa_real *)(p + losses)};
        out->draw = (cpa_real *)(p + losses + sums);
        out->x = (cpa_real *)(p + losses + 2 * sums);
    }
    return st;
}

// The counts of cell `b` in the thread's scratch.
static const cpa_real *dense_cell(const gauss *s, cpa_csr x, int b)
{
    cpa_real *to = s->x + (int64_t)omp_get_thread_num() * x.cols;
    const int *gene = cpa_ints(x.gene), end = cpa_ints(x.indptr)[b + 1];
    memset(to, 0, (size_t)x.cols * sizeof *to);
    for (int k = cpa_ints(x.indptr)[b]; k < end; k++) {
        to[gene[k]] += cpa_reals(x.count)[k]; // a gene may come again with a 0
    }
    return to;
}

static double loss_row(const cpa_real *restrict x, int n, cpa_real *restrict mean, cpa_real *restrict raw,
                       const cpa_real *restrict mean_bias, const cpa_real *restrict raw_bias, cpa_real *restrict dmean,
                       cpa_real *restrict draw, cpa_real scale)
{
    const cpa_real half = (cpa_real)0.5;
    double loss = n * half_log_2pi;
#pragma omp simd reduction(+ : loss)
    for (int j = 0; j < n; j++) {
        cpa_real e = cpa_exp(raw[j] + raw_bias[j]), inverse = 1 / (e + floor_var);
        cpa_real away = mean[j] + mean_bias[j] - x[j], d = away * inverse;
        loss += (double)(half * (away * d + cpa_log(e + floor_var)));
        cpa_real dr = half * (e * inverse) * (1 - away * d);
        dmean[j] += d;
        draw[j] += dr;
        mean[j] = scale * d;
        raw[j] = scale * dr;
    }
    return loss;
}

cpa_status cpa_cpu_gauss_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat dmean_bias,
                              cpa_mat draw_bias, cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x, cpa_real scale)
{
    gauss s;
    const int n = mean.cols;
    cpa_status st = gauss_scratch(be, &s, mean.rows, n, CPA_BLOCKS);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(mean))
    for (int i = 0; i < CPA_BLOCKS; i++) {
        cpa_real *dmean = s.dmean + (int64_t)i * n, *draw = s.draw + (int64_t)i * n;
        memset(dmean, 0, (size_t)n * sizeof *dmean);
        memset(draw, 0, (size_t)n * sizeof *draw);
        int end = cpa_block_begin(mean.rows, i + 1);
        for (int b = cpa_block_begin(mean.rows, i); b < end; b++) {
            s.loss[b] = loss_row(dense_cell(&s, x, b), n, cpa_row(mean, b), cpa_row(raw, b), cpa_reals(mean_bias.data),
                                 cpa_reals(raw_bias.data), dmean, draw, scale);
        }
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(mean))
    for (int col = 0; col < n; col += CPA_CHUNK) {
        cpa_blocks_sum(cpa_reals(dmean_bias.data), s.dmean, n, col, scale);
        cpa_blocks_sum(cpa_reals(draw_bias.data), s.draw, n, col, scale);
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, mean.rows);
    return CPA_OK;
}

// The loss of a cell; mean becomes its location, raw its variance.
static double mean_loss_row(const cpa_real *restrict x, int n, cpa_real *restrict mean, cpa_real *restrict raw,
                            const cpa_real *restrict mean_bias, const cpa_real *restrict raw_bias)
{
    double loss = n * half_log_2pi;
#pragma omp simd reduction(+ : loss)
    for (int j = 0; j < n; j++) {
        cpa_real loc = mean[j] + mean_bias[j], var = cpa_exp(raw[j] + raw_bias[j]) + floor_var, away = loc - x[j];
        loss += (double)((cpa_real)0.5 * (away * (away / var) + cpa_log(var)));
        mean[j] = loc;
        raw[j] = var;
    }
    return loss;
}

cpa_status cpa_cpu_gauss_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat mean_bias,
                                   cpa_mat raw_bias, cpa_csr x)
{
    gauss s;
    cpa_status st = gauss_scratch(be, &s, mean.rows, mean.cols, 0);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(mean))
    for (int b = 0; b < mean.rows; b++) {
        s.loss[b] = mean_loss_row(dense_cell(&s, x, b), mean.cols, cpa_row(mean, b), cpa_row(raw, b),
                                  cpa_reals(mean_bias.data), cpa_reals(raw_bias.data));
    }
    cpa_f64s(loss_sum)[0] = cpa_losses_sum(s.loss, mean.rows);
    return CPA_OK;
}
