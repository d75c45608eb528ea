// Owns: the purity of labels among nearest neighbours in a latent space. Never approximates neighbours.
#ifndef CPA_TRAIN_PURITY_H
#define CPA_TRAIN_PURITY_H

#include "cpa/platform/backend.h"
#include "cpa/platform/comm.h"

/** KNN purity: the share of a cell's k nearest neighbours (Euclidean, itself left out) that carry its label, averaged over the cells of
 *  each label, then over labels.
 *
 *  Shapes:  z [n, n_latent]; label [n_sets][n]; purity [n_sets] out. k < n.  Ranks: local.
 *  Source:  upstream's knn_purity (scikit-learn NearestNeighbors). */
cpa_status cpa_knn_purity(const cpa_real *z, int n, int n_latent, int k, const int32_t *const *label, int n_sets,
                          double *purity);

enum { CPA_MOST_QUERIES = 1024 }; // more cells than these are a sample that stands for all

// The same over many cells that come in batches, each on one rank: the purity of the first ones, the queries, among all of them. The
// result depends on the cells and their order alone. Holds vectors of queries only.
typedef struct cpa_purity cpa_purity;

/** For n cells in batches of at most max_batch; k is 30, or all others where there are fewer. n > 1. */
cpa_status cpa_purity_create(cpa_comm *comm, cpa_backend *be, int64_t n, int n_queries, int n_latent, int max_batch,
                             cpa_purity **out);

/** Frees it and sets *p to NULL; NULL-safe. */
void cpa_purity_destroy(cpa_purity **p);

/** Starts afresh. */
void cpa_purity_begin(cpa_purity *p);

/** Takes cells first .. first + n - 1 with the vectors z [n, n_latent]: batches of queries before cpa_purity_share, the others after it.
 *  Rank-local. */
cpa_status cpa_purity_take(cpa_purity *p, int64_t first, int n, const cpa_real *z);

/** Gives the queries of every rank to all, and looks for neighbours among them. Collective. */
cpa_status cpa_purity_share(cpa_purity *p);

/** Ends it: purities summed over sets of labels, label [n_sets][n]. Collective. */
cpa_status cpa_purity_score(cpa_purity *p, int32_t *const *label, int n_sets, double *sum);

#endif
