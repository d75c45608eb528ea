// Owns: accuracy of the shared scalar formulas against the C library in long double. Never needs a backend.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpa/platform/math_inl.h"

// Units in the last place between a result and the truth.
static double ulps(cpa_real got, long double want)
{
    cpa_real near = (cpa_real)want;
    cpa_real next = sizeof(cpa_real) == sizeof(float) ? (cpa_real)nextafterf((float)near, INFINITY)
                                                      : (cpa_real)nextafter((double)near, INFINITY);
    return fabs((double)(((long double)got - want) / ((long double)next - (long double)near)));
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0;
    for (double x = -86; x < 88.7; x += 0.00137) {
        worst = fmax(worst, ulps(cpa_exp((cpa_real)x), expl((long double)(cpa_real)x)));
    }
    assert_true(worst <= 2);
    assert_true(cpa_exp(0) == 1);
    assert_true(cpa_exp((cpa_real)-1e30) == 0 && cpa_exp(-INFINITY) == 0);
    assert_true(isinf(cpa_exp((cpa_real)1e30)) && isinf(cpa_exp(INFINITY)));
    cpa_real odd_nan;
    memset(&odd_nan, 0xFF, sizeof odd_nan); // a payload in every bit
    assert_true(isnan(cpa_exp(odd_nan)) && isnan(cpa_exp((cpa_real)NAN)));
}

static void test_log(void **state)
{
    (void)state;
    double worst = 0, worst1 = 0;
    for (double e = -37; e < 38; e += 0.0013) {
        cpa_real x = (cpa_real)pow(10, e);
        worst = fmax(worst, ulps(cpa_log(x), logl((long double)x)));
        worst1 = fmax(worst1, ulps(cpa_log1p(x), log1pl((long double)x)));
    }
    for (double x = 0.5; x < 2; x += 0.00037) {
        worst = fmax(worst, ulps(cpa_log((cpa_real)x), logl((long double)(cpa_real)x)));
        worst1 = fmax(worst1, ulps(cpa_log1p((cpa_real)x), log1pl((long double)(cpa_real)x)));
    }
    assert_true(worst <= 2);
    assert_true(worst1 <= 2);
    assert_true(cpa_log(1) == 0 && cpa_log1p(0) == 0);
    assert_true(isinf(cpa_log(0)) && cpa_log(0) < 0 && isnan(cpa_log(-1)) && isnan(cpa_log((cpa_real)NAN)));
    assert_true(isinf(cpa_log(INFINITY)) && isinf(cpa_log1p(INFINITY)) && isnan(cpa_log1p((cpa_real)NAN)));
}

static void test_exp_both(void **state)
{
    (void)state;
    double worst = 0;
    cpa_real less_1;
    for (double e = -30; e < 1.93; e += 0.00021) { // -1e-30 to -86
        cpa_real x = (cpa_real)-pow(10, e);
        worst = fmax(worst, ulps(cpa_exp_both(x, &less_1), expl((long double)x)));
        worst = fmax(worst, ulps(less_1, expm1l((long double)x)));
    }
    assert_true(worst <= 2);
    assert_true(cpa_exp_both(0, &less_1) == 1 && less_1 == 0);
    assert_true(cpa_exp_both(-INFINITY, &less_1) < (cpa_real)1e-37 && less_1 == -1);
    assert_true(isnan(cpa_exp_both((cpa_real)NAN, &less_1)) && isnan(less_1));
}

