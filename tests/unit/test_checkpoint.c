// Owns: tests of the checkpoint in memory: a state comes back bit for bit, damage of any kind is noticed, HDF5 finds its checksums.
// Never touches a disk.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/base/rng.h"
#include "cpa/model/model.h"
#include "cpa/platform/h5.h"
#include "cpa/train/checkpoint.h"

static cpa_backend *be;
static cpa_registry registry;
static cpa_covariate covariate = {.name = "cell type"};
static cpa_checkpoint_facts facts;

// A state with arenas of its own.
typedef struct fixture {
    cpa_model *model;
    cpa_optimizer optimizer;
    cpa_train_state state;
} fixture;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(cpa_backend_create("check", &be), CPA_OK);
    assert_int_equal(cpa_strings_split(&covariate.value, "B,T", ','), CPA_OK);
    registry = (cpa_registry){.n_covs = 1, .cov = &covariate};
    assert_int_equal(cpa_checkpoint_fact(&facts.option, &facts.option_value, "lr", "0.1"), CPA_OK);
    assert_int_equal(cpa_checkpoint_fact(&facts.option, &facts.option_value, "batch_key", ""), CPA_OK);
    assert_int_equal(cpa_checkpoint_fact(&facts.data, &facts.data_value, "the number of cells", "17"), CPA_OK);
    assert_int_equal(cpa_strdup("abacus", &facts.isa), CPA_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cpa_strings_fini(&covariate.value);
    cpa_checkpoint_facts_fini(&facts);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return (int)cpa_alloc_balance();
}

// Every bit of an arena, with negative zeros, denormals and large numbers among them.
static void draw(cpa_real *host, int64_t n, uint32_t stream)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t ctr[4] = {(uint32_t)i, stream, 0, 0}, w[4];
        cpa_philox(5, CPA_STREAM_INIT, ctr, w);
        host[i] = (cpa_real)ldexp((double)(int32_t)w[0], (int)(w[1] % 200) - 130);
        host[i] = w[2] % 9 == 0 ? (cpa_real)-0.0 : host[i];
    }
}

static void scatter(cpa_dev_real *arena, int64_t n, uint32_t stream)
{
    cpa_real *host;
    assert_int_equal(cpa_alloc((size_t)n, sizeof *host, &host), CPA_OK);
    draw(host, n, stream);
    assert_int_equal(cpa_op_upload(be, arena, host, (size_t)n * sizeof *host), CPA_OK);
    cpa_free(&host);
}

static void make(fixture *f)
{
    const double weight[] = {1, 2};
    const cpa_model_config config = {.recon_loss = (char *)"nb",
                                     .doser_type = (char *)"logsigm",
                                     .n_latent = 5,
                                     .n_hidden_encoder = 6,
                                     .n_layers_encoder = 2,
                                     .use_batch_norm_encoder = true,
                                     .n_hidden_decoder = 4,
                                     .n_layers_decoder = 1,
                                     .n_hidden_adv = 3,
                                     .n_layers_adv = 2,
                                     .use_batch_norm_adv = true};
    const cpa_shape shape = {.n_genes = 7,
                             .n_perts = 4,
                             .n_labels = 2,
                             .n_covs = 1,
                             .max_comb_len = 2,
                             .max_cells = 4,
                             .max_nnz = 28,
                             .cov_name = (const char *const[]){"cell type"},
                             .cov_size = (const int[]){2},
                             .batch_cov = -1};
    *f = (fixture){0};
    assert_int_equal(cpa_model_create(be, &config, &shape, true, weight, NULL, &f->model), CPA_OK);
    cpa_params *t = cpa_model_params(f->model);
    f->state = (cpa_train_state){.n_steps = 9, .optimizer = &f->optimizer, .params = t};
    assert_int_equal(cpa_alloc((size_t)t->n_value, sizeof(cpa_real), &f->state.best), CPA_OK);
    assert_int_equal(cpa_op_zero(be, t->value, (size_t)t->n_value * sizeof(cpa_real)), CPA_OK);
    assert_int_equal(cpa_history_create(&registry, false, &f->state.history), CPA_OK);
}

