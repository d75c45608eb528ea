// Owns: tests of filling batches: counts, logarithms and meaning of chosen cells, in every storage type. The cells are made
// here; never needs a file.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/data/loader.h"

enum { N_GENES = 40, MAX_NNZ = 64 };

// Four cells: three values, none, two, five.
static const int64_t indptr[] = {0, 3, 3, 5, 10};
static const uint16_t gene16[] = {0, 7, 39, 1, 2, 3, 4, 5, 6, 7};
static const uint32_t gene32[] = {0, 7, 39, 1, 2, 3, 4, 5, 6, 7};
static const uint16_t count16[] = {1, 4095, 4096, 65535, 2, 1, 1, 1, 0, 9};
static const float count32[] = {1, 4095, 4096, 65535, 2, 1, 0.5f, 1, 0, 16777216};
static const double library[] = {8192, 0, 65537, 12.5};

static cpa_condition conditions[] = {
    {.label = 0, .n = 1, .pert = (int[]){CPA_CONTROL}, .dose = (double[]){1}, .is_control = true},
    {.label = 2, .n = 2, .pert = (int[]){4, 2}, .dose = (double[]){0.1, 10}},
};
static int32_t condition_of[] = {1, 0, 0, 1};
static int32_t category_of[] = {3, 0, 1, 2};
static uint16_t cov_code[2][4] = {{0, 1, 2, 65535}, {5, 6, 7, 8}};
static cpa_covariate covariates[] = {{.name = "cell_type", .code = cov_code[0]},
                                     {.name = "donor", .code = cov_code[1]}};
static cpa_registry registry = {.n_cells = 4,
                                .n_genes = N_GENES,
                                .n_conditions = 2,
                                .condition = conditions,
                                .condition_of = condition_of,
                                .n_covs = 2,
                                .cov = covariates,
                                .max_comb_len = 2,
                                .n_categories = 4,
                                .category_of = category_of};

static cpa_cells cells_of(bool small_genes, bool small_counts)
{
    return (cpa_cells){.n_cells = 4,
                       .nnz = 10,
                       .n_genes = N_GENES,
                       .indptr = indptr,
                       .gene16 = small_genes ? gene16 : NULL,
                       .gene32 = small_genes ? NULL : gene32,
                       .count16 = small_counts ? count16 : NULL,
                       .count32 = small_counts ? NULL : count32,
                       .library = library};
}

static void check_values(const cpa_batch *b, const int64_t *row, bool small_counts)
{
    for (int i = 0; i < b->n_cells; i++) {
        assert_int_equal(b->indptr[i + 1] - b->indptr[i], indptr[row[i] + 1] - indptr[row[i]]);
        for (int32_t k = b->indptr[i]; k < b->indptr[i + 1]; k++) {
            int64_t from = indptr[row[i]] + k - b->indptr[i];
            double count = small_counts ? count16[from] : (double)count32[from];
            assert_int_equal(b->gene[k], gene16[from]);
            assert_true(b->count[k] == (cpa_real)count);
            assert_true(b->log1p[k] == (cpa_real)log1p(count));
        }
        assert_true(b->library[i] == (cpa_real)library[row[i]]);
    }
}

static void test_fill(void **state)
{
    (void)state;
    const int64_t row[] = {3, 0, 1, 3, 2}; // any order, repeats allowed
    cpa_batch *b = NULL;
    assert_int_equal(cpa_batch_create(6, MAX_NNZ, N_GENES, 2, 3, &b), CPA_OK);
    for (int types = 0; types < 4; types++) {
        cpa_cells cells = cells_of(types & 1, types & 2);
        assert_int_equal(cpa_loader_fill(&cells, &registry, row, 5, b), CPA_OK);
        assert_int_equal(b->n_cells, 5);
        assert_int_equal(b->nnz, 15);
        assert_int_equal(b->indptr[0], 0);
        check_values(b, row, types & 2);
    }
    assert_memory_equal(b->label, ((int32_t[]){2, 2, 0, 2, 0}), 20);
    assert_memory_equal(b->category, ((int32_t[]){2, 3, 0, 2, 1}), 20);
    assert_memory_equal(b->cell, ((int32_t[]){3, 0, 1, 3, 2}), 20);
    assert_memory_equal(b->cov, ((int32_t[]){65535, 0, 1, 65535, 2}), 20);
    assert_memory_equal(b->cov + b->max_cells, ((int32_t[]){8, 5, 6, 8, 7}), 20);
    assert_memory_equal(b->pert, ((int32_t[]){4, 2, 0, 4, 2, 0, 1, 0, 0, 4, 2, 0, 1, 0, 0}), 60);
    const double dose[] = {0.1, 10, 0, 0.1, 10, 0, 1, 0, 0, 0.1, 10, 0, 1, 0, 0};
    for (int i = 0; i < 15; i++) {
        assert_true(b->dose[i] == (cpa_real)dose[i]);
    }
    cpa_batch_destroy(&b);
    assert_null(b);
}

