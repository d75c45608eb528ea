// Owns: the sparse first layer on the device, forward and weight gradient, and cells made dense. Products are dense ones, of cells made
// dense on the way: in their order, and never an atomic.
#include "kernel.h"

// Columns of a row that a block puts together in shared memory; an even number.
enum { TILE = 8192 };

// What a call makes dense.
typedef struct expand_call {
    cpa_mat y;
    cpa_csr x;
    const cpa_dev_real *value;
    int tiles; // of a row
} expand_call;

// The columns of row b from `from` on, n of them, as they are to be stored (so that zeros cost nothing), out of shared memory: bfloat16
// by twos where the row lets us.
CPA_DEVICE void write_bf16(cpa_mat y, int64_t at, const uint16_t *tile, int n, int t)
{
    uint16_t *to = (uint16_t *)(uintptr_t)y.data + at;
    const int pairs = (uintptr_t)to % sizeof(uint32_t) == 0 ? n / 2 : 0;
    for (int j = t; j < pairs; j += CPA_THREADS) {
        ((uint32_t *)(void *)to)[j] = (uint32_t)tile[2 * j] | (uint32_t)tile[2 * j + 1] << 16;
    }
    for (int j = 2 * pairs + t; j < n; j += CPA_THREADS) {
        to[j] = tile[j];
    }
}

CPA_DEVICE void write_reals(cpa_mat y, int64_t at, const cpa_real *tile, int n, int t)
{
    for (int j = t; j < n; j += CPA_THREADS) {
        cpa_reals(y.data)[at + j] = tile[j];
    }
}

// A block for a tile of a row. It looks at all entries of the row: of most rows there is but one tile.
CPA_KERNEL csr_expand(expand_call c)
{
    CPA_SHARED_BY_LAUNCH(cpa_real, tile);
    uint16_t *half = (uint16_t *)(void *)tile;
    const int b = (int)(cpa_block() / c.tiles), from = (int)(cpa_block() % c.tiles) * TILE;
    const int n = c.y.cols - from < TILE ? c.y.cols - from : TILE;
    CPA_EACH(t)
    {
        for (int j = t; j < n; j += CPA_THREADS) {
            if (c.y.bf16) {
                half[j] = 0;
            } else {
                tile[j] = 0;
            }
        }
    }
    CPA_EACH(t)
    {
        const int end = cpa_ints(c.x.indptr)[b + 1];
        for (int k = cpa_ints(c.x.indptr)[b] + t; k < end; k += CPA_THREADS) {
            const int j = cpa_ints(c.x.gene)[k] - from;
            const cpa_real v = cpa_reals(c.value)[k];
            if (j < 0 || j >= n || v == 0) {
                continue; // a 0 may come beside another value of its gene
            }
            if (c.y.bf16) {
                half[j] = cpa_to_bf16(v);
            } else {
                tile[j] = v;
            }
        }
    }
    CPA_EACH(t)
    {
        const int64_t at = (int64_t)b * c.y.ld + from;
        if (c.y.bf16) {
            write_bf16(c.y, at, half, n, t);
        } else {
            write_reals(c.y, at, tile, n, t);
        }
    }
}

cpa_status cpa_cuda_csr_expand(cpa_backend *be, cpa_mat y, cpa_csr x, bool use_log1p)
{
    const expand_call c = {y, x, use_log1p ? x.log1p : x.count, (y.cols + TILE - 1) / TILE};
    const size_t n = (size_t)(y.cols < TILE ? y.cols : TILE);
    const size_t shared = (n * (y.bf16 ? sizeof(uint16_t) : sizeof(cpa_real)) + 7) / 8 * 8;
    return CPA_LAUNCH_BLOCKS(be, csr_expand, (int64_t)y.rows * c.tiles, shared, c);
}

// f(X), in a room of its own: the product may need scratch.
static cpa_status dense_cells(cpa_backend *be, cpa_csr x, bool use_log1p, cpa_mat *dense)
{
    bool is_there;
    CPA_STEP(cpa_cuda_dense_room(be, x, use_log1p, dense, &is_there));
    return is_there ? CPA_OK : cpa_cuda_csr_expand(be, *dense, x, use_log1p);
}

cpa_status cpa_cuda_sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    cpa_mat dense;
    CPA_STEP(dense_cells(be, x, use_log1p, &dense));
    return cpa_cuda_gemm(be, y, dense, false, wt, false, 1, 0);
}

cpa_status cpa_cuda_sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    cpa_mat dense;
    CPA_STEP(dense_cells(be, x, use_log1p, &dense));
    return cpa_cuda_gemm(be, dwt, dense, true, dy, false, 1, 0);
}