static void unmake(fixture *f)
{
    cpa_free(&f->state.best);
    cpa_history_destroy(&f->state.history);
    cpa_model_destroy(&f->model);
}

static void fill(fixture *f)
{
    cpa_params *t = f->state.params;
    scatter(t->value, t->n_value, 1);
    scatter(t->m, t->n_trained, 2);
    scatter(t->v, t->n_trained, 3);
    draw(f->state.best, t->n_value, 4);
    f->state.at = (cpa_train_position){.epoch = 3,
                                       .step = 7,
                                       .best_epoch = 1,
                                       .waited = 2,
                                       .best_metric = 1.0 / 3,
                                       .cells = 12345678901,
                                       .seconds = 0.1};
    f->optimizer = (cpa_optimizer){.taken = {4, 5, 6}, .steps = 1234567890123};
    cpa_history_take(f->state.history, "recon_loss", 1.0 / 7);
    assert_int_equal(cpa_history_row(f->state.history, 0, "train"), CPA_OK);
    cpa_history_take(f->state.history, "adv_cell type", M_PI);
    cpa_history_take(f->state.history, "adv_cell type", M_PI);
}

// The file of a state.
static cpa_checkpoint *file_of(const fixture *f, const void **bytes, size_t *n)
{
    cpa_checkpoint *c;
    bool done = false;
    assert_int_equal(cpa_checkpoint_create(&f->state, &facts, &c), CPA_OK);
    while (!done) { // an item at a time
        assert_int_equal(cpa_checkpoint_lay(c, &f->state, 1e-9, &done), CPA_OK);
    }
    assert_int_equal(cpa_checkpoint_take(c, &f->state), CPA_OK);
    cpa_checkpoint_seal(c, bytes, n);
    return c;
}

static void a_state_comes_back(void **state)
{
    (void)state;
    fixture a, b;
    const void *bytes, *again;
    const char *why;
    size_t n, n_again;
    cpa_checkpoint_facts read = {0};
    make(&a);
    make(&b);
    fill(&a);
    cpa_checkpoint *c = file_of(&a, &bytes, &n);
    assert_true(cpa_checkpoint_is_whole(bytes, n, &why));
    assert_int_equal(cpa_checkpoint_read_facts("x", bytes, n, &read), CPA_OK);
    assert_string_equal(read.option.s[0], "lr");
    assert_string_equal(read.option_value.s[0], "0.1");
    assert_string_equal(read.option_value.s[1], "");
    assert_string_equal(read.data_value.s[0], "17");
    assert_string_equal(read.isa, "abacus");
    assert_int_equal(read.epochs, 3);
    cpa_checkpoint_facts_fini(&read);

    assert_int_equal(cpa_checkpoint_restore("x", bytes, n, &b.state), CPA_OK);
    assert_memory_equal(&b.state.at, &a.state.at, sizeof a.state.at);
    assert_memory_equal(&b.optimizer, &a.optimizer, sizeof a.optimizer);
    assert_string_equal(cpa_history_csv(b.state.history), cpa_history_csv(a.state.history));
    assert_true(cpa_history_mean(b.state.history, "adv_cell type") == M_PI);
    cpa_checkpoint *d = file_of(&b, &again, &n_again);
    assert_int_equal(n, n_again);
    assert_memory_equal(bytes, again, n);

    // Once more into the same file, after a change; a shorter text leaves nothing of the longer one.
    a.state.at.step++;
    assert_int_equal(cpa_history_restore(a.state.history, "short"), CPA_OK);
    assert_int_equal(cpa_checkpoint_take(c, &a.state), CPA_OK);
    cpa_checkpoint_seal(c, &bytes, &n);
    assert_int_equal(cpa_checkpoint_restore("x", bytes, n, &b.state), CPA_OK);
    assert_int_equal(b.state.at.step, 8);
    assert_string_equal(cpa_history_csv(b.state.history), "short");
    cpa_checkpoint_destroy(&c);
    cpa_checkpoint_destroy(&d);
    unmake(&a);
    unmake(&b);
}

