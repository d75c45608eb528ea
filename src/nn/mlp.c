// Owns: what stacks of hidden layers compute, as compositions of operations, to second order. Never looks inside a matrix.
#include "mlp_impl.h"

void cpa_mlp_load(cpa_mlp *mlp, cpa_input in, int n_cells, cpa_mat dx)
{
    mlp->in = in;
    mlp->n_cells = n_cells;
    mlp->dx = dx;
}

cpa_mat cpa_mlp_hidden(const cpa_mlp *mlp, int n_cells)
{
    return cpa_mat_head(mlp->layer[mlp->n_layers - 1].y, n_cells);
}

// The input of layer k.
static cpa_mat input_of(const cpa_mlp *mlp, cpa_input in, int k, int n_cells)
{
    return k ? cpa_mat_head(mlp->layer[k - 1].y, n_cells) : in.x;
}

// The first n elements of a vector.
static cpa_mat vector(cpa_mat m, int n)
{
    return cpa_mat_of(m.data, 1, n);
}

cpa_mat cpa_mlp_dhidden(const cpa_mlp *mlp, int n_cells)
{
    return cpa_sized(mlp->work[1], n_cells, mlp->n_hidden);
}

// a = input of layer k times its weight, without bias.
static cpa_status multiply(cpa_mlp *mlp, cpa_input in, int k, cpa_mat a)
{
    cpa_params *t = mlp->t;
    if (k == 0 && mlp->sparse) {
        return cpa_op_sparse_linear(t->be, a, *in.csr, cpa_value(t, mlp->layer[0].weight), mlp->use_log1p);
    }
    return cpa_op_gemm(t->be, a, input_of(mlp, in, k, a.rows), false, cpa_value(t, mlp->layer[k].weight), true, 1, 0);
}

// Whether the lanes have to meet at the layers of this stack.
static bool meets(const cpa_mlp *mlp)
{
    return mlp->meeting != NULL && mlp->norms.batch;
}

// What a batch norm goes by whose lanes have met: sums over all lanes from `at` on.
static cpa_pooled pooled_at(const cpa_mlp *mlp, int at)
{
    return meets(mlp) ? (cpa_pooled){mlp->own, cpa_f64_at(mlp->all, at), mlp->meeting->rows} : CPA_NOT_POOLED;
}

static cpa_pooled pooled(const cpa_mlp *mlp)
{
    return pooled_at(mlp, 0);
}

// Where the sums are that the forward of layer k goes by: for whoever computes it again, where no other writes.
static int forward_sums(const cpa_mlp *mlp, int k)
{
    return mlp->again ? cpa_mlp_n_pooled(mlp) + 2 * k * mlp->n_hidden : 0;
}

// From the n sums at `at` of every lane of the list to those over all lanes, at `to`.
static cpa_status meet(cpa_mlp *mlp, int at, int n, int to)
{
    cpa_status st = CPA_OK;
    const cpa_meeting *with = mlp->meeting;
    double *own = with->own;
    size_t bytes = (size_t)n * sizeof *own;
    for (cpa_mlp *s = mlp; s; s = s->next, own += n) {
        CPA_TRY(cpa_op_download(s->t->be, own, cpa_f64_at(s->own, at), bytes));
    }
    CPA_TRY(with->add_up(with->ctx, n));
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_upload(s->t->be, cpa_f64_at(s->all, to), with->all, bytes));
    }
cleanup:
    return st;
}

// A of layer k.
static cpa_mat linear_of(const cpa_mlp *mlp, int k)
{
    return mlp->again ? cpa_mat_head(mlp->layer[k].a, mlp->n_cells)
                      : cpa_sized(mlp->work[0], mlp->n_cells, mlp->layer[k].n_out);
}

cpa_status cpa_mlp_product(cpa_mlp *mlp, int k)
{
    return multiply(mlp, mlp->in, k, linear_of(mlp, k));
}

// The mask of layer k, drawn where nothing else is during a forward; none without dropout.
static cpa_status draw_mask(cpa_mlp *mlp, int k, cpa_mat *mask)
{
    cpa_mat room = mlp->again ? mlp->again->mask : mlp->work[1];
    *mask = mlp->rate > 0 ? cpa_sized(room, mlp->n_cells, mlp->layer[k].n_out) : CPA_NO_MAT;
    return mlp->rate > 0 ? mlp->masks.draw(mlp->masks.ctx, *mask, k) : CPA_OK;
}

