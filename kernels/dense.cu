// Owns: elementwise operations and sums over dense matrices on the device, the optimizer's update, the clipping of gradients.
// All sums are in double and in a fixed order; never an atomic.
#include "columns.h"

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
        const int64_t to = cpa_place(y, i);
        const cpa_real from = a * cpa_get(x, cpa_place(x, i));
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
        cpa_real *to = &cpa_reals(c.data)[cpa_place(c, i)];
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
        cpa_reals(y.data)[cpa_place(y, i)] = cpa_log1p(cpa_reals(x.data)[cpa_place(x, i)]);
    }
}

cpa_status cpa_cuda_log1p(cpa_backend *be, cpa_mat y, cpa_mat x)
{
    return CPA_LAUNCH(be, take_log1p, cpa_elements(y), y, x);
}

// Up to so many rows are summed in one launch.
enum { FEW_ROWS = 1024 };

// v = beta v + the sums that lane 0 of the block finds in sum.
CPA_DEVICE void put_sums(cpa_mat v, cpa_real beta, const double *sum, cpa_cut c)
{
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        if (s.lane == 0 && s.col < c.cols) {
            cpa_real *to = &cpa_reals(v.data)[s.col];
            *to = (cpa_real)(beta == 0 ? sum[s.at] : sum[s.at] + (double)(beta * *to));
        }
    }
}

// The sums of the chunks into part [chunks, cols], or where there is only one, which has no part, all of it.
CPA_KERNEL col_sum(double *part, cpa_mat v, cpa_mat a, cpa_real beta, cpa_cut c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    CPA_EACH(t)
    {
        const cpa_share s = cpa_share_of(c, t);
        double own = 0;
        for (int i = s.first; i < s.end; i += s.step) {
            own += (double)cpa_row(a, i)[s.col];
        }
        sum[t] = own;
    }
    cpa_add_lanes(sum, 1, c);
    if (part != NULL) {
        cpa_leave_sums(part, sum, 1, c);
    } else {
        put_sums(v, beta, sum, c);
    }
}

// A block a tile.
CPA_KERNEL col_totals(cpa_mat v, const double *part, cpa_real beta, cpa_cut c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    cpa_add_chunks(sum, part, 1, c);
    put_sums(v, beta, sum, c);
}

cpa_status cpa_cuda_col_sum(cpa_backend *be, cpa_mat v, cpa_mat a, cpa_real beta)
{
    const cpa_cut c = cpa_cut_of(a, FEW_ROWS);
    double *part = NULL;
    if (c.chunks > 1) {
        CPA_STEP(cpa_cuda_scratch(be, cpa_cut_sums(c, 1) * sizeof *part, &part));
    }
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, col_sum, cpa_cut_blocks(c), 0, part, v, a, beta, c));
    return c.chunks > 1 ? CPA_LAUNCH_BLOCKS(be, col_totals, (int64_t)c.tiles, 0, v, part, beta, c) : CPA_OK;
}

// ---- sums over a whole matrix ----

// sum[0] = the sum of v [count], for the block.
CPA_DEVICE void add_up(double *sum, const double *v, int64_t count)
{
    CPA_EACH(t)
    {
        double own = 0;
        for (int64_t i = t; i < count; i += CPA_THREADS) {
            own += v[i];
        }
        sum[t] = own;
    }
    cpa_block_sum(sum);
}

CPA_DEVICE void leave_sum(double *to, const double *sum)
{
    CPA_EACH(t)
    {
        if (t == 0) {
            *to = sum[0];
        }
    }
}

CPA_KERNEL add_all(cpa_dev_f64 *to, const double *v, int64_t count)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    add_up(sum, v, count);
    leave_sum(cpa_f64s(to), sum);
}

cpa_status cpa_cuda_sum(cpa_backend *be, cpa_dev_f64 *sum, const double *v, int64_t count)
{
    return CPA_LAUNCH_BLOCKS(be, add_all, (int64_t)1, 0, sum, v, count);
}

// So many blocks take a part of the elements each, at least one.
static inline int64_t parts_of(int64_t elements)
{
    const int64_t part = 2048, most = 1024, parts = (elements + part - 1) / part;
    return parts < 1 ? 1 : parts > most ? most : parts;
}

// The threads of all parts take elements in turn, so that neighbours read neighbours.
CPA_DEVICE int64_t first_of_part(int t)
{
    return cpa_block() * CPA_THREADS + t;
}

