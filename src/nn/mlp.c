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

// The second derivative of a batch norm needs the most sums.
int cpa_mlp_n_pooled(const cpa_mlp *mlp)
{
    return mlp->norms.batch ? 5 * mlp->n_hidden : 0;
}

cpa_status cpa_mlp_place_sums(cpa_mlp *mlp)
{
    cpa_status st = CPA_OK;
    size_t bytes = (size_t)cpa_mlp_n_pooled(mlp) * sizeof(double);
    CPA_TRY(cpa_op_alloc(mlp->t->be, bytes, (void **)&mlp->own));
    CPA_TRY(cpa_op_alloc(mlp->t->be, bytes, (void **)&mlp->all));
cleanup:
    return st;
}

void cpa_mlp_fini_sums(cpa_mlp *mlp)
{
    cpa_dev_f64 *sums[] = {mlp->own, mlp->all};
    for (size_t i = 0; i < 2; i++) {
        if (sums[i]) {
            cpa_op_release(mlp->t->be, sums[i]);
        }
    }
    mlp->own = mlp->all = NULL;
}

void cpa_mlp_fini(cpa_mlp *mlp)
{
    if (mlp->memory) {
        cpa_op_release(mlp->t->be, mlp->memory);
        mlp->memory = NULL;
    }
}

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

// Whether the lanes have to meet at the layers of this stack.
static bool meets(const cpa_mlp *mlp)
{
    return mlp->meeting != NULL && mlp->norms.batch;
}

// What a batch norm goes by whose lanes have met.
static cpa_pooled pooled(const cpa_mlp *mlp)
{
    return meets(mlp) ? (cpa_pooled){mlp->own, mlp->all, mlp->meeting->rows} : CPA_NOT_POOLED;
}

// From the n sums at `at` of every lane of the list to those over all lanes.
static cpa_status meet(cpa_mlp *mlp, int at, int n)
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
        CPA_TRY(cpa_op_upload(s->t->be, cpa_f64_at(s->all, at), with->all, bytes));
    }
cleanup:
    return st;
}

// A of layer k.
static cpa_mat linear_of(const cpa_mlp *mlp, int k)
{
    return sized(mlp->work[0], mlp->n_cells, mlp->layer[k].n_out);
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
                                  cpa_value(t, l->beta), last ? mask : CPA_NO_MAT, last, pooled(mlp)));
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

// The statistics of layer k over all lanes, in two passes: means, then squares about them.
static cpa_status meet_forward(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    int width = mlp->n_hidden;
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_batch_norm_sums(s->t->be, s->own, linear_of(s, k), CPA_NOT_POOLED));
    }
    CPA_TRY(meet(mlp, 0, width));
    for (cpa_mlp *s = mlp; s; s = s->next) {
        CPA_TRY(cpa_op_batch_norm_sums(s->t->be, cpa_f64_at(s->own, width), linear_of(s, k), pooled(s)));
    }
    CPA_TRY(meet(mlp, width, width));
cleanup:
    return st;
}

cpa_status cpa_mlp_forward(cpa_mlp *mlp, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < mlp->n_layers; k++) {
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(product(s, s->in, k, linear_of(s, k)));
        }
        CPA_TRY(meets(mlp) ? meet_forward(mlp, k) : CPA_OK);
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_forward(s, &s->layer[k], linear_of(s, k), inside_autoencoder));
        }
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

// Where dY of layer k, and then dA, is on the way back.
static cpa_mat gradient_of(const cpa_mlp *mlp, int k)
{
    return sized(mlp->work[(mlp->n_layers - k) % 2], mlp->n_cells, mlp->layer[k].n_out);
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

cpa_status cpa_mlp_grad(cpa_mlp *mlp, bool params, bool add, bool second, bool to_input)
{
    cpa_status st = CPA_OK;
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_norm_grad(s, &s->layer[k], gradient_of(s, k), second));
        }
        CPA_TRY(meets(mlp) ? meet(mlp, 0, 2 * mlp->n_hidden) : CPA_OK);
        for (cpa_mlp *s = mlp; s; s = s->next) {
            CPA_TRY(layer_grad(s, &s->layer[k], gradient_of(s, k), params, add, second));
            CPA_TRY(linear_grad(s, k, params, add, to_input));
        }
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
        CPA_TRY(meets(mlp) ? meet(mlp, 0, 2 * mlp->n_hidden) : CPA_OK);
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
    return sized(mlp->work[k % 2], mlp->n_cells, mlp->layer[k].n_out);
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
        CPA_TRY(meets(mlp) ? meet(mlp, 0, 5 * mlp->n_hidden) : CPA_OK);
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