cpa_status cpa_mlp_activate(cpa_mlp *mlp, int k, cpa_mat mean, cpa_mat var)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    cpa_layer *l = &mlp->layer[k];
    int n = mlp->n_cells;
    cpa_mat a = linear_of(mlp, k), y = cpa_mat_head(l->y, n), lhat = cpa_mat_head(l->lhat, n), mask;
    cpa_mat bias = cpa_value(t, l->bias);
    CPA_TRY(draw_mask(mlp, k, &mask));
    if (mlp->norms.batch) {
        bool last = !mlp->norms.layer;
        CPA_TRY(cpa_op_batch_norm(t->be, last ? y : lhat, cpa_mat_head(l->xhat, n), mean, var, l->rstd, a,
                                  cpa_value(t, l->gamma), cpa_value(t, l->beta), last ? mask : CPA_NO_MAT, last,
                                  pooled_at(mlp, forward_sums(mlp, k))));
        a = lhat;
        bias = CPA_NO_MAT;
    }
    if (mlp->norms.layer) {
        CPA_TRY(cpa_op_layer_norm(t->be, y, lhat, vector(l->lrstd, n), a, bias, mask));
    } else if (!mlp->norms.batch) {
        CPA_TRY(cpa_op_activate(t->be, y, a, bias, mask));
    }
cleanup:
    return st;
}

// The forward of one lane's layer from A on.
static cpa_status layer_forward(cpa_mlp *mlp, int k, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    const cpa_layer *l = &mlp->layer[k];
    cpa_mat mean = CPA_NO_MAT, var = CPA_NO_MAT;
    if (mlp->norms.batch) {
        mean = cpa_stat(t, l->mean, inside_autoencoder);
        var = cpa_stat(t, l->var, inside_autoencoder);
    }
    CPA_TRY(cpa_mlp_activate(mlp, k, mean, var));
    if (mlp->norms.batch) {
        // The bias cancels in the normalised values; only the mean that is remembered feels it.
        CPA_TRY(cpa_op_axpby(t->be, mean, 1, cpa_value(t, l->bias), 1));
    }
cleanup:
    return st;
}

// The statistics of layer k over all lanes, in two passes: means, then squares about them.
static cpa_status meet_forward(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    int width = mlp->n_hidden, to = forward_sums(mlp, k);
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_batch_norm_sums(s->t->be, s->own, linear_of(s, k), CPA_NOT_POOLED));
    }
    CPA_TRY(meet(mlp, 0, width, to));
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_batch_norm_sums(s->t->be, cpa_f64_at(s->own, width), linear_of(s, k), pooled_at(s, to)));
    }
    CPA_TRY(meet(mlp, width, width, to + width));
cleanup:
    return st;
}

cpa_status cpa_mlp_forward(cpa_mlp *mlp, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    for (cpa_mlp *s = mlp; s; s = s->next) {
        cpa_recompute_begin(s);
    }
    for (int k = 0; k < mlp->n_layers; k++) {
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(cpa_recompute_enter(s, k));
            CPA_TRY(cpa_mlp_product(s, k));
        }
        CPA_TRY(meets(mlp) ? meet_forward(mlp, k) : CPA_OK);
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_forward(s, k, inside_autoencoder));
        }
    }
    for (cpa_mlp *s = mlp; s; s = s->next) {
        cpa_recompute_end(s);
    }
cleanup:
    return st;
}

// Y from A with running statistics and without dropout.
static cpa_status layer_eval(cpa_mlp *mlp, cpa_layer *l, cpa_mat a)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    cpa_mat y = cpa_mat_head(l->y, a.rows), bias = cpa_value(t, l->bias);
    if (mlp->norms.batch) {
        cpa_mat to = mlp->norms.layer ? cpa_mat_head(l->lhat, a.rows) : y;
        CPA_TRY(cpa_op_batch_norm_eval(t->be, to, a, bias, cpa_value(t, l->mean), cpa_value(t, l->var),
                                       cpa_value(t, l->gamma), cpa_value(t, l->beta), !mlp->norms.layer));
        a = to;
        bias = CPA_NO_MAT;
    }
    if (mlp->norms.layer) {
        CPA_TRY(
            cpa_op_layer_norm(t->be, y, cpa_mat_head(l->lhat, a.rows), vector(l->lrstd, a.rows), a, bias, CPA_NO_MAT));
    } else if (!mlp->norms.batch) {
        CPA_TRY(cpa_op_activate(t->be, y, a, bias, CPA_NO_MAT));
    }
cleanup:
    return st;
}

