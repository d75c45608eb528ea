// Owns: tests of scores, profiles and the effects behind the baselines, against values worked out by hand or by
// another way. Never needs a model or a file.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/app/evaluate_impl.h"

static void assert_near(double x, double expected)
{
    assert_true(fabs(x - expected) <= 1e-12 * fmax(1, fabs(expected)));
}

static void test_r2(void **state)
{
    (void)state;
    const double real[] = {3, -0.5, 2, 7}, predicted[] = {2.5, 0, 2, 8}, flat[] = {2, 2, 2, 2};
    const int32_t some[] = {3, 1};
    assert_near(cpa_score_r2_of(real, predicted, (cpa_genes){NULL, 4}),
                0.9486081370449679); // scikit-learn's own example
    assert_near(cpa_score_r2_of(real, real, (cpa_genes){NULL, 4}), 1);
    assert_near(cpa_score_r2_of(real, predicted, (cpa_genes){some, 2}), 1 - 1.25 / 28.125);
    assert_near(cpa_score_r2_of(flat, flat, (cpa_genes){NULL, 4}), 1);
    assert_near(cpa_score_r2_of(flat, real, (cpa_genes){NULL, 4}), 0);
    assert_true(isnan(cpa_score_r2_of(real, predicted, (cpa_genes){some, 1})));
    assert_true(isnan(cpa_score_r2_of(real, predicted, (cpa_genes){some, 0})));
}

static void test_pearson(void **state)
{
    (void)state;
    const double a[] = {1, 2, 3, 5}, b[] = {2, 1, 4, 4}, minus[] = {-1, -2, -3, -5}, flat[] = {1, 1, 1, 1};
    const int32_t some[] = {0, 2};
    assert_near(cpa_score_pearson(a, b, (cpa_genes){NULL, 4}), 5.75 / sqrt(8.75 * 6.75));
    assert_near(cpa_score_pearson(a, minus, (cpa_genes){NULL, 4}), -1);
    assert_near(cpa_score_pearson(a, b, (cpa_genes){some, 2}), 1);
    assert_true(isnan(cpa_score_pearson(a, flat, (cpa_genes){NULL, 4})));
    assert_true(isnan(cpa_score_pearson(a, b, (cpa_genes){some, 1})));
}

// Ten cells of three genes, the last without counts; as rows and as resident cells.
enum { N = 10, G = 3 };
static const cpa_real rows[N * G] = {1, 0, 3, 0, 2, 0, 5, 5, 1, 0, 0, 9, 4, 0, 0,
                                     1, 1, 1, 2, 0, 7, 0, 3, 3, 6, 2, 0, 0, 0, 0};

static void sparse(cpa_cells *cells, int64_t *indptr, uint16_t *gene, uint16_t *count, double *library)
{
    int64_t nnz = 0;
    for (int i = 0; i < N; i++) {
        library[i] = 0;
        for (int g = 0; g < G; g++) {
            if (rows[i * G + g] > 0) {
                gene[nnz] = (uint16_t)g;
                count[nnz++] = (uint16_t)rows[i * G + g];
                library[i] += (double)rows[i * G + g];
            }
        }
        indptr[i + 1] = nnz;
    }
    *cells = (cpa_cells){
        .n_cells = N, .nnz = nnz, .n_genes = G, .indptr = indptr, .gene16 = gene, .count16 = count, .library = library};
}

static void test_profile(void **state)
{
    (void)state;
    for (int scale = CPA_SCALE_COUNTS; scale <= CPA_SCALE_GIVEN; scale++) {
        cpa_profile p;
        double var[G], bulk[G];
        assert_int_equal(cpa_profile_init(&p, G), CPA_OK);
        assert_int_equal(cpa_profile_of_rows(&p, rows, N, (cpa_scale)scale), CPA_OK);
        cpa_profile_variance(&p, var);
        cpa_profile_pseudobulk(&p, (cpa_scale)scale, bulk);
        for (int g = 0; g < G; g++) {
            double sum = 0, squares = 0, cp = 0;
            for (int i = 0; i < N; i++) {
                double library = (double)(rows[i * G] + rows[i * G + 1] + rows[i * G + 2]);
                double part = library > 0 ? (double)rows[i * G + g] / library * 1e4 : 0;
                part = scale == CPA_SCALE_GIVEN ? (double)rows[i * G + g] : part;
                double y = scale == CPA_SCALE_LOG ? log1p(part) : (double)rows[i * G + g];
                cp += part / N;
                sum += y;
                squares += y * y;
            }
            assert_near(p.mean[g], sum / N);
            assert_near(var[g], squares / N - sum / N * (sum / N));
            assert_near(p.cp10k[g], cp);
            assert_near(bulk[g], scale == CPA_SCALE_GIVEN ? cp : log1p(cp));
        }
        cpa_profile_fini(&p);
    }
}

