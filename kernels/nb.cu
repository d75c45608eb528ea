// Owns: the negative binomial likelihoods with softmax means on the device, with and without zero inflation, value and gradient. What
// the loss needs of a gene of a cell is computed where it is needed, and never kept.
#include "softmax.h"

// What a call knows of its cells; zi is a NULL view without inflation. logits hold exps that add up to sum[b], or the means themselves
// when sum is NULL.
typedef struct nb_call {
    cpa_mat logits, zi, zi_bias, px_r;
    cpa_csr x;
    const double *sum;
} nb_call;

// A call's scratch.
typedef struct nb_scratch {
    double *part;         // [2, B, CPA_PARTS] loss, mu dl/dmu
    double *top, *sum;    // [B]
    double *loss, *slope; // [B]
} nb_scratch;

static cpa_status scratch_of(cpa_backend *be, nb_scratch *s, int rows)
{
    CPA_STEP(cpa_cuda_scratch(be, (size_t)(2 * cpa_parts(rows) + 4 * (int64_t)rows) * sizeof *s->part, &s->part));
    s->top = s->part + 2 * cpa_parts(rows);
    s->sum = s->top + rows;
    s->loss = s->sum + rows;
    s->slope = s->loss + rows;
    return CPA_OK;
}

// A gene of a cell: its loss, mu dl/dmu, and the derivatives by px_r and by the logit of inflation.
typedef struct nb_point {
    double loss;
    cpa_real slope, dpx, dzi;
} nb_point;

// T and E of math_inl.h.
CPA_DEVICE void count_terms(cpa_real x, cpa_real theta, cpa_real inverse, cpa_real *t, cpa_real *e)
{
    const int table = x < CPA_NB_LAST ? (int)x : CPA_NB_LAST;
    *t = table > 0 ? cpa_log(theta * inverse) : 0;
    *e = 0;
    for (int i = 1; i < table; i++) {
        *t += cpa_nb_next_term((cpa_real)i, inverse);
        *e += (cpa_real)i / (theta + (cpa_real)i);
    }
    if (x > CPA_NB_LAST) {
        cpa_nb_large_terms(x, theta, cpa_nb_next_term(CPA_NB_LAST, inverse), t, e);
    } else if ((cpa_real)table != x) {
        cpa_nb_fraction_terms((double)x, (double)theta, (double)inverse, t, e);
    }
}

// 0; NaN for a logit of minus infinity, where the loss is infinity less infinity.
CPA_DEVICE cpa_real defined_for(cpa_real pi)
{
    return 0 * (pi < 0 ? pi : 0);
}

// With pi the logit of inflation and L = theta log1p(u) the loss of a 0 without it, a gene of a cell has
//   x = 0:  loss    = softplus(-pi) - softplus(-pi - L) = log1p((1 - e^-L) / (e^pi + e^-L))
//           dl/dL   = sigmoid(-pi - L)
//           dl/dpi  = -sigmoid(-pi) (1 - e^-L) sigmoid(pi + L)
//   x > 0:  loss    = softplus(pi) + L - [what the stored count adds, as without inflation]
//           dl/dL   = 1
//           dl/dpi  = sigmoid(pi)
// *share is dl/dL. None of these forms cancels or overflows.
CPA_DEVICE void inflate(nb_point *at, cpa_real *share, cpa_real l, cpa_real pi, bool counted)
{
    if (counted) {
        at->loss = (double)(cpa_softplus(pi) + defined_for(pi) + l);
        at->dzi = cpa_logistic(pi);
        return;
    }
    // Where e^pi and e^-L are both tiny, both are taken e^lift times as large.
    const cpa_real far = 40; // e^-far is a number, and nothing beside 1
    const cpa_real k = -pi < l ? -pi : l, lift = k > far ? k - far : 0;
    cpa_real less_1;
    const cpa_real p = cpa_exp(lift - (pi < 0 ? -pi : pi)), q = cpa_exp_both(lift - l, &less_1);
    const cpa_real not_zero = pi < 0 ? 1 : p, inflated = pi < 0 ? p : 1; // their sum is 1 + p
    const cpa_real share_of = 1 / (inflated + not_zero * q), to_zero = not_zero * share_of;
    *share = to_zero * q;
    at->dzi = not_zero / (1 + p) * less_1 * (inflated * share_of);
    at->loss = (double)(cpa_log1p(-less_1 * to_zero) + lift + defined_for(pi));
}

CPA_DEVICE nb_point point_at(const nb_call *c, int b, int j, cpa_real mu)
{
    const cpa_real theta = cpa_exp(cpa_reals(c->px_r.data)[j]), inverse = 1 / (theta + CPA_NB_EPS);
    const cpa_real u = mu * inverse, s = u / (1 + u), l = theta * cpa_log1p(u), m = theta * s;
    const int k = cpa_stored(c->x, b, j);
    const cpa_real x = k >= 0 ? cpa_reals(c->x.count)[k] : 0;
    nb_point at = {(double)l, 0, 0, 0};
    cpa_real share = 1;
    if (c->zi.data != NULL) {
        inflate(&at, &share, l, cpa_row(c->zi, b)[j] + cpa_reals(c->zi_bias.data)[j], x >= CPA_NB_EPS);
    }
    at.slope = share * m;
    at.dpx = share * (l - theta * inverse * m);
    if (x > 0) {
        cpa_real t, e, near = mu + CPA_NB_EPS;
        count_terms(x, theta, inverse, &t, &e);
        at.loss -= (double)(x * (cpa_log(near) - cpa_log1p(u)) + t);
        at.slope -= x * (theta * s / near);
        // 1 - (1 - s) theta / t, in a form without cancellation
        at.dpx += e - x * (CPA_NB_EPS * inverse + theta * inverse * s);
    }
    return at;
}

