// Owns: embeddings and the dose response on the CPU: sums over cells of rows picked by number. Scatters go in the order
// of the cells, on one thread; never in the order of threads.
#include "backend_cpu_impl.h"

#include <string.h>

#include "cpa/platform/math_inl.h"

// What the sigmoid's weight multiplies.
static double dose_input(double dose, cpa_doser kind)
{
    return kind == CPA_DOSER_LOGSIGM ? log1p(dose) : dose;
}

static double dose_response(double dose, double w, double c, cpa_doser kind)
{
    return kind == CPA_DOSER_LINEAR ? dose : cpa_sigmoid(w * dose_input(dose, kind) + c) - cpa_sigmoid(c);
}

cpa_status cpa_cpu_doser(cpa_backend *be, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c,
                         cpa_doser kind)
{
    (void)be;
    const int *id = cpa_ints(ids);
    for (int b = 0; b < s.rows; b++) {
        for (int m = 0; m < s.cols; m++) {
            int p = id[(int64_t)b * s.cols + m];
            double wp = (double)cpa_reals(w.data)[p], cp = (double)cpa_reals(c.data)[p];
            cpa_row(s, b)[m] = p == 0 ? 0 : (cpa_real)dose_response((double)cpa_row(dose, b)[m], wp, cp, kind);
        }
    }
    return CPA_OK;
}

static double sigmoid_slope(double x)
{
    double s = cpa_sigmoid(x);
    return s * (1 - s);
}

cpa_status cpa_cpu_doser_grad(cpa_backend *be, cpa_mat dw, cpa_mat dc, cpa_mat ds, const cpa_dev_int *ids, cpa_mat dose,
                              cpa_mat w, cpa_mat c, cpa_doser kind)
{
    double *sum; // of dw, then of dc
    size_t n = (size_t)w.cols;
    cpa_status st = cpa_cpu_scratch(be, 2 * n * sizeof *sum, &sum);
    if (st != CPA_OK) {
        return st;
    }
    memset(sum, 0, 2 * n * sizeof *sum);
    const int *id = cpa_ints(ids);
    for (int b = 0; b < ds.rows; b++) {
        for (int m = 0; m < ds.cols; m++) {
            int p = id[(int64_t)b * ds.cols + m];
            if (p == 0 || kind == CPA_DOSER_LINEAR) {
                continue;
            }
            double x = dose_input((double)cpa_row(dose, b)[m], kind), shift = (double)cpa_reals(c.data)[p];
            double slope = sigmoid_slope((double)cpa_reals(w.data)[p] * x + shift), up = (double)cpa_row(ds, b)[m];
            sum[p] += up * slope * x;
            sum[n + (size_t)p] += up * (slope - sigmoid_slope(shift));
        }
    }
    for (size_t p = 0; p < n; p++) {
        cpa_reals(dw.data)[p] = (cpa_real)sum[p];
        cpa_reals(dc.data)[p] = (cpa_real)sum[n + p];
    }
    return CPA_OK;
}

static void add_scaled(cpa_real *to, const cpa_real *from, cpa_real scale, int n)
{
#pragma omp simd
    for (int j = 0; j < n; j++) {
        to[j] += scale * from[j];
    }
}

cpa_status cpa_cpu_bag_add(cpa_backend *be, cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row, cpa_mat weight,
                           int first)
{
    (void)be;
    const int *id = cpa_ints(ids);
#pragma omp parallel for schedule(static) if (cpa_parallel(z))
    for (int b = 0; b < z.rows; b++) {
        for (int m = 0; m < m_per_row; m++) {
            int p = id[(int64_t)b * m_per_row + m];
            if (p >= first) {
                add_scaled(cpa_row(z, b), cpa_row(e, p), weight.data != NULL ? cpa_row(weight, b)[m] : 1, z.cols);
            }
        }
    }
    return CPA_OK;
}

static cpa_real dot(const cpa_real *x, const cpa_real *y, int n)
{
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int j = 0; j < n; j++) {
        s += (double)x[j] * (double)y[j];
    }
    return (cpa_real)s;
}

cpa_status cpa_cpu_bag_grad(cpa_backend *be, cpa_mat de, cpa_mat dweight, cpa_mat dz, cpa_mat e, const cpa_dev_int *ids,
                            int m_per_row, cpa_mat weight, int first)
{
    (void)be;
    const int *id = cpa_ints(ids);
    for (int p = 0; p < de.rows; p++) {
        memset(cpa_row(de, p), 0, (size_t)de.cols * sizeof(cpa_real));
    }
    for (int b = 0; b < dz.rows; b++) {
        for (int m = 0; m < m_per_row; m++) {
            int p = id[(int64_t)b * m_per_row + m];
            if (p >= first) {
                add_scaled(cpa_row(de, p), cpa_row(dz, b), weight.data != NULL ? cpa_row(weight, b)[m] : 1, dz.cols);
            }
            if (dweight.data != NULL) {
                cpa_row(dweight, b)[m] = p >= first ? dot(cpa_row(dz, b), cpa_row(e, p), dz.cols) : 0;
            }
        }
    }
    return CPA_OK;
}
