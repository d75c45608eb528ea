// Owns: elementwise operations and sums over dense matrices on the CPU. All sums are in double and in a fixed order;
// never a result that depends on the number of threads.
#include "backend_cpu_impl.h"

#include <string.h>

#include "cpa/platform/math_inl.h"

cpa_status cpa_cpu_add_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int64_t i = 0; i < cpa_pieces(y); i++) {
        cpa_piece at = cpa_piece_at(y, i);
        cpa_real *to = cpa_row(y, at.row) + at.col;
        const cpa_real *from = cpa_reals(v.data) + at.col;
#pragma omp simd
        for (int j = 0; j < at.n; j++) {
            to[j] += from[j];
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_broadcast_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int64_t i = 0; i < cpa_pieces(y); i++) {
        cpa_piece at = cpa_piece_at(y, i);
        memcpy(cpa_row(y, at.row) + at.col, cpa_reals(v.data) + at.col, (size_t)at.n * sizeof(cpa_real));
    }
    return CPA_OK;
}

cpa_status cpa_cpu_axpby(cpa_backend *be, cpa_mat y, cpa_real a, cpa_mat x, cpa_real b)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int64_t i = 0; i < cpa_pieces(y); i++) {
        cpa_piece at = cpa_piece_at(y, i);
        cpa_real *to = cpa_row(y, at.row) + at.col;
        const cpa_real *from = cpa_row(x, at.row) + at.col;
        if (b == 0) {
#pragma omp simd
            for (int j = 0; j < at.n; j++) {
                to[j] = a * from[j];
            }
        } else {
#pragma omp simd
            for (int j = 0; j < at.n; j++) {
                to[j] = a * from[j] + b * to[j];
            }
        }
    }
    return CPA_OK;
}

cpa_status cpa_cpu_log1p(cpa_backend *be, cpa_mat y, cpa_mat x)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int64_t i = 0; i < cpa_pieces(y); i++) {
        cpa_piece at = cpa_piece_at(y, i);
        cpa_real *to = cpa_row(y, at.row) + at.col;
        const cpa_real *from = cpa_row(x, at.row) + at.col;
#pragma omp simd
        for (int j = 0; j < at.n; j++) {
            to[j] = cpa_log1p(from[j]);
        }
    }
    return CPA_OK;
}

// Columns go to threads in strips; a strip walks down the rows with its sums in registers.
enum { STRIP = 64 };

static void strip_sum(cpa_real *v, cpa_mat a, int col, int n, cpa_real beta)
{
    double sum[STRIP] = {0};
    for (int i = 0; i < a.rows; i++) {
        const cpa_real *x = cpa_row(a, i) + col;
#pragma omp simd
        for (int j = 0; j < n; j++) {
            sum[j] += (double)x[j];
        }
    }
    for (int j = 0; j < n; j++) {
        v[col + j] = (cpa_real)(beta == 0 ? sum[j] : sum[j] + (double)(beta * v[col + j]));
    }
}

cpa_status cpa_cpu_col_sum(cpa_backend *be, cpa_mat v, cpa_mat a, cpa_real beta)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int col = 0; col < a.cols; col += STRIP) {
        strip_sum(cpa_reals(v.data), a, col, a.cols - col < STRIP ? a.cols - col : STRIP, beta);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_square_sum_scale(cpa_backend *be, cpa_dev_f64 *sum, cpa_mat a, cpa_real c)
{
    double *part;
    cpa_status st = cpa_cpu_scratch(be, (size_t)cpa_pieces(a) * sizeof *part, &part);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(a))
    for (int64_t i = 0; i < cpa_pieces(a); i++) {
        cpa_piece at = cpa_piece_at(a, i);
        cpa_real *x = cpa_row(a, at.row) + at.col;
        double s = 0;
#pragma omp simd reduction(+ : s)
        for (int j = 0; j < at.n; j++) {
            s += (double)x[j] * (double)x[j];
            x[j] *= c;
        }
        part[i] = s;
    }
    double total = 0;
    for (int64_t i = 0; i < cpa_pieces(a); i++) {
        total += part[i];
    }
    cpa_f64s(sum)[0] = total;
    return CPA_OK;
}

cpa_status cpa_cpu_nonfinite(cpa_backend *be, cpa_dev_f64 *count, cpa_mat a)
{
    (void)be;
    int64_t bad = 0; // an integer sum: its order does not matter
#pragma omp parallel for schedule(static) reduction(+ : bad) if (cpa_parallel(a))
    for (int64_t i = 0; i < cpa_pieces(a); i++) {
        cpa_piece at = cpa_piece_at(a, i);
        const cpa_real *x = cpa_row(a, at.row) + at.col;
        int n = 0;
#pragma omp simd reduction(+ : n)
        for (int j = 0; j < at.n; j++) {
            n += !(x[j] - x[j] == 0); // infinity less infinity is NaN
        }
        bad += n;
    }
    cpa_f64s(count)[0] = (double)bad;
    return CPA_OK;
}

cpa_status cpa_cpu_csr_expand(cpa_backend *be, cpa_mat y, cpa_csr x, bool use_log1p)
{
    (void)be;
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    const cpa_real *value = cpa_reals(use_log1p ? x.log1p : x.count);
#pragma omp parallel for schedule(static) if (cpa_parallel(y))
    for (int b = 0; b < y.rows; b++) {
        cpa_real *to = cpa_row(y, b);
        memset(to, 0, (size_t)y.cols * sizeof *to);
        for (int k = indptr[b]; k < indptr[b + 1]; k++) {
            to[gene[k]] += value[k]; // a gene may come again with a 0
        }
    }
    return CPA_OK;
}
