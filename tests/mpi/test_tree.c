// Owns: the test that the sum over lanes is the same in every bit for any number of ranks.
// Must never compare with a tolerance.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/base/mem.h"
#include "cpa/base/rng.h"
#include "cpa/platform/tree.h"

enum {
    MAX_N = 150000, // long enough for the threaded additions
    MAX_LANES = 16,
    N_DOUBLES = 7,
};

static cpa_comm *comm;

static int setup(void **state)
{
    (void)state;
    return (int)cpa_comm_create(NULL, NULL, &comm);
}

static int teardown(void **state)
{
    (void)state;
    cpa_comm_destroy(&comm);
    return (int)cpa_alloc_balance();
}

// Signs, zeros of both signs and magnitudes from 2^-20 to 2^20: sums in another order differ in many elements.
static double draw(uint32_t step, uint32_t lane, uint32_t i)
{
    uint32_t ctr[4] = {i, lane, step, 0}, w[4];
    cpa_philox(17, CPA_STREAM_INIT, ctr, w);
    double unit = (double)cpa_unit(w[0]) + (double)w[1] * 0x1p-56; // all bits of a double
    double size = unit * (double)(1u << (w[1] % 21)) / (double)(1u << (w[2] % 21));
    double x = w[2] % 50 == 0 ? 0.0 : size;
    return (w[3] & 1) != 0 ? -x : x;
}

static void fill(uint32_t step, int lane, cpa_real *v, int64_t n, double *d)
{
    for (int64_t i = 0; i < n; i++) {
        v[i] = (cpa_real)draw(step, (uint32_t)lane, (uint32_t)i);
    }
    for (int i = 0; i < N_DOUBLES; i++) {
        d[i] = draw(step + 1000, (uint32_t)lane, (uint32_t)i);
    }
}

// The sum of lanes first .. first + n_lanes - 1, as the definition says it.
static cpa_real expected(uint32_t step, int first, int n_lanes, int64_t i)
{
    if (n_lanes == 1) {
        return (cpa_real)draw(step, (uint32_t)first, (uint32_t)i);
    }
    int half = n_lanes / 2;
    cpa_real left = expected(step, first, half, i), right = expected(step, first + half, half, i);
    return left + right;
}

static double expected_double(uint32_t step, int first, int n_lanes, int i)
{
    if (n_lanes == 1) {
        return draw(step + 1000, (uint32_t)first, (uint32_t)i);
    }
    int half = n_lanes / 2;
    double left = expected_double(step, first, half, i), right = expected_double(step, first + half, half, i);
    return left + right;
}

static int in_ranges(const cpa_range *ranges, int n_ranges, int64_t i)
{
    for (int k = 0; k < n_ranges; k++) {
        if (i >= ranges[k].offset && i < ranges[k].offset + ranges[k].length) {
            return 1;
        }
    }
    return 0;
}

static void assert_sum(const cpa_real *v, const double *d, int n_lanes, int64_t n, uint32_t step,
                       const cpa_range *ranges, int n_ranges)
{
    int first, end;
    cpa_lane_range(n_lanes, cpa_comm_size(comm), cpa_comm_rank(comm), &first, &end);
    for (int64_t i = 0; i < n; i++) {
        cpa_real want = in_ranges(ranges, n_ranges, i) ? expected(step, 0, n_lanes, i)
                                                       : (cpa_real)draw(step, (uint32_t)(end - 1), (uint32_t)i);
        if (memcmp(&v[i], &want, sizeof want) != 0) {
            fail_msg("%d lanes, step %u, element %lld: %a instead of %a", n_lanes, step, (long long)i, (double)v[i],
                     (double)want);
        }
    }
    for (int i = 0; i < N_DOUBLES; i++) {
        double want = expected_double(step, 0, n_lanes, i);
        assert_memory_equal(&d[i], &want, sizeof want);
    }
}

