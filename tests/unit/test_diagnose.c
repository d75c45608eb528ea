// Owns: that a loss that is not finite is traced to what made it so: parameter, layer, cell, gene, adversary.
// Must never accept a sentence that leaves one of them out.
#include <fnmatch.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/model/model.h"

// So large that the least operation leaves the range.
#define HUGE_FINITE (sizeof(cpa_real) == sizeof(float) ? 3e38 : 1.7e308)

enum { B = 6, G = 10, P = 4, K = 2, MAX_SUMS = 20 };

static cpa_strings genes;
static cpa_backend *be;
static cpa_model *m;
static cpa_batch *batch;

static const cpa_lane_plan plan = {.update_autoencoder = true,
                                   .update_adversary = true,
                                   .adversary_in_loss = true,
                                   .adv_lambda = 1,
                                   .pen_adv = 1,
                                   .kl_weight = 1,
                                   .n_cells = B,
                                   .label_weight = B};

static void fill_batch(void)
{
    for (int i = 0; i < B; i++) {
        double library = 0;
        for (int g = i % 2; g < G; g += 2) {
            batch->gene[batch->nnz] = g;
            batch->count[batch->nnz] = (cpa_real)(1 + (g + i) % 5);
            batch->log1p[batch->nnz] = (cpa_real)log1p(1 + (g + i) % 5);
            library += 1 + (g + i) % 5;
            batch->nnz++;
        }
        batch->indptr[i + 1] = (int32_t)batch->nnz;
        batch->library[i] = (cpa_real)library;
        batch->pert[i] = 1 + i % (P - 1);
        batch->dose[i] = 1;
        batch->label[i] = i % K;
        batch->cell[i] = 500 + i;
        batch->cov[i] = i % 2;
    }
    batch->n_cells = B;
}

static bool checkpointing;

static void begin(const char *likelihood, bool variational)
{
    static const char *const name[] = {"tissue"};
    static const int size[] = {2};
    static const double weight[K] = {1, 1};
    cpa_model_config c = {.recon_loss = (char *)(uintptr_t)likelihood,
                          .doser_type = (char *)(uintptr_t) "logsigm",
                          .use_batch_norm_encoder = true,
                          .use_layer_norm_decoder = true,
                          .n_latent = 3,
                          .n_hidden_encoder = 5,
                          .n_layers_encoder = checkpointing ? 5 : 2,
                          .n_hidden_decoder = 5,
                          .n_layers_decoder = 2,
                          .n_hidden_adv = 4,
                          .n_layers_adv = 2,
                          .variational = variational};
    cpa_shape s = {.n_genes = G,
                   .n_perts = P,
                   .n_labels = K,
                   .n_covs = 1,
                   .max_comb_len = 1,
                   .cov_name = name,
                   .cov_size = size,
                   .batch_cov = -1,
                   .max_cells = B,
                   .max_nnz = B * G,
                   .checkpointing = checkpointing};
    assert_int_equal(cpa_backend_create("check", &be), CPA_OK);
    assert_int_equal(cpa_model_create(be, &c, &s, true, weight, NULL, &m), CPA_OK);
    assert_int_equal(cpa_params_init(cpa_model_params(m), 1), CPA_OK);
    assert_int_equal(cpa_batch_create(B, B * G, G, 1, 1, &batch), CPA_OK);
    fill_batch();
    for (int g = 0; g < G && genes.n < G; g++) {
        char name_of[16];
        snprintf(name_of, sizeof name_of, "GENE%d", g);
        assert_int_equal(cpa_strings_add(&genes, name_of), CPA_OK);
    }
}

static void end(void)
{
    cpa_batch_destroy(&batch);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    cpa_strings_fini(&genes);
    assert_int_equal(cpa_alloc_balance(), 0);
}

// Sets element `at` of a parameter (in torch's layout) to x.
static void set(const char *name, int64_t at, double x)
{
    cpa_params *t = cpa_model_params(m);
    int id = cpa_params_find(t, name);
    cpa_real *v = NULL;
    assert_true(id >= 0);
    assert_int_equal(cpa_alloc((size_t)cpa_param_size(&t->p[id]), sizeof *v, &v), CPA_OK);
    assert_int_equal(cpa_params_get(t, t->value, id, v), CPA_OK);
    v[at] = (cpa_real)x;
    assert_int_equal(cpa_params_set(t, id, v), CPA_OK);
    cpa_free(&v);
}

static bool all_finite(const double *sums)
{
    for (int i = 0; i < cpa_model_n_sums(m); i++) {
        if (!isfinite(sums[i])) {
            return false;
        }
    }
    return true;
}

// The lane has a sum that is not finite, and the sentence is `words`; "*" stands for anything.
static void is_told(const cpa_lane_plan *how, const char *words)
{
    double sums[MAX_SUMS];
    cpa_text why = {0};
    cpa_scores scores = {0};
    if (how != NULL) {
        assert_int_equal(cpa_model_lane(m, batch, how, sums), CPA_OK);
        assert_false(all_finite(sums));
    } else {
        assert_int_equal(cpa_model_validate(m, batch, &scores), CPA_OK);
        assert_false(isfinite(scores.recon_loss));
    }
    assert_int_equal(cpa_model_diagnose(m, batch, how, &genes, &why), CPA_OK);
    if (fnmatch(words, cpa_text_str(&why), 0) != 0) {
        fail_msg("it says '%s'", cpa_text_str(&why));
    }
    cpa_text_fini(&why);
}

