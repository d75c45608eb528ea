// Owns: batches taken from all cells, which a backend has (the host's loader fills those of the cpu in training). Never chooses cells.
#include <math.h>

#include "backend_cpu_impl.h"

static double library_of(cpa_all_cells from, int row)
{
    return (double)cpa_reals(from.library)[row];
}

// Puts an entry behind those of the batch that are there.
static void put(cpa_csr x, int64_t *n, int gene, double count)
{
    ((int *)(uintptr_t)x.gene)[*n] = gene;
    cpa_reals(x.count)[*n] = (cpa_real)count;
    cpa_reals(x.log1p)[(*n)++] = (cpa_real)log1p(count);
}

// `share` of the entries of `gene` from *at on, which moves behind them.
static double eat(cpa_all_cells from, int64_t *at, int64_t end, int gene, double share)
{
    double sum = 0;
    for (; *at < end && cpa_gene_at(from, *at) == gene; ++*at) {
        sum += share * cpa_count_at(from, *at);
    }
    return sum;
}

static void mix(cpa_csr x, int64_t *n, cpa_all_cells from, int own, int partner, double lambda)
{
    const int64_t *begin = cpa_begins_of(from);
    int64_t p = begin[own], q = begin[partner], p_end = begin[own + 1], q_end = begin[partner + 1];
    while (p < p_end || q < q_end) {
        const int a = p < p_end ? cpa_gene_at(from, p) : INT32_MAX, b = q < q_end ? cpa_gene_at(from, q) : INT32_MAX;
        const int gene = a < b ? a : b;
        const double count = eat(from, &p, p_end, gene, lambda);
        put(x, n, gene, count + eat(from, &q, q_end, gene, 1 - lambda));
    }
}

cpa_status cpa_cpu_take_cells(cpa_backend *be, cpa_csr x, cpa_all_cells from, const cpa_dev_int *row,
                              const cpa_dev_int *partner, double lambda)
{
    int *indptr = (int *)(uintptr_t)x.indptr;
    cpa_real *library = cpa_reals(x.library);
    int64_t n = 0;
    (void)be;
    indptr[0] = 0;
    for (int i = 0; i < x.rows; i++) {
        const int own = cpa_ints(row)[i];
        if (partner != NULL) {
            const int other = cpa_ints(partner)[i];
            mix(x, &n, from, own, other, lambda);
            library[i] = (cpa_real)(lambda * library_of(from, own) + (1 - lambda) * library_of(from, other));
        } else {
            for (int64_t at = cpa_begins_of(from)[own]; at < cpa_begins_of(from)[own + 1]; at++) {
                put(x, &n, cpa_gene_at(from, at), cpa_count_at(from, at));
            }
            library[i] = cpa_reals(from.library)[own];
        }
        indptr[i + 1] = (int)n;
    }
    return CPA_OK;
}
