// Owns: linear layers that belong to groups of rows, and the gate of doses, on the CPU. Sums over rows go in their order,
// whatever the threads.
#include <string.h>

#include "backend_cpu_impl.h"
#include "cpa/platform/math_inl.h"

// Rows by their group: those of group g are row[begin[g]] ... row[begin[g + 1] - 1], ascending.
typedef struct grouping {
    int *begin, *row;
} grouping;

static cpa_status group_rows(cpa_backend *be, const int *id, int rows, int groups, grouping *out)
{
    int *ints;
    cpa_status st = cpa_cpu_scratch(be, (size_t)(groups + 2 + rows) * sizeof *ints, &ints);
    if (st != CPA_OK) {
        return st;
    }
    int *next = ints; // becomes begin: a place further on than while rows are dealt out
    memset(next, 0, (size_t)(groups + 2) * sizeof *next);
    for (int r = 0; r < rows; r++) {
        next[id[r] + 2]++;
    }
    for (int g = 0; g < groups; g++) {
        next[g + 2] += next[g + 1];
    }
    out->begin = ints;
    out->row = ints + groups + 2;
    for (int r = 0; r < rows; r++) {
        out->row[next[id[r] + 1]++] = r;
    }
    return CPA_OK;
}

static cpa_real dot(const cpa_real *x, const cpa_real *y, int n)
{
    cpa_real s = 0;
#pragma omp simd reduction(+ : s)
    for (int j = 0; j < n; j++) {
        s += x[j] * y[j];
    }
    return s;
}

static void add_scaled(cpa_real *to, const cpa_real *from, cpa_real scale, int n)
{
#pragma omp simd
    for (int j = 0; j < n; j++) {
        to[j] += scale * from[j];
    }
}

static bool is_parallel(int rows, cpa_mat w, int groups)
{
    return groups > 0 && (int64_t)rows * (w.rows / groups) * w.cols >= CPA_SERIAL;
}

cpa_status cpa_cpu_group_linear(cpa_backend *be, cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b)
{
    const int width = y.cols, groups = w.rows / width;
    const cpa_real *bias = cpa_reals(b.data);
    const int *id = cpa_ints(ids);
    grouping by;
    cpa_status st = group_rows(be, id, x.rows, groups, &by);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (is_parallel(x.rows, w, groups))
    for (int i = 0; i < x.rows; i++) { // row after row of a group, while its weights are near
        int r = by.row[i], g = id[r];
        for (int h = 0; h < width; h++) {
            cpa_row(y, r)[h] = g == 0 ? 0 : bias[g * width + h] + dot(cpa_row(w, g * width + h), cpa_row(x, r), x.cols);
        }
    }
    return CPA_OK;
}

// Row r of dX.
static void input_grad(cpa_mat dx, cpa_mat dy, cpa_mat w, int r, int g)
{
    memset(cpa_row(dx, r), 0, (size_t)dx.cols * sizeof(cpa_real));
    for (int h = 0; h < dy.cols && g > 0; h++) {
        add_scaled(cpa_row(dx, r), cpa_row(w, g * dy.cols + h), cpa_row(dy, r)[h], dx.cols);
    }
}

cpa_status cpa_cpu_group_linear_grad(cpa_backend *be, cpa_mat dx, cpa_mat dw, cpa_mat db, cpa_mat dy, cpa_mat x,
                                     const cpa_dev_int *ids, cpa_mat w)
{
    const int width = dy.cols, groups = w.rows / width;
    const int *id = cpa_ints(ids);
    grouping by;
    cpa_status st = group_rows(be, id, x.rows, groups, &by);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel if (is_parallel(x.rows, w, groups))
    {
#pragma omp for schedule(dynamic, 16)
        for (int k = 0; k < dw.rows; k++) {
            int g = k / width, h = k % width;
            double sum = 0;
            memset(cpa_row(dw, k), 0, (size_t)dw.cols * sizeof(cpa_real));
            for (int i = by.begin[g]; i < by.begin[g + 1] && g > 0; i++) {
                cpa_real up = cpa_row(dy, by.row[i])[h];
                add_scaled(cpa_row(dw, k), cpa_row(x, by.row[i]), up, dw.cols);
                sum += (double)up;
            }
            cpa_reals(db.data)[k] = (cpa_real)sum;
        }
#pragma omp for schedule(static)
        for (int i = 0; i < (dx.data != NULL ? x.rows : 0); i++) {
            input_grad(dx, dy, w, by.row[i], id[by.row[i]]);
        }
    }
    return CPA_OK;
}

static bool is_open(const int *id, cpa_mat dose, int b, int m)
{
    return id[(int64_t)b * dose.cols + m] != 0 && cpa_row(dose, b)[m] > 0;
}

cpa_status cpa_cpu_dose_gate(cpa_backend *be, cpa_mat s, cpa_mat a, const cpa_dev_int *ids, cpa_mat dose)
{
    (void)be;
    for (int b = 0; b < s.rows; b++) {
        for (int m = 0; m < s.cols; m++) {
            bool open = is_open(cpa_ints(ids), dose, b, m);
            cpa_row(s, b)[m] = open ? (cpa_real)cpa_sigmoid((double)cpa_row(a, b)[m]) : 0;
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_dose_gate_grad(cpa_backend *be, cpa_mat da, cpa_mat ds, cpa_mat a, const cpa_dev_int *ids,
                                  cpa_mat dose)
{
    (void)be;
    for (int b = 0; b < ds.rows; b++) {
        for (int m = 0; m < ds.cols; m++) {
            double s = cpa_sigmoid((double)cpa_row(a, b)[m]);
            bool open = is_open(cpa_ints(ids), dose, b, m);
            cpa_row(da, b)[m] = open ? (cpa_real)((double)cpa_row(ds, b)[m] * s * (1 - s)) : 0;
        }
    }
    return CPA_OK;
}
