// Owns: how kernels of likelihoods go along cells: a block takes one cell at a time, with its genes in shared memory where they fit,
// and sums over cells are those of the blocks, added up in order. Must never be included outside kernels/.
#ifndef CPA_KERNELS_LIKELIHOOD_H
#define CPA_KERNELS_LIKELIHOOD_H

#include "kernel.h"

// Block k takes cells k, k + blocks, ... in this order.
typedef struct cpa_cells_cut {
    int rows, n_genes, blocks;
    int arrays, n_sums;    // of genes: of the cell at hand; over the cells of a block
    bool near, sums_near;  // whether they lie in shared memory
    double *loss;          // [blocks] scratch
    cpa_real *table;       // [tables, G]
    cpa_real *sums, *cell; // [blocks, n_sums, G], and [blocks, arrays, G] unless near
} cpa_cells_cut;

/** Cuts the cells, and takes the operation's scratch; without sums over cells there are more blocks. */
cpa_status cpa_cuda_cut_cells(cpa_backend *be, cpa_cells_cut *cut, int rows, int n_genes, int tables, int arrays,
                              int n_sums);

/** The sums of the blocks, times scale, into vectors of G, one for each; loss_sum[0] is that of their losses. */
cpa_status cpa_cuda_add_blocks(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat sum, cpa_mat sum2, cpa_mat sum3,
                               const cpa_cells_cut *cut, cpa_real scale);

// Sums of a thread over genes run in cpa_real over 16 of them, then go on in double:
//     for (int from = t; from < n; from += CPA_RUN) {
//         const int to = cpa_run_end(from, n);
//         for (int j = from; j < to; j += CPA_THREADS) ...
enum { CPA_RUN = 16 * CPA_THREADS };

CPA_DEVICE int cpa_run_end(int from, int n)
{
    return n - from < CPA_RUN ? n : from + CPA_RUN;
}

// Genes that a thread takes at a time, reading and computing all of them before it writes: the device has them under way at once.
enum { CPA_AT_ONCE = 4 };

// The matrix, stored as is known when it is compiled: a loop over it does not ask again.
CPA_DEVICE cpa_mat cpa_as(cpa_mat m, bool bf16)
{
    m.bf16 = bf16;
    return m;
}

// Ends a block whose threads have left their losses in `losses`, and the sums over its cells in `sums`.
CPA_DEVICE void cpa_end_block(const cpa_cells_cut *cut, double *losses, const cpa_real *sums)
{
    cpa_real *out = cut->sums + cpa_block() * cut->n_sums * cut->n_genes;
    cpa_block_sum(losses);
    CPA_EACH(t)
    {
        if (t == 0) {
            cut->loss[cpa_block()] = losses[0];
        }
        for (int i = t; cut->sums_near && i < cut->n_sums * cut->n_genes; i += CPA_THREADS) {
            out[i] = sums[i];
        }
    }
}

// Kernels name_near, with everything in shared memory; name_outside, with the sums in scratch; and name_far, with nothing shared: of
// work(c, cell, sums), where c has the member `cut`.
#define CPA_CELLS_KERNELS(name, type, work)                                                                            \
    CPA_KERNEL name##_near(type c)                                                                                     \
    {                                                                                                                  \
        CPA_SHARED_BY_LAUNCH(cpa_real, cell);                                                                          \
        work(&c, cell, cell + c.cut.arrays * c.cut.n_genes);                                                           \
    }                                                                                                                  \
    CPA_KERNEL name##_outside(type c)                                                                                  \
    {                                                                                                                  \
        CPA_SHARED_BY_LAUNCH(cpa_real, cell);                                                                          \
        work(&c, cell, c.cut.sums + cpa_block() * c.cut.n_sums * c.cut.n_genes);                                       \
    }                                                                                                                  \
    CPA_KERNEL name##_far(type c)                                                                                      \
    {                                                                                                                  \
        work(&c, c.cut.cell + cpa_block() * c.cut.arrays * c.cut.n_genes,                                              \
             c.cut.sums + cpa_block() * c.cut.n_sums * c.cut.n_genes);                                                 \
    }

// Bytes of `arrays` of genes, a multiple of 8.
static inline size_t cpa_near_bytes(const cpa_cells_cut *cut, int arrays)
{
    return ((size_t)arrays * (size_t)cut->n_genes * sizeof(cpa_real) + 7) / 8 * 8;
}

// The one of them that the cut asks for; a cpa_status.
#define CPA_LAUNCH_CELLS(be, name, c)                                                                                  \
    ((c).cut.sums_near ? CPA_LAUNCH_BLOCKS(be, name##_near, (c).cut.blocks,                                            \
                                           cpa_near_bytes(&(c).cut, (c).cut.arrays + (c).cut.n_sums), (c))             \
     : (c).cut.near                                                                                                    \
         ? CPA_LAUNCH_BLOCKS(be, name##_outside, (c).cut.blocks, cpa_near_bytes(&(c).cut, (c).cut.arrays), (c))        \
         : CPA_LAUNCH_BLOCKS(be, name##_far, (c).cut.blocks, 0, (c)))

#endif
