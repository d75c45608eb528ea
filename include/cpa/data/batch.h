// Owns: what the model sees of some cells: counts, perturbations, doses, labels. Host memory, reused from batch to batch.
// Never knows which cells these are chosen from, or why.
#ifndef CPA_DATA_BATCH_H
#define CPA_DATA_BATCH_H

#include "cpa/base/mem.h"
#include "cpa/platform/tensor.h"

// Arrays are owned by the batch and sized for max_cells, max_nnz.
typedef struct cpa_batch {
    int n_cells, n_genes, n_covs, max_comb_len;
    int max_cells;
    int64_t nnz, max_nnz;
    int32_t *indptr;   // [n_cells+1]
    int32_t *gene;     // [nnz] ascending within a cell
    cpa_real *count;   // [nnz]
    cpa_real *log1p;   // [nnz]
    cpa_real *library; // [n_cells]
    int32_t *pert;     // [n_cells, max_comb_len], 0 is padding
    cpa_real *dose;    // [n_cells, max_comb_len]
    int32_t *label;    // [n_cells] class of the perturbation adversary
    int32_t *category; // [n_cells] group of the R2 metric
    int32_t *cov;      // [n_covs, max_cells]: value codes of covariate c at cov + c * max_cells
    int32_t *cell;     // [n_cells] the cell's row in the file (low 32 bits): key of its random draws
    // Where a backend has all cells, their counts are taken from there: `all`, and which of them; indptr, gene, count, log1p and library are
    // then not filled, and nnz is what there is room for.
    const cpa_all_cells *all; // borrowed, or NULL
    int32_t *row, *partner;   // [n_cells]; the latter of a mixed batch
    // Of a mixed batch: every cell is mixup_lambda of itself and the rest of a partner. Components of the partner follow the cell's own.
    double mixup_lambda; // 1: not mixed
    int32_t *label2;     // [n_cells] the partner's label, or NULL
    int32_t *cov2;       // [n_covs, max_cells] the partner's covariates, or NULL
} cpa_batch;

/** Allocates a batch for up to max_cells cells and max_nnz values. */
cpa_status cpa_batch_create(int max_cells, int64_t max_nnz, int n_genes, int n_covs, int max_comb_len, cpa_batch **out);

/** Allocates a batch that cpa_mixup_apply fills from one of these sizes: twice the values, twice the components. */
cpa_status cpa_batch_create_mixed(int max_cells, int64_t max_nnz, int n_genes, int n_covs, int max_comb_len,
                                  cpa_batch **out);

/** Frees it and sets *b to NULL; NULL-safe. */
void cpa_batch_destroy(cpa_batch **b);

#endif
