// Owns: tests of streamed cells: the batches of resident ones bit for bit from every storage, in bounded memory, each chunk read once
// for a window, and what happens to a file meanwhile. Must never need more than one process; tests/cli/stream.sh has the ranks.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/odd_files.h"
#include "cpa/base/log.h"
#include "cpa/data/feed.h"

enum { MAX_CELLS = 5000, EPOCHS = 3, PLENTY = 64 << 20 };

static cpa_comm *comm;
static const cpa_strings *genes; // that are used, NULL: all
static cpa_condition conditions[] = {{.n = 1, .pert = (int[]){CPA_CONTROL}, .dose = (double[]){1}}};
static int32_t zeros[MAX_CELLS];
static int64_t training[MAX_CELLS];

static int set_up(void **state)
{
    cpa_log_init(1, true); // warnings are not looked at here
    for (int i = 0; i < MAX_CELLS; i++) {
        training[i] = i;
    }
    return cpa_comm_create(NULL, NULL, &comm) != CPA_OK || make_odd_files(state) != 0;
}

static int tear_down(void **state)
{
    cpa_comm_destroy(&comm);
    return remove_odd_files(state) != 0 || cpa_alloc_balance() != 0;
}

// A file, an order of its cells, and one feed of each kind.
typedef struct bench {
    cpa_h5ad *file;
    cpa_registry registry;
    cpa_sampler *sampler;
    int lanes, batch_size;
    cpa_feed *resident, *streamed;
    cpa_batch *a, *b;
} bench;

static cpa_status open_feed(bench *t, cpa_tier tier, int64_t memory, const char *layer, cpa_feed **out)
{
    return cpa_feed_open(&(cpa_feed_plan){.comm = comm,
                                          .file = t->file,
                                          .layer = layer,
                                          .sampler = t->sampler,
                                          .in_blocks = true,
                                          .n_lanes = t->lanes,
                                          .batch_size = t->batch_size,
                                          .n_epochs = EPOCHS,
                                          .memory = memory,
                                          .tier = tier},
                         out);
}

// `memory` 0: as little as streaming needs; no lanes: for a list alone.
static bench open_bench(const char *path, const char *layer, int lanes, int batch_size, int block, int64_t window,
                        int64_t memory)
{
    bench t = {.lanes = lanes, .batch_size = batch_size};
    int64_t nnz;
    cpa_status st = cpa_h5ad_open(path, &t.file);
    if (st != CPA_OK) {
        fail_msg("%s: %s", path, cpa_message());
    }
    if (genes != NULL) {
        assert_int_equal(cpa_h5ad_select_names(t.file, layer, genes, "the test"), CPA_OK);
    }
    int64_t n = cpa_h5ad_n_cells(t.file);
    t.registry = (cpa_registry){.n_cells = n,
                                .n_genes = (int32_t)cpa_h5ad_n_genes(t.file),
                                .n_conditions = 1,
                                .condition = conditions,
                                .condition_of = zeros,
                                .max_comb_len = 1,
                                .category_of = zeros};
    assert_true(lanes == 0 ||
                cpa_sampler_create(training, n, lanes, batch_size, block, window, 3, &t.sampler) == CPA_OK);
    if (open_feed(&t, CPA_TIER_RESIDENT, 0, layer, &t.resident) != CPA_OK) {
        fail_msg("%s, resident: %s", path, cpa_message());
    }
    int64_t too_little = memory > 0 ? memory - 1 : 0, enough = memory > 0 ? memory : 1 << 24;
    while (enough - too_little > 1) {
        int64_t allowed = (too_little + enough) / 2;
        st = open_feed(&t, CPA_TIER_STREAMED, allowed, layer, &t.streamed);
        cpa_feed_close(&t.streamed);
        assert_true(st == CPA_OK || (st == CPA_CONFIG && strstr(cpa_message(), "to stream") != NULL));
        too_little = st == CPA_OK ? too_little : allowed;
        enough = st == CPA_OK ? allowed : enough;
    }
    if (open_feed(&t, CPA_TIER_STREAMED, enough, layer, &t.streamed) != CPA_OK) {
        fail_msg("%s, streamed: %s", path, cpa_message());
    }
    assert_int_equal(cpa_feed_max_nnz(t.resident, 1, &nnz), CPA_OK);
    nnz *= batch_size + 2; // one cell may come many times
    assert_int_equal(cpa_batch_create(batch_size + 2, nnz, t.registry.n_genes, 0, 1, &t.a), CPA_OK);
    assert_int_equal(cpa_batch_create(batch_size + 2, nnz, t.registry.n_genes, 0, 1, &t.b), CPA_OK);
    return t;
}

