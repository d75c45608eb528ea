// Owns: that all backends make the same of a lane: the same bits where they run the same arithmetic, and close to it on a device's
// kernels. Must never take one backend's word for what is right (test_model.c does not).
#include "../support/on_kernels.h"
#include "../support/small_model.h"

// The same bits from both backends, which run the same arithmetic.
static void check_backend_equals_cpu(void **state)
{
    (void)state;
    variant v = plain;
    for (int k = 0; k < 3; k++) {
        double cpu_sums[MAX_SUMS], check_sums[MAX_SUMS];
        size_t n, n_check;
        v.mixup = k > 0;
        v.mix_covariates = k == 1;
        v.control_zero = k == 1;
        v.doser = k == 2 ? "mlp" : "logsigm";
        cpa_real *cpu = lane_on("cpu", &v, cpu_sums, &n), *check = lane_on("check", &v, check_sums, &n_check);
        assert_memory_equal(cpu_sums, check_sums, (CPA_SUM_COVS + N_COVS * CPA_SUMS_PER_COV) * sizeof(double));
        assert_int_equal(n, n_check);
        assert_memory_equal(cpu, check, n * sizeof *cpu);
        free(cpu);
        free(check);
    }
}

// |got - want| <= tolerance |want| (Euclidean), and no NaN.
static void assert_near(const char *what, int i, const cpa_real *got, const cpa_real *want, size_t n)
{
    const double tolerance = sizeof(cpa_real) == sizeof(float) ? 2e-5 : 1e-11;
    double norm = 0, off = 0;
    for (size_t k = 0; k < n; k++) {
        norm += (double)want[k] * (double)want[k];
        off += ((double)got[k] - (double)want[k]) * ((double)got[k] - (double)want[k]);
    }
    if (!(sqrt(off) <= tolerance * sqrt(norm))) {
        fail_msg("combination %d: %s are off by %g of %g", i, what, sqrt(off), sqrt(norm));
    }
}

// Every combination, and networks of doses: what a device's kernels make of a lane is what the cpu makes of it.
static void kernels_agree_with_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < COMBINATIONS + 4; i++) {
        variant v = combination(i % COMBINATIONS);
        if (i >= COMBINATIONS) {
            v = plain;
            v.doser = "mlp";
            v.mixup = (i & 1) != 0;
            v.mix_covariates = v.nb_dropout = v.control_zero = (i & 2) != 0;
        }
        double sums[MAX_SUMS], sums_there[MAX_SUMS];
        cpa_real sum[MAX_SUMS], sum_there[MAX_SUMS];
        const size_t n_sums = CPA_SUM_COVS + N_COVS * CPA_SUMS_PER_COV;
        size_t n, n_there;
        cpa_real *want = lane_on("cpu", &v, sums, &n), *got = lane_on(ON_KERNELS, &v, sums_there, &n_there);
        for (size_t k = 0; k < n_sums; k++) {
            sum[k] = (cpa_real)sums[k];
            sum_there[k] = (cpa_real)sums_there[k];
        }
        assert_int_equal(n, n_there);
        assert_near("sums", i, sum_there, sum, n_sums);
        assert_near("gradients", i, got, want, n);
        free(want);
        free(got);
    }
}

// Sums and gradients of one lane; the latter the caller's to free.
static cpa_real *lane_of(cpa_backend *be, cpa_model *m, const cpa_batch *b, const cpa_lane_plan *plan, double *sums,
                         size_t *n)
{
    const cpa_params *t = cpa_model_params(m);
    *n = (size_t)t->n_grad;
    cpa_real *grad = calloc(*n, sizeof *grad);
    assert_non_null(grad);
    assert_int_equal(cpa_op_zero(be, t->grad, *n * sizeof *grad), CPA_OK);
    assert_int_equal(cpa_model_lane(m, b, plan, sums), CPA_OK);
    assert_int_equal(cpa_op_download(be, grad, t->grad, *n * sizeof *grad), CPA_OK);
    return grad;
}

// A plan of a kind of lanes (autoencoder, adversaries, both), with what changes from step to step set by `k`.
static cpa_lane_plan plan_of(const cpa_batch *b, int kind, int k)
{
    cpa_lane_plan plan = plan_for(b, kind != 1, kind != 0);
    plan.epoch = (uint32_t)(4 + k);
    plan.label_weight *= 1 + 0.25 * k;
    plan.adv_lambda += k;
    return plan;
}

// A device records the second lane of a kind and repeats it: all lanes are as a model computes them that meets their kind for the first time.
static void lanes_repeat(const char *backend, cpa_precision precision, const variant *v)
{
    cpa_backend *be;
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    assert_int_equal(cpa_backend_set_precision(be, precision), CPA_OK);
    cpa_model *old = make_model(be, v);
    cpa_batch *whole = batch_of(v), *part = make_cells(2, B - 3, B);
    for (int k = 0; k < 6; k++) {
        for (int kind = 0; kind < 3; kind++) {
            const cpa_batch *b = k == 3 ? whole : part; // which takes more scratch, and what was recorded knew the old
            cpa_lane_plan plan = plan_of(b, kind, k);
            cpa_model *new = make_model(be, v);
            double old_sums[MAX_SUMS], new_sums[MAX_SUMS];
            size_t n, n_new;
            cpa_real *was = lane_of(be, old, b, &plan, old_sums, &n),
                     *is = lane_of(be, new, b, &plan, new_sums, &n_new);
            assert_int_equal(n, n_new);
            assert_memory_equal(old_sums, new_sums, (CPA_SUM_COVS + N_COVS * CPA_SUMS_PER_COV) * sizeof(double));
            assert_memory_equal(was, is, n * sizeof *was);
            free(was);
            free(is);
            cpa_model_destroy(&new);
        }
    }
    cpa_batch_destroy(&whole);
    cpa_batch_destroy(&part);
    cpa_model_destroy(&old);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

static void repeated_lanes_are_the_same(void **state)
{
    (void)state;
    const cpa_precision coarsest = sizeof(cpa_real) == sizeof(float) ? CPA_BF16 : CPA_FP32;
    variant v = plain;
    lanes_repeat("cpu", CPA_FP32, &v);
    lanes_repeat(ON_KERNELS, CPA_FP32, &v);
    lanes_repeat(ON_KERNELS, coarsest, &v);
    v.variational = v.layer_norm = true;
    v.likelihood = "zinb";
    lanes_repeat(ON_KERNELS, CPA_FP32, &v);
    lanes_repeat(ON_KERNELS, coarsest, &v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_backend_equals_cpu),
        cmocka_unit_test(kernels_agree_with_cpu),
        cmocka_unit_test(repeated_lanes_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
