// Owns: elementwise operations and sums over dense matrices on the device, the optimizer's update, the clipping of gradients.
// All sums are in double and in a fixed order; never an atomic.
#include "kernel.h"

CPA_KERNEL add_row(int64_t n, cpa_mat y, cpa_mat v)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int col = cpa_col_of(y, i);
        cpa_row(y, cpa_row_of(y, i))[col] += cpa_reals(v.data)[col];
    }
}

cpa_status cpa_cuda_add_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    return CPA_LAUNCH(be, add_row, cpa_elements(y), y, v);
}

CPA_KERNEL broadcast_row(int64_t n, cpa_mat y, cpa_mat v)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int col = cpa_col_of(y, i);
        cpa_row(y, cpa_row_of(y, i))[col] = cpa_reals(v.data)[col];
    }
}

cpa_status cpa_cuda_broadcast_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    return CPA_LAUNCH(be, broadcast_row, cpa_elements(y), y, v);
}

CPA_KERNEL axpby(int64_t n, cpa_mat y, cpa_real a, cpa_mat x, cpa_real b)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int row = cpa_row_of(y, i), col = cpa_col_of(y, i);
        const int64_t to = (int64_t)row * y.ld + col;
        const cpa_real from = a * cpa_get(x, (int64_t)row * x.ld + col);
        cpa_put(y, to, b == 0 ? from : from + b * cpa_get(y, to));
    }
}

cpa_status cpa_cuda_axpby(cpa_backend *be, cpa_mat y, cpa_real a, cpa_mat x, cpa_real b)
{
    return CPA_LAUNCH(be, axpby, cpa_elements(y), y, a, x, b);
}

CPA_KERNEL scale(int64_t n, cpa_mat c, cpa_real beta)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        cpa_real *to = &cpa_row(c, cpa_row_of(c, i))[cpa_col_of(c, i)];
        *to = beta == 0 ? 0 : beta * *to;
    }
}

cpa_status cpa_cuda_scale(cpa_backend *be, cpa_mat c, cpa_real beta)
{
    return CPA_LAUNCH(be, scale, cpa_elements(c), c, beta);
}

CPA_KERNEL take_log1p(int64_t n, cpa_mat y, cpa_mat x)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int row = cpa_row_of(y, i), col = cpa_col_of(y, i);
        cpa_row(y, row)[col] = cpa_log1p(cpa_row(x, row)[col]);
    }
}

cpa_status cpa_cuda_log1p(cpa_backend *be, cpa_mat y, cpa_mat x)
{
    return CPA_LAUNCH(be, take_log1p, cpa_elements(y), y, x);
}

// A thread a column.
CPA_KERNEL col_sum(int64_t n, cpa_mat v, cpa_mat a, cpa_real beta)
{
    const int64_t j = cpa_thread();
    if (j < n) {
        double sum = 0;
        for (int i = 0; i < a.rows; i++) {
            sum += (double)cpa_row(a, i)[j];
        }
        cpa_real *to = &cpa_reals(v.data)[j];
        *to = (cpa_real)(beta == 0 ? sum : sum + (double)(beta * *to));
    }
}

cpa_status cpa_cuda_col_sum(cpa_backend *be, cpa_mat v, cpa_mat a, cpa_real beta)
{
    return CPA_LAUNCH(be, col_sum, (int64_t)a.cols, v, a, beta);
}

CPA_KERNEL add_up(int64_t n, cpa_dev_f64 *to, const double *v, int64_t count)
{
    if (cpa_thread() < n) {
        double sum = 0;
        for (int64_t i = 0; i < count; i++) {
            sum += v[i];
        }
        cpa_f64s(to)[0] = sum;
    }
}

cpa_status cpa_cuda_sum(cpa_backend *be, cpa_dev_f64 *sum, const double *v, int64_t count)
{
    return CPA_LAUNCH(be, add_up, (int64_t)1, sum, v, count);
}