// The first n layers.
static cpa_status eval_layers(cpa_mlp *mlp, cpa_input in, int n_cells, int n)
{
    cpa_status st = CPA_OK;
    cpa_recompute_begin(mlp);
    for (int k = 0; k < n; k++) {
        cpa_mat a = cpa_sized(mlp->work[0], n_cells, mlp->layer[k].n_out);
        CPA_TRY(cpa_recompute_enter(mlp, k));
        CPA_TRY(multiply(mlp, in, k, a));
        CPA_TRY(layer_eval(mlp, &mlp->layer[k], a));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_eval(cpa_mlp *mlp, cpa_input in, int n_cells)
{
    return eval_layers(mlp, in, n_cells, mlp->n_layers);
}

cpa_status cpa_mlp_recall(cpa_mlp *mlp)
{
    cpa_status st = CPA_OK;
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_recompute_layer(s, s->n_layers - 1));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_show(cpa_mlp *mlp, int k, bool training)
{
    if (!mlp->again) {
        return CPA_OK;
    }
    cpa_recompute_forget(mlp);
    return training ? cpa_recompute_layer(mlp, k) : eval_layers(mlp, mlp->in, mlp->n_cells, k + 1);
}

cpa_status cpa_mlp_output(cpa_mlp *mlp, cpa_mat out)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    CPA_TRY(cpa_op_gemm(t->be, out, cpa_mlp_hidden(mlp, out.rows), false, cpa_value(t, mlp->out_weight), true, 1, 0));
    CPA_TRY(cpa_op_add_row(t->be, out, cpa_value(t, mlp->out_bias)));
cleanup:
    return st;
}

cpa_status cpa_mlp_output_grad(cpa_mlp *mlp, cpa_mat dh, cpa_mat dout, bool params, bool add)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    if (params) {
        CPA_TRY(cpa_op_gemm(t->be, cpa_grad(t, mlp->out_weight), dout, true, cpa_mlp_hidden(mlp, dout.rows), false, 1,
                            add));
    }
    if (params && !mlp->cancels) {
        CPA_TRY(cpa_op_col_sum(t->be, cpa_grad(t, mlp->out_bias), dout, 0));
    }
    CPA_TRY(cpa_op_gemm(t->be, dh, dout, false, cpa_value(t, mlp->out_weight), false, 1, 0));
cleanup:
    return st;
}

// Gradient of layer k's weight from da [n_cells, n_out].
static cpa_status weight_grad(cpa_mlp *mlp, cpa_input in, int k, cpa_mat da, bool add)
{
    cpa_params *t = mlp->t;
    cpa_mat dw = cpa_grad(t, mlp->layer[k].weight);
    if (k == 0 && mlp->sparse) {
        return cpa_op_sparse_linear_grad(t->be, dw, *in.csr, da, mlp->use_log1p);
    }
    return cpa_op_gemm(t->be, dw, da, true, input_of(mlp, in, k, da.rows), false, 1, add);
}

// Where dY of layer k, and then dA, is on the way back.
static cpa_mat gradient_of(const cpa_mlp *mlp, int k)
{
    return cpa_sized(mlp->work[(mlp->n_layers - k) % 2], mlp->n_cells, mlp->layer[k].n_out);
}

// dY through the layer norm, in place; and what the batch norm in front of it hands in. `second`: adds what the penalty sends to the layer
// norm's input.
static cpa_status layer_norm_grad(cpa_mlp *mlp, cpa_layer *l, cpa_mat d, bool second)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = d.rows;
    cpa_mat y = cpa_mat_head(l->y, n);
    if (mlp->norms.layer) {
        cpa_mat into = second ? cpa_mat_head(mlp->norms.batch ? l->mid_q : l->q, n) : CPA_NO_MAT;
        CPA_TRY(cpa_op_layer_norm_grad(t->be, d, d, y, cpa_mat_head(l->lhat, n), vector(l->lrstd, n), mlp->keep, into));
    }
    if (meets(mlp)) {
        CPA_TRY(
            cpa_op_batch_norm_grad_sums(t->be, mlp->own, d, y, cpa_mat_head(l->xhat, n), mlp->keep, !mlp->norms.layer));
    }
cleanup:
    return st;
}

