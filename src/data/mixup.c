// Owns: mixup: its draws, and mixing sparse cells. Never allocates while mixing.
#include "cpa/data/mixup.h"

#include <math.h>

#include "cpa/base/rng.h"

// A stream of uniforms in (0, 1) of one step.
typedef struct draws {
    uint64_t seed;
    uint32_t epoch, lane, step, next;
} draws;

static double uniform(draws *d)
{
    uint32_t ctr[4] = {d->next++, d->epoch, d->lane, d->step}, w[4];
    cpa_philox(d->seed, CPA_STREAM_MIXUP, ctr, w);
    return ((double)w[0] + 0.5) * 0x1p-32;
}

static double normal(draws *d)
{
    double u = uniform(d), v = uniform(d);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

// log of a Gamma(alpha, 1) draw (Marsaglia and Tsang 2000); small alpha through alpha + 1.
static double log_gamma_draw(draws *d, double alpha)
{
    double boost = 0;
    if (alpha < 1) {
        boost = log(uniform(d)) / alpha;
        alpha += 1;
    }
    double a = alpha - 1.0 / 3, c = 1 / sqrt(9 * a);
    for (;;) {
        double x = normal(d), v = 1 + c * x;
        if (v > 0 && log(uniform(d)) < 0.5 * x * x + a - a * v * v * v + a * log(v * v * v)) {
            return log(a * v * v * v) + boost;
        }
    }
}

void cpa_mixup_draw(uint64_t seed, int64_t epoch, int lane, int64_t step, double alpha, int n, double *lambda,
                    int32_t *partner)
{
    draws d = {seed, (uint32_t)epoch, (uint32_t)lane, (uint32_t)step, 0};
    double x = log_gamma_draw(&d, alpha), y = log_gamma_draw(&d, alpha);
    *lambda = 1 / (1 + exp(y - x));
    for (int i = 0; i < n; i++) {
        int j = (int)(uniform(&d) * (i + 1));
        partner[i] = partner[j];
        partner[j] = i;
    }
}

static void put(cpa_batch *out, int32_t gene, double count)
{
    out->gene[out->nnz] = gene;
    out->count[out->nnz] = (cpa_real)count;
    out->log1p[out->nnz++] = (cpa_real)log1p(count);
}

// Merges cells i and j of `b`, weighted.
static void mix_counts(const cpa_batch *b, int i, int j, double lambda, cpa_batch *out)
{
    int32_t p = b->indptr[i], q = b->indptr[j], p_end = b->indptr[i + 1], q_end = b->indptr[j + 1];
    while (p < p_end || q < q_end) {
        int32_t gene_p = p < p_end ? b->gene[p] : INT32_MAX, gene_q = q < q_end ? b->gene[q] : INT32_MAX;
        int32_t gene = gene_p < gene_q ? gene_p : gene_q;
        double count = 0;
        if (gene_p == gene) {
            count += lambda * (double)b->count[p++];
        }
        if (gene_q == gene) {
            count += (1 - lambda) * (double)b->count[q++];
        }
        put(out, gene, count);
    }
}

static void mix_meaning(const cpa_batch *b, int i, int j, cpa_batch *out)
{
    int m = b->max_comb_len;
    for (int k = 0; k < 2 * m; k++) {
        int from = (k < m ? i * m : (j - 1) * m) + k;
        out->pert[2 * m * i + k] = b->pert[from];
        out->dose[2 * m * i + k] = b->dose[from];
    }
    out->label[i] = b->label[i];
    out->label2[i] = b->label[j];
    out->category[i] = b->category[i];
    out->cell[i] = b->cell[i];
    for (int c = 0; c < b->n_covs; c++) {
        out->cov[(int64_t)c * out->max_cells + i] = b->cov[(int64_t)c * b->max_cells + i];
        out->cov2[(int64_t)c * out->max_cells + i] = b->cov[(int64_t)c * b->max_cells + j];
    }
}

static void name_partners(const cpa_batch *b, const int32_t *partner, cpa_batch *out)
{
    out->nnz = out->max_nnz;
    for (int i = 0; i < b->n_cells; i++) {
        out->row[i] = b->row[i];
        out->partner[i] = b->row[partner[i]];
    }
}

cpa_status cpa_mixup_apply(const cpa_batch *b, double lambda, const int32_t *partner, cpa_batch *out)
{
    if (b->n_cells > out->max_cells || 2 * b->nnz > out->max_nnz || out->max_comb_len != 2 * b->max_comb_len) {
        return cpa_fail(CPA_INTERNAL, "mixing %d cells with %lld values does not fit into a batch made for %d and %lld",
                        b->n_cells, (long long)b->nnz, out->max_cells, (long long)out->max_nnz);
    }
    out->n_cells = b->n_cells;
    out->nnz = 0;
    out->mixup_lambda = lambda;
    out->all = b->all;
    for (int i = 0; i < b->n_cells; i++) {
        mix_meaning(b, i, partner[i], out);
    }
    if (b->all != NULL) { // whoever takes the counts from there mixes them
        name_partners(b, partner, out);
        return CPA_OK;
    }
    for (int i = 0; i < b->n_cells; i++) {
        mix_counts(b, i, partner[i], lambda, out);
        out->indptr[i + 1] = (int32_t)out->nnz;
        out->library[i] = (cpa_real)(lambda * (double)b->library[i] + (1 - lambda) * (double)b->library[partner[i]]);
    }
    return CPA_OK;
}