// The last lane as it is computed: what is not final yet is rubbish. Ranks differ in when they say so, if at all.
static void run_last_lane(cpa_tree *tree, int lane, uint32_t step, const cpa_range *ranges, int n_ranges, cpa_real *v,
                          int64_t n, cpa_real *final, double *d)
{
    int pace = (int)(step + (uint32_t)lane) % 4;
    fill(step, lane, final, n, d);
    for (int64_t i = 0; i < n; i++) {
        v[i] = in_ranges(ranges, n_ranges, i) ? 12345 : final[i];
    }
    for (int k = 0; k < n_ranges; k++) {
        memcpy(v + ranges[k].offset, final + ranges[k].offset, (size_t)ranges[k].length * sizeof *v);
        for (int again = 0; again < pace; again++) {
            assert_int_equal(cpa_tree_ahead(tree, v, pace == 3 ? (k + 1) / 2 * 2 : k + 1), CPA_OK);
        }
    }
    assert_int_equal(cpa_tree_add(tree, lane, v, d), CPA_OK);
}

static void run_step(cpa_tree *tree, int n_lanes, int64_t n, uint32_t step, const cpa_range *ranges, int n_ranges)
{
    int first, end;
    double d[N_DOUBLES];
    cpa_real *v = NULL, *final = NULL;
    assert_int_equal(cpa_alloc((size_t)n, sizeof *v, &v), CPA_OK);
    assert_int_equal(cpa_alloc((size_t)n, sizeof *v, &final), CPA_OK);
    cpa_lane_range(n_lanes, cpa_comm_size(comm), cpa_comm_rank(comm), &first, &end);
    long before = cpa_alloc_count();
    assert_int_equal(cpa_tree_begin(tree, ranges, n_ranges), CPA_OK);
    for (int lane = first; lane < end - 1; lane++) {
        fill(step, lane, v, n, d);
        assert_int_equal(cpa_tree_add(tree, lane, v, d), CPA_OK);
    }
    run_last_lane(tree, end - 1, step, ranges, n_ranges, v, n, final, d);
    // In place, as in training. What lies outside the ranges must stay as this rank's last lane left it.
    assert_int_equal(cpa_tree_finish(tree, v, d), CPA_OK);
    assert_int_equal(cpa_alloc_count(), before);
    assert_sum(v, d, n_lanes, n, step, ranges, n_ranges);
    cpa_free(&v);
    cpa_free(&final);
}

// Cuts the whole vector at places drawn for this number, and puts the parts into another order. Some are empty, or shorter than there
// are ranks.
static int cut(uint32_t number, int64_t n, cpa_range *ranges)
{
    int count = 1 + (int)(number % CPA_TREE_RANGES);
    int64_t at = 0;
    for (int k = 0; k < count; k++) {
        uint32_t ctr[4] = {(uint32_t)k, number, 0, 0}, w[4];
        cpa_philox(23, CPA_STREAM_INIT, ctr, w);
        int64_t length = w[1] % 4 == 0 ? w[0] % 4 : w[0] % (uint32_t)(2 * n / count);
        length = length < n - at ? length : n - at;
        ranges[(k * 7 + (int)number) % count] = (cpa_range){.offset = at, .length = k == count - 1 ? n - at : length};
        at += length;
    }
    return count;
}

static void sums_do_not_depend_on_ranks(void **state)
{
    (void)state;
    for (int n_lanes = 1; n_lanes <= MAX_LANES; n_lanes *= 2) {
        cpa_tree *tree = NULL;
        int64_t n = n_lanes == 4 ? MAX_N : 1003;
        cpa_status st = cpa_tree_create(comm, CPA_REDUCE_TREE, n_lanes, n, N_DOUBLES, &tree);
        if (cpa_comm_size(comm) > n_lanes) {
            assert_int_equal(st, CPA_USAGE);
            assert_null(tree);
            continue;
        }
        assert_int_equal(st, CPA_OK);
        const cpa_range all = {0, n}, parts[] = {{600, 400}, {0, 5}, {17, 0}, {20, 1}};
        run_step(tree, n_lanes, n, 0, &all, 1);
        run_step(tree, n_lanes, n, 1, parts, 4);
        run_step(tree, n_lanes, n, 2, NULL, 0);
        run_step(tree, n_lanes, n, 3, &all, 1);
        cpa_tree_destroy(&tree);
    }
}