static void test_gamma(void **state)
{
    (void)state;
    const double euler = 0.57721566490153286061;
    for (double z = 1e-6; z < 1e6; z *= 1.37) {
        double want = lgamma(z);
        assert_true(fabs(cpa_lgamma(z) - want) <= 4e-15 * (fabs(want) + z + 1));
        // digamma(z + 1) = digamma(z) + 1/z
        assert_true(fabs(cpa_digamma(z + 1) - cpa_digamma(z) - 1 / z) <= 1e-14 * (1 / z + fabs(cpa_digamma(z)) + 1));
    }
    assert_true(fabs(cpa_digamma(1) + euler) <= 1e-14);
    assert_true(fabs(cpa_digamma(0.5) + euler + 2 * log(2)) <= 1e-14);
    double z = 33.25;
    assert_true(fabs(cpa_digamma(z) - (lgamma(z + 1e-4) - lgamma(z - 1e-4)) / 2e-4) <= 1e-8);
    // The tails, where the vector code uses them.
    for (double x = 15; x < 1e5; x *= 1.7) {
        const double half_log_2pi = 0.91893853320467274178;
        double tail = lgamma(x) - ((x - 0.5) * log(x) - x + half_log_2pi);
        assert_true(fabs((double)cpa_lgamma_tail((cpa_real)x) - tail) <= 1e-8 + 1e-14 * x * log(x));
        double want = log(x) - cpa_digamma(x);
        assert_true(fabs((double)cpa_digamma_tail((cpa_real)x) - want) <= 1e-8);
    }
}

static void test_sigmoid(void **state)
{
    (void)state;
    assert_true(cpa_sigmoid(0) == 0.5);
    assert_true(cpa_sigmoid(1000) == 1 && cpa_sigmoid(-1000) == 0);
    assert_true(fabs(cpa_sigmoid(1.5) + cpa_sigmoid(-1.5) - 1) <= 1e-15);
}

static void test_logits(void **state)
{
    (void)state;
    double worst = 0, worst_plus = 0;
    for (double x = -80; x < 80; x += 0.00173) {
        long double at = (long double)(cpa_real)x;
        worst = fmax(worst, ulps(cpa_logistic((cpa_real)x), 1 / (1 + expl(-at))));
        worst_plus = fmax(worst_plus, ulps(cpa_softplus((cpa_real)x), fmaxl(at, 0) + log1pl(expl(-fabsl(at)))));
    }
    assert_true(worst <= 4);
    assert_true(worst_plus <= 4);
    assert_true(cpa_logistic(INFINITY) == 1 && cpa_logistic(-INFINITY) == 0 && isnan(cpa_logistic((cpa_real)NAN)));
    assert_true(isinf(cpa_softplus(INFINITY)) && cpa_softplus(-INFINITY) == 0 && isnan(cpa_softplus((cpa_real)NAN)));
}

// The first steps of torch.optim.Adam (2.0, lr 0.1, no decay) on one parameter 1.0 with gradients 0.5, -0.25.
static void test_adam(void **state)
{
    (void)state;
    cpa_real p = 1, m = 0, v = 0;
    cpa_adam(&p, &m, &v, (cpa_real)0.5, (cpa_real)(0.1 / (1 - 0.9)), (cpa_real)sqrt(1 - 0.999), 0);
    assert_true(fabs((double)p - 0.9) <= 1e-6); // the first step is lr, whatever the gradient
    cpa_adam(&p, &m, &v, (cpa_real)-0.25, (cpa_real)(0.1 / (1 - 0.81)), (cpa_real)sqrt(1 - 0.998001), 0);
    double m2 = 0.9 * 0.05 - 0.1 * 0.25, v2 = 0.999 * 0.00025 + 0.001 * 0.0625;
    assert_true(fabs((double)p - (0.9 - 0.1 * (m2 / 0.19) / (sqrt(v2 / (1 - 0.998001)) + 1e-8))) <= 1e-6);
    p = 2;
    m = 0;
    v = 0;
    cpa_adam(&p, &m, &v, 0, 1, 1, (cpa_real)0.5); // decay alone gives a gradient of 1
    assert_true(fabs((double)m - 0.1) <= 1e-7 && fabs((double)v - 0.001) <= 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),     cmocka_unit_test(test_log),      cmocka_unit_test(test_gamma),
        cmocka_unit_test(test_sigmoid), cmocka_unit_test(test_exp_both), cmocka_unit_test(test_logits),
        cmocka_unit_test(test_adam),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
