// Owns: the Gaussian likelihood with predicted variances on the device, value and gradient. Never a dense copy of the counts but those of
// the cell at hand.
#include "likelihood.h"

static const double half_log_2pi = 0.91893853320467274178;

// Added to every variance.
static const cpa_real floor_var = (cpa_real)1e-4;

// What a call knows of its cells.
typedef struct gauss_call {
    cpa_cells_cut cut;
    cpa_mat mean, raw, mean_bias, raw_bias;
    cpa_csr x;
    cpa_real scale;
} gauss_call;

// A gene of a cell.
typedef struct gauss_point {
    cpa_real away, loc, e, var; // loc - x, location, exp of the raw variance, variance
    cpa_real loss;              // but for the constant
} gauss_point;

CPA_DEVICE gauss_point point_at(const gauss_call *c, int b, int j, cpa_real x)
{
    gauss_point at;
    at.loc = cpa_get(c->mean, (int64_t)b * c->mean.ld + j) + cpa_reals(c->mean_bias.data)[j];
    at.away = at.loc - x;
    at.e = cpa_exp(cpa_get(c->raw, (int64_t)b * c->raw.ld + j) + cpa_reals(c->raw_bias.data)[j]);
    at.var = at.e + floor_var;
    at.loss = (cpa_real)0.5 * (at.away * cpa_over(at.away, at.var) + cpa_log(at.var));
    return at;
}

// Puts thread t's share of the counts of cell b into count [G], which is 0 before. A gene may be stored again with a 0, by another
// thread.
CPA_DEVICE void put_counts(const gauss_call *c, cpa_real *count, int b, int t)
{
    const int end = cpa_ints(c->x.indptr)[b + 1];
    for (int i = cpa_ints(c->x.indptr)[b] + t; i < end; i += CPA_THREADS) {
        const cpa_real x = cpa_reals(c->x.count)[i];
        if (x != 0) {
            count[cpa_ints(c->x.gene)[i]] = x;
        }
    }
}

// The gradients of a gene, and what they add to the sums [2, G]; or its location and variance.
CPA_DEVICE void end_gene(const gauss_call *c, gauss_point at, cpa_real *sums, int b, int j, bool gradients)
{
    const int64_t mean = (int64_t)b * c->mean.ld + j, raw = (int64_t)b * c->raw.ld + j;
    if (gradients) {
        const cpa_real inverse = cpa_over(1, at.var), d = at.away * inverse;
        const cpa_real dr = (cpa_real)0.5 * (at.e * inverse) * (1 - at.away * d);
        sums[j] += d;
        sums[c->cut.n_genes + j] += dr;
        cpa_put(c->mean, mean, c->scale * d);
        cpa_put(c->raw, raw, c->scale * dr);
    } else {
        cpa_put(c->mean, mean, at.loc);
        cpa_put(c->raw, raw, at.var);
    }
}

// Thread t's genes of a cell, whose loss but for the constant is returned. count is 0 afterwards.
CPA_DEVICE double genes_of_cell(const gauss_call *c, cpa_real *count, cpa_real *sums, int b, int t, bool gradients)
{
    const int n = c->cut.n_genes;
    double loss = 0;
    for (int from = t; from < n; from += CPA_AT_ONCE * CPA_THREADS) {
        gauss_point at[CPA_AT_ONCE];
        cpa_real losses = 0;
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int next = from + i * CPA_THREADS, j = next < n ? next : from;
            at[i] = point_at(c, b, j, count[j]);
        }
        for (int i = 0; i < CPA_AT_ONCE; i++) {
            const int j = from + i * CPA_THREADS;
            if (j < n) {
                losses += at[i].loss;
                count[j] = 0;
                end_gene(c, at[i], sums, b, j, gradients);
            }
        }
        loss += (double)losses;
    }
    return loss;
}

CPA_DEVICE void cells_of_block(const gauss_call *c, cpa_real *count, cpa_real *sums, bool gradients)
{
    const int n = c->cut.n_genes;
    CPA_SHARED(double, losses, CPA_THREADS);
    CPA_EACH(t)
    {
        losses[t] = 0;
        for (int j = t; j < n; j += CPA_THREADS) {
            count[j] = 0;
            if (gradients) {
                sums[j] = sums[n + j] = 0;
            }
        }
    }
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        CPA_EACH(t)
        {
            put_counts(c, count, b, t);
        }
        CPA_EACH(t)
        {
            losses[t] += genes_of_cell(c, count, sums, b, t, gradients);
        }
    }
    CPA_EACH(t)
    {
        const int cells = (c->cut.rows - (int)cpa_block() + c->cut.blocks - 1) / c->cut.blocks;
        losses[t] += t == 0 ? (double)cells * n * half_log_2pi : 0;
    }
    cpa_end_block(&c->cut, losses, sums);
}

CPA_DEVICE void gradients(const gauss_call *c, cpa_real *count, cpa_real *sums)
{
    cells_of_block(c, count, sums, true);
}

CPA_DEVICE void locations(const gauss_call *c, cpa_real *count, cpa_real *sums)
{
    cells_of_block(c, count, sums, false);
}

CPA_CELLS_KERNELS(gauss_loss, gauss_call, gradients)
CPA_CELLS_KERNELS(gauss_mean_loss, gauss_call, locations)

cpa_status cpa_cuda_gauss_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat dmean_bias,
                               cpa_mat draw_bias, cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x, cpa_real scale)
{
    const cpa_mat none = CPA_NO_MAT;
    gauss_call c = {{0}, mean, raw, mean_bias, raw_bias, x, scale};
    CPA_STEP(cpa_cuda_cut_cells(be, &c.cut, mean.rows, mean.cols, 0, 1, CPA_DEVICE_GAUSS_SUMS));
    CPA_STEP(CPA_LAUNCH_CELLS(be, gauss_loss, c));
    return cpa_cuda_add_blocks(be, loss_sum, dmean_bias, draw_bias, none, &c.cut, scale);
}

cpa_status cpa_cuda_gauss_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw,
                                    cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x)
{
    gauss_call c = {{0}, mean, raw, mean_bias, raw_bias, x, 1};
    CPA_STEP(cpa_cuda_cut_cells(be, &c.cut, mean.rows, mean.cols, 0, 1, 0));
    CPA_STEP(CPA_LAUNCH_CELLS(be, gauss_mean_loss, c));
    return cpa_cuda_sum(be, loss_sum, c.cut.loss, c.cut.blocks);
}
