// Owns: what the likelihoods on the CPU share: gradients summed over blocks of cells in a fixed order, and the pieces of
// the negative binomial. Never included outside src/platform/backend_cpu_*.c.
#ifndef CPA_PLATFORM_BACKEND_CPU_LOSS_IMPL_H
#define CPA_PLATFORM_BACKEND_CPU_LOSS_IMPL_H

#include "backend_cpu_impl.h"

// Gradients of genes are summed over a fixed number of blocks of cells, then over the blocks in order.
enum { CPA_BLOCKS = 16 };

// Sums in cpa_real run over this many genes at most, then go on in double.
enum { CPA_CHUNK = 512 };

// What a call knows of every gene; arrays of G, and tables of G for each small count.
typedef struct cpa_nb_genes {
    int n_genes;
    cpa_real *theta, *inverse; // exp(px_r), 1 / (theta + eps)
    cpa_real *t, *e;           // T and E, see backend_cpu_nb.c
    cpa_real *step;            // T(LAST + 1) - T(LAST)
} cpa_nb_genes;

enum { CPA_NB_MORE = 6 }; // arrays of G that a thread has for the caller

// A thread's scratch, arrays of G.
typedef struct cpa_nb_row {
    cpa_real *mu_slope;          // mu dl/dmu of the row
    cpa_real *t, *e;             // T and E of the row's stored counts
    int *other;                  // which of them are not in the table
    cpa_real *more[CPA_NB_MORE]; // the caller's, as many as it asked for
} cpa_nb_row;

// A call's scratch.
typedef struct cpa_nb {
    cpa_nb_genes genes;
    char *rows; // scratch of the threads
    size_t row_bytes;
    int n_more;
    cpa_real *dpx_r, *dbias; // [CPA_BLOCKS, G] partial sums
    cpa_real *dmore;         // one more of them when n_more > 0
    double *loss;            // [B]
} cpa_nb;

/** Scratch for a call, with `n_more` arrays of the caller's for every thread. */
cpa_status cpa_nb_scratch(cpa_backend *be, cpa_nb *out, int rows, int n_genes, int n_more);

/** The calling thread's part of it. */
cpa_nb_row cpa_nb_row_of(const cpa_nb *s);

/** Fills the tables of the genes. */
void cpa_nb_prepare(const cpa_nb_genes *g, const cpa_real *px_r, bool parallel);

/** z = exp(z + bias - largest); gives what to multiply with for a sum of `total`. */
cpa_real cpa_softmax_row(cpa_real *restrict z, const cpa_real *restrict bias, int n, cpa_real total);

/** z = library * softmax(z + bias). */
void cpa_softmax_means(cpa_real *z, const cpa_real *bias, int n, cpa_real library);

/** The loss that the stored counts of cell `b` add to theta log1p(mu / (theta + eps)) of its genes, mu = scale * z. What
 *  they add to mu dl/dmu and to dl/dpx_r is in r->t and r->e afterwards, the sum of the former in *slope_sum. */
double cpa_nb_stored(const cpa_nb_genes *g, cpa_csr x, int b, const cpa_real *z, cpa_real scale, cpa_nb_row *r,
                     double *slope_sum);

/** Ends a cell: r->mu_slope, whose sum is `slope`, with what cpa_nb_stored left makes z, the exp of cpa_softmax_row, the
 *  gradient by the logits, times `scale`; adds to dpx and, without the scale, to dbias. to_p: 1 / the sum of z. */
void cpa_nb_gradient(const cpa_nb_genes *g, cpa_csr x, int b, const cpa_nb_row *r, double slope, cpa_real to_p,
                     cpa_real *z, cpa_real *dpx, cpa_real *dbias, cpa_real scale);

/** First cell of a block; block CPA_BLOCKS begins at the end. */
static inline int cpa_block_begin(int rows, int block)
{
    return (int)((int64_t)rows * block / CPA_BLOCKS);
}

/** out[col..] = scale * the sum over the blocks [CPA_BLOCKS, n], in order, for up to CPA_CHUNK columns from `col`. */
void cpa_blocks_sum(cpa_real *out, const cpa_real *blocks, int n, int col, cpa_real scale);

/** Sum of the cells' losses, in order. */
double cpa_losses_sum(const double *loss, int n);

#endif
