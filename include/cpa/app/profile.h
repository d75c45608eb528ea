// Owns: what a set of cells looks like by gene: means and variances, of real cells and of predicted ones, and how
// parts are put together. Sums in double; parts merge in the order given, so that the result does not depend on ranks
// or threads.
#ifndef CPA_APP_PROFILE_H
#define CPA_APP_PROFILE_H

#include "cpa/data/cells.h"

// What `mean` and `m2` of a profile are taken of.
typedef enum cpa_scale {
    CPA_SCALE_COUNTS,
    CPA_SCALE_LOG,  // log(1 + CP10k), CP10k by the cell's own sum
    CPA_SCALE_GIVEN // the values as they are, also in cp10k and the pseudobulk: data that are log-normalised already
} cpa_scale;

// Gene by gene over n_cells cells. A weight rather than a count in mixtures. The arrays point into `v`.
typedef struct cpa_profile {
    int n_genes;
    double *v;     // [1 + 3 n_genes], owned: n_cells, cp10k, mean, m2
    double *cp10k; // [n_genes] mean CP10k, or mean value where the scale is the given one
    double *mean;  // [n_genes]
    double *m2;    // [n_genes] sum of squared deviations from the mean
} cpa_profile;

/** Number of doubles in `v`. */
int cpa_profile_length(int n_genes);

/** A profile of no cells. Free it with cpa_profile_fini. */
cpa_status cpa_profile_init(cpa_profile *p, int n_genes);

/** Frees it; safe on a zeroed one. */
void cpa_profile_fini(cpa_profile *p);

/** Sets it to no cells. */
void cpa_profile_clear(cpa_profile *p);

/** Overwrites `p` with the profile of `n` dense rows x [n, n_genes]. Two passes, the same bits at any
 *  number of threads. */
cpa_status cpa_profile_of_rows(cpa_profile *p, const cpa_real *x, int n, cpa_scale scale);

/** Overwrites `p` with the profile of the real cells cell[n]. */
void cpa_profile_of_cells(cpa_profile *p, const cpa_cells *cells, const int64_t *cell, int64_t n, cpa_scale scale);

/** p = p and q together, as one set of cells (Chan, Golub and LeVeque 1979). `v`: a profile's array. */
void cpa_profile_merge(cpa_profile *p, const double *v);

/** Makes all cells together weigh `weight`: for mixtures. Nothing for no cells. */
void cpa_profile_reweigh(cpa_profile *p, double weight);

/** Population variance of each gene into var[n_genes]; zero for no cells. */
void cpa_profile_variance(const cpa_profile *p, double *var);

/** The pseudobulk of a profile of that scale into out[n_genes]: log(1 + mean CP10k) of each gene, or the mean value where the
 *  scale is the given one. */
void cpa_profile_pseudobulk(const cpa_profile *p, cpa_scale scale, double *out);

#endif