static void test_profile_of_cells(void **state)
{
    (void)state;
    cpa_cells cells;
    cpa_profile dense, real;
    int64_t indptr[N + 1] = {0}, all[N];
    uint16_t gene[N * G], count[N * G];
    double library[N];
    sparse(&cells, indptr, gene, count, library);
    for (int i = 0; i < N; i++) {
        all[i] = i;
    }
    assert_int_equal(cpa_profile_init(&dense, G), CPA_OK);
    assert_int_equal(cpa_profile_init(&real, G), CPA_OK);
    for (int scale = CPA_SCALE_COUNTS; scale <= CPA_SCALE_GIVEN; scale++) {
        assert_int_equal(cpa_profile_of_rows(&dense, rows, N, (cpa_scale)scale), CPA_OK);
        cpa_profile_of_cells(&real, &cells, all, N, (cpa_scale)scale);
        for (int i = 0; i < cpa_profile_length(G); i++) {
            assert_near(real.v[i], dense.v[i]);
        }
    }
    cpa_profile_of_cells(&real, &cells, all, 0, CPA_SCALE_LOG);
    for (int i = 0; i < cpa_profile_length(G); i++) {
        assert_true(real.v[i] == 0);
    }
    cpa_profile_fini(&dense);
    cpa_profile_fini(&real);
}

static void test_merge_and_mixture(void **state)
{
    (void)state;
    cpa_profile whole, a, b;
    double var[G];
    assert_int_equal(cpa_profile_init(&whole, G), CPA_OK);
    assert_int_equal(cpa_profile_init(&a, G), CPA_OK);
    assert_int_equal(cpa_profile_init(&b, G), CPA_OK);
    assert_int_equal(cpa_profile_of_rows(&whole, rows, N, CPA_SCALE_LOG), CPA_OK);
    for (int n = 0; n <= 4; n += 4) { // an empty part changes nothing
        cpa_profile_clear(&a);
        assert_int_equal(cpa_profile_of_rows(&b, rows + n * G, N - n, CPA_SCALE_LOG), CPA_OK);
        cpa_profile_merge(&a, b.v);
        cpa_profile_clear(&b);
        if (n > 0) {
            assert_int_equal(cpa_profile_of_rows(&b, rows, n, CPA_SCALE_LOG), CPA_OK);
        }
        cpa_profile_merge(&a, b.v);
        for (int i = 0; i < cpa_profile_length(G); i++) {
            assert_near(a.v[i], whole.v[i]);
        }
    }
    // Two doses, predicted from as many cells each, of which the group has 30 and 10 cells.
    assert_int_equal(cpa_profile_of_rows(&a, rows, 2, CPA_SCALE_COUNTS), CPA_OK);     // gene 0: 1, 0
    assert_int_equal(cpa_profile_of_rows(&b, rows + 6, 2, CPA_SCALE_COUNTS), CPA_OK); // gene 0: 5, 0
    cpa_profile_reweigh(&a, 30);
    cpa_profile_reweigh(&b, 10);
    cpa_profile_merge(&a, b.v);
    cpa_profile_variance(&a, var);
    double mean = 0.75 * 0.5 + 0.25 * 2.5;
    assert_near(a.v[0], 40);
    assert_near(a.mean[0], mean);
    assert_near(var[0], 0.75 * (1.0 / 2) + 0.25 * (25.0 / 2) - mean * mean);
    cpa_profile_fini(&whole);
    cpa_profile_fini(&a);
    cpa_profile_fini(&b);
}

