// Owns: the softmax over genes on the device. A row is cut into parts by its width alone; never a sum across threads.
#include "softmax.h"

CPA_KERNEL top_parts(int64_t n, double *part, cpa_mat z, cpa_mat bias)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    cpa_real *row = cpa_row(z, (int)(i / CPA_PARTS)), top = -INFINITY;
    for (int j = (int)(i % CPA_PARTS); j < z.cols; j += CPA_PARTS) {
        const cpa_real t = row[j] + cpa_reals(bias.data)[j];
        row[j] = t;
        top = t > top ? t : top;
    }
    part[i] = (double)top;
}

CPA_KERNEL tops(int64_t n, double *top, const double *part)
{
    const int64_t b = cpa_thread();
    if (b < n) {
        double t = -INFINITY;
        for (int p = 0; p < CPA_PARTS; p++) {
            t = part[b * CPA_PARTS + p] > t ? part[b * CPA_PARTS + p] : t;
        }
        top[b] = t;
    }
}

CPA_KERNEL exp_parts(int64_t n, double *part, cpa_mat z, const double *top)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    cpa_real *row = cpa_row(z, (int)(i / CPA_PARTS));
    const cpa_real t = (cpa_real)top[i / CPA_PARTS];
    double sum = 0;
    for (int j = (int)(i % CPA_PARTS); j < z.cols; j += CPA_PARTS) {
        row[j] = cpa_exp(row[j] - t);
        sum += (double)row[j];
    }
    part[i] = sum;
}

CPA_KERNEL totals(int64_t n, double *total, const double *part)
{
    const int64_t k = cpa_thread();
    if (k < n) {
        double sum = 0;
        for (int p = 0; p < CPA_PARTS; p++) {
            sum += part[k * CPA_PARTS + p];
        }
        total[k] = sum;
    }
}

cpa_status cpa_cuda_totals(cpa_backend *be, double *total, const double *part, int64_t count)
{
    return CPA_LAUNCH(be, totals, count, total, part);
}

cpa_status cpa_cuda_softmax(cpa_backend *be, cpa_mat z, cpa_mat bias, double *part, double *top, double *sum)
{
    CPA_STEP(CPA_LAUNCH(be, top_parts, cpa_parts(z.rows), part, z, bias));
    CPA_STEP(CPA_LAUNCH(be, tops, (int64_t)z.rows, top, part));
    CPA_STEP(CPA_LAUNCH(be, exp_parts, cpa_parts(z.rows), part, z, top));
    return cpa_cuda_totals(be, sum, part, z.rows);
}

CPA_KERNEL means(int64_t n, cpa_mat z, const cpa_dev_real *library, const double *sum)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(z, i);
        cpa_row(z, b)[cpa_col_of(z, i)] *= (cpa_real)((double)cpa_reals(library)[b] / sum[b]);
    }
}

cpa_status cpa_cuda_softmax_means(cpa_backend *be, cpa_mat z, const cpa_dev_real *library, const double *sum)
{
    return CPA_LAUNCH(be, means, cpa_elements(z), z, library, sum);
}

cpa_status cpa_cuda_softmax_scale(cpa_backend *be, cpa_mat logits, cpa_mat bias, cpa_mat library)
{
    double *part, *top, *sum;
    CPA_STEP(cpa_cuda_scratch(be, (size_t)(cpa_parts(logits.rows) + 2 * logits.rows) * sizeof *part, &part));
    top = part + cpa_parts(logits.rows);
    sum = top + logits.rows;
    CPA_STEP(cpa_cuda_softmax(be, logits, bias, part, top, sum));
    return cpa_cuda_softmax_means(be, logits, library.data, sum);
}
