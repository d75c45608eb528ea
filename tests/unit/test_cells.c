// Owns: tests of the resident cells: the same matrix from every storage, the compact forms, each bad count with its
// words, memory. Must never need more than one process; tests/mpi/test_cells.c has the ranks.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/odd_files.h"
#include "cpa/base/log.h"
#include "cpa/data/cells.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static cpa_comm *comm;

static int set_up(void **state)
{
    cpa_log_init(1, true); // warnings are not looked at here
    return cpa_comm_create(NULL, NULL, &comm) != CPA_OK || make_odd_files(state) != 0;
}

static int tear_down(void **state)
{
    cpa_comm_destroy(&comm);
    return remove_odd_files(state);
}

static cpa_cells *load(const char *path, const char *layer)
{
    cpa_h5ad *f = NULL;
    cpa_cells *cells = NULL;
    if (cpa_h5ad_open(path, &f) != CPA_OK || cpa_cells_load(comm, f, layer, &cells) != CPA_OK) {
        fail_msg("%s: %s", path, cpa_message());
    }
    cpa_h5ad_close(&f);
    return cells;
}

static int64_t gene_of(const cpa_cells *c, int64_t p)
{
    return c->gene16 != NULL ? (int64_t)c->gene16[p] : (int64_t)c->gene32[p];
}

static double count_of(const cpa_cells *c, int64_t p)
{
    return c->count16 != NULL ? (double)c->count16[p] : (double)c->count32[p];
}

// Genes ascend, strictly unless `repeats`; the library is the sum.
static void check_rows(const char *name, const cpa_cells *c, bool repeats)
{
    assert_int_equal(c->indptr[0], 0);
    assert_int_equal(c->indptr[c->n_cells], c->nnz);
    for (int64_t cell = 0; cell < c->n_cells; cell++) {
        double sum = 0;
        for (int64_t p = c->indptr[cell]; p < c->indptr[cell + 1]; p++) {
            if (p > c->indptr[cell] && gene_of(c, p) - gene_of(c, p - 1) < (repeats ? 0 : 1)) {
                fail_msg("%s: the genes of cell %d do not ascend", name, (int)cell);
            }
            sum += count_of(c, p);
        }
        assert_true(sum == c->library[cell]);
    }
}

// The matrix of the well-formed odd files.
static void check_matrix(const char *name, const cpa_cells *c, bool repeats)
{
    double got[ODD_CELLS][ODD_GENES] = {{0}};
    assert_int_equal(c->n_cells, ODD_CELLS);
    assert_int_equal(c->n_genes, ODD_GENES);
    check_rows(name, c, repeats);
    for (int64_t cell = 0; cell < c->n_cells; cell++) {
        for (int64_t p = c->indptr[cell]; p < c->indptr[cell + 1]; p++) {
            got[cell][gene_of(c, p)] += count_of(c, p);
        }
        for (int64_t gene = 0; gene < ODD_GENES; gene++) {
            if (got[cell][gene] != odd_count(cell, gene)) {
                fail_msg("%s: cell %d, gene %d: %g instead of %d", name, (int)cell, (int)gene, got[cell][gene],
                         odd_count(cell, gene));
            }
        }
    }
    assert_int_equal(c->n_empty, 1);
    assert_int_equal(c->n_non_integer, 0);
    assert_true(c->max_count == 38);
    assert_non_null(c->gene16);
    assert_non_null(c->count16);
    assert_null(c->gene32);
    assert_null(c->count32);
    assert_int_equal(c->bytes, (2 * ODD_CELLS + 1) * 8 + c->nnz * 4);
}