static void test_limits(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    const int64_t row[] = {0, 1, 2, 3};
    cpa_cells cells = cells_of(true, true);
    cpa_batch *b = NULL;
    int64_t nnz;
    assert_int_equal(cpa_loader_max_nnz(&cells, 1, &nnz), CPA_OK);
    assert_int_equal(nnz, 5);
    assert_int_equal(cpa_loader_max_nnz(&cells, 2, &nnz), CPA_OK);
    assert_int_equal(nnz, 8);
    assert_int_equal(cpa_loader_max_nnz(&cells, 9, &nnz), CPA_OK);
    assert_int_equal(nnz, 10);
    assert_int_equal(cpa_batch_create(3, 8, N_GENES, 2, 2, &b), CPA_OK);
    long count = cpa_alloc_count();
    assert_int_equal(cpa_loader_fill(&cells, &registry, row, 3, b), CPA_OK);
    assert_int_equal(cpa_loader_fill(&cells, &registry, row, 0, b), CPA_OK);
    assert_int_equal(b->n_cells, 0);
    assert_int_equal(cpa_alloc_count(), count);
    assert_int_equal(cpa_loader_fill(&cells, &registry, row, 4, b), CPA_INTERNAL);               // too many cells
    assert_int_equal(cpa_loader_fill(&cells, &registry, row + 1, 3, b), CPA_OK);                 // 0 + 2 + 5 values
    assert_int_equal(cpa_loader_fill(&cells, &registry, (int64_t[]){3, 3}, 2, b), CPA_INTERNAL); // 10 values
    cpa_batch_destroy(&b);
    assert_int_equal(cpa_batch_create(3, 8, N_GENES, 2, 1, &b), CPA_OK); // one component is too few
    assert_int_equal(cpa_loader_fill(&cells, &registry, row, 3, b), CPA_INTERNAL);
    cpa_batch_destroy(&b);
    cpa_batch_destroy(&b);
    assert_int_equal(cpa_batch_create(3, (int64_t)INT32_MAX + 1, N_GENES, 2, 1, &b), CPA_BAD_DATA);
    assert_int_equal(cpa_alloc_balance(), balance);
}

// Enough values for the threads to share: the same as cell by cell.
static void test_many_values(void **state)
{
    (void)state;
    enum { CELLS = 300, EACH = 400 };
    static int64_t starts[CELLS + 1], row[CELLS];
    static uint16_t genes[CELLS * EACH], counts[CELLS * EACH];
    static double sums[CELLS];
    static int32_t zeros[CELLS];
    static uint16_t codes[CELLS];
    cpa_covariate cov[] = {{.code = codes}, {.code = codes}};
    cpa_registry r = registry;
    r.condition_of = zeros;
    r.category_of = zeros;
    r.cov = cov;
    for (int i = 0; i < CELLS; i++) {
        starts[i + 1] = starts[i] + EACH;
        row[i] = (7 * i) % CELLS; // 7 and 300 have no common divisor
        for (int k = 0; k < EACH; k++) {
            genes[i * EACH + k] = (uint16_t)(2 * k);
            counts[i * EACH + k] = (uint16_t)((i * 31 + k * 17) % 6000);
            sums[i] += counts[i * EACH + k];
        }
    }
    cpa_cells cells = {.n_cells = CELLS,
                       .nnz = CELLS * EACH,
                       .n_genes = 2 * EACH,
                       .indptr = starts,
                       .gene16 = genes,
                       .count16 = counts,
                       .library = sums};
    cpa_batch *b = NULL;
    assert_int_equal(cpa_batch_create(CELLS, CELLS * EACH, 2 * EACH, 2, 2, &b), CPA_OK);
    assert_int_equal(cpa_loader_fill(&cells, &r, row, CELLS, b), CPA_OK);
    for (int i = 0; i < CELLS; i++) {
        for (int k = 0; k < EACH; k++) {
            uint16_t count = counts[row[i] * EACH + k];
            int at = i * EACH + k;
            assert_true(b->gene[at] == 2 * k && b->count[at] == (cpa_real)count);
            assert_true(b->log1p[at] == (cpa_real)log1p((double)count));
        }
    }
    cpa_batch_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_many_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
