// Owns: how the likelihoods cut their cells on the device, and the sums over blocks of them. Never what a likelihood computes.
#include "likelihood.h"

cpa_status cpa_cuda_cut_cells(cpa_backend *be, cpa_cells_cut *cut, int rows, int n_genes, int tables, int arrays,
                              int n_sums)
{
    const int most = rows < CPA_DEVICE_SCORE_BLOCKS ? rows : CPA_DEVICE_SCORE_BLOCKS;
    memset(cut, 0, sizeof *cut);
    cut->rows = rows;
    cut->n_genes = n_genes;
    cut->arrays = arrays;
    cut->n_sums = n_sums;
    cut->near = cpa_device_fits(arrays, n_genes, CPA_DEVICE_SHARED);
    cut->sums_near =
        cpa_device_fits(arrays + n_sums, n_genes, n_sums > 0 ? CPA_DEVICE_SHARED_BY_TWO : CPA_DEVICE_SHARED);
    cut->blocks = n_sums == 0 && cut->near ? most : cpa_device_blocks(rows);
    CPA_STEP(cpa_cuda_scratch(be, cpa_device_cells_scratch(rows, n_genes, tables, arrays, n_sums), &cut->loss));
    cut->table = (cpa_real *)(cut->loss + cpa_device_blocks(rows) + CPA_DEVICE_SCORE_BLOCKS);
    cut->sums = cut->table + (int64_t)tables * n_genes;
    cut->cell = cut->sums + (int64_t)cpa_device_blocks(rows) * n_sums * n_genes;
    return CPA_OK;
}

// 32 genes, and 8 threads for each of them.
enum { GENES = 32, LANES = CPA_THREADS / GENES };

typedef struct blocks_to_add {
    cpa_cells_cut cut;
    int tiles; // of genes
    cpa_real *out, *out2, *out3;
    double *loss;
    cpa_real scale;
} blocks_to_add;

// lanes [CPA_THREADS] is of the block.
CPA_DEVICE void add_losses(const blocks_to_add *c, double *lanes)
{
    CPA_EACH(t)
    {
        double sum = 0;
        for (int k = t; k < c->cut.blocks; k += CPA_THREADS) {
            sum += c->cut.loss[k];
        }
        lanes[t] = sum;
    }
    cpa_block_sum(lanes);
    CPA_EACH(t)
    {
        if (t == 0) {
            c->loss[0] = lanes[0];
        }
    }
}

// A block a tile of a sum, and the last one the losses.
CPA_KERNEL add_blocks(blocks_to_add c)
{
    const int which = (int)(cpa_block() / c.tiles), first = (int)(cpa_block() % c.tiles) * GENES, n = c.cut.n_genes;
    CPA_SHARED(double, lanes, CPA_THREADS);
    if (which == c.cut.n_sums) {
        add_losses(&c, lanes);
        return;
    }
    CPA_EACH(t)
    {
        const int j = first + t % GENES;
        double sum = 0;
        for (int k = t / GENES; j < n && k < c.cut.blocks; k += LANES) {
            sum += (double)c.cut.sums[((int64_t)k * c.cut.n_sums + which) * n + j];
        }
        lanes[t] = sum;
    }
    CPA_EACH(t)
    {
        const int j = first + t;
        if (t < GENES && j < n) {
            double sum = 0;
            for (int lane = 0; lane < LANES; lane++) {
                sum += lanes[lane * GENES + t];
            }
            (which == 0 ? c.out : which == 1 ? c.out2 : c.out3)[j] = (cpa_real)((double)c.scale * sum);
        }
    }
}

cpa_status cpa_cuda_add_blocks(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat sum, cpa_mat sum2, cpa_mat sum3,
                               const cpa_cells_cut *cut, cpa_real scale)
{
    const blocks_to_add c = {*cut,
                             (cut->n_genes + GENES - 1) / GENES,
                             (cpa_real *)(void *)sum.data,
                             (cpa_real *)(void *)sum2.data,
                             (cpa_real *)(void *)sum3.data,
                             (double *)(void *)loss_sum,
                             scale};
    return CPA_LAUNCH_BLOCKS(be, add_blocks, (int64_t)cut->n_sums * c.tiles + 1, 0, c);
}