// A thread's sum of squares; and what is left is c times what was there.
CPA_DEVICE double squares(cpa_mat a, int64_t first, int64_t end, int64_t step, cpa_real c)
{
    double sum = 0;
    if (c == 1) { // without writing, so that no read waits behind a write
        for (int64_t i = first; i < end; i += step) {
            const double x = (double)cpa_reals(a.data)[cpa_place(a, i)];
            sum += x * x;
        }
        return sum;
    }
    for (int64_t i = first; i < end; i += step) {
        cpa_real *at = &cpa_reals(a.data)[cpa_place(a, i)];
        sum += (double)*at * (double)*at;
        *at *= c;
    }
    return sum;
}

CPA_KERNEL square_sum(double *part, cpa_mat a, int64_t elements, int64_t parts, cpa_real c)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    CPA_EACH(t)
    {
        sum[t] = squares(a, first_of_part(t), elements, parts * CPA_THREADS, c);
    }
    cpa_block_sum(sum);
    leave_sum(part + cpa_block(), sum);
}

// Scratch for parts; where one is all there is, the result's own place.
static cpa_status room_for_parts(cpa_backend *be, int64_t parts, cpa_dev_f64 *result, double **part)
{
    *part = (double *)(uintptr_t)result;
    return parts > 1 ? cpa_cuda_scratch(be, (size_t)parts * sizeof **part, part) : CPA_OK;
}

static cpa_status add_parts(cpa_backend *be, cpa_dev_f64 *result, const double *part, int64_t parts)
{
    return parts > 1 ? cpa_cuda_sum(be, result, part, parts) : CPA_OK;
}

cpa_status cpa_cuda_square_sum_scale(cpa_backend *be, cpa_dev_f64 *sum, cpa_mat a, cpa_real c)
{
    const int64_t parts = parts_of(cpa_elements(a));
    double *part;
    CPA_STEP(room_for_parts(be, parts, sum, &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, square_sum, parts, 0, part, a, cpa_elements(a), parts, c));
    return add_parts(be, sum, part, parts);
}

CPA_KERNEL nonfinite(double *part, cpa_mat a, int64_t elements, int64_t parts)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    CPA_EACH(t)
    {
        int64_t bad = 0;
        for (int64_t i = first_of_part(t); i < elements; i += parts * CPA_THREADS) {
            const cpa_real x = cpa_reals(a.data)[cpa_place(a, i)];
            bad += !(x - x == 0); // infinity less infinity is NaN
        }
        sum[t] = (double)bad;
    }
    cpa_block_sum(sum);
    leave_sum(part + cpa_block(), sum);
}

cpa_status cpa_cuda_nonfinite(cpa_backend *be, cpa_dev_f64 *count, cpa_mat a)
{
    const int64_t parts = parts_of(cpa_elements(a));
    double *part;
    CPA_STEP(room_for_parts(be, parts, count, &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, nonfinite, parts, 0, part, a, cpa_elements(a), parts));
    return add_parts(be, count, part, parts);
}

// Every block adds up all parts by itself, which is less than another launch.
CPA_KERNEL clip(cpa_mat a, cpa_dev_f64 *norm, const double *part, int64_t parts, double max_norm)
{
    CPA_SHARED(double, sum, CPA_THREADS);
    add_up(sum, part, parts);
    CPA_EACH(t)
    {
        const double length = sqrt(sum[0]), coef = max_norm / (length + 1e-6);
        if (t == 0 && cpa_block() == 0) {
            cpa_f64s(norm)[0] = length;
        }
        if (!(coef >= 1)) { // NaN clips too, and so stays to be seen
            for (int64_t i = first_of_part(t); i < a.cols; i += parts * CPA_THREADS) {
                cpa_reals(a.data)[i] *= (cpa_real)coef;
            }
        }
    }
}

cpa_status cpa_cuda_clip(cpa_backend *be, cpa_dev_f64 *norm, cpa_mat a, double max_norm)
{
    const int64_t parts = parts_of(cpa_elements(a));
    double *part;
    CPA_STEP(cpa_cuda_scratch(be, (size_t)parts * sizeof *part, &part));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, square_sum, parts, 0, part, a, cpa_elements(a), parts, (cpa_real)1));
    return CPA_LAUNCH_BLOCKS(be, clip, parts, 0, a, norm, part, parts, max_norm);
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
