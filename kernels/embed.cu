// Owns: embeddings and the dose response on the device: sums over cells of rows picked by number. Who sums walks all cells in order
// and takes its own; never a scatter.
#include "kernel.h"

// What the sigmoid's weight multiplies.
CPA_DEVICE double dose_input(double dose, cpa_doser kind)
{
    return kind == CPA_DOSER_LOGSIGM ? log1p(dose) : dose;
}

CPA_KERNEL doser(int64_t n, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c, cpa_doser kind)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(s, i), m = cpa_col_of(s, i), p = cpa_ints(ids)[i];
    const double d = (double)cpa_row(dose, b)[m], wp = (double)cpa_reals(w.data)[p], cp = (double)cpa_reals(c.data)[p];
    const double response = kind == CPA_DOSER_LINEAR ? d : cpa_sigmoid(wp * dose_input(d, kind) + cp) - cpa_sigmoid(cp);
    cpa_row(s, b)[m] = p == 0 ? 0 : (cpa_real)response;
}

cpa_status cpa_cuda_doser(cpa_backend *be, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c,
                          cpa_doser kind)
{
    return CPA_LAUNCH(be, doser, cpa_elements(s), s, ids, dose, w, c, kind);
}

CPA_DEVICE double sigmoid_slope(double x)
{
    const double s = cpa_sigmoid(x);
    return s * (1 - s);
}

// A thread a perturbation.
CPA_KERNEL doser_grad(int64_t n, cpa_mat dw, cpa_mat dc, cpa_mat ds, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w,
                      cpa_mat c, cpa_doser kind)
{
    const int64_t p = cpa_thread();
    if (p >= n) {
        return;
    }
    const double wp = (double)cpa_reals(w.data)[p], cp = (double)cpa_reals(c.data)[p];
    double sum_w = 0, sum_c = 0;
    for (int64_t i = 0; p > 0 && kind != CPA_DOSER_LINEAR && i < (int64_t)ds.rows * ds.cols; i++) {
        if (cpa_ints(ids)[i] == p) {
            const int b = cpa_row_of(ds, i), m = cpa_col_of(ds, i);
            const double x = dose_input((double)cpa_row(dose, b)[m], kind), up = (double)cpa_row(ds, b)[m];
            const double slope = sigmoid_slope(wp * x + cp);
            sum_w += up * slope * x;
            sum_c += up * (slope - sigmoid_slope(cp));
        }
    }
    cpa_reals(dw.data)[p] = (cpa_real)sum_w;
    cpa_reals(dc.data)[p] = (cpa_real)sum_c;
}

cpa_status cpa_cuda_doser_grad(cpa_backend *be, cpa_mat dw, cpa_mat dc, cpa_mat ds, const cpa_dev_int *ids,
                               cpa_mat dose, cpa_mat w, cpa_mat c, cpa_doser kind)
{
    return CPA_LAUNCH(be, doser_grad, (int64_t)w.cols, dw, dc, ds, ids, dose, w, c, kind);
}

CPA_KERNEL bag_add(int64_t n, cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(z, i), l = cpa_col_of(z, i);
    cpa_real sum = cpa_row(z, b)[l];
    for (int m = 0; m < m_per_row; m++) {
        const int p = cpa_ints(ids)[(int64_t)b * m_per_row + m];
        if (p >= first) {
            sum += cpa_or(weight, b, m, 1) * cpa_row(e, p)[l];
        }
    }
    cpa_row(z, b)[l] = sum;
}

cpa_status cpa_cuda_bag_add(cpa_backend *be, cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row,
                            cpa_mat weight, int first)
{
    return CPA_LAUNCH(be, bag_add, cpa_elements(z), z, e, ids, m_per_row, weight, first);
}

CPA_KERNEL bag_grad(int64_t n, cpa_mat de, cpa_mat dz, const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int p = cpa_row_of(de, i), l = cpa_col_of(de, i);
    cpa_real sum = 0;
    for (int b = 0; p >= first && b < dz.rows; b++) {
        for (int m = 0; m < m_per_row; m++) {
            if (cpa_ints(ids)[(int64_t)b * m_per_row + m] == p) {
                sum += cpa_or(weight, b, m, 1) * cpa_row(dz, b)[l];
            }
        }
    }
    cpa_row(de, p)[l] = sum;
}

CPA_KERNEL bag_weight_grad(int64_t n, cpa_mat dweight, cpa_mat dz, cpa_mat e, const cpa_dev_int *ids, int first)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(dweight, i), m = cpa_col_of(dweight, i), p = cpa_ints(ids)[i];
    double sum = 0;
    for (int l = 0; p >= first && l < dz.cols; l++) {
        sum += (double)cpa_row(dz, b)[l] * (double)cpa_row(e, p)[l];
    }
    cpa_row(dweight, b)[m] = (cpa_real)sum;
}

cpa_status cpa_cuda_bag_grad(cpa_backend *be, cpa_mat de, cpa_mat dweight, cpa_mat dz, cpa_mat e,
                             const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first)
{
    CPA_STEP(CPA_LAUNCH(be, bag_grad, cpa_elements(de), de, dz, ids, m_per_row, weight, first));
    if (dweight.data == NULL) {
        return CPA_OK;
    }
    return CPA_LAUNCH(be, bag_weight_grad, cpa_elements(dweight), dweight, dz, e, ids, first);
}
