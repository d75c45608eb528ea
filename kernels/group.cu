// Owns: linear layers that belong to groups of rows, and the gate of doses, on the device. Sums over rows go in their order; never a
// scatter.
#include "kernel.h"

CPA_KERNEL group_linear(int64_t n, cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int r = cpa_row_of(y, i), h = cpa_col_of(y, i), g = cpa_ints(ids)[r], k = g * y.cols + h;
    cpa_real sum = 0;
    for (int j = 0; g > 0 && j < x.cols; j++) {
        sum += cpa_row(w, k)[j] * cpa_row(x, r)[j];
    }
    cpa_row(y, r)[h] = g == 0 ? 0 : cpa_reals(b.data)[k] + sum;
}

cpa_status cpa_cuda_group_linear(cpa_backend *be, cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b)
{
    return CPA_LAUNCH(be, group_linear, cpa_elements(y), y, x, ids, w, b);
}

CPA_KERNEL weight_grad(int64_t n, cpa_mat dw, cpa_mat dy, cpa_mat x, const cpa_dev_int *ids)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int k = cpa_row_of(dw, i), j = cpa_col_of(dw, i), g = k / dy.cols, h = k % dy.cols;
    cpa_real sum = 0;
    for (int r = 0; g > 0 && r < x.rows; r++) {
        if (cpa_ints(ids)[r] == g) {
            sum += cpa_row(dy, r)[h] * cpa_row(x, r)[j];
        }
    }
    cpa_row(dw, k)[j] = sum;
}

CPA_KERNEL bias_grad(int64_t n, cpa_mat db, cpa_mat dy, const cpa_dev_int *ids)
{
    const int64_t k = cpa_thread();
    if (k >= n) {
        return;
    }
    const int g = (int)k / dy.cols, h = (int)k % dy.cols;
    double sum = 0;
    for (int r = 0; g > 0 && r < dy.rows; r++) {
        sum += cpa_ints(ids)[r] == g ? (double)cpa_row(dy, r)[h] : 0;
    }
    cpa_reals(db.data)[k] = (cpa_real)sum;
}

CPA_KERNEL input_grad(int64_t n, cpa_mat dx, cpa_mat dy, const cpa_dev_int *ids, cpa_mat w)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int r = cpa_row_of(dx, i), j = cpa_col_of(dx, i), g = cpa_ints(ids)[r];
    cpa_real sum = 0;
    for (int h = 0; g > 0 && h < dy.cols; h++) {
        sum += cpa_row(dy, r)[h] * cpa_row(w, g * dy.cols + h)[j];
    }
    cpa_row(dx, r)[j] = sum;
}

cpa_status cpa_cuda_group_linear_grad(cpa_backend *be, cpa_mat dx, cpa_mat dw, cpa_mat db, cpa_mat dy, cpa_mat x,
                                      const cpa_dev_int *ids, cpa_mat w)
{
    CPA_STEP(CPA_LAUNCH(be, weight_grad, cpa_elements(dw), dw, dy, x, ids));
    CPA_STEP(CPA_LAUNCH(be, bias_grad, (int64_t)db.cols, db, dy, ids));
    if (dx.data == NULL) {
        return CPA_OK;
    }
    return CPA_LAUNCH(be, input_grad, cpa_elements(dx), dx, dy, ids, w);
}

CPA_KERNEL dose_gate(int64_t n, cpa_mat s, cpa_mat a, const cpa_dev_int *ids, cpa_mat dose)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(s, i), m = cpa_col_of(s, i);
        const bool open = cpa_ints(ids)[i] != 0 && cpa_row(dose, b)[m] > 0;
        cpa_row(s, b)[m] = open ? (cpa_real)cpa_sigmoid((double)cpa_row(a, b)[m]) : 0;
    }
}

cpa_status cpa_cuda_dose_gate(cpa_backend *be, cpa_mat s, cpa_mat a, const cpa_dev_int *ids, cpa_mat dose)
{
    return CPA_LAUNCH(be, dose_gate, cpa_elements(s), s, a, ids, dose);
}

CPA_KERNEL dose_gate_grad(int64_t n, cpa_mat da, cpa_mat ds, cpa_mat a, const cpa_dev_int *ids, cpa_mat dose)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(ds, i), m = cpa_col_of(ds, i);
        const double s = cpa_sigmoid((double)cpa_row(a, b)[m]);
        const bool open = cpa_ints(ids)[i] != 0 && cpa_row(dose, b)[m] > 0;
        cpa_row(da, b)[m] = open ? (cpa_real)((double)cpa_row(ds, b)[m] * s * (1 - s)) : 0;
    }
}

cpa_status cpa_cuda_dose_gate_grad(cpa_backend *be, cpa_mat da, cpa_mat ds, cpa_mat a, const cpa_dev_int *ids,
                                   cpa_mat dose)
{
    return CPA_LAUNCH(be, dose_gate_grad, cpa_elements(ds), da, ds, a, ids, dose);
}
