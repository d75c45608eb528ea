// Owns: the softmax over genes on the device, scaled. A block a row; never two of them for one.
#include "softmax.h"

typedef struct scale_call {
    cpa_cells_cut cut;
    cpa_mat logits, bias;
    const cpa_real *library;
} scale_call;

CPA_DEVICE void scale_rows(const scale_call *c, cpa_real *row, const cpa_real *sums)
{
    CPA_SHARED(cpa_real, top, CPA_THREADS);
    CPA_SHARED(double, sum, CPA_THREADS);
    (void)sums;
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        cpa_exps_of_row(row, top, sum, c->logits, c->bias, b);
        CPA_EACH(t)
        {
            const cpa_real to_mean = (cpa_real)((double)c->library[b] / sum[0]);
            for (int j = t; j < c->cut.n_genes; j += CPA_THREADS) {
                cpa_put(c->logits, (int64_t)b * c->logits.ld + j, to_mean * row[j]);
            }
        }
    }
}

CPA_CELLS_KERNELS(scale_softmax, scale_call, scale_rows)

cpa_status cpa_cuda_softmax_scale(cpa_backend *be, cpa_mat logits, cpa_mat bias, cpa_mat library)
{
    scale_call c = {{0}, logits, bias, (const cpa_real *)(const void *)library.data};
    CPA_STEP(cpa_cuda_cut_cells(be, &c.cut, logits.rows, logits.cols, 0, 1, 0));
    return CPA_LAUNCH_CELLS(be, scale_softmax, c);
}
