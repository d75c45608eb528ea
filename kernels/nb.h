// Owns: what the kernels of the negative binomial likelihoods know of their genes and cells. Must never be included outside kernels/.
#ifndef CPA_KERNELS_NB_H
#define CPA_KERNELS_NB_H

#include "likelihood.h"

// What a call knows of its genes: arrays of G, and T and E of math_inl.h for every small count but 0.
typedef struct nb_genes {
    cpa_real *theta, *inverse; // exp(px_r), 1 / (theta + eps)
    cpa_real *bias;            // what is added to logits, here as well aligned as the others are
    cpa_real *t, *e;           // [CPA_NB_LAST, G]
} nb_genes;

// What a call knows of its cells; zi is a NULL view without inflation.
typedef struct nb_call {
    cpa_cells_cut cut;
    nb_genes genes;
    cpa_mat logits, bias, zi, zi_bias;
    cpa_csr x;
    cpa_real scale;
} nb_call;

/** Whether cpa_cuda_nb_wide takes so many genes: as many as a block's threads keep in registers. */
bool cpa_cuda_nb_is_wide(int n_genes);

/** nb_loss but for the addition of what blocks leave. */
cpa_status cpa_cuda_nb_wide(cpa_backend *be, nb_call c);

// What a count has that is large, or no integer; t and e are those of the last small one.
CPA_RARE void nb_rare_terms(cpa_real x, cpa_real theta, cpa_real inverse, cpa_real *t, cpa_real *e)
{
    if (x > CPA_NB_LAST) {
        cpa_nb_large_terms(x, theta, cpa_nb_next_term(CPA_NB_LAST, inverse), t, e);
    } else {
        cpa_nb_fraction_terms((double)x, (double)theta, (double)inverse, t, e);
    }
}

// T and E of math_inl.h.
CPA_DEVICE void nb_count_terms(const nb_genes *g, int n, int j, cpa_real x, cpa_real *t, cpa_real *e)
{
    const int table = x < CPA_NB_LAST ? (int)x : CPA_NB_LAST;
    *t = table > 0 ? g->t[(table - 1) * n + j] : 0;
    *e = table > 0 ? g->e[(table - 1) * n + j] : 0;
    if ((cpa_real)table != x) {
        cpa_real more_t = *t, more_e = *e;
        nb_rare_terms(x, g->theta[j], g->inverse[j], &more_t, &more_e);
        *t = more_t;
        *e = more_e;
    }
}

// What exps that add up to `total` are multiplied by to be the means of cell b.
CPA_DEVICE cpa_real nb_to_means(const nb_call *c, int b, double total)
{
    return cpa_reals(c->x.library)[b] * (cpa_real)(1.0 / total);
}

#endif
