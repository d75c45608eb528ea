// Owns: tests of the order of cells: every cell once, a function of its arguments alone, and frozen. Never needs a file.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/data/sampler.h"

enum { MAX_CELLS = 3000 };

static int64_t training[MAX_CELLS]; // row numbers with gaps: 2, 5, 8, ...

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < MAX_CELLS; i++) {
        training[i] = 3 * (int64_t)i + 2;
    }
    return 0;
}

static cpa_sampler *make(int64_t n, int lanes, int batch, int block, int64_t window, uint64_t seed)
{
    cpa_sampler *s = NULL;
    assert_int_equal(cpa_sampler_create(training, n, lanes, batch, block, window, seed, &s), CPA_OK);
    return s;
}

// One lane's cells of the current epoch into out, as its batches give them.
static int64_t lane_cells(const cpa_sampler *s, int lane, int64_t *out)
{
    int64_t total = 0;
    for (int64_t step = 0; step < cpa_sampler_steps(s); step++) {
        const int64_t *rows;
        int n;
        cpa_sampler_batch(s, lane, step, &rows, &n);
        assert_in_range(n, 0, cpa_sampler_max_batch(s));
        memcpy(out + total, rows, (size_t)n * sizeof *out);
        total += n;
    }
    return total;
}

// All cells of the epoch, lane after lane; each training cell must be there once.
static void check_epoch(const cpa_sampler *s, int64_t n, int lanes, int64_t *out)
{
    char seen[MAX_CELLS] = {0};
    int64_t total = 0;
    for (int lane = 0; lane < lanes; lane++) {
        total += lane_cells(s, lane, out + total);
    }
    assert_int_equal(total, n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal((out[i] - 2) % 3, 0);
        assert_in_range(out[i], 2, 3 * (n - 1) + 2);
        assert_int_equal(seen[(out[i] - 2) / 3]++, 0);
    }
}

static void test_every_cell_once(void **state)
{
    (void)state;
    static int64_t order[MAX_CELLS];
    const int64_t sizes[] = {64, 127, 512, 515, 1000, 2999};
    const int blocks[] = {1, 2, 7, 16};
    const int64_t windows[] = {0, 1, 4, 10, 1000};
    for (size_t i = 0; i < 6; i++) {
        for (int lanes = 1; lanes <= 4; lanes *= 2) {
            for (size_t b = 0; b < 4; b++) {
                for (size_t w = 0; w < 5; w++) {
                    cpa_sampler *s = make(sizes[i], lanes, 13, blocks[b], windows[w], 5);
                    for (int64_t epoch = 0; epoch < 3; epoch++) {
                        assert_int_equal(cpa_sampler_epoch(s, epoch), CPA_OK);
                        check_epoch(s, sizes[i], lanes, order);
                    }
                    cpa_sampler_destroy(&s);
                    assert_null(s);
                }
            }
        }
    }
}

static void test_function_of_arguments(void **state)
{
    (void)state;
    enum { N = 1000 };
    static int64_t a[N], b[N], c[N];
    cpa_sampler *s = make(N, 4, 16, 4, 32, 9), *t = make(N, 4, 16, 4, 32, 9), *u = make(N, 4, 16, 4, 32, 10);
    check_epoch(s, N, 4, a); // epoch 0 is ready from the start
    cpa_sampler_epoch(t, 6);
    cpa_sampler_epoch(t, 0); // what was asked before leaves no trace
    check_epoch(t, N, 4, b);
    assert_memory_equal(a, b, sizeof a);
    cpa_sampler_epoch(t, 1);
    check_epoch(t, N, 4, b);
    check_epoch(u, N, 4, c);
    int same_epoch = 0, same_seed = 0;
    for (int i = 0; i < N; i++) {
        same_epoch += a[i] == b[i];
        same_seed += a[i] == c[i];
    }
    assert_in_range(same_epoch, 0, N / 20);
    assert_in_range(same_seed, 0, N / 20);
    // The share of a lane is dealt once: the same cells in every epoch. Batch size does not touch the order.
    cpa_sampler *v = make(N, 4, 50, 4, 32, 9);
    for (int lane = 0; lane < 4; lane++) {
        cpa_sampler_epoch(s, 0);
        int64_t n = lane_cells(s, lane, a), sum = 0;
        cpa_sampler_epoch(s, 1);
        assert_int_equal(lane_cells(s, lane, b), n);
        cpa_sampler_epoch(v, 1);
        assert_int_equal(lane_cells(v, lane, c), n);
        for (int64_t i = 0; i < n; i++) {
            sum += a[i] * a[i] - b[i] * b[i];
        }
        assert_int_equal(sum, 0);
        assert_memory_equal(b, c, (size_t)n * sizeof *b);
    }
    cpa_sampler_destroy(&s);
    cpa_sampler_destroy(&t);
    cpa_sampler_destroy(&u);
    cpa_sampler_destroy(&v);
}

// Cells of a window's blocks come together, and they are mixed among themselves.
static void test_blocks_and_windows(void **state)
{
    (void)state;
    enum { N = 1024, BLOCK = 8, WINDOW = 16, LANES = 2, IN_WINDOW = BLOCK * WINDOW / LANES };
    static int64_t a[N];
    cpa_sampler *s = make(N, LANES, 16, BLOCK, WINDOW, 3);
    int neighbours = 0;
    for (int lane = 0; lane < LANES; lane++) {
        assert_int_equal(lane_cells(s, lane, a), N / LANES);
        for (int w = 0; w < N / LANES / IN_WINDOW; w++) {
            int of_block[N / BLOCK] = {0}, n_blocks = 0;
            for (int i = w * IN_WINDOW; i < (w + 1) * IN_WINDOW; i++) {
                n_blocks += of_block[(a[i] - 2) / 3 / BLOCK]++ == 0;
                neighbours += i > 0 && a[i] == a[i - 1] + 3;
            }
            assert_int_equal(n_blocks, WINDOW / LANES);
        }
    }
    assert_in_range(neighbours, 0, N / 16);
    cpa_sampler_destroy(&s);
}

