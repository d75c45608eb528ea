// Owns: tests of lanes whose batch norms meet: they add up to one lane of all their cells; what lanes and mixed batches cost in memory.
// Never tests ranks.
#include "../support/small_model.h"

enum { CELLS = 24, N_LANES = 4 };

#ifdef CPA_DOUBLE
static const double TOLERANCE = 1e-11;
#else
static const double TOLERANCE = 1e-5;
#endif

static cpa_lane_plan make_plan(bool autoencoder, bool adversary, bool against)
{
    cpa_lane_plan p = {.update_autoencoder = autoencoder,
                       .update_adversary = adversary,
                       .adversary_in_loss = against,
                       .adv_lambda = 2.5,
                       .kl_weight = 0.7,
                       .pen_adv = 3,
                       .n_cells = CELLS,
                       .epoch = 4,
                       .seed = 9};
    for (int i = 0; i < CELLS; i++) {
        p.label_weight += label_weight[i % K];
    }
    return p;
}

// All lanes are at hand.
typedef struct room {
    cpa_meeting meeting;
    int n_lanes, n_meetings;
} room;

static cpa_status add_up(void *ctx, int n)
{
    room *r = ctx;
    add_up_lanes(&r->meeting, r->n_lanes, n);
    r->n_meetings++;
    return CPA_OK;
}

// What a step gives: sums and gradients of all lanes together.
typedef struct outcome {
    double sums[MAX_SUMS], *grad;
} outcome;

static void add_lane(outcome *o, cpa_model *m, const double *sums, const cpa_dev_real *grad, double share)
{
    cpa_params *t = cpa_model_params(m);
    cpa_real *g = calloc((size_t)t->n_grad, sizeof *g);
    assert_int_equal(cpa_op_download(t->be, g, grad, (size_t)t->n_grad * sizeof *g), CPA_OK);
    for (int64_t i = 0; i < t->n_grad; i++) { // behind the gradients, batch statistics: their mean
        o->grad[i] += (double)g[i] * (i < t->begin[CPA_GROUP_STAT_MODULE] ? 1 : share);
    }
    for (int i = 0; i < cpa_model_n_sums(m); i++) {
        o->sums[i] += sums[i];
    }
    free(g);
}

static const int first_cell[N_LANES + 1] = {0, 3, 4, 12, CELLS};

// n_lanes 1 or N_LANES of the same cells; `meet`: their batch norms do.
static outcome step(const char *backend, const variant *v, const cpa_lane_plan *plan, int n_lanes, bool meet)
{
    cpa_backend *be;
    cpa_batch *batch[N_LANES];
    const cpa_batch *in[N_LANES];
    double sums[N_LANES * MAX_SUMS];
    cpa_lane_plan p = *plan;
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    cpa_model *m = make_model_for(be, v, CELLS, G, CELLS * G);
    int n_sums = cpa_model_n_sums(m), width = cpa_model_n_pooled(m);
    assert_true(n_sums <= MAX_SUMS);
    outcome o = {.grad = calloc((size_t)cpa_model_params(m)->n_grad, sizeof(double))};
    room r = {.n_lanes = n_lanes,
              .meeting = {.rows = CELLS,
                          .own = calloc((size_t)(n_lanes * width), sizeof(double)),
                          .all = calloc((size_t)width, sizeof(double)),
                          .add_up = add_up,
                          .ctx = &r}};
    p.meeting = meet ? &r.meeting : NULL;
    for (int k = 0; k < n_lanes; k++) {
        in[k] = batch[k] = make_cells(n_lanes > 1 ? first_cell[k] : 0, n_lanes > 1 ? first_cell[k + 1] : CELLS, CELLS);
    }
    assert_int_equal(cpa_model_widen(m, n_lanes), CPA_OK);
    assert_int_equal(cpa_model_lanes(m, in, n_lanes, &p, sums), CPA_OK);
    assert_int_equal(r.n_meetings > 0, meet && width > 0);
    long before = cpa_alloc_count();
    assert_int_equal(cpa_model_lanes(m, in, n_lanes, &p, sums), CPA_OK);
    assert_int_equal(cpa_alloc_count(), before);
    for (int k = 0; k < n_lanes; k++) {
        add_lane(&o, m, sums + k * n_sums, cpa_model_lane_grad(m, k), 1.0 / n_lanes);
        cpa_batch_destroy(&batch[k]);
    }
    free(r.meeting.own);
    free(r.meeting.all);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return o;
}

// Largest difference of any tensor's gradients (Euclidean, relative to the tensor's, or to a thousandth of the largest), and of any sum.
static double distance(const variant *v, const outcome *a, const outcome *b)
{
    cpa_backend *be;
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    cpa_model *m = make_model_for(be, v, CELLS, G, CELLS * G);
    const cpa_params *t = cpa_model_params(m);
    double worst = 0, largest = 0;
    int64_t second = t->begin[CPA_N_GROUPS] - t->begin[CPA_GROUP_STAT_ADVERSARY];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < t->n; i++) {
            bool twice = t->p[i].group == CPA_GROUP_STAT_ADVERSARY; // once inside the autoencoder's step
            for (int copy = 0; copy < 1 + twice; copy++) {
                double norm = 0, off = 0;
                for (int64_t e = 0; e < cpa_param_size(&t->p[i]); e++) {
                    int64_t at = t->p[i].at + copy * second + e;
                    norm += a->grad[at] * a->grad[at];
                    off += (a->grad[at] - b->grad[at]) * (a->grad[at] - b->grad[at]);
                }
                largest = fmax(largest, sqrt(norm));
                worst = pass ? fmax(worst, sqrt(off) / fmax(sqrt(norm), 1e-3 * largest)) : 0;
            }
        }
    }
    for (int i = 0; i < cpa_model_n_sums(m); i++) {
        worst = fmax(worst, fabs(a->sums[i] - b->sums[i]) / fmax(fabs(a->sums[i]), 1e-3));
    }
    assert_true(largest > 0);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return worst;
}

