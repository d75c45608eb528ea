// Owns: the shape checks in front of every operation, so that backends may trust their arguments. Never looks at device
// memory: what is in it is the caller's promise.
#include "backend_shapes_impl.h"

cpa_status cpa_fit(const char *op, const char *what, cpa_mat m, int rows, int cols, bool optional)
{
    if (optional && m.data == NULL) {
        return CPA_OK;
    }
    bool empty = m.rows == 0 || m.cols == 0, fits = m.rows == rows && m.cols == cols && m.ld >= m.cols;
    if (fits && rows >= 0 && cols >= 0 && !m.bf16 && (empty || m.data != NULL)) {
        return CPA_OK;
    }
    return cpa_fail(CPA_INTERNAL,
                    "operation %s: %s is [%d, %d] with leading dimension %d%s%s, and must be [%d, %d]; "
                    "this is a bug of the program, please report it",
                    op, what, m.rows, m.cols, m.ld, m.data == NULL ? " and no data" : "", m.bf16 ? " in bfloat16" : "",
                    rows, cols);
}

cpa_status cpa_there(const char *op, const char *what, const void *p, bool needed)
{
    if (p != NULL || !needed) {
        return CPA_OK;
    }
    return cpa_fail(CPA_INTERNAL, "operation %s: %s is NULL; this is a bug of the program, please report it", op, what);
}

cpa_status cpa_fit_csr(const char *op, cpa_csr x, int rows, int cols, bool library)
{
    if (x.rows != rows || x.cols != cols || rows < 0 || cols < 0 || x.nnz < 0) {
        return cpa_fail(CPA_INTERNAL,
                        "operation %s: the cells are [%d, %d] with %d values, and must be [%d, %d]; "
                        "this is a bug of the program, please report it",
                        op, x.rows, x.cols, x.nnz, rows, cols);
    }
    cpa_status st;
    CPA_TRY(cpa_there(op, "indptr", x.indptr, rows > 0));
    CPA_TRY(cpa_there(op, "gene", x.gene, x.nnz > 0));
    CPA_TRY(cpa_there(op, "count", x.count, x.nnz > 0));
    CPA_TRY(cpa_there(op, "log1p", x.log1p, x.nnz > 0));
    CPA_TRY(cpa_there(op, "library", x.library, library && rows > 0));
cleanup:
    return st;
}

cpa_status cpa_shape_alloc(cpa_backend *be, size_t bytes, void **out)
{
    return cpa_there(OP, "out", out, true);
}

cpa_status cpa_shape_release(cpa_backend *be, void *ptr)
{
    return CPA_OK;
}

cpa_status cpa_shape_upload(cpa_backend *be, void *dev, const void *host, size_t bytes)
{
    cpa_status st;
    THERE(dev, bytes > 0);
    THERE(host, bytes > 0);
cleanup:
    return st;
}

cpa_status cpa_shape_download(cpa_backend *be, void *host, const void *dev, size_t bytes)
{
    cpa_status st;
    THERE(host, bytes > 0);
    THERE(dev, bytes > 0);
cleanup:
    return st;
}

cpa_status cpa_shape_zero(cpa_backend *be, void *dev, size_t bytes)
{
    return cpa_there(OP, "dev", dev, bytes > 0);
}