// A whole matrix is summed by this many threads, each of which takes every WHOLE-th element.
enum { WHOLE = 1 << 13 };

CPA_KERNEL square_sum_scale(int64_t n, double *part, cpa_mat a, int64_t elements, cpa_real c)
{
    const int64_t p = cpa_thread();
    if (p < n) {
        double sum = 0;
        for (int64_t i = p; i < elements; i += n) {
            cpa_real *x = &cpa_row(a, cpa_row_of(a, i))[cpa_col_of(a, i)];
            sum += (double)*x * (double)*x;
            *x *= c;
        }
        part[p] = sum;
    }
}

cpa_status cpa_cuda_square_sum_scale(cpa_backend *be, cpa_dev_f64 *sum, cpa_mat a, cpa_real c)
{
    double *part;
    CPA_STEP(cpa_cuda_scratch(be, WHOLE * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH(be, square_sum_scale, (int64_t)WHOLE, part, a, cpa_elements(a), c));
    return cpa_cuda_sum(be, sum, part, WHOLE);
}

CPA_KERNEL nonfinite(int64_t n, double *part, cpa_mat a, int64_t elements)
{
    const int64_t p = cpa_thread();
    if (p < n) {
        int64_t bad = 0;
        for (int64_t i = p; i < elements; i += n) {
            const cpa_real x = cpa_row(a, cpa_row_of(a, i))[cpa_col_of(a, i)];
            bad += !(x - x == 0); // infinity less infinity is NaN
        }
        part[p] = (double)bad;
    }
}

cpa_status cpa_cuda_nonfinite(cpa_backend *be, cpa_dev_f64 *count, cpa_mat a)
{
    double *part;
    CPA_STEP(cpa_cuda_scratch(be, WHOLE * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH(be, nonfinite, (int64_t)WHOLE, part, a, cpa_elements(a)));
    return cpa_cuda_sum(be, count, part, WHOLE);
}

// The square of the norm becomes the norm.
CPA_KERNEL take_root(int64_t n, cpa_dev_f64 *norm)
{
    if (cpa_thread() < n) {
        cpa_f64s(norm)[0] = sqrt(cpa_f64s(norm)[0]);
    }
}

CPA_KERNEL clip(int64_t n, cpa_mat a, const cpa_dev_f64 *norm, double max_norm)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const double coef = max_norm / (cpa_f64s(norm)[0] + 1e-6);
        if (!(coef >= 1)) { // NaN clips too, and so stays to be seen
            cpa_reals(a.data)[i] *= (cpa_real)coef;
        }
    }
}

cpa_status cpa_cuda_clip(cpa_backend *be, cpa_dev_f64 *norm, cpa_mat a, double max_norm)
{
    CPA_STEP(cpa_cuda_square_sum_scale(be, norm, a, 1));
    CPA_STEP(CPA_LAUNCH(be, take_root, (int64_t)1, norm));
    return CPA_LAUNCH(be, clip, (int64_t)a.cols, a, norm, max_norm);
}

CPA_KERNEL adam(int64_t n, cpa_mat p, cpa_mat m, cpa_mat v, cpa_mat g, cpa_real step, cpa_real root2, cpa_real decay)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        cpa_adam(&cpa_reals(p.data)[i], &cpa_reals(m.data)[i], &cpa_reals(v.data)[i], cpa_reals(g.data)[i], step, root2,
                 decay);
    }
}

cpa_status cpa_cuda_adam(cpa_backend *be, cpa_mat p, cpa_mat m, cpa_mat v, cpa_mat g, double lr, double wd,
                         double bias1, double bias2)
{
    // The scalars as torch.optim.Adam forms them: in double, rounded once.
    return CPA_LAUNCH(be, adam, (int64_t)p.cols, p, m, v, g, (cpa_real)(lr / bias1), (cpa_real)sqrt(bias2),
                      (cpa_real)wd);
}
