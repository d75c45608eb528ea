// Owns: stacks of hidden layers as compositions of operations, to second order. Never looks inside a matrix.
#include "cpa/nn/mlp.h"

#include <stdio.h>

cpa_status cpa_mlp_declare(cpa_mlp *mlp, cpa_params *t, cpa_group group, cpa_group stat_group, int n_in, int n_hidden,
                           int n_layers, int n_out, cpa_norms norms, bool sparse, const char *prefix,
                           const char *out_name)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(n_layers >= 1 && n_layers <= CPA_MAX_LAYERS, CPA_USAGE, "%s: %d hidden layers; 1 to %d are possible",
                prefix, n_layers, CPA_MAX_LAYERS);
    mlp->t = t;
    mlp->n_layers = n_layers;
    mlp->n_in = n_in;
    mlp->n_hidden = n_hidden;
    mlp->n_out = n_out;
    mlp->norms = norms;
    mlp->sparse = sparse;
    mlp->keep = 1;
    for (int k = 0; k < n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        l->n_in = k ? n_hidden : n_in;
        l->n_out = n_hidden;
        double bound = 1.0 / __builtin_sqrt(l->n_in);
        CPA_TRY(cpa_params_add(t, group, n_hidden, l->n_in, 2, CPA_INIT_UNIFORM, bound, &l->weight,
                               "%sLayer %d.0.weight", prefix, k));
        t->p[l->weight].transposed = sparse && k == 0;
        CPA_TRY(cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_UNIFORM, bound, &l->bias, "%sLayer %d.0.bias", prefix,
                               k));
        if (norms.batch) {
            CPA_TRY(
                cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_ONE, 0, &l->gamma, "%sLayer %d.1.weight", prefix, k));
            CPA_TRY(
                cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_ZERO, 0, &l->beta, "%sLayer %d.1.bias", prefix, k));
            CPA_TRY(cpa_params_add(t, stat_group, 1, n_hidden, 1, CPA_INIT_ZERO, 0, &l->mean,
                                   "%sLayer %d.1.running_mean", prefix, k));
            CPA_TRY(cpa_params_add(t, stat_group, 1, n_hidden, 1, CPA_INIT_ONE, 0, &l->var, "%sLayer %d.1.running_var",
                                   prefix, k));
        }
    }
    if (n_out) {
        double bound = 1.0 / __builtin_sqrt(n_hidden);
        CPA_TRY(cpa_params_add(t, group, n_out, n_hidden, 2, CPA_INIT_UNIFORM, bound, &mlp->out_weight, "%s.weight",
                               out_name));
        CPA_TRY(cpa_params_add(t, group, 1, n_out, 1, CPA_INIT_UNIFORM, bound, &mlp->out_bias, "%s.bias", out_name));
    }
cleanup:
    return st;
}

// Activations of one layer.
static void lay_out_layer(const cpa_mlp *mlp, cpa_layer *l, cpa_dev_real *arena, int64_t *used, int cells,
                          bool training, bool second_order, bool dropout)
{
    bool both = mlp->norms.batch && mlp->norms.layer;
    l->y = cpa_mat_take(arena, used, cells, l->n_out);
    if (training && mlp->norms.batch) {
        l->xhat = cpa_mat_take(arena, used, cells, l->n_out);
        l->rstd = cpa_mat_take(arena, used, 1, l->n_out);
    }
    if (both) {
        l->mid = cpa_mat_take(arena, used, cells, l->n_out);
    }
    if (mlp->norms.layer) {
        l->lhat = cpa_mat_take(arena, used, cells, l->n_out);
        l->lrstd = cpa_mat_take(arena, used, 1, cells);
    }
    if (training && dropout) {
        l->mask = cpa_mat_take(arena, used, cells, l->n_out);
    }
    if (second_order) {
        l->delta = cpa_mat_take(arena, used, cells, l->n_out);
        l->e = cpa_mat_take(arena, used, cells, l->n_out);
        l->q = cpa_mat_take(arena, used, cells, l->n_out);
    }
    if (second_order && both) {
        l->mid_delta = cpa_mat_take(arena, used, cells, l->n_out);
        l->mid_q = cpa_mat_take(arena, used, cells, l->n_out);
    }
}

static int64_t lay_out(cpa_mlp *mlp, cpa_dev_real *arena, int max_cells, bool training, bool second_order, bool dropout)
{
    int64_t used = 0;
    for (int k = 0; k < mlp->n_layers; k++) {
        lay_out_layer(mlp, &mlp->layer[k], arena, &used, max_cells, training, second_order, dropout);
    }
    int width = !mlp->sparse && mlp->n_in > mlp->n_hidden ? mlp->n_in : mlp->n_hidden;
    mlp->work[0] = cpa_mat_take(arena, &used, max_cells, width);
    if (training) {
        mlp->work[1] = cpa_mat_take(arena, &used, max_cells, width);
    }
    mlp->row = cpa_mat_take(arena, &used, 1, mlp->n_hidden);
    return used;
}

