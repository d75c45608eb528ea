// Owns: tests of what ranks tell each other within a training step: a wish to stop, and a failure of one of them; with batch norms of each
// lane, and with those of all lanes together.
// Never looks at how good a step is.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

#include "cpa/app/options.h"
#include "cpa/base/signals.h"
#include "cpa/train/step.h"
#include "cpa/train/together.h"

enum { N_LANES = 4 };

static cpa_comm *comm;
static cpa_options options;
static cpa_h5ad *file;
static cpa_registry *registry;
static cpa_feed *feed;
static cpa_backend *be;
static cpa_sampler *sampler;
static cpa_model *model;
static cpa_stepper *stepper;
static cpa_device_sum *device_sum;      // with --reduce nccl
static long model_bytes, stepper_bytes; // what they took

static void make_sampler(void)
{
    int64_t *cell, n = 0;
    assert_int_equal(cpa_alloc((size_t)registry->n_train, sizeof *cell, &cell), CPA_OK);
    for (int64_t i = 0; i < registry->n_cells; i++) {
        if (registry->split[i] == CPA_SPLIT_TRAIN) {
            cell[n++] = i;
        }
    }
    assert_int_equal(cpa_sampler_create(cell, n, N_LANES, 32, 1, 0, 0, &sampler), CPA_OK);
    cpa_free(&cell);
}

static cpa_model *make_model(void)
{
    cpa_model *m;
    const char *name[] = {registry->cov[0].name};
    const int size[] = {(int)registry->cov[0].value.n};
    cpa_shape shape = {.n_genes = registry->n_genes,
                       .n_perts = (int)registry->pert.n,
                       .n_labels = (int)registry->label.n,
                       .n_covs = 1,
                       .max_comb_len = registry->max_comb_len,
                       .cov_name = name,
                       .cov_size = size,
                       .batch_cov = -1,
                       .max_cells = 34};
    options.model.n_latent = options.model.n_hidden_encoder = options.model.n_hidden_decoder = 8;
    assert_int_equal(registry->n_covs, 1);
    assert_int_equal(cpa_feed_max_nnz(feed, 34, &shape.max_nnz), CPA_OK);
    assert_int_equal(cpa_model_create(be, &options.model, &shape, true, registry->label_weight, registry->deg, &m),
                     CPA_OK);
    assert_int_equal(cpa_params_init(cpa_model_params(m), 1), CPA_OK);
    return m;
}

static void make_stepper(const char *backend)
{
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    long before = cpa_alloc_bytes();
    model = make_model();
    model_bytes = cpa_alloc_bytes() - before;
    if (strcmp(options.train.reduce, "nccl") == 0) {
        assert_int_equal(cpa_device_sum_create(comm, be, &device_sum), CPA_OK);
    }
    const cpa_step_parts parts = {.comm = comm,
                                  .be = be,
                                  .model = model,
                                  .feed = feed,
                                  .registry = registry,
                                  .sampler = sampler,
                                  .config = &options.train,
                                  .device_sum = device_sum,
                                  .seed = 1};
    before = cpa_alloc_bytes();
    assert_int_equal(cpa_stepper_create(&parts, &stepper), CPA_OK);
    stepper_bytes = cpa_alloc_bytes() - before;
}

static void destroy_stepper(void)
{
    cpa_stepper_destroy(&stepper);
    cpa_device_sum_destroy(&device_sum);
    cpa_model_destroy(&model);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

static int setup(const char *batch_norm)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data/glioblastoma_panobinostat.h5ad", getenv("CPA_TESTS"));
    assert_int_equal(cpa_options_init(&options), CPA_OK);
    cpa_free(&options.train.batch_norm);
    assert_int_equal(cpa_strdup(batch_norm, &options.train.batch_norm), CPA_OK);
    options.train.lanes = N_LANES;
    options.train.batch_size = 32;
    assert_int_equal(cpa_h5ad_open(path, &file), CPA_OK);
    assert_int_equal(cpa_registry_create(file, &options.data, true, &registry), CPA_OK);
    make_sampler();
    assert_int_equal(
        cpa_feed_open(
            &(cpa_feed_plan){
                .comm = comm, .file = file, .sampler = sampler, .n_lanes = N_LANES, .batch_size = 32, .n_epochs = 1},
            &feed),
        CPA_OK);
    make_stepper("cpu");
    return 0;
}

