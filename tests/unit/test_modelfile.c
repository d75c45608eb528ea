// Owns: tests of the model file: what is written comes back, equal models give equal files, damage is noticed,
// upstream's export is read. Never trains.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/platform/h5.h"
#include "cpa/train/modelfile.h"

static const char *const GENES[] = {"g0", "g1", "gène 2", "g3", "g4", "g5", "g6"};
static const char *const PERTS[] = {"<PAD>", "ctrl", "A", "B"};
static const char *const CELLS[] = {"T", "B cell"};
static const char *const DONORS[] = {"d1", "d2", "d3"};
static const char PATH[] = "test_model.h5", OTHER[] = "test_model_2.h5";

static cpa_backend *be;

static void fill(cpa_strings *list, const char *const *s, int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(cpa_strings_add(list, s[i]), CPA_OK);
    }
}

static cpa_model_meta make_meta(void)
{
    cpa_model_meta m = {.config = {.n_latent = 5,
                                   .n_hidden_encoder = 6,
                                   .n_layers_encoder = 2,
                                   .n_hidden_decoder = 4,
                                   .n_layers_decoder = 1,
                                   .n_hidden_doser = 4,
                                   .n_layers_doser = 2,
                                   .nb_decoder_dropout = true,
                                   .control_zero = true,
                                   .n_hidden_adv = 3,
                                   .n_layers_adv = 2,
                                   .dropout_rate_adv = 0.25,
                                   .seed = 77},
                        .batch_cov = 1,
                        .max_comb_len = 2};
    assert_int_equal(cpa_strdup("nb", &m.config.recon_loss), CPA_OK);
    assert_int_equal(cpa_strdup("logsigm", &m.config.doser_type), CPA_OK);
    assert_int_equal(cpa_strdup("condition", &m.spec.perturbation_key), CPA_OK);
    assert_int_equal(cpa_strdup("", &m.spec.split_key), CPA_OK); // resolved to none: not the same as left out
    assert_int_equal(cpa_strdup("donor", &m.spec.batch_key), CPA_OK);
    fill(&m.spec.holdout, (const char *[]){"donor=d1,condition=A", "donor=d2"}, 2);
    m.spec.train_size = 0.8;
    m.spec.max_comb_len = 2;
    m.spec.seed = 9;
    m.spec.compat_dose_order = true;
    fill(&m.spec.categorical_covariate_keys, (const char *[]){"cell type"}, 1);
    fill(&m.gene, GENES, 7);
    fill(&m.pert, PERTS, 4);
    fill(&m.cov_name, (const char *[]){"cell type", "donor"}, 2);
    assert_int_equal(cpa_alloc(2, sizeof *m.cov_value, &m.cov_value), CPA_OK);
    fill(&m.cov_value[0], CELLS, 2);
    fill(&m.cov_value[1], DONORS, 3);
    return m;
}

static cpa_model *make_model(const cpa_model_meta *meta, bool training)
{
    cpa_model *m;
    const double weight[] = {1, 2};
    const cpa_shape s = {.n_genes = 7,
                         .n_perts = 4,
                         .n_labels = 2,
                         .n_covs = 2,
                         .max_comb_len = 2,
                         .max_cells = 4,
                         .max_nnz = 28,
                         .cov_name = (const char *const *)meta->cov_name.s,
                         .cov_size = (const int[]){2, 3},
                         .batch_cov = 1};
    assert_int_equal(cpa_model_create(be, &meta->config, &s, training, weight, NULL, &m), CPA_OK);
    assert_int_equal(cpa_params_init(cpa_model_params(m), 3), CPA_OK);
    return m;
}