static void damage_is_noticed(void **state)
{
    (void)state;
    fixture a;
    const void *bytes;
    const char *why;
    size_t n;
    make(&a);
    fill(&a);
    cpa_checkpoint *c = file_of(&a, &bytes, &n);
    unsigned char *copy;
    assert_int_equal(cpa_alloc(n + 8, 1, &copy), CPA_OK);
    memcpy(copy, bytes, n);
    for (size_t cut = 0; cut < n; cut += cut + 64 < n ? 4096 + cut % 7 : 1) {
        assert_false(cpa_checkpoint_is_whole(copy, cut, &why));
    }
    assert_false(cpa_checkpoint_is_whole(copy, n + 1, &why));
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t ctr[4] = {i, 0, 0, 0}, w[4];
        cpa_philox(6, CPA_STREAM_INIT, ctr, w);
        size_t at = i < 32 ? n - 1 - i : w[0] % n;
        copy[at] ^= (unsigned char)(1u << (w[1] % 8));
        assert_false(cpa_checkpoint_is_whole(copy, n, &why));
        copy[at] ^= (unsigned char)(1u << (w[1] % 8));
    }
    assert_true(cpa_checkpoint_is_whole(copy, n, &why));
    cpa_free(&copy);
    cpa_checkpoint_destroy(&c);
    unmake(&a);
}

// The arrays' own checksums are HDF5's: it reads what is whole and refuses what is not.
static void hdf5_checks_the_arrays(void **state)
{
    (void)state;
    cpa_h5 *f;
    unsigned char *bytes;
    size_t at, n;
    double x[1001], y[1001];
    const int64_t shape[] = {1001};
    assert_int_equal(cpa_h5_image_create("x", true, &f), CPA_OK);
    assert_int_equal(cpa_h5_write(f, "g/x", CPA_H5_F64, 1, shape, NULL, 0), CPA_OK);
    assert_int_equal(cpa_h5_image_place(f, "g/x", &at), CPA_OK);
    assert_int_equal(cpa_h5_image_finish(&f, 0, &bytes, &n), CPA_OK);
    for (int i = 0; i < 1001; i++) {
        x[i] = sqrt(i);
    }
    memcpy(bytes + at, x, sizeof x);
    cpa_h5_image_check(bytes, at, sizeof x);
    assert_int_equal(cpa_h5_image_open("x", bytes, n, &f), CPA_OK);
    assert_int_equal(cpa_h5_read_into(f, "g/x", CPA_H5_F64, 1001, y), CPA_OK);
    assert_memory_equal(x, y, sizeof x);
    cpa_h5_close(&f);
    bytes[at + 4321] ^= 4;
    assert_int_equal(cpa_h5_image_open("x", bytes, n, &f), CPA_OK);
    assert_int_equal(cpa_h5_read_into(f, "g/x", CPA_H5_F64, 1001, y), CPA_BAD_DATA);
    cpa_h5_close(&f);
    assert_int_equal(cpa_h5_image_open("x", bytes, n / 2, &f), CPA_BAD_DATA);
    cpa_free(&bytes);
}

static void a_long_history_needs_more_room(void **state)
{
    (void)state;
    fixture a;
    const void *bytes;
    size_t n;
    make(&a);
    cpa_checkpoint *c = file_of(&a, &bytes, &n);
    assert_false(cpa_checkpoint_is_small(c, &a.state));
    while (!cpa_checkpoint_is_small(c, &a.state)) {
        for (int i = 0; i < 500; i++) {
            cpa_history_take(a.state.history, "recon_loss", 1.0 / 7);
            assert_int_equal(cpa_history_row(a.state.history, 0, "train"), CPA_OK);
        }
    }
    cpa_checkpoint_destroy(&c);
    c = file_of(&a, &bytes, &n);
    assert_false(cpa_checkpoint_is_small(c, &a.state));
    assert_int_equal(cpa_checkpoint_restore("x", bytes, n, &a.state), CPA_OK);
    assert_true(strlen(cpa_history_csv(a.state.history)) > 1000000);
    cpa_checkpoint_destroy(&c);
    unmake(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_comes_back),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(hdf5_checks_the_arrays),
        cmocka_unit_test(a_long_history_needs_more_room),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
