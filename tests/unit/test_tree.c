// Owns: the tests of the sum over lanes in a single process: order of additions, ranges, single lane, refusals.
// Must never need MPI; several ranks are tested in tests/mpi/test_tree.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/base/mem.h"
#include "cpa/platform/tree.h"

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

static void lane_ranges_cover_all_lanes_once(void **state)
{
    (void)state;
    for (int n_lanes = 1; n_lanes <= 64; n_lanes *= 2) {
        for (int n_ranks = 1; n_ranks <= n_lanes; n_ranks++) {
            int next = 0;
            for (int r = 0; r < n_ranks; r++) {
                int first = -1, end = -1;
                cpa_lane_range(n_lanes, n_ranks, r, &first, &end);
                assert_int_equal(first, next);
                assert_true(end > first);
                next = end;
            }
            assert_int_equal(next, n_lanes);
        }
    }
    int first, end;
    cpa_lane_range(4, 3, 0, &first, &end);
    assert_int_equal(end - first, 2);
}

// (1 + e) + (e + -1) in the tree is not ((1 + e) + e) + -1: the order is visible in the last bits.
static void additions_follow_the_tree(void **state)
{
    (void)state;
    const cpa_real big = sizeof(cpa_real) == 4 ? (cpa_real)0x1p24 : (cpa_real)0x1p53;
    const cpa_real lane[4] = {big, 1, 1, -big};
    const double dlane[4] = {0x1p53, 1, 1, -0x1p53};
    cpa_real out = -1;
    double dout = -1;
    const cpa_range all = {0, 1};
    cpa_tree *tree = NULL;
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 4, 1, 1, &tree), CPA_OK);
    for (int step = 0; step < 2; step++) {
        assert_int_equal(cpa_tree_begin(tree, &all, 1), CPA_OK);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(cpa_tree_add(tree, i, &lane[i], &dlane[i]), CPA_OK);
        }
        assert_int_equal(cpa_tree_finish(tree, &out, &dout), CPA_OK);
        assert_true(out == (lane[0] + lane[1]) + (lane[2] + lane[3]));
        assert_true(out == 1 && dout == 1); // left to right it would be 0
    }
    cpa_tree_destroy(&tree);
    assert_null(tree);
}

static void only_the_ranges_are_summed(void **state)
{
    (void)state;
    enum { N = 10 };
    cpa_real v[N], out[N];
    const cpa_range parts[] = {{7, 2}, {1, 3}};
    cpa_tree *tree = NULL;
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 2, N, 0, &tree), CPA_OK);
    long before = cpa_alloc_count();
    assert_int_equal(cpa_tree_begin(tree, parts, 2), CPA_OK);
    for (int lane = 0; lane < 2; lane++) {
        for (int i = 0; i < N; i++) {
            v[i] = (cpa_real)(100 * lane + i);
            out[i] = -1;
        }
        assert_int_equal(cpa_tree_add(tree, lane, v, NULL), CPA_OK);
    }
    assert_int_equal(cpa_tree_finish(tree, out, NULL), CPA_OK);
    for (int i = 0; i < N; i++) {
        int summed = (i >= 7 && i < 9) || (i >= 1 && i < 4);
        assert_true(out[i] == (summed ? (cpa_real)(100 + 2 * i) : -1));
    }
    assert_int_equal(cpa_alloc_count(), before);
    cpa_tree_destroy(&tree);
}

static void a_single_lane_is_the_result(void **state)
{
    (void)state;
    cpa_real v[3] = {1, 2, 3}, other[3] = {0, 0, 0};
    double d = 5, dother = 0;
    const cpa_range part = {1, 2};
    cpa_tree *tree = NULL;
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 1, 3, 1, &tree), CPA_OK);
    assert_int_equal(cpa_tree_begin(tree, &part, 1), CPA_OK);
    assert_int_equal(cpa_tree_add(tree, 0, v, &d), CPA_OK);
    assert_int_equal(cpa_tree_finish(tree, v, &d), CPA_OK);
    assert_true(v[0] == 1 && v[1] == 2 && v[2] == 3 && d == 5);
    assert_int_equal(cpa_tree_begin(tree, &part, 1), CPA_OK);
    assert_int_equal(cpa_tree_add(tree, 0, v, &d), CPA_OK);
    assert_int_equal(cpa_tree_finish(tree, other, &dother), CPA_OK);
    assert_true(other[0] == 0 && other[1] == 2 && other[2] == 3 && dother == 5);
    cpa_tree_destroy(&tree);
}