static void assert_same_strings(const cpa_strings *a, const cpa_strings *b)
{
    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++) {
        assert_string_equal(a->s[i], b->s[i]);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    cpa_model_meta meta = make_meta(), back;
    cpa_model *m = make_model(&meta, true), *loaded;
    assert_int_equal(cpa_modelfile_save(PATH, cpa_model_params(m), &meta), CPA_OK);
    assert_int_not_equal(access("test_model.h5.part", F_OK), 0);
    assert_int_equal(cpa_modelfile_meta(PATH, &back), CPA_OK);
    assert_same_strings(&back.gene, &meta.gene);
    assert_same_strings(&back.pert, &meta.pert);
    assert_same_strings(&back.cov_name, &meta.cov_name);
    assert_same_strings(&back.cov_value[0], &meta.cov_value[0]);
    assert_same_strings(&back.cov_value[1], &meta.cov_value[1]);
    assert_same_strings(&back.spec.categorical_covariate_keys, &meta.spec.categorical_covariate_keys);
    assert_same_strings(&back.spec.holdout, &meta.spec.holdout);
    assert_string_equal(back.spec.perturbation_key, "condition");
    assert_string_equal(back.spec.split_key, "");
    assert_string_equal(back.spec.batch_key, "donor");
    assert_null(back.spec.layer);
    assert_true(back.spec.train_size == 0.8 && back.spec.seed == 9 && back.spec.max_comb_len == 2);
    assert_true(back.config.n_latent == 5 && back.config.n_hidden_encoder == 6 && back.config.n_layers_decoder == 1);
    assert_true(back.config.seed == 77 && back.config.dropout_rate_adv == 0.25 && back.batch_cov == 1 &&
                back.max_comb_len == 2);
    assert_string_equal(back.config.doser_type, "logsigm");
    assert_true(back.config.n_hidden_doser == 4 && back.config.n_layers_doser == 2);
    assert_true(back.config.nb_decoder_dropout && back.config.control_zero && back.spec.compat_dose_order);
    assert_int_equal(strspn(back.digest, "0123456789abcdef"), 16);

    assert_int_equal(cpa_modelfile_load(PATH, &back, be, 4, 28, &loaded), CPA_OK);
    const cpa_params *from = cpa_model_params(m), *to = cpa_model_params(loaded);
    cpa_real x[64], y[64];
    for (int i = 0; i < to->n; i++) {
        int k = cpa_params_find(from, to->p[i].name);
        int64_t n = cpa_param_size(&to->p[i]);
        assert_true(k >= 0 && n <= 64);
        assert_int_equal(cpa_params_get(from, from->value, k, x), CPA_OK);
        assert_int_equal(cpa_params_get(to, to->value, i, y), CPA_OK);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
    }
    cpa_model_destroy(&loaded);
    cpa_model_destroy(&m);
    cpa_model_meta_fini(&back);
    cpa_model_meta_fini(&meta);
    remove(PATH);
}

static size_t read_bytes(const char *path, unsigned char *buf, size_t cap)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buf, 1, cap, f);
    fclose(f);
    assert_true(n < cap);
    return n;
}

// A file without the adversaries is the same as one saved while there are some, and both as one saved later.
static void test_equal_bytes(void **state)
{
    (void)state;
    enum { CAP = 1 << 20 };
    unsigned char *a = malloc(CAP), *b = malloc(CAP);
    cpa_model_meta meta = make_meta();
    cpa_model *training = make_model(&meta, true), *m;
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(cpa_modelfile_save(PATH, cpa_model_params(training), &meta), CPA_OK);
    assert_int_equal(cpa_modelfile_load(PATH, &meta, be, 4, 28, &m), CPA_OK);
    sleep(1); // a time stamp would show
    assert_int_equal(cpa_modelfile_save(OTHER, cpa_model_params(m), &meta), CPA_OK);
    size_t n = read_bytes(PATH, a, CAP);
    assert_int_equal(read_bytes(OTHER, b, CAP), n);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    cpa_model_destroy(&m);
    cpa_model_destroy(&training);
    cpa_model_meta_fini(&meta);
    remove(PATH);
    remove(OTHER);
}

// Flips a bit of the first tensor value that equals `value`.
static void damage(const char *path, cpa_real value)
{
    enum { CAP = 1 << 20 };
    unsigned char *bytes = malloc(CAP);
    assert_non_null(bytes);
    size_t n = read_bytes(path, bytes, CAP), at = 0;
    while (at + sizeof value <= n && memcmp(bytes + at, &value, sizeof value) != 0) {
        at++;
    }
    assert_true(at + sizeof value <= n);
    bytes[at + sizeof value - 2] ^= 1;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    free(bytes);
}

