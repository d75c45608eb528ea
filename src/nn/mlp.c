// Owns: stacks of hidden layers as compositions of operations, to second order. Never looks inside a matrix.
#include "cpa/nn/mlp.h"

#include <stdio.h>

cpa_status cpa_mlp_declare(cpa_mlp *mlp, cpa_params *t, cpa_group group, cpa_group stat_group, int n_in, int n_hidden, int n_layers, int n_out,
                           bool sparse, const char *prefix, const char *out_name)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(n_layers >= 1 && n_layers <= CPA_MAX_LAYERS, CPA_USAGE, "%s: %d hidden layers; 1 to %d are possible", prefix, n_layers,
                CPA_MAX_LAYERS);
    mlp->t = t;
    mlp->n_layers = n_layers;
    mlp->n_in = n_in;
    mlp->n_hidden = n_hidden;
    mlp->n_out = n_out;
    mlp->sparse = sparse;
    mlp->keep = 1;
    for (int k = 0; k < n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        l->n_in = k ? n_hidden : n_in;
        l->n_out = n_hidden;
        double bound = 1.0 / __builtin_sqrt(l->n_in);
        CPA_TRY(cpa_params_add(t, group, n_hidden, l->n_in, 2, CPA_INIT_UNIFORM, bound, &l->weight, "%sLayer %d.0.weight", prefix, k));
        t->p[l->weight].transposed = sparse && k == 0;
        CPA_TRY(cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_UNIFORM, bound, &l->bias, "%sLayer %d.0.bias", prefix, k));
        CPA_TRY(cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_ONE, 0, &l->gamma, "%sLayer %d.1.weight", prefix, k));
        CPA_TRY(cpa_params_add(t, group, 1, n_hidden, 1, CPA_INIT_ZERO, 0, &l->beta, "%sLayer %d.1.bias", prefix, k));
        CPA_TRY(cpa_params_add(t, stat_group, 1, n_hidden, 1, CPA_INIT_ZERO, 0, &l->mean, "%sLayer %d.1.running_mean", prefix, k));
        CPA_TRY(cpa_params_add(t, stat_group, 1, n_hidden, 1, CPA_INIT_ONE, 0, &l->var, "%sLayer %d.1.running_var", prefix, k));
    }
    if (n_out) {
        double bound = 1.0 / __builtin_sqrt(n_hidden);
        CPA_TRY(cpa_params_add(t, group, n_out, n_hidden, 2, CPA_INIT_UNIFORM, bound, &mlp->out_weight, "%s.weight", out_name));
        CPA_TRY(cpa_params_add(t, group, 1, n_out, 1, CPA_INIT_UNIFORM, bound, &mlp->out_bias, "%s.bias", out_name));
    }
cleanup:
    return st;
}

// Cuts `rows` x `cols` off the front of an arena; with arena NULL only counts.
static cpa_mat take(cpa_dev_real *arena, int64_t *used, int rows, int cols)
{
    cpa_mat m = arena ? cpa_mat_of(cpa_real_at(arena, *used), rows, cols) : CPA_NO_MAT;
    *used += ((int64_t)rows * cols + 15) / 16 * 16;
    return m;
}

static int64_t lay_out(cpa_mlp *mlp, cpa_dev_real *arena, int max_cells, bool training, bool second_order, bool dropout)
{
    int64_t used = 0;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        l->y = take(arena, &used, max_cells, l->n_out);
        if (training) {
            l->xhat = take(arena, &used, max_cells, l->n_out);
            l->rstd = take(arena, &used, 1, l->n_out);
        }
        if (training && dropout) {
            l->mask = take(arena, &used, max_cells, l->n_out);
        }
        if (second_order) {
            l->delta = take(arena, &used, max_cells, l->n_out);
            l->e = take(arena, &used, max_cells, l->n_out);
            l->q = take(arena, &used, max_cells, l->n_out);
        }
    }
    int width = !mlp->sparse && mlp->n_in > mlp->n_hidden ? mlp->n_in : mlp->n_hidden;
    for (int i = 0; i < 2 && training; i++) {
        mlp->work[i] = take(arena, &used, max_cells, width);
    }
    mlp->row = take(arena, &used, 1, mlp->n_hidden);
    return used;
}

cpa_status cpa_mlp_place(cpa_mlp *mlp, int max_cells, bool training, bool second_order, double dropout_rate)
{
    cpa_status st = CPA_OK;
    bool dropout = dropout_rate > 0;
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
        return cpa_op_sparse_linear(t->be, a, *in.csr, cpa_value(t, mlp->layer[0].weight));
    }
    return cpa_op_gemm(t->be, a, input_of(mlp, in, k, a.rows), false, cpa_value(t, mlp->layer[k].weight), true, 1, 0);
}

