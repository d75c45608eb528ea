// Owns: the exact nearest neighbours against a plain search in double precision: ties, duplicates, blocks in any order.
// Never tests purity or ranks.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../support/on_kernels.h"
#include "cpa/base/mem.h"
#include "cpa/base/rng.h"
#include "cpa/train/neighbours.h"

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != CPA_OK) {                                                                                        \
            fail_msg("%s: %s", #call, cpa_message());                                                                  \
        }                                                                                                              \
    } while (0)

// What the vectors look like.
typedef enum kind { SPREAD, GRID, FAR, COLLAPSED } kind;

static void draw(kind how, int n, int n_latent, cpa_real *z)
{
    for (int i = 0; i < n * n_latent; i++) {
        uint32_t w[4];
        cpa_philox(3, CPA_STREAM_INIT, (const uint32_t[4]){(uint32_t)i, (uint32_t)how, 0, 0}, w);
        double u = (double)cpa_unit(w[0]);
        z[i] = (cpa_real)(how == SPREAD ? u - 0.5
                          : how == GRID ? floor(3 * u)    // many ties
                          : how == FAR  ? 1000 + 1e-2 * u // products cannot tell them apart in float
                                        : 0.25);
    }
    for (int i = 7; i < n; i += 11) { // doubles
        for (int j = 0; j < n_latent; j++) {
            z[i * n_latent + j] = z[(i / 2) * n_latent + j];
        }
    }
}

static double plain_distance(const cpa_real *x, const cpa_real *y, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    }
    return sum;
}

// The k nearest of all others, by (distance, number).
static void plain_search(const cpa_real *z, int n, int n_latent, int q, int k, int64_t *near)
{
    double *d = calloc((size_t)n, sizeof *d);
    assert_non_null(d);
    for (int i = 0; i < n; i++) {
        d[i] = i == q ? INFINITY : plain_distance(z + q * n_latent, z + i * n_latent, n_latent);
    }
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            best = i != q && d[i] < INFINITY && (best < 0 || d[i] < d[best]) ? i : best;
        }
        near[j] = best;
        if (best >= 0) {
            d[best] = INFINITY;
        }
    }
    free(d);
}

// Distances of what was found and what should have been must agree as numbers: two cells may differ by less than rounding.
static void check(const cpa_real *z, int n_latent, int q, int k, const int64_t *got, const int64_t *want, bool exactly)
{
    for (int j = 0; j < k; j++) {
        if (got[j] == want[j]) {
            continue;
        }
        assert_true(!exactly && got[j] >= 0 && want[j] >= 0 && got[j] != q);
        double a = plain_distance(z + q * n_latent, z + got[j] * n_latent, n_latent);
        double b = plain_distance(z + q * n_latent, z + want[j] * n_latent, n_latent);
        assert_true(fabs(a - b) <= 1e-13 * b);
    }
}

static void search_on(cpa_backend *be, kind how, int n, int n_queries, int n_latent, int k, int block)
{
    cpa_neighbours *s = NULL, *backwards = NULL;
    cpa_real *z = calloc((size_t)n * (size_t)n_latent, sizeof *z);
    int64_t *want = calloc((size_t)k, sizeof *want);
    assert_true(z && want);
    draw(how, n, n_latent, z);
    OK(cpa_neighbours_create(be, n_queries, n_latent, k, block, &s));
    OK(cpa_neighbours_create(be, n_queries, n_latent, k, 5, &backwards));
    for (int again = 0; again < 2; again++) { // it can be used anew
        OK(cpa_neighbours_begin(s, z));
        OK(cpa_neighbours_begin(backwards, z));
        for (int first = 0; first < n; first += block) {
            OK(cpa_neighbours_add(s, first, n - first < block ? n - first : block, z + first * n_latent));
        }
        for (int first = (n - 1) / 5 * 5; first >= 0; first -= 5) {
            OK(cpa_neighbours_add(backwards, first, n - first < 5 ? n - first : 5, z + first * n_latent));
        }
    }
    const int64_t *near = cpa_neighbours_found(s);
    assert_memory_equal(near, cpa_neighbours_found(backwards), (size_t)n_queries * (size_t)k * sizeof *near);
    for (int q = 0; q < n_queries; q++) {
        plain_search(z, n, n_latent, q, k, want);
        check(z, n_latent, q, k, near + q * k, want, how == GRID || how == COLLAPSED);
    }
    cpa_neighbours_destroy(&s);
    cpa_neighbours_destroy(&backwards);
    free(z);
    free(want);
}

static void search_of(kind how, int n, int n_queries, int n_latent, int k, int block)
{
    cpa_backend *be = NULL;
    OK(cpa_backend_create("check", &be));
    search_on(be, how, n, n_queries, n_latent, k, block);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

static void test_neighbours(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    search_of(SPREAD, 300, 300, 33, 30, 128);
    search_of(SPREAD, 300, 40, 16, 30, 64);
    search_of(GRID, 200, 200, 3, 30, 128);
    search_of(GRID, 200, 200, 40, 7, 200);
    search_of(FAR, 200, 100, 20, 30, 50);
    search_of(COLLAPSED, 150, 150, 12, 30, 64);
    search_of(SPREAD, 20, 20, 5, 30, 8); // fewer others than wanted
    search_of(SPREAD, 2, 2, 1, 1, 2);
    assert_int_equal(cpa_alloc_balance(), balance);
}

#ifndef CPA_DOUBLE
// Whatever precision a device computes the lanes in, which it keeps.
static void stays_exact_in_any_precision(void **state)
{
    (void)state;
    const cpa_precision all[] = {CPA_FP32, CPA_TF32, CPA_BF16};
    for (int i = 0; i < 3; i++) {
        cpa_backend *be = NULL;
        OK(cpa_backend_create(ON_KERNELS, &be));
        OK(cpa_backend_set_precision(be, all[i]));
        search_on(be, SPREAD, 300, 40, 16, 30, 64);
        search_on(be, FAR, 200, 100, 20, 30, 50);
        assert_int_equal(cpa_backend_precision(be), all[i]);
        assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbours),
#ifndef CPA_DOUBLE
                                       cmocka_unit_test(stays_exact_in_any_precision)
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
