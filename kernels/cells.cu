// Owns: batches taken from all cells, which the device has. Never a sum across threads but by the block, and never an atomic.
#include "kernel.h"

// Genes that a block mixes at a time, a whole number for each thread.
enum { OF_THREAD = 8, TILE = OF_THREAD * CPA_THREADS };

// The logarithm of a whole number comes from the table.
CPA_DEVICE void put(cpa_csr x, cpa_all_cells from, int at, int gene, double count)
{
    const int whole = count < from.n_log1p ? (int)count : -1;
    ((int *)(uintptr_t)x.gene)[at] = gene;
    cpa_reals(x.count)[at] = (cpa_real)count;
    cpa_reals(x.log1p)[at] =
        whole >= 0 && (double)whole == count ? cpa_reals(from.log1p)[whole] : (cpa_real)log1p(count);
}

CPA_DEVICE int *begins(cpa_csr x)
{
    return (int *)(uintptr_t)x.indptr;
}

// indptr[i + 1] = how many entries cell i has.
CPA_KERNEL count_entries(int64_t n, cpa_csr x, cpa_all_cells from, const cpa_dev_int *row)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int64_t *begin = cpa_begins_of(from) + cpa_ints(row)[i];
        begins(x)[i + 1] = (int)(begin[1] - begin[0]);
    }
}

// The turn of t: v[t] becomes the sum of v[0 ... t - 1], and *total the sum of all; one block.
#define EXCLUSIVE_SUMS(v, total)                                                                                       \
    CPA_EACH(t)                                                                                                        \
    {                                                                                                                  \
        if (t == 0) {                                                                                                  \
            int sum_ = (total)[0];                                                                                     \
            for (int k_ = 0; k_ < CPA_THREADS; k_++) {                                                                 \
                const int own_ = (v)[k_];                                                                              \
                (v)[k_] = sum_;                                                                                        \
                sum_ += own_;                                                                                          \
            }                                                                                                          \
            (total)[0] = sum_;                                                                                         \
        }                                                                                                              \
    }

// indptr from the numbers of entries in it; one block, of which each thread has a stretch of cells.
CPA_KERNEL counts_to_begins(cpa_csr x)
{
    CPA_SHARED(int, sum, CPA_THREADS);
    CPA_SHARED(int, total, 1);
    const int stretch = (x.rows + CPA_THREADS - 1) / CPA_THREADS;
    int *to = begins(x) + 1;
    CPA_EACH(t)
    {
        int own = 0;
        for (int i = t * stretch; i < x.rows && i < (t + 1) * stretch; i++) {
            own += to[i];
        }
        sum[t] = own;
        if (t == 0) {
            total[0] = 0;
            to[-1] = 0;
        }
    }
    EXCLUSIVE_SUMS(sum, total)
    CPA_EACH(t)
    {
        int so_far = sum[t];
        for (int i = t * stretch; i < x.rows && i < (t + 1) * stretch; i++) {
            so_far += to[i];
            to[i] = so_far;
        }
    }
}

// A block a cell.
CPA_KERNEL copy_cells(cpa_csr x, cpa_all_cells from, const cpa_dev_int *row)
{
    const int i = (int)cpa_block(), own = cpa_ints(row)[i], at = begins(x)[i], n = begins(x)[i + 1] - at;
    const int64_t first = cpa_begins_of(from)[own];
    CPA_EACH(t)
    {
        for (int k = t; k < n; k += CPA_THREADS) {
            put(x, from, at + k, cpa_gene_at(from, first + k), cpa_count_at(from, first + k));
        }
        if (t == 0) {
            cpa_reals(x.library)[i] = cpa_reals(from.library)[own];
        }
    }
}

// The t-th turn of adding `share` of a cell's counts of the genes lo ... lo + TILE - 1 up. An entry that repeats a gene is 0, and of no
// account.
CPA_DEVICE void add_share(double *sum, unsigned char *has, cpa_all_cells from, int row, double share, int lo, int t)
{
    const int64_t end = cpa_begins_of(from)[row + 1];
    for (int64_t k = cpa_begins_of(from)[row] + t; k < end; k += CPA_THREADS) {
        const int g = cpa_gene_at(from, k) - lo;
        const double count = cpa_count_at(from, k);
        if (g >= 0 && g < TILE && count > 0) {
            sum[g] += share * count;
            has[g] = 1;
        }
    }
}

// A block a mixed cell: how many genes it has, into indptr, or with `fill` the entries.
CPA_KERNEL mix_cells(cpa_csr x, cpa_all_cells from, const cpa_dev_int *row, const cpa_dev_int *partner, double lambda,
                     bool fill)
{
    CPA_SHARED(double, sum, TILE);
    CPA_SHARED(unsigned char, has, TILE);
    CPA_SHARED(int, part, CPA_THREADS);
    CPA_SHARED(int, total, 1);
    const int i = (int)cpa_block(), own = cpa_ints(row)[i], other = cpa_ints(partner)[i];
    CPA_EACH(t)
    {
        if (t == 0) {
            total[0] = fill ? begins(x)[i] : 0;
        }
    }
    for (int lo = 0; lo < from.n_genes; lo += TILE) {
        CPA_EACH(t)
        {
            for (int g = t; g < TILE; g += CPA_THREADS) {
                sum[g] = 0;
                has[g] = 0;
            }
        }
        CPA_EACH(t)
        {
            add_share(sum, has, from, own, lambda, lo, t);
        }
        CPA_EACH(t)
        {
            add_share(sum, has, from, other, 1 - lambda, lo, t);
        }
        CPA_EACH(t)
        {
            part[t] = 0;
            for (int g = t * OF_THREAD; g < (t + 1) * OF_THREAD; g++) {
                part[t] += has[g];
            }
        }
        EXCLUSIVE_SUMS(part, total)
        CPA_EACH(t)
        {
            int at = part[t];
            for (int g = t * OF_THREAD; fill && g < (t + 1) * OF_THREAD; g++) {
                if (has[g]) {
                    put(x, from, at++, lo + g, sum[g]);
                }
            }
        }
    }
    CPA_EACH(t)
    {
        if (t == 0 && fill) {
            cpa_reals(x.library)[i] = (cpa_real)(lambda * (double)cpa_reals(from.library)[own] +
                                                 (1 - lambda) * (double)cpa_reals(from.library)[other]);
        } else if (t == 0) {
            begins(x)[i + 1] = total[0];
        }
    }
}

cpa_status cpa_cuda_take_cells(cpa_backend *be, cpa_csr x, cpa_all_cells from, const cpa_dev_int *row,
                               const cpa_dev_int *partner, double lambda)
{
    cpa_cuda_changed((cpa_cuda *)be, x.indptr, 1);
    if (partner != NULL) {
        CPA_STEP(CPA_LAUNCH_BLOCKS(be, mix_cells, x.rows, 0, x, from, row, partner, lambda, false));
    } else {
        CPA_STEP(CPA_LAUNCH(be, count_entries, (int64_t)x.rows, x, from, row));
    }
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, counts_to_begins, 1, 0, x));
    if (partner != NULL) {
        return CPA_LAUNCH_BLOCKS(be, mix_cells, x.rows, 0, x, from, row, partner, lambda, true);
    }
    return CPA_LAUNCH_BLOCKS(be, copy_cells, x.rows, 0, x, from, row);
}