// Norms x likelihood x what the step updates; lanes of unequal sizes, one of them a single cell.
static void lanes_that_meet_are_one_batch(void **state)
{
    (void)state;
    static const char *const likelihood[] = {"nb", "zinb", "gauss"};
    static const bool updates[][3] = {
        {true, false, true}, {true, false, false}, {false, true, false}, {true, true, true}};
    for (int i = 0; i < 3 * 2 * 4; i++) {
        variant v = {.likelihood = likelihood[i % 3],
                     .doser = "logsigm",
                     .batch_norm = true,
                     .layer_norm = i / 3 % 2,
                     .variational = i % 2};
        const bool *u = updates[i / 6];
        cpa_lane_plan plan = make_plan(u[0], u[1], u[2]);
        outcome one = step("cpu", &v, &plan, 1, false), many = step("cpu", &v, &plan, N_LANES, true),
                apart = step("cpu", &v, &plan, N_LANES, false);
        double off = distance(&v, &one, &many);
        if (!(off <= TOLERANCE)) {
            fail_msg("%s, layer norm %d, variational %d, updates %d %d %d: lanes and batch differ by %g", v.likelihood,
                     v.layer_norm, v.variational, u[0], u[1], u[2], off);
        }
        assert_true(distance(&v, &one, &apart) > 1e-2);
        free(one.grad);
        free(many.grad);
        free(apart.grad);
    }
}

static void without_batch_norm_nobody_meets(void **state)
{
    (void)state;
    variant v = {.likelihood = "nb", .doser = "logsigm", .layer_norm = true};
    cpa_lane_plan plan = make_plan(true, true, true);
    outcome one = step("cpu", &v, &plan, 1, true), many = step("cpu", &v, &plan, N_LANES, true);
    assert_true(distance(&v, &one, &many) <= TOLERANCE);
    free(one.grad);
    free(many.grad);
}

static void lanes_behind_memory_guards(void **state)
{
    (void)state;
    variant v = {.likelihood = "zinb", .doser = "logsigm", .batch_norm = true, .layer_norm = true, .variational = true};
    cpa_lane_plan plan = make_plan(true, true, true);
    outcome cpu = step("cpu", &v, &plan, N_LANES, true), check = step("check", &v, &plan, N_LANES, true);
    assert_true(distance(&v, &cpu, &check) == 0);
    free(cpu.grad);
    free(check.grad);
}

// Bytes of a model for so many cells, a tenth of whose counts are there.
static long model_bytes(int max_cells, int genes, bool mixup)
{
    cpa_backend *be;
    variant v = {.likelihood = "nb", .doser = "logsigm", .batch_norm = true, .mixup = mixup};
    long before = cpa_alloc_bytes();
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    cpa_model *m = make_model_for(be, &v, max_cells, genes, max_cells * genes / 10);
    long bytes = cpa_alloc_bytes() - before;
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    assert_int_equal(cpa_alloc_bytes(), before);
    return bytes;
}

// In the model as much as one batch takes; with the mixed cells that are made for it, less than one batch of which zeros were stored.
static void mixup_costs_one_batch(void **state)
{
    (void)state;
    enum { N = 256, GENES = 2000, NNZ = N * GENES / 10 };
    cpa_batch *alone, *mixed;
    long before = cpa_alloc_bytes();
    assert_int_equal(cpa_batch_create(N, NNZ, GENES, N_COVS, M, &alone), CPA_OK);
    long one = cpa_alloc_bytes() - before;
    assert_int_equal(cpa_batch_create_mixed(N, NNZ, GENES, N_COVS, M, &mixed), CPA_OK);
    long made = cpa_alloc_bytes() - before - one;
    cpa_batch_destroy(&alone);
    cpa_batch_destroy(&mixed);
    long more = model_bytes(N, GENES, true) - model_bytes(N, GENES, false);
    assert_true(more > 0 && (double)more <= 1.03 * (double)one); // blocks are rounded up to pages
    assert_true(more + made <= (long)N * (GENES + 1) * (long)sizeof(cpa_real));
}

// What a lane of 32 cells computes in is a quarter of what 128 at once do; the rest is parameters.
static void a_lane_costs_its_share(void **state)
{
    (void)state;
    long none = model_bytes(0, 1000, false), lane = model_bytes(32, 1000, false) - none,
         all = model_bytes(128, 1000, false) - none;
    assert_true(lane > 0 && (double)lane <= 0.26 * (double)all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_that_meet_are_one_batch), cmocka_unit_test(without_batch_norm_nobody_meets),
        cmocka_unit_test(lanes_behind_memory_guards),    cmocka_unit_test(mixup_costs_one_batch),
        cmocka_unit_test(a_lane_costs_its_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
