// Owns: what plans rest on: the counting backend against the cpu's own account, the ledger, ranks and cells that do not exist.
// Never looks at a whole plan: tests/cli/plan.sh does.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/data/feed.h"
#include "cpa/platform/tree.h"
#include "cpa/train/ledger.h"

enum { B = 40, H = 24, G = 3000, NNZ = 200, GROUPS = 7 };

// Bytes of a backend after the same blocks and operations: arrays of all sizes, and the scratch of the largest operations.
typedef struct account {
    long blocks, all, left;
} account;

static void *block(cpa_backend *be, size_t n, size_t size)
{
    void *p;
    assert_int_equal(cpa_op_alloc(be, n * size, &p), CPA_OK);
    assert_int_equal(cpa_op_zero(be, p, n * size), CPA_OK);
    return p;
}

static account run(cpa_backend *be, cpa_memory where)
{
    account a;
    long before = cpa_memory_bytes(where);
    size_t real = sizeof(cpa_real);
    void *all[] = {block(be, B * G, real),   block(be, B * H, real), block(be, G * H, real), block(be, B + 1, 4),
                   block(be, NNZ, 4),        block(be, NNZ, real),   block(be, G, real),     block(be, B, real),
                   block(be, 2 * GROUPS, 8), block(be, B, 4),        block(be, 3 << 20, 1)};
    cpa_csr x = {
        .rows = B, .cols = G, .indptr = all[3], .gene = all[4], .count = all[5], .log1p = all[5], .library = all[7]};
    cpa_mat logits = cpa_mat_of(all[0], B, G), v = cpa_mat_of(all[6], 1, G);
    a.blocks = cpa_memory_bytes(where) - before;
    assert_int_equal(cpa_op_sparse_linear_grad(be, cpa_mat_of(all[2], G, H), x, cpa_mat_of(all[1], B, H), true),
                     CPA_OK);
    assert_int_equal(cpa_op_nb_loss(be, all[8], logits, v, v, v, v, x, 1), CPA_OK);
    assert_int_equal(cpa_op_group_r2(be, all[8], logits, CPA_NO_MAT, logits, all[9], all[9], 1, NULL, 0), CPA_OK);
    a.all = cpa_memory_bytes(where) - before;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(cpa_op_release(be, all[i]), CPA_OK);
    }
    a.left = cpa_memory_bytes(where) - before;
    return a;
}

// The counting backend says what the cpu backend takes, to what the C library rounds up.
static void counts_what_cpu_takes(void **state)
{
    (void)state;
    cpa_backend *be;
    long before = cpa_memory_bytes(CPA_MEMORY_HOST);
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    account real = run(be, CPA_MEMORY_HOST);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    assert_int_equal(cpa_memory_bytes(CPA_MEMORY_HOST), before);
    assert_int_equal(cpa_backend_create_counting("cpu", &be), CPA_OK);
    account counted = run(be, CPA_MEMORY_HOST);
    long scratch = (long)cpa_backend_counted_scratch(be), room = 13 * 4096;
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    assert_int_equal(cpa_memory_bytes(CPA_MEMORY_HOST), before);
    assert_true(scratch > 0 && counted.all - counted.blocks == scratch);
    assert_true(real.blocks - counted.blocks < room && counted.blocks - real.blocks < room);
    assert_true(real.all - counted.all < room && counted.all - real.all < room);
    assert_true(real.left >= scratch && real.left < scratch + room); // it is kept
}

// What would be a device's counts as that, in a build that has none, and nothing of it as the host's.
static void counts_for_a_device(void **state)
{
    (void)state;
    cpa_backend *be;
    assert_int_equal(cpa_backend_create_counting("cuda", &be), CPA_OK);
    assert_int_equal(cpa_backend_memory(be), CPA_MEMORY_DEVICE);
    long host = cpa_memory_bytes(CPA_MEMORY_HOST), of_its_own = cpa_memory_bytes(CPA_MEMORY_DEVICE); // cuBLAS's
    assert_int_equal(of_its_own, 32 << 20);
    void *p = block(be, 1000, 1);
    assert_null(cpa_backend_host(be, p));
    assert_int_equal(cpa_memory_bytes(CPA_MEMORY_DEVICE), of_its_own + 1024);
    assert_true(cpa_memory_bytes(CPA_MEMORY_HOST) - host < 4096); // its list of blocks
    assert_int_equal(cpa_op_release(be, p), CPA_OK);
    assert_int_equal(cpa_op_release(be, p), CPA_INTERNAL);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    assert_int_equal(cpa_memory_bytes(CPA_MEMORY_DEVICE), 0);
}

