// Owns: the sparse first layer on the device, forward and weight gradient, and cells made dense. Sums go in the order of genes, or of
// cells; never an atomic.
#include "kernel.h"

CPA_DEVICE const cpa_real *values_of(cpa_csr x, bool use_log1p)
{
    return cpa_reals(use_log1p ? x.log1p : x.count);
}

CPA_KERNEL sparse_linear(int64_t n, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(y, i), h = cpa_col_of(y, i);
    const int *gene = cpa_ints(x.gene), end = cpa_ints(x.indptr)[b + 1];
    cpa_real sum = 0;
    for (int k = cpa_ints(x.indptr)[b]; k < end; k++) {
        sum += values_of(x, use_log1p)[k] * cpa_row(wt, gene[k])[h];
    }
    cpa_row(y, b)[h] = sum;
}

cpa_status cpa_cuda_sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    return CPA_LAUNCH(be, sparse_linear, cpa_elements(y), y, x, wt, use_log1p);
}

// The stored values by gene: those of gene g are begin[g] ... begin[g + 1] - 1, of cells cell[], at at[] of the values; cells ascend.
typedef struct by_gene {
    int *begin, *cell, *at;
} by_gene;

// begin[g + 1] = how many cells have gene g.
CPA_KERNEL count_genes(int64_t n, by_gene by, cpa_csr x)
{
    const int64_t g = cpa_thread();
    if (g < n) {
        int cells = 0;
        for (int b = 0; b < x.rows; b++) {
            cells += cpa_stored(x, b, (int)g) >= 0;
        }
        by.begin[g + 1] = cells;
    }
}

CPA_KERNEL counts_to_begins(int64_t n, by_gene by, int genes)
{
    if (cpa_thread() < n) {
        by.begin[0] = 0;
        for (int g = 0; g < genes; g++) {
            by.begin[g + 1] += by.begin[g];
        }
    }
}

CPA_KERNEL deal_values(int64_t n, by_gene by, cpa_csr x)
{
    const int64_t g = cpa_thread();
    if (g >= n) {
        return;
    }
    int to = by.begin[g];
    for (int b = 0; b < x.rows; b++) {
        const int k = cpa_stored(x, b, (int)g);
        if (k >= 0) {
            by.cell[to] = b;
            by.at[to] = k;
            to++;
        }
    }
}

CPA_KERNEL weight_grad(int64_t n, cpa_mat dwt, by_gene by, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int g = cpa_row_of(dwt, i), h = cpa_col_of(dwt, i);
    cpa_real sum = 0;
    for (int k = by.begin[g]; k < by.begin[g + 1]; k++) {
        sum += values_of(x, use_log1p)[by.at[k]] * cpa_row(dy, by.cell[k])[h];
    }
    cpa_row(dwt, g)[h] = sum;
}

cpa_status cpa_cuda_sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    by_gene by;
    CPA_STEP(cpa_cuda_scratch(be, cpa_device_sparse_scratch(x.cols, x.nnz), &by.begin));
    by.cell = by.begin + x.cols + 1;
    by.at = by.cell + x.nnz;
    CPA_STEP(CPA_LAUNCH(be, count_genes, (int64_t)x.cols, by, x));
    CPA_STEP(CPA_LAUNCH(be, counts_to_begins, (int64_t)1, by, x.cols));
    CPA_STEP(CPA_LAUNCH(be, deal_values, (int64_t)x.cols, by, x));
    return CPA_LAUNCH(be, weight_grad, cpa_elements(dwt), dwt, by, x, dy, use_log1p);
}

CPA_KERNEL csr_expand(int64_t n, cpa_mat y, cpa_csr x, bool use_log1p)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(y, i), j = cpa_col_of(y, i), k = cpa_stored(x, b, j);
        cpa_row(y, b)[j] = k >= 0 ? values_of(x, use_log1p)[k] : 0;
    }
}

cpa_status cpa_cuda_csr_expand(cpa_backend *be, cpa_mat y, cpa_csr x, bool use_log1p)
{
    return CPA_LAUNCH(be, csr_expand, cpa_elements(y), y, x, use_log1p);
}