static void close_bench(bench *t)
{
    cpa_batch_destroy(&t->a);
    cpa_batch_destroy(&t->b);
    cpa_feed_close(&t->resident);
    cpa_feed_close(&t->streamed);
    cpa_sampler_destroy(&t->sampler);
    cpa_h5ad_close(&t->file);
}

static void check_batch(const char *what, const cpa_batch *a, const cpa_batch *b)
{
    size_t nnz = (size_t)a->nnz, n = (size_t)a->n_cells;
    if (a->n_cells != b->n_cells || a->nnz != b->nnz ||
        memcmp(a->indptr, b->indptr, (n + 1) * sizeof *a->indptr) != 0 ||
        memcmp(a->cell, b->cell, n * sizeof *a->cell) != 0 || memcmp(a->gene, b->gene, nnz * sizeof *a->gene) != 0 ||
        memcmp(a->count, b->count, nnz * sizeof *a->count) != 0 ||
        memcmp(a->log1p, b->log1p, nnz * sizeof *a->log1p) != 0 ||
        memcmp(a->library, b->library, n * sizeof *a->library) != 0) {
        fail_msg("%s: a streamed batch of %d cells differs", what, a->n_cells);
    }
}

// The batches of a step; their cells.
static int64_t check_step(const char *what, bench *t, int64_t epoch, int64_t step)
{
    int64_t cells = 0;
    if (cpa_feed_step(t->streamed, epoch, step) != CPA_OK) {
        fail_msg("%s, epoch %d, step %d: %s", what, (int)epoch, (int)step, cpa_message());
    }
    for (int lane = 0; lane < t->lanes; lane++) {
        assert_int_equal(cpa_feed_fill(t->resident, &t->registry, lane, step, t->a), CPA_OK);
        assert_int_equal(cpa_feed_fill(t->streamed, &t->registry, lane, step, t->b), CPA_OK);
        check_batch(what, t->a, t->b);
        cells += t->a->n_cells;
    }
    return cells;
}

// All batches of an epoch from step `from` on; their cells.
static int64_t check_epoch(const char *what, bench *t, int64_t epoch, int64_t from)
{
    int64_t cells = 0;
    cpa_sampler_epoch(t->sampler, epoch);
    for (int64_t step = from; step < cpa_sampler_steps(t->sampler); step++) {
        cells += check_step(what, t, epoch, step);
    }
    return cells;
}

// The validation batches of a list, the last one with the one or two cells that are left.
static void check_list(const char *what, bench *t, int64_t n)
{
    for (int64_t at = 0, size; at < n; at += size) {
        size = n - at < t->batch_size + 3 ? n - at : t->batch_size;
        assert_int_equal(cpa_feed_fill_listed(t->resident, &t->registry, at, (int)size, t->a), CPA_OK);
        if (cpa_feed_fill_listed(t->streamed, &t->registry, at, (int)size, t->b) != CPA_OK) {
            fail_msg("%s, list: %s", what, cpa_message());
        }
        check_batch(what, t->a, t->b);
    }
}

