// Owns: a small model with every kind of part, its variants and its batch, for tests of models and of what computes them.
// Must never judge anything.
#ifndef CPA_TESTS_SUPPORT_SMALL_MODEL_H
#define CPA_TESTS_SUPPORT_SMALL_MODEL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/data/mixup.h"
#include "cpa/model/model.h"
#include "made_cells.h"

enum { B = 9, MAX_SUMS = 20 };

// What varies between the models that are tested.
typedef struct variant {
    const char *likelihood, *doser;
    bool batch_norm, layer_norm, variational, mixup;
    bool mix_covariates, nb_dropout, control_zero;
} variant;

static const variant plain = {.likelihood = "nb", .doser = "logsigm", .batch_norm = true};

// The made cells' shape, for so many genes, and lanes of up to so many cells and values.
static inline cpa_shape shape_of(int max_cells, int genes, int nnz)
{
    return (cpa_shape){.n_genes = genes,
                       .n_perts = P,
                       .n_labels = K,
                       .n_covs = N_COVS,
                       .max_comb_len = M,
                       .cov_name = cov_names,
                       .cov_size = cov_sizes,
                       .batch_cov = 2,
                       .max_cells = max_cells,
                       .max_nnz = nnz};
}

// A meeting of `n_lanes` lanes that are all at hand: their n sums each.
static inline void add_up_lanes(cpa_meeting *meeting, int n_lanes, int n)
{
    for (int i = 0; i < n; i++) {
        meeting->all[i] = 0;
        for (int k = 0; k < n_lanes; k++) {
            meeting->all[i] += meeting->own[k * n + i];
        }
    }
}

// A model of so many genes, for lanes of up to so many cells and values.
static inline cpa_model *make_model_for(cpa_backend *be, const variant *v, int max_cells, int genes, int nnz)
{
    cpa_model_config c = {.recon_loss = (char *)(uintptr_t)v->likelihood,
                          .doser_type = (char *)(uintptr_t)v->doser,
                          .n_hidden_doser = 3,
                          .n_layers_doser = 2,
                          .use_batch_norm_encoder = v->batch_norm,
                          .use_layer_norm_encoder = v->layer_norm,
                          .use_batch_norm_decoder = v->batch_norm,
                          .use_layer_norm_decoder = v->layer_norm,
                          .use_batch_norm_adv = v->batch_norm,
                          .use_layer_norm_adv = v->layer_norm,
                          .dropout_rate_encoder = 0.1,
                          .dropout_rate_decoder = 0.15,
                          .nb_decoder_dropout = v->nb_dropout,
                          .control_zero = v->control_zero,
                          .variational = v->variational,
                          .n_latent = 5,
                          .n_hidden_encoder = 7,
                          .n_layers_encoder = 2,
                          .n_hidden_decoder = 6,
                          .n_layers_decoder = 3,
                          .n_hidden_adv = 6,
                          .n_layers_adv = 2,
                          .dropout_rate_adv = 0.2};
    cpa_shape s = shape_of(max_cells, genes, nnz);
    s.mixup = v->mixup;
    cpa_model *m;
    assert_int_equal(cpa_model_create(be, &c, &s, true, label_weight, NULL, &m), CPA_OK);
    assert_int_equal(cpa_params_init(cpa_model_params(m), 3), CPA_OK);
    return m;
}

static inline cpa_model *make_model(cpa_backend *be, const variant *v)
{
    return make_model_for(be, v, B, G, B * G);
}

static inline cpa_lane_plan plan_for(const cpa_batch *b, bool autoencoder, bool adversary)
{
    cpa_lane_plan p = {.update_autoencoder = autoencoder,
                       .update_adversary = adversary,
                       .adversary_in_loss = autoencoder,
                       .adv_lambda = 2.5,
                       .kl_weight = 0.7,
                       .pen_adv = 3,
                       .n_cells = b->n_cells,
                       .epoch = 4,
                       .seed = 9};
    for (int i = 0; i < b->n_cells; i++) {
        p.label_weight += label_weight[b->label[i]];
    }
    return p;
}

// The batch of a variant: itself, or mixed with partners.
static inline cpa_batch *batch_of(const variant *v)
{
    cpa_batch *b = make_cells(0, B, B), *mixed;
    if (!v->mixup) {
        return b;
    }
    int32_t partner[B];
    for (int i = 0; i < B; i++) {
        partner[i] = (i * 4 + 3) % B;
    }
    assert_int_equal(cpa_batch_create_mixed(B, B * G, G, N_COVS, M, &mixed), CPA_OK);
    assert_int_equal(cpa_mixup_apply(b, 0.3, partner, mixed), CPA_OK);
    cpa_batch_destroy(&b);
    return mixed;
}

// Likelihood x dose response x norms x variational x mixup, one by one.
enum { COMBINATIONS = 3 * 3 * 4 * 2 * 2 };

static inline variant combination(int i)
{
    static const char *const likelihood[] = {"nb", "zinb", "gauss"}, *const doser[] = {"logsigm", "sigm", "linear"};
    return (variant){.likelihood = likelihood[i % 3],
                     .doser = doser[i / 3 % 3],
                     .batch_norm = (i / 9 & 1) != 0,
                     .layer_norm = (i / 18 & 1) != 0,
                     .variational = (i / 36 & 1) != 0,
                     .mixup = (i / 72 & 1) != 0};
}

// Sums and gradients of a lane on a backend; the gradients are the caller's to free, *n of them.
static inline cpa_real *lane_on(const char *backend, const variant *v, double *sums, size_t *n)
{
    cpa_backend *be;
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    cpa_model *m = make_model(be, v);
    cpa_batch *b = batch_of(v);
    cpa_lane_plan plan = plan_for(b, true, true);
    plan.want_metrics = true;
    plan.mix_covariates = v->mix_covariates;
    assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
    *n = (size_t)cpa_model_params(m)->n_grad;
    cpa_real *grad = calloc(*n, sizeof *grad);
    cpa_op_download(be, grad, cpa_model_params(m)->grad, *n * sizeof *grad);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return grad;
}

#endif