cpa_status cpa_mlp_forward(cpa_mlp *mlp, cpa_input in, int n_cells, bool inside_autoencoder)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        cpa_mat a = sized(mlp->work[0], n_cells, l->n_out), mean = cpa_stat(t, l->mean, inside_autoencoder);
        CPA_TRY(product(mlp, in, k, a));
        CPA_TRY(cpa_op_batch_norm(t->be, cpa_mat_head(l->y, n_cells), cpa_mat_head(l->xhat, n_cells), mean,
                                  cpa_stat(t, l->var, inside_autoencoder), l->rstd, a, cpa_value(t, l->gamma), cpa_value(t, l->beta),
                                  rows_or_none(l->mask, n_cells)));
        // The bias cancels in the normalised values; only the mean that is remembered feels it.
        CPA_TRY(cpa_op_axpby(t->be, mean, 1, cpa_value(t, l->bias), 1));
    }
cleanup:
    return st;
}

cpa_status cpa_mlp_eval(cpa_mlp *mlp, cpa_input in, int n_cells)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    for (int k = 0; k < mlp->n_layers; k++) {
        cpa_layer *l = &mlp->layer[k];
        cpa_mat y = cpa_mat_head(l->y, n_cells);
        CPA_TRY(product(mlp, in, k, y));
        CPA_TRY(cpa_op_batch_norm_eval(t->be, y, y, cpa_value(t, l->bias), cpa_value(t, l->mean), cpa_value(t, l->var), cpa_value(t, l->gamma),
                                       cpa_value(t, l->beta)));
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
        CPA_TRY(cpa_op_gemm(t->be, cpa_grad(t, mlp->out_weight), dout, true, cpa_mlp_hidden(mlp, dout.rows), false, 1, add));
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
        return cpa_op_sparse_linear_grad(t->be, dw, *in.csr, da);
    }
    return cpa_op_gemm(t->be, dw, da, true, input_of(mlp, in, k, da.rows), false, 1, add);
}

cpa_status cpa_mlp_grad(cpa_mlp *mlp, cpa_input in, cpa_mat dh, bool params, bool add, bool second, cpa_mat dx)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    int n = dh.rows, turn = 0;
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        cpa_layer *l = &mlp->layer[k];
        cpa_mat dgamma = params ? (add ? mlp->row : cpa_grad(t, l->gamma)) : CPA_NO_MAT;
        CPA_TRY(cpa_op_batch_norm_grad(t->be, dh, dgamma, params ? cpa_grad(t, l->beta) : CPA_NO_MAT, dh, cpa_mat_head(l->y, n),
                                       cpa_mat_head(l->xhat, n), cpa_value(t, l->gamma), l->rstd, mlp->keep,
                                       second ? cpa_mat_head(l->q, n) : CPA_NO_MAT));
        if (params && add) {
            CPA_TRY(cpa_op_axpby(t->be, cpa_grad(t, l->gamma), 1, mlp->row, 1));
        }
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

cpa_status cpa_mlp_sum_gradient(cpa_mlp *mlp, cpa_mat g, int n_cells)
{
    cpa_status st = CPA_OK;
    cpa_params *t = mlp->t;
    CPA_TRY(cpa_op_col_sum(t->be, mlp->row, cpa_value(t, mlp->out_weight), 0));
    CPA_TRY(cpa_op_broadcast_row(t->be, cpa_mat_head(mlp->layer[mlp->n_layers - 1].delta, n_cells), mlp->row));
    for (int k = mlp->n_layers - 1; k >= 0; k--) {
        cpa_layer *l = &mlp->layer[k];
        cpa_mat e = cpa_mat_head(l->e, n_cells);
        CPA_TRY(cpa_op_batch_norm_grad(t->be, e, CPA_NO_MAT, CPA_NO_MAT, cpa_mat_head(l->delta, n_cells), cpa_mat_head(l->y, n_cells),
                                       cpa_mat_head(l->xhat, n_cells), cpa_value(t, l->gamma), l->rstd, mlp->keep, CPA_NO_MAT));
        cpa_mat next = k > 0 ? cpa_mat_head(mlp->layer[k - 1].delta, n_cells) : g;
        CPA_TRY(cpa_op_gemm(t->be, next, e, false, cpa_value(t, l->weight), false, 1, 0));
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
        cpa_mat e = cpa_mat_head(l->e, n_cells), up = sized(mlp->work[k % 2], n_cells, l->n_out);
        CPA_TRY(cpa_op_gemm(t->be, cpa_grad(t, l->weight), e, true, v, false, 1, 0));
        CPA_TRY(cpa_op_gemm(t->be, up, v, false, cpa_value(t, l->weight), true, 1, 0));
        CPA_TRY(cpa_op_zero(t->be, cpa_grad(t, l->gamma).data, (size_t)l->n_out * sizeof(cpa_real)));
        CPA_TRY(cpa_op_batch_norm_grad2(t->be, up, cpa_grad(t, l->gamma), cpa_mat_head(l->q, n_cells), up, cpa_mat_head(l->delta, n_cells),
                                        cpa_mat_head(l->y, n_cells), cpa_mat_head(l->xhat, n_cells), cpa_value(t, l->gamma), l->rstd,
                                        mlp->keep));
        v = up;
    }
    // The sum of the outputs sees the last weight only through the sum of its rows.
    CPA_TRY(cpa_op_col_sum(t->be, mlp->row, v, 0));
    CPA_TRY(cpa_op_broadcast_row(t->be, cpa_grad(t, mlp->out_weight), mlp->row));
cleanup:
    return st;
}
