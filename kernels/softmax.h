// Owns: the softmax over genes that the likelihoods share. Must never be included outside kernels/.
#ifndef CPA_KERNELS_SOFTMAX_H
#define CPA_KERNELS_SOFTMAX_H

#include "kernel.h"

/** z = exp(z + bias - largest of its row), and in sum [rows] what each row adds up to. part [rows, CPA_PARTS] and top [rows] are
 *  scratch. */
cpa_status cpa_cuda_softmax(cpa_backend *be, cpa_mat z, cpa_mat bias, double *part, double *top, double *sum);

/** z *= library / sum, by rows. */
cpa_status cpa_cuda_softmax_means(cpa_backend *be, cpa_mat z, const cpa_dev_real *library, const double *sum);

/** total[k] = the sum of part [count, CPA_PARTS] over its row k, in order. */
cpa_status cpa_cuda_totals(cpa_backend *be, double *total, const double *part, int64_t count);

#endif