static int setup_local(void **state)
{
    (void)state;
    return setup("local");
}

static int setup_sync(void **state)
{
    (void)state;
    return setup("sync");
}

static int teardown(void **state)
{
    (void)state;
    destroy_stepper();
    cpa_sampler_destroy(&sampler);
    cpa_feed_close(&feed);
    cpa_registry_destroy(&registry);
    cpa_h5ad_close(&file);
    cpa_options_fini(&options);
    return 0;
}

// One rank cannot fill its batches: all say so, none waits, and the parameters are as they were.
static void a_failure_of_one_is_everyones(void **state)
{
    (void)state;
    cpa_step_result result;
    cpa_params *t = cpa_model_params(model);
    const size_t bytes = (size_t)t->n_value * sizeof(cpa_real);
    cpa_real *before, *after;
    assert_int_equal(cpa_alloc(bytes, 1, &before), CPA_OK);
    assert_int_equal(cpa_alloc(bytes, 1, &after), CPA_OK);
    assert_int_equal(cpa_stepper_run(stepper, 0, 0, &result), CPA_OK);
    assert_int_equal(cpa_op_download(be, before, t->value, bytes), CPA_OK);
    for (int culprit = 0; culprit < cpa_comm_size(comm); culprit++) {
        registry->max_comb_len += culprit == cpa_comm_rank(comm);
        assert_int_equal(cpa_stepper_run(stepper, 0, 1, &result), CPA_INTERNAL);
        assert_non_null(strstr(cpa_message(), "cannot hold cells with"));
        registry->max_comb_len -= culprit == cpa_comm_rank(comm);
    }
    assert_int_equal(cpa_op_download(be, after, t->value, bytes), CPA_OK);
    assert_memory_equal(before, after, bytes);
    assert_int_equal(cpa_stepper_run(stepper, 0, 1, &result), CPA_OK);
    assert_false(result.stop);
    cpa_free(&before);
    cpa_free(&after);
}

static void a_signal_to_one_stops_all_at_the_same_step(void **state)
{
    (void)state;
    cpa_step_result result;
    cpa_stop_listen();
    for (int64_t step = 2; step < 5; step++) {
        bool is_called = step >= 3;
        if (step == 3 && cpa_comm_rank(comm) == cpa_comm_size(comm) - 1) {
            kill(getpid(), SIGUSR1);
            while (!cpa_stop_wanted()) { // another thread takes it
                usleep(1000);
            }
        }
        assert_int_equal(cpa_stepper_run(stepper, 0, step, &result), CPA_OK);
        assert_int_equal(result.stop, is_called);
    }
}

// The parameters after steps of every kind, by a stepper of its own.
static cpa_real *parameters_after(const char *backend, const char *reduce, int64_t n_steps, size_t *n)
{
    cpa_step_result result;
    cpa_real *v;
    cpa_free(&options.train.reduce);
    assert_int_equal(cpa_strdup(reduce, &options.train.reduce), CPA_OK);
    destroy_stepper();
    make_stepper(backend);
    for (int64_t step = 0; step < n_steps; step++) {
        options.train.adv_steps = step == 1 ? 0 : 3; // both on one batch
        assert_int_equal(cpa_stepper_run(stepper, 0, step, &result), CPA_OK);
    }
    const cpa_params *t = cpa_model_params(model);
    *n = (size_t)t->n_value;
    assert_int_equal(cpa_alloc(*n, sizeof *v, &v), CPA_OK);
    assert_int_equal(cpa_op_download(be, v, t->value, *n * sizeof *v), CPA_OK);
    return v;
}

// Where the host sees the gradients these are summed in place, elsewhere in a copy.
static void sums_in_place_are_those_of_a_copy(void **state)
{
    (void)state;
    size_t n, m;
    cpa_real *in_place = parameters_after("cpu", "tree", 3, &n), *copied = parameters_after("check", "tree", 3, &m);
    assert_int_equal(n, m);
    assert_memory_equal(in_place, copied, n * sizeof *in_place);
    cpa_free(&in_place);
    cpa_free(&copied);
}

