// Owns: the tests of loading cells by several ranks: the same cells as one rank loads, failures told by all.
// Must never let a rank skip a collective that the others call, unless the test fails.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/odd_files.h"
#include "cpa/base/log.h"
#include "cpa/data/cells.h"

static cpa_comm *comm;

// Rank 0 makes the files, the others learn where.
static int set_up(void **state)
{
    if (cpa_comm_create(NULL, NULL, &comm) != CPA_OK) {
        return 1;
    }
    cpa_log_init(1, true); // warnings are not looked at here
    int64_t failed = cpa_comm_rank(comm) == 0 ? make_odd_files(state) != 0 : 0;
    return cpa_comm_sum_i64(comm, &failed, 1) != CPA_OK || failed != 0 ||
           cpa_comm_bcast(comm, odd_folder, sizeof odd_folder, 0) != CPA_OK;
}

static int tear_down(void **state)
{
    int rc = cpa_comm_barrier(comm) == CPA_OK && cpa_comm_rank(comm) == 0 ? remove_odd_files(state) : 0;
    cpa_comm_destroy(&comm);
    return rc != 0 || cpa_alloc_balance() != 0;
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

static void check_matrix(const char *name, const char *layer)
{
    double got[ODD_CELLS][ODD_GENES] = {{0}};
    cpa_cells *c = load(odd(name), layer);
    assert_non_null(c->count16);
    assert_int_equal(c->n_empty, 1);
    assert_int_equal(c->n_duplicate, strcmp(name, "duplicates.h5ad") == 0 ? c->nnz / 3 * 2 : 0);
    assert_true(c->max_count == 38);
    for (int64_t cell = 0; cell < c->n_cells; cell++) {
        double sum = 0;
        for (int64_t p = c->indptr[cell]; p < c->indptr[cell + 1]; p++) {
            got[cell][c->gene16[p]] += c->count16[p];
            sum += c->count16[p];
        }
        assert_true(c->library[cell] == sum);
        for (int64_t gene = 0; gene < ODD_GENES; gene++) {
            if (got[cell][gene] != odd_count(cell, gene)) {
                fail_msg("%s: cell %d, gene %d: %g", name, (int)cell, (int)gene, got[cell][gene]);
            }
        }
    }
    cpa_cells_destroy(&c);
}

static void every_rank_has_all_cells(void **state)
{
    (void)state;
    check_matrix("csr_lzf.h5ad", NULL);
    check_matrix("csc_gzip.h5ad", NULL);
    check_matrix("dense_shuffle.h5ad", NULL);
    check_matrix("csr_unsorted.h5ad", NULL);
    check_matrix("duplicates.h5ad", NULL);
    check_matrix("layer_only.h5ad", "counts");
}

static void the_sample(void **state)
{
    (void)state;
    cpa_cells *c = load(sample_file(), NULL);
    double sum = 0;
    assert_int_equal(c->nnz, 866327);
    for (int64_t cell = 0; cell < c->n_cells; cell++) {
        sum += c->library[cell];
    }
    assert_true(sum == 5981290);
    cpa_cells_destroy(&c);
}

// Only the last rank meets the count that needs more than 16 bits.
static void wide_counts_are_agreed(void **state)
{
    (void)state;
    cpa_cells *c = load(odd("beyond_16_bits.h5ad"), NULL);
    assert_null(c->count16);
    assert_true(c->count32[c->nnz - 1] == 65536);
    assert_int_equal(c->bytes, (2 * ODD_CELLS + 1) * 8 + c->nnz * 6);
    cpa_cells_destroy(&c);
}

static void check_refused(const char *name, const char *words)
{
    cpa_h5ad *f = NULL;
    cpa_cells *c = NULL;
    if (cpa_h5ad_open(odd(name), &f) != CPA_OK) {
        fail_msg("%s: %s", name, cpa_message());
    }
    cpa_status st = cpa_cells_load(comm, f, NULL, &c);
    if (st != CPA_BAD_DATA || strstr(cpa_message(), words) == NULL) {
        fail_msg("%s: status %d, no \"%s\" in: %s", name, st, words, cpa_message());
    }
    assert_null(c);
    cpa_h5ad_close(&f);
}

static void one_rank_fails_and_all_say_so(void **state)
{
    (void)state;
    check_refused("nan.h5ad", "X: cell row 7, gene 'gene2' (column 2): the count nan is not a number");
    check_refused("index_too_large.h5ad", "X/indices: cell row 7 has the gene index 9");
    check_refused("indptr_falls.h5ad", "X/indptr falls from");
    check_refused("indptr_ends_long.h5ad", "X/indptr points to");
    check_refused("no_x.h5ad", "there is no X");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_has_all_cells),
        cmocka_unit_test(the_sample),
        cmocka_unit_test(wide_counts_are_agreed),
        cmocka_unit_test(one_rank_fails_and_all_say_so),
    };
    return cmocka_run_group_tests_name("cells over ranks", tests, set_up, tear_down);
}