static void a_parameter_is_named(void **state)
{
    (void)state;
    double sums[MAX_SUMS];
    bool found;
    cpa_text why = {0};
    begin("nb", false);
    assert_int_equal(cpa_model_lane(m, batch, &plan, sums), CPA_OK);
    assert_true(all_finite(sums));
    assert_int_equal(cpa_model_find_parameter(m, &why, &found), CPA_OK);
    assert_true(!found && why.n == 0);
    set("module/px_r", 7, NAN);
    set("module/px_r", 8, INFINITY);
    is_told(&plan, "the parameter 'module/px_r' has 2 of 10 values that are not finite, the first (nan) at 7");
    is_told(NULL, "the parameter 'module/px_r' has 2 of 10 values that are not finite, the first (nan) at 7");
    set("module/px_r", 7, 0);
    set("module/px_r", 8, 0);
    set("module/decoder.px_scale_decoder.0.weight", 5 * 4 + 2, -INFINITY); // [genes, hidden]
    is_told(&plan, "the parameter 'module/decoder.px_scale_decoder.0.weight' has 1 of 50 values that are not finite, "
                   "the first (-inf) at 4, 2");
    end();
    cpa_text_fini(&why);
}

static void a_layer_is_named(void **state)
{
    (void)state;
    begin("nb", false);
    set("module/encoder.network.fc_layers.Layer 1.1.weight", 3,
        HUGE_FINITE); // gamma and beta of the second layer's unit 3
    set("module/encoder.network.fc_layers.Layer 1.1.bias", 3, HUGE_FINITE);
    is_told(&plan, "the encoder, layer 2, is inf for the cell in row 50?, unit 3");
    end();
    begin("zinb", false);
    for (int h = 0; h < 5; h++) {
        set("module/decoder.px_dropout_decoder.weight", 5 * 4 + h, HUGE_FINITE);
    }
    is_told(&plan, "the decoder's second output is inf for the cell in row 50?, gene 'GENE4' (column 4)");
    is_told(NULL, "the decoder's second output is inf for the cell in row 50?, gene 'GENE4' (column 4)");
    end();
}

static void a_count_is_named(void **state)
{
    (void)state;
    begin("nb", false);
    batch->count[batch->indptr[2] + 1] = (cpa_real)HUGE_FINITE;
    is_told(&plan, "the loss of the cell in row 502 is * because of its count * of gene 'GENE2' (column 2)");
    is_told(NULL, "the loss of the cell in row 502 is * because of its count * of gene 'GENE2' (column 2)");
    end();
    begin("gauss", false);
    set("module/decoder.var_encoder.bias", 5, -HUGE_FINITE);
    set("module/decoder.mean_encoder.bias", 5, HUGE_FINITE);
    is_told(&plan,
            "the loss of the cell in row 500 is inf whatever its counts are: what the decoder says of it is too large");
    end();
}

static void an_adversary_is_named(void **state)
{
    (void)state;
    begin("nb", false);
    for (int i = 0; i < 16; i++) {
        set("perturbation_classifier/classifier.0.fc_layers.Layer 0.0.weight", i % 12, HUGE_FINITE);
        set("perturbation_classifier/classifier.0.fc_layers.Layer 1.0.weight", i, HUGE_FINITE);
    }
    is_told(&plan, "the adversary of the perturbation, layer *, is inf for the cell in row 50?, unit ?");
    end();
    begin("nb", false);
    for (int i = 0; i < 16; i++) {
        set("covars_classifiers/tissue.classifier.0.fc_layers.Layer 0.0.weight", i % 12, HUGE_FINITE);
        set("covars_classifiers/tissue.classifier.0.fc_layers.Layer 1.0.weight", i, HUGE_FINITE);
    }
    is_told(&plan, "the adversary of tissue, layer *, is inf for the cell in row 50?, unit ?");
    end();
}

// Layers whose values are not kept are looked at all the same.
static void a_layer_is_named_that_is_not_kept(void **state)
{
    checkpointing = true;
    a_layer_is_named(state);
    begin("nb", false);
    set("module/encoder.network.fc_layers.Layer 0.1.weight", 3, HUGE_FINITE);
    set("module/encoder.network.fc_layers.Layer 0.1.bias", 3, HUGE_FINITE);
    is_told(&plan, "the encoder, layer 1, is inf for the cell in row 50?, unit 3");
    is_told(NULL, "the encoder, layer 1, is inf for the cell in row 50?, unit 3");
    end();
    a_count_is_named(state);
    an_adversary_is_named(state);
    checkpointing = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parameter_is_named),
        cmocka_unit_test(a_layer_is_named),
        cmocka_unit_test(a_layer_is_named_that_is_not_kept),
        cmocka_unit_test(a_count_is_named),
        cmocka_unit_test(an_adversary_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