// Of the difference, as Adam's first steps are as large for the smallest gradient as for any.
static void the_sum_of_mpi_trains_alike(void **state)
{
    (void)state;
    size_t n, m;
    int far = 0;
    cpa_real *tree = parameters_after("cpu", "tree", 1, &n), *mpi = parameters_after("cpu", "mpi", 1, &m);
    for (size_t i = 0; i < n; i++) {
        far += fabs((double)tree[i] - (double)mpi[i]) > 1e-5 * (fabs((double)tree[i]) + options.train.lr);
    }
    assert_int_equal(far, 0);
    if (cpa_comm_size(comm) == 1) {
        assert_memory_equal(tree, mpi, n * sizeof *tree);
    }
    cpa_free(&tree);
    cpa_free(&mpi);
}

// Sums that stay on the device are those of the host, but for their order; so are they after steps of every kind. A rank that cannot fill
// its batches takes part.
static void sums_on_the_device_train_alike(void **state)
{
    (void)state;
    size_t n, m;
    int far = 0;
    cpa_step_result result;
    for (int64_t steps = 1; steps <= 3; steps += 2) {
        cpa_real *tree = parameters_after("check", "tree", steps, &n);
        cpa_real *device = parameters_after("check", "nccl", steps, &m);
        for (size_t i = 0; i < n; i++) {
            far += fabs((double)tree[i] - (double)device[i]) >
                   (steps == 1 ? 1e-5 : 0.5) * (fabs((double)tree[i]) + (double)steps * options.train.lr);
        }
        assert_int_equal(far, 0);
        cpa_free(&tree);
        cpa_free(&device);
    }
    registry->max_comb_len += cpa_comm_rank(comm) == 0;
    assert_int_equal(cpa_stepper_run(stepper, 0, 3, &result), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "cannot hold cells with"));
    registry->max_comb_len -= cpa_comm_rank(comm) == 0;
    assert_int_equal(cpa_stepper_run(stepper, 0, 3, &result), CPA_OK);
}

// Where the gradients lie on the host nothing can be summed on a device.
static void the_host_is_no_device(void **state)
{
    (void)state;
    cpa_backend *host;
    cpa_device_sum *sum = NULL;
    assert_int_equal(cpa_backend_create("cpu", &host), CPA_OK);
    bool is_alone = cpa_comm_size(comm) == 1; // then nothing is to be sent
    assert_int_equal(cpa_device_sum_create(comm, host, &sum), is_alone ? CPA_OK : CPA_CONFIG);
    cpa_device_sum_destroy(&sum);
    assert_int_equal(cpa_backend_destroy(&host), CPA_OK);
}

// What the lanes compute in: the model without values, gradients and moments.
static long activations(void)
{
    return model_bytes - 4 * (long)cpa_model_params(model)->n_grad * (long)sizeof(cpa_real);
}

// Beside the model a step takes gradients, their sums and one batch, together less than one further lane with gradients of its own would.
static void lanes_by_turns_compute_in_one_place(void **state)
{
    (void)state;
    long gradients = (long)cpa_model_params(model)->n_grad * (long)sizeof(cpa_real);
    assert_true(stepper_bytes > 0 && stepper_bytes < activations() + gradients);
}

static void lanes_side_by_side_compute_each_in_its_own(void **state)
{
    (void)state;
    int first, end;
    cpa_lane_range(N_LANES, cpa_comm_size(comm), cpa_comm_rank(comm), &first, &end);
    assert_true(stepper_bytes > (end - first - 1) * activations());
}

// Masks that were recorded, but have been lost.
static const cpa_real *no_mask(void *ctx, int part, int layer, int pass)
{
    (void)ctx;
    (void)part;
    (void)layer;
    (void)pass;
    return NULL;
}