static void the_same_matrix_from_every_storage(void **state)
{
    (void)state;
    char name[128];
    int n = 0;
    FILE *list = fopen(odd("matrices.txt"), "r");
    assert_non_null(list);
    while (fscanf(list, "%127s", name) == 1) {
        cpa_cells *c = load(odd(name), NULL);
        check_matrix(name, c, false);
        assert_int_equal(c->n_duplicate, 0);
        cpa_cells_destroy(&c);
        assert_null(c);
        n++;
    }
    fclose(list);
    assert_true(n >= 60);
    static const char *const layers[] = {"counts", "dense"};
    for (int i = 0; i < 2; i++) {
        cpa_cells *c = load(odd("layer_only.h5ad"), layers[i]);
        check_matrix(layers[i], c, false);
        cpa_cells_destroy(&c);
    }
}

// Three genes, in another order than in the file.
static void some_genes_of_every_storage(void **state)
{
    (void)state;
    char *names[] = {"gene7", "gene2", "gene4"};
    const int gene[] = {7, 2, 4};
    const cpa_strings chosen = {3, names};
    char name[128];
    FILE *list = fopen(odd("matrices.txt"), "r");
    assert_non_null(list);
    while (fscanf(list, "%127s", name) == 1) {
        cpa_h5ad *f = NULL;
        cpa_cells *c = NULL;
        assert_int_equal(cpa_h5ad_open(odd(name), &f), CPA_OK);
        assert_int_equal(cpa_h5ad_select_names(f, NULL, &chosen, "the test"), CPA_OK);
        if (cpa_cells_load(comm, f, NULL, &c) != CPA_OK) {
            fail_msg("%s: %s", name, cpa_message());
        }
        check_rows(name, c, false);
        for (int64_t cell = 0; cell < ODD_CELLS; cell++) {
            int64_t p = c->indptr[cell];
            for (int k = 0; k < 3; k++) {
                int expected = odd_count(cell, gene[k]);
                bool here = p < c->indptr[cell + 1] && gene_of(c, p) == k;
                if (here != (expected > 0) || (here && count_of(c, p) != expected)) {
                    fail_msg("%s: cell %d, gene %d is not %d", name, (int)cell, gene[k], expected);
                }
                p += here;
            }
            assert_int_equal(p, c->indptr[cell + 1]);
        }
        assert_int_equal(c->bytes, (2 * ODD_CELLS + 1) * 8 + c->nnz * 4);
        cpa_cells_destroy(&c);
        cpa_h5ad_close(&f);
    }
    fclose(list);
}

// What is wrong with a gene that is not used does no harm; where it is used it is named.
static void faults_of_genes_that_are_not_used(void **state)
{
    (void)state;
    static const char *const files[] = {"nan.h5ad", "nan_dense.h5ad"};
    for (int i = 0; i < 2; i++) {
        for (int used = 0; used < 2; used++) {
            char *names[] = {"gene0", used ? i == 0 ? "gene2" : "gene4" : "gene1"};
            const cpa_strings chosen = {2, names};
            cpa_h5ad *f = NULL;
            cpa_cells *c = NULL;
            assert_int_equal(cpa_h5ad_open(odd(files[i]), &f), CPA_OK);
            assert_int_equal(cpa_h5ad_select_names(f, NULL, &chosen, "the test"), CPA_OK);
            assert_int_equal(cpa_cells_load(comm, f, NULL, &c), used ? CPA_BAD_DATA : CPA_OK);
            assert_true(!used || strstr(cpa_message(), i == 0 ? "cell row 7, gene 'gene2' (column 1): the count nan"
                                                              : "cell row 7, gene 'gene4' (column 1): the count nan"));
            cpa_cells_destroy(&c);
            cpa_h5ad_close(&f);
        }
    }
}

static void duplicates_are_added_up(void **state)
{
    (void)state;
    cpa_cells *c = load(odd("duplicates.h5ad"), NULL);
    check_matrix("duplicates", c, true);
    assert_int_equal(c->nnz % 3, 0);
    assert_int_equal(c->n_duplicate, c->nnz / 3 * 2);
    for (int64_t p = 0; p < c->nnz; p += 3) { // the sum first, nothing in the surplus
        assert_true(count_of(c, p) > 0 && count_of(c, p + 1) == 0 && count_of(c, p + 2) == 0);
        assert_true(gene_of(c, p) == gene_of(c, p + 2));
    }
    cpa_cells_destroy(&c);
}