static void test_damage(void **state)
{
    (void)state;
    cpa_model_meta meta = make_meta(), back;
    cpa_model *m = make_model(&meta, false), *loaded = NULL;
    cpa_params *t = cpa_model_params(m);
    cpa_real x[64];
    int id = cpa_params_find(t, "module/encoder.z.bias");
    assert_true(id >= 0);
    assert_int_equal(cpa_modelfile_save(PATH, t, &meta), CPA_OK);
    assert_int_equal(cpa_params_get(t, t->value, id, x), CPA_OK);
    damage(PATH, x[2]);
    assert_int_equal(cpa_modelfile_meta(PATH, &back), CPA_OK);
    assert_int_equal(cpa_modelfile_load(PATH, &back, be, 4, 28, &loaded), CPA_BAD_DATA);
    assert_non_null(strstr(cpa_message(), "damaged"));
    assert_null(loaded);
    cpa_model_meta_fini(&back);

    x[2] += 1; // another model, another digest
    assert_int_equal(cpa_params_set(t, id, x), CPA_OK);
    assert_int_equal(cpa_modelfile_save(OTHER, t, &meta), CPA_OK);
    cpa_model_meta first;
    assert_int_equal(cpa_modelfile_meta(PATH, &first), CPA_OK);
    assert_int_equal(cpa_modelfile_meta(OTHER, &back), CPA_OK);
    assert_string_not_equal(back.digest, first.digest);
    cpa_model_meta_fini(&back);
    cpa_model_meta_fini(&first);

    x[2] = NAN;
    assert_int_equal(cpa_params_set(t, id, x), CPA_OK);
    assert_int_equal(cpa_modelfile_save(OTHER, t, &meta), CPA_OK);
    assert_int_equal(cpa_modelfile_load(OTHER, &meta, be, 4, 28, &loaded), CPA_BAD_DATA);
    assert_non_null(strstr(cpa_message(), "module/encoder.z.bias"));

    assert_int_equal(cpa_strings_add(&meta.pert, "C"), CPA_OK); // one perturbation more than the tensors have
    assert_int_equal(cpa_modelfile_load(PATH, &meta, be, 4, 28, &loaded), CPA_BAD_DATA);
    assert_non_null(
        strstr(cpa_message(), "'module/pert_network.dosers.beta' has shape [1, 4], the model needs [1, 5]"));
    cpa_model_destroy(&m);
    cpa_model_meta_fini(&meta);
    remove(PATH);
    remove(OTHER);
}

static void test_not_a_model(void **state)
{
    (void)state;
    cpa_model_meta meta;
    cpa_h5 *f;
    assert_int_equal(cpa_modelfile_meta("no_such_model.h5", &meta), CPA_NO_INPUT);
    assert_int_equal(cpa_h5_create(PATH, &f), CPA_OK);
    assert_int_equal(cpa_h5_write_group(f, "module"), CPA_OK);
    assert_int_equal(cpa_h5_finish(&f), CPA_OK);
    assert_int_equal(cpa_modelfile_meta(PATH, &meta), CPA_BAD_DATA);
    assert_non_null(strstr(cpa_message(), PATH));
    assert_int_equal(cpa_modelfile_import_meta(PATH, &meta), CPA_BAD_DATA);
    assert_non_null(strstr(cpa_message(), "pert_encoder"));
    remove(PATH);
    cpa_model_meta m = make_meta();
    cpa_model *model = make_model(&m, false);
    assert_int_equal(cpa_modelfile_save("no_such_folder/model.h5", cpa_model_params(model), &m), CPA_IO);
    cpa_model_destroy(&model);
    cpa_model_meta_fini(&m);
}

static void test_import(void **state)
{
    (void)state;
    cpa_model_meta meta;
    cpa_model *m;
    char *path = NULL;
    const char *tests = getenv("CPA_TESTS");
    assert_int_equal(cpa_sprintf(&path, "%s/golden/trained/glioblastoma.h5", tests ? tests : "tests"), CPA_OK);
    assert_int_equal(cpa_modelfile_import_meta(path, &meta), CPA_OK);
    assert_int_equal(meta.gene.n, 300);
    assert_int_equal(meta.pert.n, 3);
    assert_string_equal(meta.pert.s[1], "ctrl");
    assert_string_equal(meta.pert.s[2], "panobinostat");
    assert_string_equal(meta.spec.control_group, "ctrl");
    assert_int_equal(meta.cov_name.n, 1);
    assert_string_equal(meta.cov_value[0].s[4], "PW040");
    assert_string_equal(meta.spec.categorical_covariate_keys.s[0], "patient_id");
    assert_true(meta.config.n_latent == 128 && meta.config.n_hidden_encoder == 256 &&
                meta.config.n_layers_encoder == 3);
    assert_true(meta.config.n_hidden_decoder == 256 && meta.config.n_layers_decoder == 3 && meta.max_comb_len == 1 &&
                meta.batch_cov == -1);
    assert_int_equal(cpa_modelfile_load(path, &meta, be, 1, 1, &m), CPA_OK);
    cpa_model_destroy(&m);
    cpa_model_meta_fini(&meta);
    cpa_free(&path);
}

static int start(void **state)
{
    (void)state;
    return cpa_backend_create("cpu", &be) != CPA_OK;
}

static int stop(void **state)
{
    (void)state;
    return cpa_backend_destroy(&be) != CPA_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_equal_bytes), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_not_a_model), cmocka_unit_test(test_import),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