cpa_status cpa_mlp_place(cpa_mlp *mlp, int max_cells, bool training, bool second_order, double dropout_rate)
{
    cpa_status st = CPA_OK;
    bool dropout = dropout_rate > 0;
    mlp->rate = (cpa_real)dropout_rate;
    mlp->keep = (cpa_real)(1.0 / (1.0 - dropout_rate));
    int64_t n = lay_out(mlp, NULL, max_cells, training, second_order, dropout);
    CPA_TRY(cpa_op_alloc(mlp->t->be, (size_t)n * sizeof(cpa_real), (void **)&mlp->memory));
    lay_out(mlp, mlp->memory, max_cells, training, second_order, dropout);
cleanup:
    return st;
}

void cpa_mlp_fini(cpa_mlp *mlp)
{
    if (mlp->memory) {
        cpa_op_release(mlp->t->be, mlp->memory);
        mlp->memory = NULL;
    }
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

static cpa_mat sized(cpa_mat m, int rows, int cols)
{
    return cpa_mat_of(m.data, rows, cols);
}

// The first n elements of a vector.
static cpa_mat vector(cpa_mat m, int n)
{
    return cpa_mat_of(m.data, 1, n);
}

static cpa_mat rows_or_none(cpa_mat m, int rows)
{
    return m.data ? cpa_mat_head(m, rows) : CPA_NO_MAT;
}

cpa_mat cpa_mlp_dhidden(const cpa_mlp *mlp, int n_cells)
{
    return sized(mlp->work[1], n_cells, mlp->n_hidden);
}

// a = input of layer k times its weight, without bias.
static cpa_status product(cpa_mlp *mlp, cpa_input in, int k, cpa_mat a)
{
    cpa_params *t = mlp->t;
    if (k == 0 && mlp->sparse) {
        return cpa_op_sparse_linear(t->be, a, *in.csr, cpa_value(t, mlp->layer[0].weight), mlp->use_log1p);
    }
    return cpa_op_gemm(t->be, a, input_of(mlp, in, k, a.rows), false, cpa_value(t, mlp->layer[k].weight), true, 1, 0);
}

// Y from A in training mode, filling what the backward needs.
static cpa_status layer_forward(cpa_mlp *mlp, cpa_layer *l, cpa_mat a, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = a.rows;
    cpa_mat y = cpa_mat_head(l->y, n), mask = rows_or_none(l->mask, n), bias = cpa_value(t, l->bias);
    if (mlp->norms.batch) {
        cpa_mat mean = cpa_stat(t, l->mean, inside_autoencoder);
        bool last = !mlp->norms.layer;
        CPA_TRY(cpa_op_batch_norm(t->be, last ? y : cpa_mat_head(l->mid, n), cpa_mat_head(l->xhat, n), mean,
                                  cpa_stat(t, l->var, inside_autoencoder), l->rstd, a, cpa_value(t, l->gamma),
                                  cpa_value(t, l->beta), last ? mask : CPA_NO_MAT, last));
        // The bias cancels in the normalised values; only the mean that is remembered feels it.
        CPA_TRY(cpa_op_axpby(t->be, mean, 1, bias, 1));
        a = cpa_mat_head(l->mid, n);
        bias = CPA_NO_MAT;
    }
    if (mlp->norms.layer) {
        CPA_TRY(cpa_op_layer_norm(t->be, y, cpa_mat_head(l->lhat, n), vector(l->lrstd, n), a, bias, mask));
    } else if (!mlp->norms.batch) {
        CPA_TRY(cpa_op_activate(t->be, y, a, bias, mask));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_forward(cpa_mlp *mlp, cpa_input in, int n_cells, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_mat a = sized(mlp->work[0], n_cells, mlp->layer[k].n_out);
        CPA_TRY(product(mlp, in, k, a));
        CPA_TRY(layer_forward(mlp, &mlp->layer[k], a, inside_autoencoder));
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
        cpa_mat to = mlp->norms.layer ? cpa_mat_head(l->mid, a.rows) : y;
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

cpa_status cpa_mlp_eval(cpa_mlp *mlp, cpa_input in, int n_cells)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_mat a = sized(mlp->work[0], n_cells, mlp->layer[k].n_out);
        CPA_TRY(product(mlp, in, k, a));
        CPA_TRY(layer_eval(mlp, &mlp->layer[k], a));
    }
cleanup:
    return st;
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

// dY to dA in place, with the parameter gradients of the norms and of the bias. `second`: adds what the penalty sends to A and, between the
// norms, to the layer norm's input.
static cpa_status layer_grad(cpa_mlp *mlp, cpa_layer *l, cpa_mat d, bool params, bool add, bool second)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = d.rows;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat y = cpa_mat_head(l->y, n), q = second ? cpa_mat_head(l->q, n) : CPA_NO_MAT;
    if (layer) {
        cpa_mat into = second && batch ? cpa_mat_head(l->mid_q, n) : q;
        CPA_TRY(cpa_op_layer_norm_grad(t->be, d, d, y, cpa_mat_head(l->lhat, n), vector(l->lrstd, n), mlp->keep, into));
    }
    if (batch) {
        cpa_mat dgamma = params ? (add ? mlp->row : cpa_grad(t, l->gamma)) : CPA_NO_MAT;
        CPA_TRY(cpa_op_batch_norm_grad(t->be, d, dgamma, params ? cpa_grad(t, l->beta) : CPA_NO_MAT, d, y,
                                       cpa_mat_head(l->xhat, n), cpa_value(t, l->gamma), l->rstd, mlp->keep, q,
                                       !layer));
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

cpa_status cpa_mlp_grad(cpa_mlp *mlp, cpa_input in, cpa_mat dh, bool params, bool add, bool second, cpa_mat dx)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = dh.rows, turn = 0;
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        cpa_layer *l = &mlp->layer[k];
        CPA_TRY(layer_grad(mlp, l, dh, params, add, second));
        if (params) {
            CPA_TRY(weight_grad(mlp, in, k, dh, add));
        }
        if (k > 0 || dx.data) {
            cpa_mat next = k > 0 ? sized(mlp->work[turn], n, l->n_in) : dx;
            CPA_TRY(cpa_op_gemm(t->be, next, dh, false, cpa_value(t, l->weight), false, 1, 0));
            dh = next;
            turn = 1 - turn;
        }
    }
cleanup:
    return st;
}

// e = d(sum)/dA from delta = d(sum)/dY.
static cpa_status layer_sum_gradient(cpa_mlp *mlp, cpa_layer *l, int n)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    bool batch = mlp->norms.batch, layer = mlp->norms.layer;
    cpa_mat from = cpa_mat_head(l->delta, n), e = cpa_mat_head(l->e, n), y = cpa_mat_head(l->y, n);
    if (layer) {
        cpa_mat to = batch ? cpa_mat_head(l->mid_delta, n) : e;
        CPA_TRY(cpa_op_layer_norm_grad(t->be, to, from, y, cpa_mat_head(l->lhat, n), vector(l->lrstd, n), mlp->keep,
                                       CPA_NO_MAT));
        from = to;
    }
    if (batch) {
        CPA_TRY(cpa_op_batch_norm_grad(t->be, e, CPA_NO_MAT, CPA_NO_MAT, from, y, cpa_mat_head(l->xhat, n),
                                       cpa_value(t, l->gamma), l->rstd, mlp->keep, CPA_NO_MAT, !layer));
    } else if (!layer) {
        CPA_TRY(cpa_op_activate_grad(t->be, e, from, y, mlp->keep, CPA_NO_MAT));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_sum_gradient(cpa_mlp *mlp, cpa_mat g, int n_cells)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    CPA_TRY(cpa_op_col_sum(t->be, mlp->row, cpa_value(t, mlp->out_weight), 0));
    CPA_TRY(cpa_op_broadcast_row(t->be, cpa_mat_head(mlp->layer[mlp->n_layers - 1].delta, n_cells), mlp->row));
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        cpa_layer *l = &mlp->layer[k];
        CPA_TRY(layer_sum_gradient(mlp, l, n_cells));
        cpa_mat next = k > 0 ? cpa_mat_head(mlp->layer[k - 1].delta, n_cells) : g;
        CPA_TRY(cpa_op_gemm(t->be, next, cpa_mat_head(l->e, n_cells), false, cpa_value(t, l->weight), false, 1, 0));
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
                                        cpa_value(t, l->gamma), l->rstd, mlp->keep, !layer));
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

cpa_status cpa_mlp_penalty(cpa_mlp *mlp, cpa_mat v, int n_cells)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        cpa_mat up = sized(mlp->work[k % 2], n_cells, l->n_out);
        CPA_TRY(cpa_op_gemm(t->be, cpa_grad(t, l->weight), cpa_mat_head(l->e, n_cells), true, v, false, 1, 0));
        CPA_TRY(cpa_op_gemm(t->be, up, v, false, cpa_value(t, l->weight), true, 1, 0));
        CPA_TRY(layer_penalty(mlp, l, up));
        v = up;
    }
    // The sum of the outputs sees the last weight only through the sum of its rows.
    CPA_TRY(cpa_op_col_sum(t->be, mlp->row, v, 0));
    CPA_TRY(cpa_op_broadcast_row(t->be, cpa_grad(t, mlp->out_weight), mlp->row));
cleanup:
    return st;
}
