// Owns: cells that are made up, for tests of the model: sparse counts, one or two perturbations with doses, labels, three covariates.
// Must never depend on which batch a cell comes in.
#ifndef CPA_TESTS_MADE_CELLS_H
#define CPA_TESTS_MADE_CELLS_H

#include <math.h>

#include "cpa/base/rng.h"
#include "cpa/data/batch.h"

enum { G = 14, P = 5, M = 2, K = 4, N_COVS = 3 }; // genes, perturbations, most of them in a cell, labels, covariates

static const char *const cov_names[N_COVS] = {"cell_type", "single", "batch"};
static const int cov_sizes[N_COVS] = {3, 1, 2};
static const double label_weight[K] = {1.5, 3, 0.5, 2};

// A number from 0 up to 1 for each pair.
static inline double unit(int a, int b)
{
    uint32_t ctr[4] = {(uint32_t)a, (uint32_t)b, 77, 1}, w[4];
    cpa_philox(5, CPA_STREAM_INIT, ctr, w);
    return cpa_unit(w[0]);
}

// The cells [first, end), in a batch with room for `max_cells`.
static inline cpa_batch *make_cells(int first, int end, int max_cells)
{
    cpa_batch *b;
    assert_int_equal(cpa_batch_create(max_cells, max_cells * G, G, N_COVS, M, &b), CPA_OK);
    b->n_cells = end - first;
    for (int i = 0; i < end - first; i++) {
        int cell = first + i;
        double library = 0;
        for (int g = 0; g < G; g++) {
            int x = (int)(unit(cell, g) * 9) - 4;
            if (x > 0) {
                b->gene[b->nnz] = g;
                b->count[b->nnz] = (cpa_real)x;
                b->log1p[b->nnz++] = (cpa_real)log1p(x);
                library += x;
            }
        }
        b->indptr[i + 1] = (int32_t)b->nnz;
        b->library[i] = (cpa_real)library;
        b->pert[i * M] = 1 + cell % (P - 1);
        b->pert[i * M + 1] = cell % 3 ? 0 : 2;
        b->dose[i * M] = (cpa_real)(0.1 + unit(cell, 100));
        b->dose[i * M + 1] = cell % 3 ? 0 : (cpa_real)(0.2 + unit(cell, 101));
        b->label[i] = cell % K;
        b->category[i] = cell % 3;
        b->cell[i] = 1000 + cell;
        b->cov[i] = cell % 3;
        b->cov[b->max_cells + i] = 0;
        b->cov[2 * b->max_cells + i] = (cell / 2) % 2;
    }
    return b;
}

#endif