static void the_same_batches_from_every_storage(void **state)
{
    (void)state;
    char name[128];
    int n = 0;
    FILE *list = fopen(odd("matrices.txt"), "r");
    assert_non_null(list);
    while (fscanf(list, "%127s", name) == 1) {
        if (strstr(name, "csc") != NULL) {
            continue;
        }
        bench t = open_bench(odd(name), NULL, 1, 4, 2, 2, PLENTY);
        assert_int_equal(cpa_feed_totals(t.resident), cpa_feed_totals(t.streamed));
        assert_true(cpa_feed_max_count(t.resident) == cpa_feed_max_count(t.streamed));
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            assert_int_equal(check_epoch(name, &t, epoch, 0), ODD_CELLS);
        }
        close_bench(&t);
        n++;
    }
    fclose(list);
    assert_true(n >= 50);
    static const char *const others[] = {"duplicates.h5ad",         "bool.h5ad",         "beyond_16_bits.h5ad",
                                         "sum_beyond_16_bits.h5ad", "normalised.h5ad",   "no_counts.h5ad",
                                         "many_genes.h5ad",         "exactly_65535.h5ad"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        bench t = open_bench(odd(others[i]), NULL, 2, 3, 2, 4, PLENTY);
        check_epoch(others[i], &t, 0, 0);
        close_bench(&t);
    }
    bench t = open_bench(odd("many_genes.h5ad"), "chunked", 1, 4, 3, 3, PLENTY);
    check_epoch("a chunked layer", &t, 0, 0);
    close_bench(&t);
}

static void the_same_batches_of_some_genes(void **state)
{
    (void)state;
    char *names[] = {"gene7", "gene2", "gene4"};
    static const char *const files[] = {"csr_gzip.h5ad",   "csr_zstd.h5ad",   "csr_unsorted.h5ad",  "duplicates.h5ad",
                                        "dense_gzip.h5ad", "normalised.h5ad", "beyond_16_bits.h5ad"};
    genes = &(const cpa_strings){3, names};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bench t = open_bench(odd(files[i]), NULL, 2, 3, 2, 4, PLENTY);
        assert_int_equal(cpa_feed_totals(t.resident), cpa_feed_totals(t.streamed));
        check_epoch(files[i], &t, 0, 0);
        check_epoch(files[i], &t, 1, 0);
        close_bench(&t);
    }
    genes = NULL;
}

// Lanes, blocks and windows of all sizes, also windows smaller than a batch; epochs out of order and entered midway.
static void the_same_batches_in_every_order(void **state)
{
    (void)state;
    static const struct {
        int lanes, batch, block;
        int64_t window;
    } orders[] = {{1, 128, 64, 10}, {4, 32, 8, 64}, {4, 32, 8, 8},  {2, 100, 7, 11},
                  {1, 33, 1, 300},  {1, 64, 5, 3},  {8, 16, 64, 16}};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        char what[128];
        snprintf(what, sizeof what, "%d lanes of %d, blocks of %d, windows of %d", orders[i].lanes, orders[i].batch,
                 orders[i].block, (int)orders[i].window);
        bench t = open_bench(sample_file(), NULL, orders[i].lanes, orders[i].batch, orders[i].block, orders[i].window,
                             PLENTY);
        assert_int_equal(check_epoch(what, &t, 0, 0), MAX_CELLS);
        assert_int_equal(check_epoch(what, &t, 1, 0), MAX_CELLS);
        check_epoch(what, &t, 2, cpa_sampler_steps(t.sampler) / 2);
        check_epoch(what, &t, 0, 3);
        for (int64_t step = 1; step < cpa_sampler_steps(t.sampler); step++) { // what is behind may have given way
            check_step(what, &t, 0, step - 1);
            check_step(what, &t, 0, step);
            check_step(what, &t, 0, step - 1);
        }
        close_bench(&t);
    }
}

