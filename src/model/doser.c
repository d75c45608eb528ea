// Owns: dose responses: how much of its embedding a perturbation adds at a dose. A sigmoid with two parameters for each
// perturbation, the dose itself, or a small network for each. Never touches an embedding.
#include <stdio.h>

#include "model_impl.h"

// The rows of what a dose network computes: one for each component of each cell of the loaded batch.
static int rows_of(const cpa_model *m)
{
    return m->n * m->batch.comb;
}

// Networks of one input and one output for every perturbation, stacked: [n_perts * width, inputs].
static cpa_status declare_networks(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_dose_nets *d = &m->dose_nets;
    int width = m->config.n_hidden_doser, layers = m->config.n_layers_doser;
    CPA_REQUIRE(layers >= 1 && layers <= CPA_MAX_LAYERS && width >= 1, CPA_USAGE,
                "a doser of %d hidden layers of width %d; 1 to %d layers are possible", layers, width, CPA_MAX_LAYERS);
    d->n_layers = layers;
    for (int k = 0; k <= layers; k++) {
        int in = k ? width : 1, out = m->shape.n_perts * (k < layers ? width : 1);
        double bound = 1.0 / __builtin_sqrt(in);
        char layer[16];
        snprintf(layer, sizeof layer, k < layers ? "Layer %d" : "output", k);
        CPA_TRY(cpa_params_add(&m->t, CPA_GROUP_DOSER, out, in, 2, CPA_INIT_UNIFORM, bound, &d->weight[k],
                               "module/pert_network.dosers.%s.weight", layer));
        CPA_TRY(cpa_params_add(&m->t, CPA_GROUP_DOSER, 1, out, 1, CPA_INIT_UNIFORM, bound, &d->bias[k],
                               "module/pert_network.dosers.%s.bias", layer));
    }
cleanup:
    return st;
}

cpa_status cpa_doser_declare(cpa_model *m)
{
    cpa_status st = CPA_OK;
    if (m->has_dose_nets) {
        return declare_networks(m);
    }
    // A linear dose response has parameters that do nothing.
    cpa_group group = m->doser == CPA_DOSER_LINEAR ? CPA_GROUP_FROZEN : CPA_GROUP_DOSER;
    int n = m->shape.n_perts;
    CPA_TRY(cpa_params_add(&m->t, group, 1, n, 2, CPA_INIT_ONE, 0, &m->doser_w, "module/pert_network.dosers.beta"));
    CPA_TRY(cpa_params_add(&m->t, group, 1, n, 2, CPA_INIT_ZERO, 0, &m->doser_b, "module/pert_network.dosers.bias"));
cleanup:
    return st;
}

void cpa_doser_lay_out(cpa_model *m, cpa_dev_real *arena, int64_t *used)
{
    cpa_dose_nets *d = &m->dose_nets;
    int rows = m->shape.max_cells * m->shape.max_comb_len * (m->shape.mixup ? 2 : 1), width = m->config.n_hidden_doser;
    if (!m->has_dose_nets) {
        return;
    }
    for (int k = 0; k < d->n_layers; k++) {
        d->y[k] = cpa_mat_take(arena, used, rows, width);
    }
    d->out = cpa_mat_take(arena, used, rows, 1);
    if (m->training) {
        d->work[0] = cpa_mat_take(arena, used, rows, width);
        d->work[1] = cpa_mat_take(arena, used, rows, width);
        d->dout = cpa_mat_take(arena, used, rows, 1);
    }
}

// The input of layer k, [rows, inputs].
static cpa_mat input_of(const cpa_model *m, int k)
{
    int n = rows_of(m);
    return k ? cpa_mat_head(m->dose_nets.y[k - 1], n) : cpa_mat_of(m->batch.dose, n, 1);
}

static cpa_status run_networks(cpa_model *m, cpa_mat s, cpa_mat dose)
{
    cpa_status st = CPA_OK;
    cpa_dose_nets *d = &m->dose_nets;
    int n = rows_of(m);
    for (int k = 0; k <= d->n_layers; k++) {
        cpa_mat y = cpa_mat_head(k < d->n_layers ? d->y[k] : d->out, n);
        CPA_TRY(cpa_op_group_linear(m->be, y, input_of(m, k), m->batch.pert, cpa_value(&m->t, d->weight[k]),
                                    cpa_value(&m->t, d->bias[k])));
        if (k < d->n_layers) {
            CPA_TRY(cpa_op_activate(m->be, y, y, CPA_NO_MAT, CPA_NO_MAT));
        }
    }
    CPA_TRY(cpa_op_dose_gate(m->be, s, cpa_mat_of(d->out.data, s.rows, s.cols), m->batch.pert, dose));
cleanup:
    return st;
}

static cpa_status network_grad(cpa_model *m, cpa_mat ds, cpa_mat dose)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    cpa_dose_nets *d = &m->dose_nets;
    int n = rows_of(m);
    cpa_mat dy = cpa_mat_head(d->dout, n);
    CPA_TRY(cpa_op_dose_gate_grad(m->be, cpa_mat_of(dy.data, ds.rows, ds.cols), ds,
                                  cpa_mat_of(d->out.data, ds.rows, ds.cols), m->batch.pert, dose));
    for (int k = d->n_layers; k >= 0; k--) {
        cpa_mat dx = k ? cpa_mat_head(d->work[k % 2], n) : CPA_NO_MAT;
        CPA_TRY(cpa_op_group_linear_grad(m->be, dx, cpa_grad(t, d->weight[k]), cpa_grad(t, d->bias[k]), dy,
                                         input_of(m, k), m->batch.pert, cpa_value(t, d->weight[k])));
        if (k) {
            CPA_TRY(cpa_op_activate_grad(m->be, dx, dx, input_of(m, k), 1, CPA_NO_MAT));
            dy = dx;
        }
    }
cleanup:
    return st;
}

cpa_status cpa_doser_forward(cpa_model *m, cpa_mat s)
{
    cpa_mat dose = cpa_mat_of(m->batch.dose, s.rows, s.cols);
    if (m->has_dose_nets) {
        return run_networks(m, s, dose);
    }
    return cpa_op_doser(m->be, s, m->batch.pert, dose, cpa_value(&m->t, m->doser_w), cpa_value(&m->t, m->doser_b),
                        m->doser);
}

cpa_status cpa_doser_grad(cpa_model *m, cpa_mat ds)
{
    cpa_params *t = &m->t;
    cpa_mat dose = cpa_mat_of(m->batch.dose, ds.rows, ds.cols);
    if (m->has_dose_nets) {
        return network_grad(m, ds, dose);
    }
    return cpa_op_doser_grad(m->be, cpa_grad(t, m->doser_w), cpa_grad(t, m->doser_b), ds, m->batch.pert, dose,
                             cpa_value(t, m->doser_w), cpa_value(t, m->doser_b), m->doser);
}

bool cpa_doser_has_gradient(const cpa_model *m)
{
    return m->has_dose_nets || m->doser != CPA_DOSER_LINEAR;
}
