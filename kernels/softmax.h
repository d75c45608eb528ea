// Owns: the softmax over genes that the likelihoods share. Must never be included outside kernels/.
#ifndef CPA_KERNELS_SOFTMAX_H
#define CPA_KERNELS_SOFTMAX_H

#include "likelihood.h"

// row[j] = exp(z + bias - largest) of row b, for all its columns, and sum[0] what they add up to. Arrays of the block: row, and top and
// sum [CPA_THREADS].
CPA_DEVICE void cpa_exps_of_row(cpa_real *row, cpa_real *top, double *sum, cpa_mat z, cpa_mat bias, int b)
{
    const int n = z.cols;
    const int64_t at = (int64_t)b * z.ld;
    CPA_EACH(t)
    {
        cpa_real largest = -INFINITY;
        for (int j = t; j < n; j += CPA_THREADS) {
            const cpa_real logit = cpa_get(z, at + j) + cpa_reals(bias.data)[j];
            row[j] = logit;
            largest = logit > largest ? logit : largest;
        }
        top[t] = largest;
    }
    cpa_block_max(top);
    CPA_EACH(t)
    {
        const cpa_real largest = top[0];
        double total = 0;
        for (int from = t; from < n; from += CPA_RUN) {
            const int to = cpa_run_end(from, n);
            cpa_real run = 0;
            for (int j = from; j < to; j += CPA_THREADS) {
                const cpa_real e = cpa_exp(row[j] - largest);
                row[j] = e;
                run += e;
            }
            total += (double)run;
        }
        sum[t] = total;
    }
    cpa_block_sum(sum);
}

#endif
