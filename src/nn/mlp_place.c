// Owns: declaring the parameters of stacks of hidden layers, and placing what they compute in. Never computes.
#include <stdio.h>

#include "mlp_impl.h"

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

// What the forward leaves of one layer for the backward.
static void lay_out_layer(const cpa_mlp *mlp, cpa_layer *l, int cells, bool training, const cpa_dev_real *arena,
                          int64_t *used)
{
    l->y = cpa_mat_take(arena, used, cells, l->n_out);
    if (training && mlp->norms.batch) {
        l->xhat = cpa_mat_take(arena, used, cells, l->n_out);
        l->rstd = cpa_mat_take(arena, used, 1, l->n_out);
    }
    if (mlp->norms.layer) {
        l->lhat = cpa_mat_take(arena, used, cells, l->n_out);
        l->lrstd = cpa_mat_take(arena, used, 1, cells);
    }
}

static void lay_out_second_order(const cpa_mlp *mlp, cpa_layer *l, int cells, const cpa_dev_real *arena, int64_t *used)
{
    l->delta = cpa_mat_take(arena, used, cells, l->n_out);
    l->e = cpa_mat_take(arena, used, cells, l->n_out);
    l->q = cpa_mat_take(arena, used, cells, l->n_out);
    if (mlp->norms.batch && mlp->norms.layer) {
        l->mid_delta = cpa_mat_take(arena, used, cells, l->n_out);
        l->mid_q = cpa_mat_take(arena, used, cells, l->n_out);
    }
}

int cpa_mlp_width(const cpa_mlp *mlp)
{
    return !mlp->sparse && mlp->n_in > mlp->n_hidden ? mlp->n_in : mlp->n_hidden;
}

void cpa_mlp_lay_out(cpa_mlp *mlp, const cpa_mlp_use *use, const cpa_dev_real *arena, int64_t *used)
{
    mlp->rate = (cpa_real)use->dropout_rate;
    mlp->keep = (cpa_real)(1.0 / (1.0 - use->dropout_rate));
    mlp->work[0] = use->scratch->work[0];
    mlp->work[1] = use->scratch->work[1];
    mlp->row = cpa_sized(use->scratch->row, 1, mlp->n_hidden);
    mlp->again = use->again;
    for (int k = 0; k < mlp->n_layers; k++) {
        if (!use->again) {
            lay_out_layer(mlp, &mlp->layer[k], use->max_cells, use->training, arena, used);
        }
        if (use->second_order) {
            lay_out_second_order(mlp, &mlp->layer[k], use->max_cells, arena, used);
        }
    }
}

// The second derivative of a batch norm needs the most sums.
int cpa_mlp_n_pooled(const cpa_mlp *mlp)
{
    return mlp->norms.batch ? 5 * mlp->n_hidden : 0;
}

cpa_status cpa_mlp_place_sums(cpa_mlp *mlp)
{
    cpa_status st = CPA_OK;
    size_t most = (size_t)cpa_mlp_n_pooled(mlp);
    size_t kept = mlp->again && mlp->norms.batch ? 2 * (size_t)mlp->n_layers * (size_t)mlp->n_hidden : 0;
    CPA_TRY(cpa_op_alloc(mlp->t->be, most * sizeof(double), (void **)&mlp->own));
    CPA_TRY(cpa_op_alloc(mlp->t->be, (most + kept) * sizeof(double), (void **)&mlp->all));
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