// From there to dA in place, with the parameter gradients of the norms and of the bias. `second`: adds what the penalty sends to A.
static cpa_status layer_grad(cpa_mlp *mlp, cpa_layer *l, cpa_mat d, bool params, bool add, bool second)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = d.rows;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat y = cpa_mat_head(l->y, n);
    if (batch) {
        cpa_mat dgamma = params ? (add ? mlp->row : cpa_grad(t, l->gamma)) : CPA_NO_MAT;
        CPA_TRY(cpa_op_batch_norm_grad(t->be, d, dgamma, params ? cpa_grad(t, l->beta) : CPA_NO_MAT, d, y,
                                       cpa_mat_head(l->xhat, n), cpa_value(t, l->gamma), l->rstd, mlp->keep,
                                       second ? cpa_mat_head(l->q, n) : CPA_NO_MAT, !layer, pooled(mlp)));
        if (params && add) {
            CPA_TRY(cpa_op_axpby(t->be, cpa_grad(t, l->gamma), 1, mlp->row, 1));
        }
    } else if (!layer) {
        CPA_TRY(cpa_op_activate_grad(t->be, d, d, y, mlp->keep, CPA_NO_MAT));
    }
    if (params && !batch) {
        CPA_TRY(cpa_op_col_sum(t->be, cpa_grad(t, l->bias), d, 0));
    }
cleanup:
    return st;
}

// From dA of layer k: the gradient of its weight, and that of its input.
static cpa_status linear_grad(cpa_mlp *mlp, int k, bool params, bool add, bool to_input)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    cpa_mat d = gradient_of(mlp, k);
    if (params) {
        CPA_TRY(weight_grad(mlp, mlp->in, k, d, add));
    }
    if (k > 0 || to_input) {
        CPA_TRY(cpa_op_gemm(t->be, k > 0 ? gradient_of(mlp, k - 1) : mlp->dx, d, false,
                            cpa_value(t, mlp->layer[k].weight), false, 1, 0));
    }
cleanup:
    return st;
}

// From dY of the layers k to the gradients of their inputs. What a layer left is not needed once its dA is there.
static cpa_status layers_grad(cpa_mlp *mlp, int k, bool params, bool add, bool second, bool to_input)
{
    cpa_status st = CPA_OK;
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(layer_norm_grad(s, &s->layer[k], gradient_of(s, k), second));
    }
    CPA_TRY(meets(mlp) ? meet(mlp, 0, 2 * mlp->n_hidden, 0) : CPA_OK);
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(layer_grad(s, &s->layer[k], gradient_of(s, k), params, add, second));
        CPA_TRY(k > 0 ? cpa_recompute_layer(s, k - 1) : CPA_OK);
        CPA_TRY(linear_grad(s, k, params, add, to_input));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_grad(cpa_mlp *mlp, bool params, bool add, bool second, bool to_input)
{
    cpa_status st = CPA_OK;
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        CPA_TRY(layers_grad(mlp, k, params, add, second, to_input));
    }
cleanup:
    return st;
}

// delta = d(sum)/dY through the layer norm, and what the batch norm in front of it hands in.
static cpa_status layer_norm_sum_gradient(cpa_mlp *mlp, cpa_layer *l)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = mlp->n_cells;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat delta = cpa_mat_head(l->delta, n), y = cpa_mat_head(l->y, n);
    if (layer) {
        CPA_TRY(cpa_op_layer_norm_grad(t->be, cpa_mat_head(batch ? l->mid_delta : l->e, n), delta, y,
                                       cpa_mat_head(l->lhat, n), vector(l->lrstd, n), mlp->keep, CPA_NO_MAT));
    }
    if (meets(mlp)) {
        CPA_TRY(cpa_op_batch_norm_grad_sums(t->be, mlp->own, layer ? cpa_mat_head(l->mid_delta, n) : delta, y,
                                            cpa_mat_head(l->xhat, n), mlp->keep, !layer));
    }
cleanup:
    return st;
}

// From there to e = d(sum)/dA, and on to the layer's input.
static cpa_status layer_sum_gradient(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    cpa_layer *l = &mlp->layer[k];
    int n = mlp->n_cells;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat e = cpa_mat_head(l->e, n), y = cpa_mat_head(l->y, n), delta = cpa_mat_head(l->delta, n);
    if (batch) {
        CPA_TRY(cpa_op_batch_norm_grad(t->be, e, CPA_NO_MAT, CPA_NO_MAT, layer ? cpa_mat_head(l->mid_delta, n) : delta,
                                       y, cpa_mat_head(l->xhat, n), cpa_value(t, l->gamma), l->rstd, mlp->keep,
                                       CPA_NO_MAT, !layer, pooled(mlp)));
    } else if (!layer) {
        CPA_TRY(cpa_op_activate_grad(t->be, e, delta, y, mlp->keep, CPA_NO_MAT));
    }
    CPA_TRY(cpa_op_gemm(t->be, k > 0 ? cpa_mat_head(mlp->layer[k - 1].delta, n) : mlp->dx, e, false,
                        cpa_value(t, l->weight), false, 1, 0));
cleanup:
    return st;
}