// 1 / what the exps of a cell add up to.
CPA_DEVICE cpa_real to_p(const nb_call *c, int b)
{
    return (cpa_real)(1.0 / c->sum[b]);
}

CPA_DEVICE cpa_real mean_at(const nb_call *c, int b, int j)
{
    const cpa_real z = cpa_row(c->logits, b)[j];
    return c->sum != NULL ? cpa_reals(c->x.library)[b] * to_p(c, b) * z : z;
}

CPA_KERNEL loss_parts(int64_t n, double *part, nb_call c)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = (int)(i / CPA_PARTS);
    double loss = 0, slope = 0;
    for (int j = (int)(i % CPA_PARTS); j < c.logits.cols; j += CPA_PARTS) {
        const nb_point at = point_at(&c, b, j, mean_at(&c, b, j));
        loss += at.loss;
        slope += (double)at.slope;
    }
    part[i] = loss;
    part[n + i] = slope;
}

// A thread a gene.
CPA_KERNEL gradients(int64_t n, cpa_mat dpx_r, cpa_mat dbias, cpa_mat dzi_bias, nb_call c, const double *slope,
                     cpa_real scale)
{
    const int64_t thread = cpa_thread();
    if (thread >= n) {
        return;
    }
    const int j = (int)thread;
    double dpx = 0, db = 0, dzi = 0;
    for (int b = 0; b < c.logits.rows; b++) {
        cpa_real *z = &cpa_row(c.logits, b)[j];
        const nb_point at = point_at(&c, b, j, mean_at(&c, b, j));
        const cpa_real d = at.slope - (cpa_real)slope[b] * to_p(&c, b) * *z;
        dpx += (double)at.dpx;
        db += (double)d;
        *z = scale * d;
        if (c.zi.data != NULL) {
            dzi += (double)at.dzi;
            cpa_row(c.zi, b)[j] = scale * at.dzi;
        }
    }
    cpa_reals(dpx_r.data)[j] = (cpa_real)((double)scale * dpx);
    cpa_reals(dbias.data)[j] = (cpa_real)((double)scale * db);
    if (c.zi.data != NULL) {
        cpa_reals(dzi_bias.data)[j] = (cpa_real)((double)scale * dzi);
    }
}

// Losses of the cells, and their sum.
static cpa_status losses(cpa_backend *be, cpa_dev_f64 *loss_sum, nb_scratch s, nb_call c)
{
    const int rows = c.logits.rows;
    CPA_STEP(CPA_LAUNCH(be, loss_parts, cpa_parts(rows), s.part, c));
    CPA_STEP(cpa_cuda_totals(be, s.loss, s.part, 2 * (int64_t)rows)); // the slopes lie behind the losses
    return cpa_cuda_sum(be, loss_sum, s.loss, rows);
}

cpa_status cpa_cuda_zinb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                              cpa_mat zi, cpa_mat dzi_bias, cpa_mat bias, cpa_mat zi_bias, cpa_mat px_r, cpa_csr x,
                              cpa_real scale)
{
    nb_scratch s;
    CPA_STEP(scratch_of(be, &s, logits.rows));
    const nb_call c = {logits, zi, zi_bias, px_r, x, s.sum};
    CPA_STEP(cpa_cuda_softmax(be, logits, bias, s.part, s.top, s.sum));
    CPA_STEP(losses(be, loss_sum, s, c));
    return CPA_LAUNCH(be, gradients, (int64_t)logits.cols, dpx_r, dbias, dzi_bias, c, s.slope, scale);
}

cpa_status cpa_cuda_nb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                            cpa_mat bias, cpa_mat px_r, cpa_csr x, cpa_real scale)
{
    const cpa_mat none = CPA_NO_MAT;
    return cpa_cuda_zinb_loss(be, loss_sum, logits, dpx_r, dbias, none, none, bias, none, px_r, x, scale);
}

cpa_status cpa_cuda_zinb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat zi, cpa_mat bias,
                                   cpa_mat zi_bias, cpa_mat px_r, cpa_csr x)
{
    nb_scratch s;
    CPA_STEP(scratch_of(be, &s, logits.rows));
    const nb_call c = {logits, zi, zi_bias, px_r, x, NULL};
    CPA_STEP(cpa_cuda_softmax(be, logits, bias, s.part, s.top, s.sum));
    CPA_STEP(cpa_cuda_softmax_means(be, logits, x.library, s.sum));
    return losses(be, loss_sum, s, c);
}

cpa_status cpa_cuda_nb_mean_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat bias, cpa_mat px_r,
                                 cpa_csr x)
{
    const cpa_mat none = CPA_NO_MAT;
    return cpa_cuda_zinb_mean_loss(be, loss_sum, logits, none, bias, none, px_r, x);
}

CPA_KERNEL zinb_thin(int64_t n, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    const int64_t i = cpa_thread();
    if (i < n) {
        const int b = cpa_row_of(mu, i), j = cpa_col_of(mu, i);
        cpa_row(mu, b)[j] *= cpa_logistic(-(cpa_row(zi, b)[j] + cpa_reals(zi_bias.data)[j]));
    }
}

cpa_status cpa_cuda_zinb_thin(cpa_backend *be, cpa_mat mu, cpa_mat zi, cpa_mat zi_bias)
{
    return CPA_LAUNCH(be, zinb_thin, cpa_elements(mu), mu, zi, zi_bias);
}