static void test_effects(void **state)
{
    (void)state;
    cpa_effects *e;
    const unsigned char wanted[] = {1, 1, 0, 1};
    const double control[] = {1, 1}, a0[] = {2, 3}, b0[] = {0, 5}, a1[] = {5, 1}, pair0[] = {7, 7};
    const int ab[] = {0, 1}, unseen[] = {0, 3};
    double out[2];
    assert_int_equal(cpa_effects_create(2, 3, 4, wanted, &e), CPA_OK);
    assert_false(cpa_effects_mean(e, 0, out));
    assert_false(cpa_effects_additive(e, 0, ab, 2, out));
    assert_int_equal(cpa_effects_add(e, 0, 0, a0, control), CPA_OK);     // component 0 in context 0: +1, +2
    assert_int_equal(cpa_effects_add(e, 1, 0, a1, control), CPA_OK);     // in context 1: +4, 0
    assert_int_equal(cpa_effects_add(e, 0, 1, b0, control), CPA_OK);     // component 1: -1, +4
    assert_int_equal(cpa_effects_add(e, 0, -1, pair0, control), CPA_OK); // a combination: +6, +6
    assert_true(cpa_effects_mean(e, 0, out));                            // of this context
    assert_near(out[0], 2);
    assert_near(out[1], 4);
    assert_true(cpa_effects_mean(e, 2, out)); // nothing seen here: of all
    assert_near(out[0], 2.5);
    assert_near(out[1], 3);
    assert_true(cpa_effects_additive(e, 1, ab, 2, out)); // the first from here, the second from elsewhere
    assert_near(out[0], 3);
    assert_near(out[1], 4);
    assert_true(cpa_effects_additive(e, 2, ab, 1, out)); // mean over the others
    assert_near(out[0], 2.5);
    assert_near(out[1], 1);
    assert_false(cpa_effects_additive(e, 0, unseen, 2, out));
    assert_false(cpa_effects_additive(e, 0, ab, 0, out));
    cpa_effects_destroy(&e);
    assert_null(e);
}

static void test_csv_and_table(void **state)
{
    (void)state;
    cpa_text csv = {0}, table = {0};
    cpa_group_scores g = {.group = "a,\"b\"", .n_cells = 7, .n_control = 9};
    for (int k = 0; k < N_PREDICTORS; k++) {
        for (int i = 0; i < N_SCORES; i++) {
            g.score[k][OVER_ALL][i] = 0.25 * k;
            g.score[k][OVER_TOP20][i] = NAN;
        }
    }
    g.score[BY_ADDITIVE][OVER_ALL][R2_VAR] = NAN;
    assert_int_equal(cpa_scores_csv(&g, 1, &csv), CPA_OK);
    const char *expected = "group,n_cells,n_control,r2_mean_all,r2_mean_all_no_change,r2_mean_all_mean_effect,r2_mean_"
                           "all_additive,r2_var_all";
    assert_memory_equal(cpa_text_str(&csv), expected, strlen(expected));
    assert_non_null(strstr(cpa_text_str(&csv),
                           ",pearson_delta_top20_additive\n\"a,\"\"b\"\"\",7,9,0,0.25,0.5,0.75,0,0.25,0.5,,0,"));
    int commas = 0; // of the row; one of them in its name
    for (const char *c = strchr(cpa_text_str(&csv), '\n') + 1; *c; c++) {
        commas += *c == ',';
    }
    assert_int_equal(commas, 1 + 2 + N_GENE_SETS * N_SCORES * N_PREDICTORS);
    assert_int_equal(cpa_scores_table(&g, 1, CPA_SCALE_LOG, &table), CPA_OK);
    assert_non_null(strstr(cpa_text_str(&table), "the model does not beat no change on all genes (R2 0.000 against "
                                                 "0.250); best on all genes: additive (0.750)."));
    assert_null(strstr(cpa_text_str(&table), "nan"));
    cpa_text_fini(&csv);
    cpa_text_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_r2),
        cmocka_unit_test(test_pearson),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_profile_of_cells),
        cmocka_unit_test(test_merge_and_mixture),
        cmocka_unit_test(test_effects),
        cmocka_unit_test(test_csv_and_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