static void counts_take_what_they_need(void **state)
{
    (void)state;
    cpa_cells *c = load(odd("bool.h5ad"), NULL);
    assert_non_null(c->count16);
    assert_true(c->max_count == 1);
    cpa_cells_destroy(&c);
    c = load(odd("exactly_65535.h5ad"), NULL);
    assert_non_null(c->count16);
    assert_true(c->max_count == 65535);
    cpa_cells_destroy(&c);
    c = load(odd("beyond_16_bits.h5ad"), NULL);
    assert_null(c->count16);
    assert_true(c->max_count == 65536);
    assert_true(c->count32[c->nnz - 1] == 65536);
    assert_int_equal(c->n_non_integer, 0);
    assert_int_equal(c->bytes, (2 * ODD_CELLS + 1) * 8 + c->nnz * 6);
    cpa_cells_destroy(&c);
    c = load(odd("sum_beyond_16_bits.h5ad"), NULL);
    assert_non_null(c->count32);
    assert_int_equal(c->n_duplicate, 1);
    assert_true(c->count32[0] == 65536 && c->count32[1] == 0);
    cpa_cells_destroy(&c);
    c = load(odd("no_counts.h5ad"), NULL);
    assert_int_equal(c->nnz, 0);
    assert_int_equal(c->n_empty, ODD_CELLS);
    cpa_cells_destroy(&c);
}

static void normalised_values_are_kept(void **state)
{
    (void)state;
    static const char *const layers[] = {NULL, "dense"};
    for (int i = 0; i < 2; i++) {
        cpa_cells *c = load(odd("normalised.h5ad"), layers[i]);
        assert_non_null(c->count32);
        assert_int_equal(c->n_non_integer, c->nnz);
        check_rows("normalised", c, false);
        for (int64_t cell = 0; cell < c->n_cells; cell++) {
            for (int64_t p = c->indptr[cell]; p < c->indptr[cell + 1]; p++) {
                assert_true(c->count32[p] == (float)log1p(odd_count(cell, gene_of(c, p))));
            }
        }
        cpa_cells_destroy(&c);
    }
}

static void many_genes(void **state)
{
    (void)state;
    static const char *const layers[] = {NULL, "dense", "chunked"};
    for (int i = 0; i < 3; i++) {
        cpa_cells *c = load(odd("many_genes.h5ad"), layers[i]);
        assert_null(c->gene16);
        assert_int_equal(c->nnz, 3);
        assert_int_equal(c->gene32[0], 0);
        assert_int_equal(c->gene32[1], 65536);
        assert_int_equal(c->gene32[2], 69999);
        assert_true(c->count16[0] == 3 && c->count16[1] == 2 && c->count16[2] == 1);
        cpa_cells_destroy(&c);
    }
}

static void the_sample(void **state)
{
    (void)state;
    cpa_cells *c = load(sample_file(), NULL);
    assert_int_equal(c->n_cells, 5000);
    assert_int_equal(c->nnz, 866327);
    check_rows("sample", c, false);
    double sum = 0, weighted = 0; // sums that numpy gives for X
    for (int64_t cell = 0; cell < c->n_cells; cell++) {
        sum += c->library[cell];
        for (int64_t p = c->indptr[cell]; p < c->indptr[cell + 1]; p++) {
            weighted += count_of(c, p) * (double)((cell + 1) * (gene_of(c, p) + 1) % 1009);
        }
    }
    assert_true(sum == 5981290);
    assert_true(weighted == 2986737684);
    cpa_cells_destroy(&c);
}