cpa_status cpa_shape_gemm(cpa_backend *be, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                          cpa_real beta)
{
    cpa_status st;
    int k = ta ? a.rows : a.cols;
    FIT_HALF(a, ta ? k : c.rows, ta ? c.rows : k);
    FIT_HALF(b, tb ? c.cols : k, tb ? k : c.cols);
    FIT_HALF(c, c.rows, c.cols);
    SENSIBLE(c.data == NULL || (c.data != a.data && c.data != b.data), "[%d, %d]: C aliases A or B", OP, c.rows,
             c.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_add_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    cpa_status st;
    FIT(y, y.rows, y.cols);
    FIT(v, 1, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_col_sum(cpa_backend *be, cpa_mat v, cpa_mat a, cpa_real beta)
{
    cpa_status st;
    FIT(a, a.rows, a.cols);
    FIT(v, 1, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_axpby(cpa_backend *be, cpa_mat y, cpa_real a, cpa_mat x, cpa_real b)
{
    cpa_status st;
    FIT_HALF(y, y.rows, y.cols);
    FIT_HALF(x, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_broadcast_row(cpa_backend *be, cpa_mat y, cpa_mat v)
{
    cpa_status st;
    FIT(y, y.rows, y.cols);
    FIT(v, 1, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_log1p(cpa_backend *be, cpa_mat y, cpa_mat x)
{
    cpa_status st;
    FIT(y, y.rows, y.cols);
    FIT(x, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    cpa_status st;
    FIT_CELLS(x, y.rows, wt.rows, false);
    FIT(wt, wt.rows, y.cols);
    FIT(y, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    cpa_status st;
    FIT_CELLS(x, dy.rows, dwt.rows, false);
    FIT(dy, dy.rows, dwt.cols);
    FIT(dwt, dwt.rows, dwt.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_take_cells(cpa_backend *be, cpa_csr x, cpa_all_cells from, const cpa_dev_int *row,
                                const cpa_dev_int *partner, double lambda)
{
    cpa_status st;
    FIT_CELLS(x, x.rows, from.n_genes, true);
    THERE(row, x.rows > 0);
    THERE(from.indptr, x.rows > 0);
    THERE(from.library, x.rows > 0);
    SENSIBLE(from.n_log1p == 0 || from.log1p != NULL, "%d logarithms", OP, from.n_log1p);
cleanup:
    return st;
}

cpa_status cpa_shape_csr_expand(cpa_backend *be, cpa_mat y, cpa_csr x, bool use_log1p)
{
    cpa_status st;
    FIT_CELLS(x, y.rows, y.cols, false);
    FIT_HALF(y, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat mean, cpa_mat var_unbiased,
                                cpa_mat rstd, cpa_mat a, cpa_mat gamma, cpa_mat beta, cpa_mat mask, bool relu,
                                cpa_pooled pooled)
{
    cpa_status st;
    SENSIBLE(relu || mask.data == NULL, "a mask and no relu", OP);
    SENSIBLE(a.rows > 0, "[%d, %d]: no cells have no statistics", OP, a.rows, a.cols);
    POOLED(a.rows, false);
    FIT(a, a.rows, a.cols);
    FIT(y, a.rows, a.cols);
    FIT(xhat, a.rows, a.cols);
    FIT(mean, 1, a.cols);
    FIT(var_unbiased, 1, a.cols);
    FIT(rstd, 1, a.cols);
    FIT(gamma, 1, a.cols);
    FIT(beta, 1, a.cols);
    FIT_OR_NONE(mask, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat a, cpa_pooled about)
{
    cpa_status st;
    THERE(sums, a.cols > 0);
    FIT(a, a.rows, a.cols);
    SENSIBLE(about.all == NULL || about.rows >= a.rows, "%d of %lld rows", OP, a.rows, (long long)about.rows);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dgamma, cpa_mat dbeta, cpa_mat dy, cpa_mat y,
                                     cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, cpa_mat q, bool relu,
                                     cpa_pooled pooled)
{
    cpa_status st;
    SENSIBLE(y.rows > 0, "[%d, %d]: no cells have no statistics", OP, y.rows, y.cols);
    POOLED(y.rows, true);
    FIT(da, y.rows, y.cols);
    FIT_OR_NONE(dgamma, 1, y.cols);
    FIT_OR_NONE(dbeta, 1, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
    FIT(gamma, 1, y.cols);
    FIT(rstd, 1, y.cols);
    FIT_OR_NONE(q, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_grad_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat dy, cpa_mat y, cpa_mat xhat,
                                          cpa_real keep, bool relu)
{
    cpa_status st;
    THERE(sums, y.cols > 0);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_grad2_sums(cpa_backend *be, cpa_dev_f64 *sums, cpa_mat v, cpa_mat dy, cpa_mat y,
                                           cpa_mat xhat, cpa_real keep, bool relu)
{
    cpa_status st;
    THERE(sums, y.cols > 0);
    FIT(v, y.rows, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat dgamma, cpa_mat q, cpa_mat v, cpa_mat dy,
                                      cpa_mat y, cpa_mat xhat, cpa_mat gamma, cpa_mat rstd, cpa_real keep, bool relu,
                                      cpa_pooled pooled)
{
    cpa_status st;
    SENSIBLE(y.rows > 0, "[%d, %d]: no cells have no statistics", OP, y.rows, y.cols);
    POOLED(y.rows, true);
    FIT(ddy, y.rows, y.cols);
    FIT(dgamma, 1, y.cols);
    FIT(q, y.rows, y.cols);
    FIT(v, y.rows, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
    FIT(gamma, 1, y.cols);
    FIT(rstd, 1, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_batch_norm_eval(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mean, cpa_mat var,
                                     cpa_mat gamma, cpa_mat beta, bool relu)
{
    cpa_status st;
    FIT(y, a.rows, a.cols);
    FIT(a, a.rows, a.cols);
    FIT(bias, 1, a.cols);
    FIT(mean, 1, a.cols);
    FIT(var, 1, a.cols);
    FIT(gamma, 1, a.cols);
    FIT(beta, 1, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_dropout_mask(cpa_backend *be, cpa_mat mask, const cpa_dev_int *cell, uint64_t seed,
                                  cpa_number epoch, uint32_t layer, cpa_real p)
{
    cpa_status st;
    FIT(mask, mask.rows, mask.cols);
    THERE(cell, mask.rows > 0);
    SENSIBLE(p >= 0 && p < 1, "p %g", OP, (double)p);
cleanup:
    return st;
}

cpa_status cpa_shape_layer_norm(cpa_backend *be, cpa_mat y, cpa_mat xhat, cpa_mat rstd, cpa_mat a, cpa_mat bias,
                                cpa_mat mask)
{
    cpa_status st;
    FIT(a, a.rows, a.cols);
    FIT(y, a.rows, a.cols);
    FIT_OR_NONE(xhat, a.rows, a.cols);
    FIT_OR_NONE(rstd, 1, a.rows);
    FIT_OR_NONE(bias, 1, a.cols);
    FIT_OR_NONE(mask, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_layer_norm_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_mat xhat, cpa_mat rstd,
                                     cpa_real keep, cpa_mat q)
{
    cpa_status st;
    FIT(da, y.rows, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
    FIT(rstd, 1, y.rows);
    FIT_OR_NONE(q, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_layer_norm_grad2(cpa_backend *be, cpa_mat ddy, cpa_mat q, cpa_mat v, cpa_mat dy, cpa_mat y,
                                      cpa_mat xhat, cpa_mat rstd, cpa_real keep)
{
    cpa_status st;
    FIT(ddy, y.rows, y.cols);
    FIT(q, y.rows, y.cols);
    FIT(v, y.rows, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT(xhat, y.rows, y.cols);
    FIT(rstd, 1, y.rows);
cleanup:
    return st;
}

cpa_status cpa_shape_activate(cpa_backend *be, cpa_mat y, cpa_mat a, cpa_mat bias, cpa_mat mask)
{
    cpa_status st;
    FIT(a, a.rows, a.cols);
    FIT(y, a.rows, a.cols);
    FIT_OR_NONE(bias, 1, a.cols);
    FIT_OR_NONE(mask, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_activate_grad(cpa_backend *be, cpa_mat da, cpa_mat dy, cpa_mat y, cpa_real keep, cpa_mat q)
{
    cpa_status st;
    FIT(da, y.rows, y.cols);
    FIT(dy, y.rows, y.cols);
    FIT(y, y.rows, y.cols);
    FIT_OR_NONE(q, y.rows, y.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_doser(cpa_backend *be, cpa_mat s, const cpa_dev_int *ids, cpa_mat dose, cpa_mat w, cpa_mat c,
                           cpa_doser kind)
{
    cpa_status st;
    FIT(s, s.rows, s.cols);
    THERE(ids, s.rows > 0 && s.cols > 0);
    FIT(dose, s.rows, s.cols);
    FIT(w, 1, w.cols);
    FIT(c, 1, w.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_doser_grad(cpa_backend *be, cpa_mat dw, cpa_mat dc, cpa_mat ds, const cpa_dev_int *ids,
                                cpa_mat dose, cpa_mat w, cpa_mat c, cpa_doser kind)
{
    cpa_status st;
    FIT(dw, 1, w.cols);
    FIT(dc, 1, w.cols);
    FIT(ds, ds.rows, ds.cols);
    THERE(ids, ds.rows > 0 && ds.cols > 0);
    FIT(dose, ds.rows, ds.cols);
    FIT(w, 1, w.cols);
    FIT(c, 1, w.cols);
cleanup:
    return st;
}

static bool is_multiple(int n, int of)
{
    return of > 0 && n % of == 0;
}

cpa_status cpa_shape_group_linear(cpa_backend *be, cpa_mat y, cpa_mat x, const cpa_dev_int *ids, cpa_mat w, cpa_mat b)
{
    cpa_status st;
    FIT(y, x.rows, y.cols);
    FIT(x, x.rows, x.cols);
    THERE(ids, x.rows > 0);
    SENSIBLE(is_multiple(w.rows, y.cols), "weights [%d, %d] of outputs of width %d", OP, w.rows, w.cols, y.cols);
    FIT(w, w.rows, x.cols);
    FIT(b, 1, w.rows);
cleanup:
    return st;
}

cpa_status cpa_shape_group_linear_grad(cpa_backend *be, cpa_mat dx, cpa_mat dw, cpa_mat db, cpa_mat dy, cpa_mat x,
                                       const cpa_dev_int *ids, cpa_mat w)
{
    cpa_status st;
    FIT(dy, x.rows, dy.cols);
    FIT(x, x.rows, x.cols);
    FIT_OR_NONE(dx, x.rows, x.cols);
    THERE(ids, x.rows > 0);
    SENSIBLE(is_multiple(w.rows, dy.cols), "weights [%d, %d] of outputs of width %d", OP, w.rows, w.cols, dy.cols);
    FIT(w, w.rows, x.cols);
    FIT(dw, w.rows, x.cols);
    FIT(db, 1, w.rows);
cleanup:
    return st;
}

cpa_status cpa_shape_dose_gate(cpa_backend *be, cpa_mat s, cpa_mat a, const cpa_dev_int *ids, cpa_mat dose)
{
    cpa_status st;
    FIT(s, a.rows, a.cols);
    FIT(a, a.rows, a.cols);
    THERE(ids, a.rows > 0 && a.cols > 0);
    FIT(dose, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_dose_gate_grad(cpa_backend *be, cpa_mat da, cpa_mat ds, cpa_mat a, const cpa_dev_int *ids,
                                    cpa_mat dose)
{
    cpa_status st;
    FIT(da, a.rows, a.cols);
    FIT(ds, a.rows, a.cols);
    FIT(a, a.rows, a.cols);
    THERE(ids, a.rows > 0 && a.cols > 0);
    FIT(dose, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_bag_add(cpa_backend *be, cpa_mat z, cpa_mat e, const cpa_dev_int *ids, int m_per_row,
                             cpa_mat weight, int first)
{
    cpa_status st;
    FIT(z, z.rows, z.cols);
    FIT(e, e.rows, z.cols);
    THERE(ids, z.rows > 0 && m_per_row > 0);
    SENSIBLE(m_per_row >= 0 && first >= 0, "m_per_row %d, first %d", OP, m_per_row, first);
    FIT_OR_NONE(weight, z.rows, m_per_row);
cleanup:
    return st;
}

cpa_status cpa_shape_bag_grad(cpa_backend *be, cpa_mat de, cpa_mat dweight, cpa_mat dz, cpa_mat e,
                              const cpa_dev_int *ids, int m_per_row, cpa_mat weight, int first)
{
    cpa_status st;
    FIT(dz, dz.rows, dz.cols);
    FIT(e, e.rows, dz.cols);
    FIT(de, e.rows, dz.cols);
    THERE(ids, dz.rows > 0 && m_per_row > 0);
    SENSIBLE(m_per_row >= 0 && first >= 0, "m_per_row %d, first %d", OP, m_per_row, first);
    FIT_OR_NONE(weight, dz.rows, m_per_row);
    FIT_OR_NONE(dweight, dz.rows, m_per_row);
cleanup:
    return st;
}

cpa_status cpa_shape_argmax(cpa_backend *be, cpa_dev_int *best, cpa_mat logits)
{
    cpa_status st;
    THERE(best, logits.rows > 0);
    FIT(logits, logits.rows, logits.cols);
    SENSIBLE(logits.cols > 0, "[%d, %d]", OP, logits.rows, logits.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_square_sum_scale(cpa_backend *be, cpa_dev_f64 *sum, cpa_mat a, cpa_real c)
{
    cpa_status st;
    THERE(sum, true);
    FIT(a, a.rows, a.cols);
cleanup:
    return st;
}

cpa_status cpa_shape_group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat pv, cpa_mat t,
                              const cpa_dev_int *order, const cpa_dev_int *offsets, int n_groups,
                              const cpa_dev_int *gene_mask, int mask_words)
{
    cpa_status st;
    FIT(p, p.rows, p.cols);
    FIT_OR_NONE(pv, p.rows, p.cols);
    FIT(t, p.rows, p.cols);
    SENSIBLE(n_groups >= 0, "n_groups %d", OP, n_groups);
    THERE(r2, n_groups > 0);
    THERE(offsets, n_groups > 0);
    THERE(order, p.rows > 0 && n_groups > 0);
    SENSIBLE(gene_mask == NULL || mask_words >= (p.cols + 31) / 32, "%d genes and mask_words %d", OP, p.cols,
             mask_words);
cleanup:
    return st;
}

cpa_status cpa_shape_group_moments(cpa_backend *be, cpa_dev_i64 *sums, cpa_mat a, const cpa_dev_int *group,
                                   int n_groups, cpa_mat zi, cpa_mat zi_bias, double limit, double scale, double scale2)
{
    cpa_status st;
    FIT(a, a.rows, a.cols);
    FIT_OR_NONE(zi, a.rows, a.cols);
    FIT_OR_NONE(zi_bias, 1, a.cols);
    SENSIBLE((zi.data == NULL) == (zi_bias.data == NULL), "one of them", OP);
    SENSIBLE(n_groups >= 0, "n_groups %d", OP, n_groups);
    SENSIBLE(limit * scale <= 0x1p51 && limit * limit * scale2 <= 0x1p51, "limit %g, scale %g, scale2 %g", OP, limit,
             scale, scale2);
    THERE(sums, n_groups > 0 && a.cols > 0);
    THERE(group, a.rows > 0);
cleanup:
    return st;
}

cpa_status cpa_shape_adam(cpa_backend *be, cpa_mat p, cpa_mat m, cpa_mat v, cpa_mat g, double lr, double wd,
                          double bias1, double bias2)
{
    cpa_status st;
    FIT(p, 1, p.cols);
    FIT(m, 1, p.cols);
    FIT(v, 1, p.cols);
    FIT(g, 1, p.cols);
    SENSIBLE(bias1 > 0 && bias2 > 0, "bias1 %g, bias2 %g", OP, bias1, bias2);
cleanup:
    return st;
}

cpa_status cpa_shape_clip(cpa_backend *be, cpa_dev_f64 *norm, cpa_mat a, double max_norm)
{
    cpa_status st;
    THERE(norm, true);
    FIT(a, 1, a.cols);
    SENSIBLE(max_norm >= 0, "max_norm %g", OP, max_norm);
cleanup:
    return st;
}

cpa_status cpa_shape_nonfinite(cpa_backend *be, cpa_dev_f64 *count, cpa_mat a)
{
    cpa_status st;
    THERE(count, true);
    FIT(a, a.rows, a.cols);
cleanup:
    return st;
}
