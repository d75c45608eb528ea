// Owns: the memory of batches. Never fills them.
#include "cpa/data/batch.h"

cpa_status cpa_batch_create(int max_cells, int64_t max_nnz, int n_genes, int n_covs, int max_comb_len, cpa_batch **out)
{
    cpa_status st;
    cpa_batch *b = NULL;
    size_t cells = (size_t)max_cells, nnz = (size_t)max_nnz;
    *out = NULL;
    CPA_REQUIRE(
        max_nnz <= INT32_MAX, CPA_BAD_DATA,
        "a batch of %d cells can hold %lld values, more than the %d a batch can count; use a smaller --batch-size",
        max_cells, (long long)max_nnz, INT32_MAX);
    CPA_TRY(cpa_alloc(1, sizeof *b, &b));
    b->n_genes = n_genes;
    b->n_covs = n_covs;
    b->max_comb_len = max_comb_len;
    b->max_cells = max_cells;
    b->max_nnz = max_nnz;
    b->mixup_lambda = 1;
    CPA_TRY(cpa_alloc(cells + 1, sizeof *b->indptr, &b->indptr));
    CPA_TRY(cpa_alloc(nnz, sizeof *b->gene, &b->gene));
    CPA_TRY(cpa_alloc(nnz, sizeof *b->count, &b->count));
    CPA_TRY(cpa_alloc(nnz, sizeof *b->log1p, &b->log1p));
    CPA_TRY(cpa_alloc(cells, sizeof *b->library, &b->library));
    CPA_TRY(cpa_alloc(cells * (size_t)max_comb_len, sizeof *b->pert, &b->pert));
    CPA_TRY(cpa_alloc(cells * (size_t)max_comb_len, sizeof *b->dose, &b->dose));
    CPA_TRY(cpa_alloc(cells, sizeof *b->label, &b->label));
    CPA_TRY(cpa_alloc(cells, sizeof *b->category, &b->category));
    CPA_TRY(cpa_alloc(cells * (size_t)n_covs, sizeof *b->cov, &b->cov));
    CPA_TRY(cpa_alloc(cells, sizeof *b->cell, &b->cell));
    CPA_TRY(cpa_alloc(cells, sizeof *b->row, &b->row));
    *out = b;
    b = NULL;
cleanup:
    cpa_batch_destroy(&b);
    return st;
}

cpa_status cpa_batch_create_mixed(int max_cells, int64_t max_nnz, int n_genes, int n_covs, int max_comb_len,
                                  cpa_batch **out)
{
    cpa_status st;
    cpa_batch *b = NULL;
    *out = NULL;
    CPA_TRY(cpa_batch_create(max_cells, 2 * max_nnz, n_genes, n_covs, 2 * max_comb_len, &b));
    CPA_TRY(cpa_alloc((size_t)max_cells, sizeof *b->partner, &b->partner));
    CPA_TRY(cpa_alloc((size_t)max_cells, sizeof *b->label2, &b->label2));
    CPA_TRY(cpa_alloc((size_t)max_cells * (size_t)n_covs, sizeof *b->cov2, &b->cov2));
    *out = b;
    b = NULL;
cleanup:
    cpa_batch_destroy(&b);
    return st;
}

void cpa_batch_destroy(cpa_batch **out)
{
    cpa_batch *b = *out;
    if (b == NULL) {
        return;
    }
    cpa_free(&b->indptr);
    cpa_free(&b->gene);
    cpa_free(&b->count);
    cpa_free(&b->log1p);
    cpa_free(&b->library);
    cpa_free(&b->pert);
    cpa_free(&b->dose);
    cpa_free(&b->label);
    cpa_free(&b->category);
    cpa_free(&b->cov);
    cpa_free(&b->cell);
    cpa_free(&b->row);
    cpa_free(&b->partner);
    cpa_free(&b->label2);
    cpa_free(&b->cov2);
    cpa_free(out);
}