static void check_refused(const char *name, const char *layer, const char *words)
{
    cpa_h5ad *f = NULL;
    cpa_cells *c = NULL;
    if (cpa_h5ad_open(odd(name), &f) != CPA_OK) {
        fail_msg("%s: %s", name, cpa_message());
    }
    long balance = cpa_alloc_balance();
    cpa_status st = cpa_cells_load(comm, f, layer, &c);
    if (st != CPA_BAD_DATA || strstr(cpa_message(), words) == NULL || strstr(cpa_message(), odd(name)) == NULL) {
        fail_msg("%s: status %d, no \"%s\" in: %s", name, st, words, cpa_message());
    }
    assert_null(c);
    assert_int_equal(cpa_alloc_balance(), balance);
    cpa_h5ad_close(&f);
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    check_refused("nan.h5ad", NULL, "X: cell row 7, gene 'gene2' (column 2): the count nan is not a number");
    check_refused("infinite.h5ad", NULL, "X: cell row 7, gene 'gene2' (column 2): the count inf is infinite");
    check_refused("negative.h5ad", NULL, "X: cell row 7, gene 'gene2' (column 2): the count -2 is negative");
    check_refused("nan_dense.h5ad", NULL, "X: cell row 7, gene 'gene4' (column 4): the count nan");
    check_refused("nan_csc.h5ad", NULL, "gene 'gene5' (column 5): the count nan");
    check_refused("no_x.h5ad", "count", "there is no layer 'count'; the layers are: 'counts', 'spliced'");
}

static void broken_structure_is_refused(void **state)
{
    (void)state;
    check_refused("index_too_large.h5ad", NULL,
                  "X/indices: cell row 7 has the gene index 9, but indices go from 0 to 8");
    check_refused("index_negative.h5ad", NULL, "X/indices: cell row 7 has the gene index -1");
    check_refused("index_too_large_csc.h5ad", NULL, "X/indices: gene column 5 has the cell index 12");
    check_refused("indptr_falls.h5ad", NULL, "X/indptr falls from");
    check_refused("indptr_begins.h5ad", NULL, "X/indptr begins with 1 instead of 0");
    check_refused("indptr_ends_short.h5ad", NULL, "X/indptr ends with");
    check_refused("indptr_ends_long.h5ad", NULL, "X/indptr points to");
    check_refused("indptr_overflow.h5ad", NULL, "32-bit overflow");
    check_refused("corrupt_chunk.h5ad", NULL, "X/data: the chunk that begins with element 0 cannot be read");
    check_refused("corrupt_lzf.h5ad", NULL, "X/data: the chunk that begins with element 0 cannot be read");
    check_refused("corrupt_zstd.h5ad", NULL, "X/data: the chunk that begins with element 6 cannot be read");
    check_refused("corrupt_checksum.h5ad", NULL,
                  "X/data: the chunk that begins with element 10 cannot be read: its checksum is wrong");
}

// Three million values: a copy of indices and data as they are in the file would take 24 MB, wider ones twice that.
static void memory_is_bounded(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    FILE *reset = fopen("/proc/self/clear_refs", "w");
    if (reset == NULL || fputs("5", reset) < 0 || fclose(reset) != 0) {
        skip();
    }
    size_t before, now, high;
    cpa_rss(&before, &high);
    cpa_cells *c = load(odd("large.h5ad"), NULL);
    cpa_rss(&now, &high);
    assert_true(c->nnz > 2900000);
    size_t allowed = before + c->bytes + ((size_t)16 << 20);
    if (high > allowed) {
        fail_msg("the high-water mark is %zu KB, %zu KB above what is allowed", high >> 10, (high - allowed) >> 10);
    }
    cpa_cells_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_matrix_from_every_storage),
        cmocka_unit_test(some_genes_of_every_storage),
        cmocka_unit_test(faults_of_genes_that_are_not_used),
        cmocka_unit_test(duplicates_are_added_up),
        cmocka_unit_test(counts_take_what_they_need),
        cmocka_unit_test(normalised_values_are_kept),
        cmocka_unit_test(many_genes),
        cmocka_unit_test(the_sample),
        cmocka_unit_test(bad_counts_are_refused),
        cmocka_unit_test(broken_structure_is_refused),
        cmocka_unit_test(memory_is_bounded),
    };
    return cmocka_run_group_tests_name("cells", tests, set_up, tear_down);
}