// A rank fails at its first adversary, when it has met the others at every layer of the autoencoder; and it does so without lanes of its
// own. All say so, none waits.
static void a_failure_between_meetings_is_everyones(void **state)
{
    (void)state;
    cpa_together *together;
    cpa_batch *batch[N_LANES] = {0};
    const cpa_batch *filled[N_LANES];
    int lane[N_LANES], first, end;
    cpa_model *m = make_model();
    double *sums;
    assert_int_equal(cpa_alloc((size_t)(N_LANES * cpa_model_n_sums(m)), sizeof *sums, &sums), CPA_OK);
    assert_int_equal(cpa_together_create(comm, m, N_LANES, &together), CPA_OK);
    cpa_lane_range(N_LANES, cpa_comm_size(comm), cpa_comm_rank(comm), &first, &end);
    int64_t nnz;
    assert_int_equal(cpa_feed_max_nnz(feed, 34, &nnz), CPA_OK);
    cpa_lane_plan plan = {.update_autoencoder = true, .update_adversary = true, .adversary_in_loss = true, .seed = 1};
    for (int k = 0; k < N_LANES; k++) {
        const int64_t *row;
        int n;
        cpa_sampler_batch(sampler, k, 0, &row, &n);
        plan.n_cells += n;
    }
    plan.label_weight = (double)plan.n_cells;
    for (int k = 0; k < end - first; k++) {
        lane[k] = first + k;
        assert_int_equal(cpa_batch_create(34, nnz, registry->n_genes, 1, registry->max_comb_len, &batch[k]), CPA_OK);
        assert_int_equal(cpa_feed_fill(feed, registry, lane[k], 0, batch[k]), CPA_OK);
        filled[k] = batch[k];
    }
    const cpa_draws lost = {.mask = no_mask};
    for (int culprit = 0; culprit < cpa_comm_size(comm); culprit++) {
        bool mine = culprit == cpa_comm_rank(comm);
        cpa_lane_plan p = plan;
        p.draws = mine ? &lost : NULL;
        assert_int_equal(cpa_together_run(together, filled, lane, end - first, &p, CPA_OK, sums), CPA_BAD_DATA);
        assert_non_null(strstr(cpa_message(), "no recorded dropout mask"));
        cpa_status before = mine ? cpa_fail(CPA_IO, "rank %d cannot read", culprit) : CPA_OK;
        assert_int_equal(cpa_together_run(together, filled, lane, mine ? 0 : end - first, &plan, before, sums), CPA_IO);
        assert_non_null(strstr(cpa_message(), "cannot read"));
        // One that merely has nothing to do holds up nobody.
        assert_int_equal(cpa_together_run(together, filled, lane, mine ? 0 : end - first, &plan, CPA_OK, sums), CPA_OK);
    }
    for (int k = 0; k < end - first; k++) {
        cpa_batch_destroy(&batch[k]);
    }
    cpa_together_destroy(&together);
    cpa_model_destroy(&m);
    cpa_free(&sums);
}

int main(void)
{
    const struct CMUnitTest local[] = {
        cmocka_unit_test(lanes_by_turns_compute_in_one_place),
        cmocka_unit_test(a_failure_of_one_is_everyones),
        cmocka_unit_test(sums_in_place_are_those_of_a_copy),
        cmocka_unit_test(the_sum_of_mpi_trains_alike),
        cmocka_unit_test(sums_on_the_device_train_alike),
        cmocka_unit_test(the_host_is_no_device),
        cmocka_unit_test(a_signal_to_one_stops_all_at_the_same_step),
    };
    const struct CMUnitTest sync[] = {
        cmocka_unit_test(lanes_side_by_side_compute_each_in_its_own),
        cmocka_unit_test(a_failure_of_one_is_everyones),
        cmocka_unit_test(a_failure_between_meetings_is_everyones),
    };
    if (cpa_comm_create(NULL, NULL, &comm) != CPA_OK) {
        return 1;
    }
    int failed = cmocka_run_group_tests(sync, setup_sync, teardown);
    failed += cmocka_run_group_tests(local, setup_local, teardown); // last, for a wish to stop stays
    cpa_comm_destroy(&comm);
    return failed + (cpa_alloc_balance() != 0);
}