static void nor_on_how_ranges_are_cut(void **state)
{
    (void)state;
    for (int n_lanes = 1; n_lanes <= MAX_LANES; n_lanes *= 2) {
        cpa_tree *tree = NULL;
        if (cpa_comm_size(comm) > n_lanes) {
            continue;
        }
        assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, n_lanes, 1003, N_DOUBLES, &tree), CPA_OK);
        for (uint32_t k = 0; k < 40; k++) {
            if (k % CPA_TREE_RANGES == 6 || k % CPA_TREE_RANGES == 13) {
                continue; // a multiple of 7 ranges would not be put into another order
            }
            cpa_range ranges[CPA_TREE_RANGES];
            int n_ranges = cut(k, 1003, ranges);
            run_step(tree, n_lanes, 1003, k, ranges, n_ranges);
        }
        cpa_tree_destroy(&tree);
    }
}

// The sum of MPI is close, and the same on all ranks.
static void the_sum_of_mpi_is_close(void **state)
{
    (void)state;
    enum { N = 1003 };
    cpa_real *v = NULL, *root = NULL;
    double d[N_DOUBLES];
    assert_int_equal(cpa_alloc(N, sizeof *v, &v), CPA_OK);
    assert_int_equal(cpa_alloc(N, sizeof *v, &root), CPA_OK);
    for (int n_lanes = 1; n_lanes <= MAX_LANES; n_lanes *= 2) {
        int first, end;
        cpa_tree *tree = NULL;
        if (cpa_comm_size(comm) > n_lanes) {
            continue;
        }
        const cpa_range parts[] = {{600, 400}, {0, 5}};
        cpa_lane_range(n_lanes, cpa_comm_size(comm), cpa_comm_rank(comm), &first, &end);
        assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_MPI, n_lanes, N, N_DOUBLES, &tree), CPA_OK);
        assert_int_equal(cpa_tree_begin(tree, parts, 2), CPA_OK);
        for (int lane = first; lane < end; lane++) {
            fill(0, lane, v, N, d);
            assert_int_equal(lane == end - 1 ? cpa_tree_ahead(tree, v, 1) : CPA_OK, CPA_OK);
            assert_int_equal(cpa_tree_add(tree, lane, v, d), CPA_OK);
        }
        assert_int_equal(cpa_tree_finish(tree, v, d), CPA_OK);
        for (int64_t i = 0; i < N; i++) {
            double want = in_ranges(parts, 2, i) ? 0 : (double)v[i], size = 0;
            for (int lane = 0; lane < n_lanes && in_ranges(parts, 2, i); lane++) {
                double x = draw(0, (uint32_t)lane, (uint32_t)i);
                want += x;
                size += x < 0 ? -x : x;
            }
            assert_true((double)v[i] - want <= 1e-6 * size && want - (double)v[i] <= 1e-6 * size);
        }
        memcpy(root, v, N * sizeof *v);
        assert_int_equal(cpa_comm_bcast(comm, root, 1000 * sizeof *v, 0), CPA_OK);
        assert_memory_equal(root + 600, v + 600, 400 * sizeof *v);
        cpa_tree_destroy(&tree);
    }
    cpa_free(&v);
    cpa_free(&root);
}

// The data must be able to tell a wrong order: if left-to-right sums were equal too, the test above would prove nothing.
static void the_order_matters_for_these_data(void **state)
{
    (void)state;
    int differ = 0;
    for (int64_t i = 0; i < 1003; i++) {
        cpa_real sum = 0;
        for (int lane = 0; lane < 8; lane++) {
            sum += (cpa_real)draw(0, (uint32_t)lane, (uint32_t)i);
        }
        differ += sum != expected(0, 0, 8, i);
    }
    assert_true(differ > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_matters_for_these_data),
        cmocka_unit_test(sums_do_not_depend_on_ranks),
        cmocka_unit_test(nor_on_how_ranges_are_cut),
        cmocka_unit_test(the_sum_of_mpi_is_close),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
