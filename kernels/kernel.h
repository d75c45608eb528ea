// Owns: what all kernels are written with. A kernel is C, a function of the number of its thread, which shares nothing with others, or of that of
// its block, whose threads take turns together (launch.h); without atomics, so a result is the same bits on every run, and the same source runs
// as loops on the host (docs/gpu.md).
// Must never be included outside kernels/.
#ifndef CPA_KERNELS_KERNEL_H
#define CPA_KERNELS_KERNEL_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "../src/platform/backend_cuda_impl.h"
#include "cpa/base/rng.h"
#include "cpa/platform/math_inl.h"
#ifdef __cplusplus
}
#endif

#include "launch.h"

// The first failure ends the operation.
#define CPA_STEP(call)                                                                                                 \
    do {                                                                                                               \
        cpa_status st_ = (call);                                                                                       \
        if (st_ != CPA_OK) {                                                                                           \
            return st_;                                                                                                \
        }                                                                                                              \
    } while (0)

// ---- looking into device memory ----

CPA_DEVICE cpa_real *cpa_reals(const cpa_dev_real *p)
{
    return (cpa_real *)(uintptr_t)p;
}

CPA_DEVICE const int *cpa_ints(const cpa_dev_int *p)
{
    return (const int *)(uintptr_t)p;
}

CPA_DEVICE double *cpa_f64s(const cpa_dev_f64 *p)
{
    return (double *)(uintptr_t)p;
}

CPA_DEVICE int64_t *cpa_i64s(const cpa_dev_i64 *p)
{
    return (int64_t *)(uintptr_t)p;
}

CPA_DEVICE cpa_real *cpa_row(cpa_mat m, int row)
{
    return cpa_reals(m.data) + (int64_t)row * m.ld;
}

// bfloat16, rounded to even, and back; NaN stays NaN.
CPA_DEVICE uint16_t cpa_to_bf16(cpa_real x)
{
    const float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)(f != f ? u >> 16 | 0x40 : (u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

CPA_DEVICE cpa_real cpa_from_bf16(uint16_t half)
{
    const uint32_t u = (uint32_t)half << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

// Element `at` of a matrix, counted from its first, whatever they are stored as.
CPA_DEVICE cpa_real cpa_get(cpa_mat m, int64_t at)
{
    return m.bf16 ? cpa_from_bf16(((const uint16_t *)(uintptr_t)m.data)[at]) : cpa_reals(m.data)[at];
}

CPA_DEVICE void cpa_put(cpa_mat m, int64_t at, cpa_real x)
{
    if (m.bf16) {
        ((uint16_t *)(uintptr_t)m.data)[at] = cpa_to_bf16(x);
    } else {
        cpa_reals(m.data)[at] = x;
    }
}

CPA_DEVICE double cpa_value_of(cpa_number x)
{
    return x.at != NULL ? cpa_f64s(x.at)[0] : x.value;
}

// An element of a view that may be without data.
CPA_DEVICE cpa_real cpa_or(cpa_mat m, int row, int col, cpa_real otherwise)
{
    return m.data != NULL ? cpa_row(m, row)[col] : otherwise;
}

// ---- how work is cut ----

// A thread an element, rows one after another.
static inline int64_t cpa_elements(cpa_mat m)
{
    return (int64_t)m.rows * m.cols;
}

// i / by, in 32 bits where they are enough: in 64 it takes a device several times as long as what an element is read for.
CPA_DEVICE int64_t cpa_quotient(int64_t i, int by)
{
    return i <= UINT32_MAX ? (int64_t)((uint32_t)i / (uint32_t)by) : i / by;
}

CPA_DEVICE int cpa_row_of(cpa_mat m, int64_t i)
{
    return (int)cpa_quotient(i, m.cols);
}

CPA_DEVICE int cpa_col_of(cpa_mat m, int64_t i)
{
    return (int)(i - cpa_quotient(i, m.cols) * m.cols);
}

// Where element i, rows one after another, lies from the first: at i itself where there are no gaps between rows.
CPA_DEVICE int64_t cpa_place(cpa_mat m, int64_t i)
{
    return m.ld == m.cols ? i : (int64_t)cpa_row_of(m, i) * m.ld + cpa_col_of(m, i);
}

/** sum[0] = v[0] + ... + v[count - 1], in an order that depends on count alone. */
cpa_status cpa_cuda_sum(cpa_backend *be, cpa_dev_f64 *sum, const double *v, int64_t count);

// ---- formulas that several families share ----

// What a gradient is multiplied by on its way back through ReLU and dropout, where the output is y.
CPA_DEVICE cpa_real cpa_gated(cpa_real dy, cpa_real y, cpa_real keep, bool relu)
{
    return !relu ? dy : y > 0 ? dy * keep : 0;
}

// Adds an element's share to the sums that a norm's second order takes: of g, g xhat, v, v xhat, v g.
CPA_DEVICE void cpa_add_second_order(double sums[5], cpa_real g, cpa_real xhat, cpa_real v)
{
    const double down = (double)g, x = (double)xhat, up = (double)v;
    sums[0] += down;
    sums[1] += down * x;
    sums[2] += up;
    sums[3] += up * x;
    sums[4] += up * down;
}

// Where gene j of cell b is stored, -1 if it is not.
CPA_DEVICE int cpa_stored(cpa_csr x, int b, int j)
{
    const int *gene = cpa_ints(x.gene);
    int from = cpa_ints(x.indptr)[b], to = cpa_ints(x.indptr)[b + 1], end = to;
    while (from < to) {
        int mid = from + (to - from) / 2;
        if (gene[mid] < j) {
            from = mid + 1;
        } else {
            to = mid;
        }
    }
    return from < end && gene[from] == j ? from : -1;
}

#endif