// On one rank there is nothing to send, and the order is the same whatever the way.
static void alone_all_ways_are_the_same(void **state)
{
    (void)state;
    const cpa_real lane[4] = {(cpa_real)0.1, (cpa_real)0.7, (cpa_real)-0.3, (cpa_real)1e-3};
    const cpa_range all = {0, 1};
    for (int how = CPA_REDUCE_TREE; how <= CPA_REDUCE_MPI; how++) {
        cpa_real v = 0;
        cpa_tree *tree = NULL;
        assert_int_equal(cpa_tree_create(comm, (cpa_reduce)how, 4, 1, 0, &tree), CPA_OK);
        assert_int_equal(cpa_tree_begin(tree, &all, 1), CPA_OK);
        for (int i = 0; i < 4; i++) {
            v = lane[i];
            assert_int_equal(i == 3 ? cpa_tree_ahead(tree, &v, 1) : CPA_OK, CPA_OK);
            assert_int_equal(cpa_tree_add(tree, i, &v, NULL), CPA_OK);
        }
        assert_int_equal(cpa_tree_finish(tree, &v, NULL), CPA_OK);
        assert_true(v == (lane[0] + lane[1]) + (lane[2] + lane[3]));
        cpa_tree_destroy(&tree);
    }
}

static void ways_have_names(void **state)
{
    (void)state;
    cpa_reduce how = CPA_REDUCE_TREE;
    assert_int_equal(cpa_reduce_of("mpi", &how), CPA_OK);
    assert_int_equal(how, CPA_REDUCE_MPI);
    assert_int_equal(cpa_reduce_of("tree", &how), CPA_OK);
    assert_int_equal(how, CPA_REDUCE_TREE);
    assert_int_equal(cpa_reduce_of("ring", &how), CPA_USAGE);
}

static void wrong_use_is_refused(void **state)
{
    (void)state;
    cpa_real v[4] = {0}, out[4];
    cpa_tree *tree = NULL;
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 3, 4, 0, &tree), CPA_USAGE);
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 0, 4, 0, &tree), CPA_USAGE);
    assert_null(tree);
    assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 2, 4, 0, &tree), CPA_OK);
    assert_int_equal(cpa_tree_add(tree, 0, v, NULL), CPA_INTERNAL);
    assert_int_equal(cpa_tree_finish(tree, out, NULL), CPA_INTERNAL);
    const cpa_range outside = {2, 3}, twice[] = {{0, 3}, {1, 3}}, all = {0, 4};
    assert_int_equal(cpa_tree_begin(tree, &outside, 1), CPA_INTERNAL);
    assert_int_equal(cpa_tree_begin(tree, twice, 2), CPA_INTERNAL);
    assert_int_equal(cpa_tree_begin(tree, &all, 1), CPA_OK);
    assert_int_equal(cpa_tree_add(tree, 1, v, NULL), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "expects lane 0"));
    assert_int_equal(cpa_tree_ahead(tree, v, 1), CPA_INTERNAL); // another lane is before the last
    assert_int_equal(cpa_tree_add(tree, 0, v, NULL), CPA_OK);
    assert_int_equal(cpa_tree_ahead(tree, v, 2), CPA_INTERNAL);
    assert_int_equal(cpa_tree_finish(tree, out, NULL), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "waits for lane 1"));
    cpa_tree_destroy(&tree);
    cpa_tree_destroy(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lane_ranges_cover_all_lanes_once),
        cmocka_unit_test(additions_follow_the_tree),
        cmocka_unit_test(only_the_ranges_are_summed),
        cmocka_unit_test(a_single_lane_is_the_result),
        cmocka_unit_test(alone_all_ways_are_the_same),
        cmocka_unit_test(ways_have_names),
        cmocka_unit_test(wrong_use_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