cpa_status cpa_mlp_sum_gradient(cpa_mlp *mlp)
{
    cpa_status st = CPA_OK;
    for (cpa_mlp *s = mlp; s; s = s->next) {
        cpa_mat delta = cpa_mat_head(s->layer[s->n_layers - 1].delta, s->n_cells);
        CPA_TRY(cpa_op_col_sum(s->t->be, s->row, cpa_value(s->t, s->out_weight), 0));
        CPA_TRY(cpa_op_broadcast_row(s->t->be, delta, s->row));
    }
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_norm_sum_gradient(s, &s->layer[k]));
        }
        CPA_TRY(meets(mlp) ? meet(mlp, 0, 2 * mlp->n_hidden, 0) : CPA_OK);
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_sum_gradient(s, k));
        }
    }
cleanup:
    return st;
}

// v = dP/de of layer k.
static cpa_mat penalty_of(const cpa_mlp *mlp, int k)
{
    return cpa_sized(mlp->work[k % 2], mlp->n_cells, mlp->layer[k].n_out);
}

// From dP/d(its input's gradient) of layer k to dP/de, with the gradient of the weight; and what its batch norm hands in.
static cpa_status linear_penalty(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    cpa_layer *l = &mlp->layer[k];
    int n = mlp->n_cells;
    cpa_mat v = k > 0 ? penalty_of(mlp, k - 1) : mlp->dx, up = penalty_of(mlp, k);
    CPA_TRY(cpa_op_gemm(t->be, cpa_grad(t, l->weight), cpa_mat_head(l->e, n), true, v, false, 1, 0));
    CPA_TRY(cpa_op_gemm(t->be, up, v, false, cpa_value(t, l->weight), true, 1, 0));
    if (meets(mlp)) {
        CPA_TRY(cpa_op_batch_norm_grad2_sums(
            t->be, mlp->own, up, cpa_mat_head(mlp->norms.layer ? l->mid_delta : l->delta, n), cpa_mat_head(l->y, n),
            cpa_mat_head(l->xhat, n), mlp->keep, !mlp->norms.layer));
    }
cleanup:
    return st;
}

// v = dP/de becomes dP/d(delta); what P sends to the layer's inputs through the norms' statistics stays in q (and mid_q).
static cpa_status layer_penalty(cpa_mlp *mlp, cpa_layer *l, cpa_mat v)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = v.rows;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat y = cpa_mat_head(l->y, n), q = cpa_mat_head(l->q, n), delta = cpa_mat_head(l->delta, n);
    if (batch) {
        CPA_TRY(cpa_op_zero(t->be, cpa_grad(t, l->gamma).data, (size_t)l->n_out * sizeof(cpa_real)));
        CPA_TRY(cpa_op_batch_norm_grad2(t->be, v, cpa_grad(t, l->gamma), q, v,
                                        layer ? cpa_mat_head(l->mid_delta, n) : delta, y, cpa_mat_head(l->xhat, n),
                                        cpa_value(t, l->gamma), l->rstd, mlp->keep, !layer, pooled(mlp)));
    }
    if (layer) {
        CPA_TRY(cpa_op_layer_norm_grad2(t->be, v, batch ? cpa_mat_head(l->mid_q, n) : q, v, delta, y,
                                        cpa_mat_head(l->lhat, n), vector(l->lrstd, n), mlp->keep));
    } else if (!batch) {
        CPA_TRY(cpa_op_activate_grad(t->be, v, v, y, mlp->keep, CPA_NO_MAT));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_penalty(cpa_mlp *mlp)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < mlp->n_layers; k++) {
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(linear_penalty(s, k));
        }
        CPA_TRY(meets(mlp) ? meet(mlp, 0, 5 * mlp->n_hidden, 0) : CPA_OK);
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_penalty(s, &s->layer[k], penalty_of(s, k)));
        }
    }
    // The sum of the outputs sees the last weight only through the sum of its rows.
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_col_sum(s->t->be, s->row, penalty_of(s, s->n_layers - 1), 0));
        CPA_TRY(cpa_op_broadcast_row(s->t->be, cpa_grad(s->t, s->out_weight), s->row));
    }
cleanup:
    return st;
}