static void test_tail(void **state)
{
    (void)state;
    const struct {
        int64_t n;
        int batch;
        int64_t steps;
        int last, max;
    } cases[] = {
        {3, 8, 1, 3, 3},  {7, 8, 1, 7, 7},  {8, 8, 1, 8, 8},  {9, 8, 1, 9, 9},  {10, 8, 1, 10, 10},
        {11, 8, 2, 3, 8}, {15, 8, 2, 7, 8}, {16, 8, 2, 8, 8}, {17, 8, 2, 9, 9}, {18, 8, 2, 10, 10},
        {19, 8, 3, 3, 8}, {6, 3, 2, 3, 3},  {7, 3, 2, 4, 4},  {8, 3, 2, 5, 5},  {9, 3, 3, 3, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cpa_sampler *s = make(cases[i].n, 1, cases[i].batch, 1, 0, 1);
        const int64_t *rows;
        int n;
        assert_int_equal(cpa_sampler_steps(s), cases[i].steps);
        assert_int_equal(cpa_sampler_max_batch(s), cases[i].max);
        cpa_sampler_batch(s, 0, cases[i].steps - 1, &rows, &n);
        assert_int_equal(n, cases[i].last);
        cpa_sampler_batch(s, 0, cases[i].steps, &rows, &n);
        assert_int_equal(n, 0);
        cpa_sampler_destroy(&s);
    }
}

// Blocks make lanes unequal; the shorter ones run out before the epoch ends.
static void test_lanes_run_out(void **state)
{
    (void)state;
    static int64_t a[MAX_CELLS];
    cpa_sampler *s = make(56, 4, 4, 8, 0, 2); // 7 blocks of 8 cells: three lanes have 16 cells, one has 8
    int n_out = 0;
    assert_int_equal(cpa_sampler_steps(s), 4);
    for (int lane = 0; lane < 4; lane++) {
        const int64_t *rows;
        int n;
        cpa_sampler_batch(s, lane, 1, &rows, &n);
        assert_int_equal(n, 4);
        cpa_sampler_batch(s, lane, 2, &rows, &n);
        n_out += n == 0;
        assert_int_equal(n, lane_cells(s, lane, a) == 8 ? 0 : 4);
    }
    assert_int_equal(n_out, 1);
    cpa_sampler_destroy(&s);
}

static void test_refusals(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    cpa_sampler *s = NULL;
    assert_int_equal(cpa_sampler_create(training, 10, 4, 8, 1, 0, 0, &s), CPA_BAD_DATA);
    assert_null(s);
    assert_non_null(strstr(cpa_message(), "10 training cells"));
    assert_non_null(strstr(cpa_message(), "of 4 with 2 cells"));
    assert_int_equal(cpa_sampler_create(training, 2, 1, 8, 1, 0, 0, &s), CPA_BAD_DATA);
    assert_int_equal(cpa_sampler_create(training, 0, 1, 8, 1, 0, 0, &s), CPA_BAD_DATA);
    assert_int_equal(cpa_sampler_create(training, 64, 4, 8, 32, 0, 0, &s), CPA_BAD_DATA); // two blocks, four lanes
    assert_int_equal(cpa_sampler_create(training, 64, 3, 8, 1, 0, 0, &s), CPA_INTERNAL);
    assert_int_equal(cpa_sampler_create(training, 12, 4, 8, 1, 0, 0, &s), CPA_OK);
    cpa_sampler_destroy(&s);
    cpa_sampler_destroy(&s);
    assert_int_equal(cpa_alloc_balance(), balance);
}

static void test_epoch_allocates_nothing(void **state)
{
    (void)state;
    cpa_sampler *s = make(2000, 4, 16, 8, 64, 0);
    long count = cpa_alloc_count();
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        cpa_sampler_epoch(s, epoch);
    }
    assert_int_equal(cpa_alloc_count(), count);
    cpa_sampler_destroy(&s);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_true(cpa_sampler_is_full(65536));
    assert_false(cpa_sampler_is_full(65537));
}

static void check_lane(const cpa_sampler *s, int lane, int64_t n, const int64_t *want)
{
    int64_t got[64];
    assert_int_equal(lane_cells(s, lane, got), n);
    assert_memory_equal(got, want, (size_t)n * sizeof *want);
}

// The order itself, written down: a change here changes every model that anyone has trained.
static void test_frozen(void **state)
{
    (void)state;
    cpa_sampler *s = make(12, 2, 4, 1, 0, 7);
    check_lane(s, 0, 6, (const int64_t[]){2, 35, 5, 11, 29, 32});
    check_lane(s, 1, 6, (const int64_t[]){20, 17, 23, 26, 14, 8});
    cpa_sampler_epoch(s, 1);
    check_lane(s, 0, 6, (const int64_t[]){35, 32, 29, 5, 2, 11});
    cpa_sampler_destroy(&s);
    s = make(23, 2, 4, 3, 4, 7);
    cpa_sampler_epoch(s, 2);
    check_lane(s, 0, 12, (const int64_t[]){41, 44, 8, 5, 2, 38, 11, 29, 35, 17, 32, 14});
    check_lane(s, 1, 11, (const int64_t[]){20, 23, 50, 26, 53, 47, 59, 68, 62, 65, 56});
    cpa_sampler_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell_once),
        cmocka_unit_test(test_function_of_arguments),
        cmocka_unit_test(test_blocks_and_windows),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_lanes_run_out),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_epoch_allocates_nothing),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_frozen),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