// It is a backend like the others: shapes are checked, what is read back are zeros, what was not released is a failure.
static void keeps_manners(void **state)
{
    (void)state;
    cpa_backend *be;
    double read[2] = {1, 2};
    assert_int_equal(cpa_backend_create_counting("cpu", &be), CPA_OK);
    void *p = block(be, 6, sizeof(cpa_real)), *sums = block(be, 2, 8);
    assert_int_equal(cpa_op_add_row(be, cpa_mat_of(p, 2, 3), cpa_mat_of(p, 1, 2)), CPA_INTERNAL);
    assert_int_equal(cpa_op_download(be, read, sums, sizeof read), CPA_OK);
    assert_true(read[0] == 0 && read[1] == 0);
    assert_int_equal(cpa_op_release(be, sums), CPA_OK);
    assert_int_equal(cpa_backend_destroy(&be), CPA_INTERNAL);
}

static void ledger_enters_differences(void **state)
{
    (void)state;
    cpa_ledger l;
    char *a = NULL, *b = NULL;
    assert_int_equal(cpa_alloc(5000, 1, &a), CPA_OK); // before: nobody's
    cpa_ledger_begin(&l);
    assert_int_equal(cpa_alloc(100000, 1, &b), CPA_OK);
    cpa_memory_note(CPA_MEMORY_NODE, 7);
    cpa_ledger_enter(&l, CPA_ITEM_CELLS);
    cpa_free(&b);
    cpa_ledger_enter(&l, CPA_ITEM_STEPS);
    cpa_memory_note(CPA_MEMORY_NODE, -7);
    cpa_ledger_enter(&l, CPA_ITEM_CELLS);
    assert_true(l.bytes[CPA_ITEM_CELLS][CPA_MEMORY_HOST] >= 100000);
    assert_int_equal(l.bytes[CPA_ITEM_CELLS][CPA_MEMORY_NODE], 0);
    assert_int_equal(cpa_ledger_total(&l, CPA_MEMORY_HOST), 0);
    assert_true(cpa_ledger_item(&l, CPA_ITEM_STEPS) < 0);
    cpa_ledger_enter(NULL, CPA_ITEM_STEPS);
    assert_string_equal(cpa_item_name(CPA_ITEM_CELLS), "cells");
    cpa_free(&a);
}

// A sum over ranks can be sized for ranks that do not exist: the first, with more lanes, takes more than the last.
static void sums_of_ranks_that_do_not_exist(void **state)
{
    (void)state;
    long bytes[3];
    const int rank[] = {0, 2};
    for (int i = 0; i < 2; i++) {
        cpa_comm *comm;
        cpa_tree *tree;
        long before = cpa_memory_bytes(CPA_MEMORY_HOST);
        assert_int_equal(cpa_comm_imagine(rank[i], 3, 2, &comm), CPA_OK);
        assert_int_equal(cpa_comm_rank(comm), rank[i]);
        assert_int_equal(cpa_comm_node_size(comm), 2);
        assert_int_equal(cpa_comm_agree(comm, CPA_IO), CPA_IO);
        assert_int_equal(cpa_tree_create(comm, CPA_REDUCE_TREE, 4, 100000, 10, &tree), CPA_OK);
        bytes[i] = cpa_memory_bytes(CPA_MEMORY_HOST) - before;
        cpa_tree_destroy(&tree);
        cpa_comm_destroy(&comm);
        assert_int_equal(cpa_memory_bytes(CPA_MEMORY_HOST), before);
    }
    assert_true(bytes[0] > bytes[1] + (long)(100000 * sizeof(cpa_real)) - 4096);
}

// The choice of an imagined feed is that of a real one, a tier that was asked for included; and there are no cells in it.
static void imagines_what_would_be_opened(void **state)
{
    (void)state;
    cpa_comm *comm;
    cpa_feed *feed;
    int64_t indptr[] = {0, 3, 5};
    cpa_matrix m = {.info = {.n_cells = 2, .n_genes = 7}, .indptr = indptr, .nnz = 5};
    assert_int_equal(cpa_comm_imagine(0, 2, 2, &comm), CPA_OK);
    cpa_feed_plan plan = {.comm = comm, .n_lanes = 2, .batch_size = 1, .memory = 1, .tier = CPA_TIER_RESIDENT};
    assert_int_equal(cpa_feed_imagine(&plan, &m, &feed), CPA_OK);
    assert_null(cpa_feed_streamer(feed));
    assert_int_equal(cpa_feed_budget(feed), 1);
    assert_true(cpa_memory_bytes(CPA_MEMORY_NODE) > 0);
    assert_int_equal(cpa_feed_fill(feed, NULL, 0, 0, NULL), CPA_INTERNAL);
    assert_int_equal(cpa_feed_fill_listed(feed, NULL, 0, 1, NULL), CPA_INTERNAL);
    cpa_feed_close(&feed);
    cpa_comm_destroy(&comm);
    assert_int_equal(cpa_memory_bytes(CPA_MEMORY_NODE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_cpu_takes),
        cmocka_unit_test(counts_for_a_device),
        cmocka_unit_test(keeps_manners),
        cmocka_unit_test(ledger_enters_differences),
        cmocka_unit_test(sums_of_ranks_that_do_not_exist),
        cmocka_unit_test(imagines_what_would_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
