// Owns: linear layers that belong to groups of rows, and the gate of doses, on the device. Sums over rows go in an order that the shapes
// decide; never a scatter.
#include "pick.h"

// `lanes` threads for an element of Y, which share a row of W.
CPA_KERNEL group_linear(cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b, int lanes)
{
    CPA_SHARED(double, v, CPA_THREADS);
    const int64_t from = cpa_block() * (CPA_THREADS / lanes);
    CPA_EACH(t)
    {
        const int64_t i = from + t / lanes;
        double sum = 0;
        if (i < (int64_t)y.rows * y.cols) {
            const int r = cpa_row_of(y, i), g = cpa_ints(ids)[r], k = g * y.cols + cpa_col_of(y, i);
            for (int j = t % lanes; g > 0 && j < x.cols; j += lanes) {
                sum += (double)cpa_row(w, k)[j] * (double)cpa_row(x, r)[j];
            }
            sum += g > 0 && t % lanes == 0 ? (double)cpa_reals(b.data)[k] : 0;
        }
        v[t] = sum;
    }
    CPA_EACH(t)
    {
        const int64_t i = from + t / lanes;
        if (t % lanes == 0 && i < (int64_t)y.rows * y.cols) {
            double sum = 0;
            for (int lane = 0; lane < lanes; lane++) {
                sum += v[t + lane];
            }
            cpa_row(y, cpa_row_of(y, i))[cpa_col_of(y, i)] = (cpa_real)sum;
        }
    }
}

cpa_status cpa_cuda_group_linear(cpa_backend *be, cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b)
{
    const int lanes = x.cols < 8 ? 1 : 8; // 8 are as much of a row as memory gives at once
    const int64_t in_block = CPA_THREADS / lanes;
    return CPA_LAUNCH_BLOCKS(be, group_linear, (cpa_elements(y) + in_block - 1) / in_block, 0, y, x, ids, w, b, lanes);
}

// What a call looks at. The bias is one more column of W, of which x is 1; `tiles` blocks share a group's weights.
typedef struct weights_call {
    cpa_mat dw, db, dy, x;
    const cpa_dev_int *ids;
    int tiles;
} weights_call;

enum { TILE = 4 * CPA_THREADS };

// What the rows picked give to column j of row h of a group's weights.
CPA_DEVICE double add_picked(weights_call c, cpa_picked rows, int from, int h, int j)
{
    double sum = 0;
    for (int lane = 0; lane < CPA_PICK_LANES; lane++) {
        const uint16_t *at = rows.at + lane * rows.each;
        for (int i = 0; i < rows.n[lane]; i++) {
            const int r = from + at[i];
            sum += (double)cpa_row(c.dy, r)[h] * (j < c.x.cols ? (double)cpa_row(c.x, r)[j] : 1);
        }
    }
    return sum;
}

// A block for a tile of a group's weights, which it adds to as it looks through the rows.
CPA_KERNEL weight_grad(weights_call c)
{
    CPA_PICKED(rows, CPA_PICK_MOST);
    const int g = (int)(cpa_block() / c.tiles), cols = c.x.cols + 1, n = c.dy.cols * cols;
    const int begin = (int)(cpa_block() % c.tiles) * TILE, end = begin + TILE < n ? begin + TILE : n;
    for (int from = 0; from == 0 || (g > 0 && from < c.x.rows); from += CPA_PICK_MOST) {
        const int left = g > 0 ? c.x.rows - from : 0;
        cpa_pick(rows, cpa_ints(c.ids) + from, left < CPA_PICK_MOST ? left : CPA_PICK_MOST, g);
        CPA_EACH(t)
        {
            for (int i = begin + t; i < end; i += CPA_THREADS) {
                const int h = i / cols, j = i % cols, k = g * c.dy.cols + h;
                cpa_real *to = j < c.x.cols ? &cpa_row(c.dw, k)[j] : &cpa_reals(c.db.data)[k];
                *to = (cpa_real)((from > 0 ? (double)*to : 0) + add_picked(c, rows, from, h, j));
            }
        }
    }
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
    weights_call c = {dw, db, dy, x, ids, 0};
    c.tiles = (int)(((int64_t)dy.cols * (x.cols + 1) + TILE - 1) / TILE);
    const int64_t groups = dy.cols > 0 ? dw.rows / dy.cols : 0;
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, weight_grad, groups * c.tiles, 0, c));
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