// Without an order of training, as predictions visit cells: repeats, also of one cell for more than a window, and a last batch of any size.
static void lists_alone(void **state)
{
    (void)state;
    static int64_t list[1500];
    for (int i = 0; i < 1500; i++) {
        list[i] = i < 500 ? (i * 37) % 4999 : i < 900 ? 1234 : i < 1200 ? 4 * i : 2 * (i % 40);
    }
    static const struct {
        int64_t n, memory;
    } cases[] = {{1500, 0}, {1500, 300000}, {1500, PLENTY}, {1473, 0}, {1474, 0}, {33, 0}, {32, 0}, {1, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench t = open_bench(sample_file(), NULL, 0, 32, 0, 0, cases[i].memory);
        assert_int_equal(cpa_feed_list(t.resident, list, cases[i].n), CPA_OK);
        assert_int_equal(cpa_feed_list(t.streamed, list, cases[i].n), CPA_OK);
        for (int64_t at = 0; at < cases[i].n; at += t.b->n_cells) {
            int n = cases[i].n - at < t.batch_size ? (int)(cases[i].n - at) : t.batch_size;
            assert_int_equal(cpa_feed_fill_listed(t.resident, &t.registry, at, n, t.a), CPA_OK);
            assert_int_equal(cpa_feed_fill_listed(t.streamed, &t.registry, at, n, t.b), CPA_OK);
            check_batch("a list alone", t.a, t.b);
        }
        close_bench(&t);
    }
}

static void lists_are_kept_or_read_again(void **state)
{
    (void)state;
    static int64_t list[1001];
    for (int i = 0; i < 1001; i++) {
        list[i] = (i * 37) % 4999;
    }
    static const struct {
        int64_t n, memory;
    } cases[] = {{1001, 0}, {1001, PLENTY}, {960, 0}, {63, 0}, {2, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench t = open_bench(sample_file(), NULL, 2, 32, 8, 24, cases[i].memory);
        assert_int_equal(cpa_feed_list(t.resident, list, cases[i].n), CPA_OK);
        assert_int_equal(cpa_feed_list(t.streamed, list, cases[i].n), CPA_OK);
        int64_t before = cpa_feed_reported(t.streamed).read;
        check_list("before training", &t, cases[i].n);
        bool read = cpa_feed_reported(t.streamed).read > before;
        assert_int_equal(read, cases[i].memory == 0 && cases[i].n > 0);
        for (int64_t epoch = 0; epoch < 2; epoch++) {
            check_epoch("with a list", &t, epoch, 0);
            check_list("after an epoch", &t, cases[i].n);
        }
        close_bench(&t);
    }
}

static void a_chunk_is_read_once_for_a_window(void **state)
{
    (void)state;
    bench t = open_bench(sample_file(), NULL, 2, 64, 16, 0, PLENTY); // one window with all cells
    int64_t judged = cpa_feed_reported(t.streamed).read;
    assert_true(judged > 100000);
    assert_int_equal(cpa_feed_step(t.streamed, 0, 0), CPA_OK);
    assert_int_equal(cpa_feed_step(t.streamed, 1, 0), CPA_OK); // waits for what was read ahead
    assert_int_equal(cpa_feed_reported(t.streamed).read - judged, 2 * judged);
    close_bench(&t);
}

// Also from an earlier step on: what was read for later ones then gives way.
static void every_window_but_the_first_is_read_ahead(void **state)
{
    (void)state;
    bench t = open_bench(sample_file(), NULL, 2, 64, 16, 40, PLENTY);
    cpa_streamer *s = cpa_feed_streamer(t.streamed);
    int64_t more = cpa_sampler_windows(t.sampler) - 1, last = cpa_sampler_steps(t.sampler) - 1;
    assert_true(more > 3);
    check_epoch("at first", &t, 0, 0);
    assert_int_equal(cpa_streamer_reported(s).ahead, more + 1); // and the first of the next epoch
    for (int again = 2; again <= 4; again++) {
        check_epoch("back to the beginning", &t, 0, 0);
        assert_int_equal(cpa_streamer_reported(s).ahead, again * (more + 1));
    }
    assert_int_equal(cpa_feed_step(t.streamed, 0, last / 2), CPA_OK);
    check_epoch("back to the middle", &t, 0, last / 2);
    check_epoch("and on", &t, 1, 0);
    close_bench(&t);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    bench t = open_bench(sample_file(), NULL, 2, 64, 16, 40, 0);
    check_epoch("warming up", &t, 0, 0);
    long count = cpa_alloc_count();
    check_epoch("again", &t, 1, 0);
    check_epoch("and again", &t, 2, 0);
    assert_int_equal(cpa_alloc_count(), count);
    close_bench(&t);
}

static void check_refused(const char *name, cpa_status expected, const char *words)
{
    bench t = {.lanes = 1, .batch_size = 4};
    assert_int_equal(cpa_h5ad_open(odd(name), &t.file), CPA_OK);
    assert_int_equal(cpa_sampler_create(training, ODD_CELLS, 1, 4, 2, 2, 3, &t.sampler), CPA_OK);
    cpa_status st = open_feed(&t, CPA_TIER_STREAMED, 1 << 20, NULL, &t.streamed);
    if (st != expected || strstr(cpa_message(), words) == NULL || strstr(cpa_message(), odd(name)) == NULL) {
        fail_msg("%s: status %d, no \"%s\" in: %s", name, st, words, cpa_message());
    }
    close_bench(&t);
}

// The words are those of loading; tests/unit/test_cells.c has them all.
static void faults_are_found_before_training(void **state)
{
    (void)state;
    check_refused("nan.h5ad", CPA_BAD_DATA, "X: cell row 7, gene 'gene2' (column 2): the count nan is not a number");
    check_refused("nan_dense.h5ad", CPA_BAD_DATA, "X: cell row 7, gene 'gene4' (column 4): the count nan");
    check_refused("index_too_large.h5ad", CPA_BAD_DATA, "X/indices: cell row 7 has the gene index 9");
    check_refused("corrupt_chunk.h5ad", CPA_BAD_DATA, "X/data: the chunk that begins with element 0 cannot be read");
    check_refused("csc.h5ad", CPA_CONFIG, "cpa-hpc convert");
}

static void copy_sample(const char *to)
{
    char command[2560];
    snprintf(command, sizeof command, "cp '%s' '%s'", sample_file(), to);
    assert_int_equal(system(command), 0);
}

// Streams on until something happens.
static cpa_status stream_on(bench *t)
{
    cpa_status st = CPA_OK;
    for (int64_t epoch = 0; st == CPA_OK && epoch < EPOCHS; epoch++) {
        cpa_sampler_epoch(t->sampler, epoch);
        for (int64_t step = 0; st == CPA_OK && step < cpa_sampler_steps(t->sampler); step++) {
            st = cpa_feed_step(t->streamed, epoch, step);
        }
    }
    return st;
}

static void a_file_that_changes_is_an_error(void **state)
{
    (void)state;
    char path[1024], other[1024], before[1100];
    snprintf(path, sizeof path, "%s", odd("copy.h5ad"));
    snprintf(other, sizeof other, "%s", odd("other.h5ad"));
    static const char *const words[] = {"bytes and has", "replaced or written to", "is gone", "replaced or written to"};
    for (int what = 0; what < 4; what++) {
        copy_sample(path);
        bench t = open_bench(path, NULL, 1, 32, 8, 24, PLENTY);
        assert_int_equal(cpa_feed_step(t.streamed, 0, 0), CPA_OK);
        if (what == 0) {
            assert_int_equal(truncate(path, 400000), 0);
        } else if (what == 1) {
            copy_sample(other);
            assert_int_equal(rename(other, path), 0);
        } else if (what == 2) {
            assert_int_equal(unlink(path), 0);
        } else { // the same bytes, written again
            snprintf(before, sizeof before, "touch -d '+1 second' '%s'", path);
            assert_int_equal(system(before), 0);
        }
        cpa_status st = stream_on(&t);
        if (st != CPA_IO || strstr(cpa_message(), words[what]) == NULL || strstr(cpa_message(), path) == NULL) {
            fail_msg("case %d: status %d: %s", what, st, cpa_message());
        }
        close_bench(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_batches_from_every_storage),
        cmocka_unit_test(the_same_batches_of_some_genes),
        cmocka_unit_test(the_same_batches_in_every_order),
        cmocka_unit_test(lists_are_kept_or_read_again),
        cmocka_unit_test(lists_alone),
        cmocka_unit_test(a_chunk_is_read_once_for_a_window),
        cmocka_unit_test(every_window_but_the_first_is_read_ahead),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(faults_are_found_before_training),
        cmocka_unit_test(a_file_that_changes_is_an_error),
    };
    return cmocka_run_group_tests_name("stream", tests, set_up, tear_down);
}
