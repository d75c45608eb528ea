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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_backend_equals_cpu),
        cmocka_unit_test(kernels_agree_with_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
