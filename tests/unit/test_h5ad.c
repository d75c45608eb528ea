// Owns: tests of reading AnnData files: columns in every encoding, names, lists, descriptions, and each refusal with
// its words. Counts are tested in test_cells.c. Must never depend on files outside the project.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/odd_files.h"
#include "cpa/data/h5ad.h"

static cpa_h5ad *open_odd(const char *name)
{
    cpa_h5ad *f = NULL;
    if (cpa_h5ad_open(odd(name), &f) != CPA_OK) {
        fail_msg("%s: %s", name, cpa_message());
    }
    return f;
}

static void assert_says(const char *words)
{
    if (strstr(cpa_message(), words) == NULL) {
        fail_msg("the message lacks \"%s\": %s", words, cpa_message());
    }
}

static void assert_list(const cpa_strings *list, const char *joined)
{
    char text[4096] = "";
    for (int64_t i = 0; i < list->n; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? "|" : "", list->s[i]);
    }
    assert_string_equal(text, joined);
}

// A column as its levels and the codes of the first four rows and the last.
static void check_factor(cpa_h5ad *f, const char *frame, const char *column, const char *levels, const int codes[5])
{
    cpa_factor x;
    if (cpa_h5ad_factor(f, frame, column, &x) != CPA_OK) {
        fail_msg("%s: %s", column, cpa_message());
    }
    assert_list(&x.level, levels);
    for (int i = 0; i < 5; i++) {
        int64_t row = i < 4 ? i : x.n - 1;
        if (x.code[row] != codes[i]) {
            fail_msg("%s: row %d has code %d, not %d", column, (int)row, x.code[row], codes[i]);
        }
    }
    cpa_factor_fini(&x);
}

#define CODES(a, b, c, d, last) ((const int[5]){a, b, c, d, last})

static void todays_columns(void **state)
{
    (void)state;
    cpa_h5ad *f = open_odd("columns.h5ad");
    check_factor(f, "obs", "category", "zeta|Ärger|alpha|unused", CODES(0, 1, 2, 0, -1));
    check_factor(f, "obs", "category_int", "30|4|100", CODES(0, 1, 2, 0, -1));
    check_factor(f, "obs", "category_bool", "False|True", CODES(0, 1, 0, 0, 1));
    check_factor(f, "obs", "category_nullable", "q|p|r", CODES(0, 1, 2, 0, -1));
    check_factor(f, "obs", "text", "a|b|c", CODES(1, 0, 2, 1, 2));
    check_factor(f, "obs", "text_fixed", "a|b|long text", CODES(1, 0, 2, 1, 2));
    check_factor(f, "obs", "integer", "-1|9|10", CODES(2, 1, 0, 2, 0));
    check_factor(f, "obs", "unsigned", "9|10|200", CODES(1, 0, 2, 1, 2));
    check_factor(f, "obs", "truth", "False|True", CODES(1, 0, 1, 1, 1));
    check_factor(f, "obs", "real", "-3|1e-05|0.1|0.2|0.3333333333333333|1|10|1234.5|1000000", CODES(3, 5, 2, 6, -1));
    check_factor(f, "obs", "single", "-3|1e-05|0.1|0.2|0.33333334|1|10|1234.5|1000000", CODES(3, 5, 2, 6, -1));
    check_factor(f, "obs", "nullable_integer", "5|7", CODES(0, 1, -1, 0, -1));
    check_factor(f, "obs", "nullable_boolean", "False|True", CODES(1, 0, -1, 1, -1));
    check_factor(f, "obs", "nullable_text", "w|x", CODES(1, 0, -1, 1, -1));
    check_factor(f, "obs", "a/b", "n", CODES(0, 0, 0, 0, 0));
    check_factor(f, "var", "symbol", "S0|S1|S2|S3|S4|S5|S6|S7|S8", CODES(0, 1, 2, 3, 8));
    assert_true(cpa_h5ad_has_column(f, "obs", "truth"));
    assert_false(cpa_h5ad_has_column(f, "obs", "barcode"));
    assert_false(cpa_h5ad_has_column(f, "obs", "Truth"));
    cpa_h5ad_close(&f);
    assert_null(f);
}

static void check_names(const char *file, const char *columns)
{
    cpa_strings list = {0}, cells = {0}, genes = {0};
    cpa_h5ad *f = open_odd(file);
    assert_int_equal(cpa_h5ad_n_cells(f), ODD_CELLS);
    assert_int_equal(cpa_h5ad_n_genes(f), ODD_GENES);
    assert_string_equal(cpa_h5ad_path(f), odd(file));
    assert_int_equal(cpa_h5ad_columns(f, "obs", &list), CPA_OK);
    assert_list(&list, columns);
    assert_int_equal(cpa_h5ad_index(f, "obs", &cells), CPA_OK);
    assert_int_equal(cpa_h5ad_index(f, "var", &genes), CPA_OK);
    assert_int_equal(cells.n, ODD_CELLS);
    assert_string_equal(cells.s[11], "cell11");
    assert_list(&genes, "gene0|gene1|gene2|gene3|gene4|gene5|gene6|gene7|gene8");
    cpa_strings_fini(&list);
    cpa_strings_fini(&cells);
    cpa_strings_fini(&genes);
    cpa_h5ad_close(&f);
}

static void names_of_every_age(void **state)
{
    (void)state;
    check_names("columns.h5ad",
                "category|category_int|category_bool|text|text_fixed|integer|unsigned|truth|real|single|"
                "nullable_integer|nullable_boolean|nullable_text|a/b|category_nullable");
    check_names("columns07.h5ad", "category|plain|broken");
    check_names("columns06.h5ad", "category|depth|label|single");
    check_names("nullable_index.h5ad", "");
    check_names("no_column_order.h5ad", "early|later");
}

static void older_columns(void **state)
{
    (void)state;
    cpa_h5ad *f = open_odd("columns07.h5ad");
    check_factor(f, "obs", "category", "zeta|alpha|mid", CODES(0, 1, 2, 0, -1));
    check_factor(f, "obs", "plain", "t|u", CODES(1, 0, 1, 1, 1));
    check_factor(f, "obs", "broken", "x|y|z", CODES(0, 1, 2, 0, -1)); // a reference that leads nowhere
    cpa_h5ad_close(&f);
    f = open_odd("columns06.h5ad");
    check_factor(f, "obs", "category", "zeta|alpha|mid", CODES(0, 1, 2, 0, -1));
    check_factor(f, "obs", "depth", "0|0.25|0.5|0.75|1|1.25|1.5|1.75|2|2.25|2.5|2.75", CODES(0, 1, 2, 3, 11));
    check_factor(f, "obs", "label", "blue|red", CODES(1, 0, 1, 0, 0));
    check_factor(f, "obs", "single", "only", CODES(0, 0, 0, 0, 0));
    cpa_h5ad_close(&f);
}

static void check_list(cpa_h5ad *f, const char *key, const char *name, const char *joined)
{
    cpa_strings list = {0};
    if (cpa_h5ad_uns_list(f, key, name, &list) != CPA_OK) {
        fail_msg("%s/%s: %s", key, name, cpa_message());
    }
    assert_list(&list, joined);
    cpa_strings_fini(&list);
}

static void check_keys(cpa_h5ad *f, const char *key, const char *joined)
{
    cpa_strings list = {0};
    assert_int_equal(cpa_h5ad_uns_keys(f, key, &list), CPA_OK);
    assert_list(&list, joined);
    cpa_strings_fini(&list);
}

static void lists(void **state)
{
    (void)state;
    cpa_h5ad *f = open_odd("columns.h5ad");
    check_keys(f, NULL, "lists|rank_genes_groups");
    check_keys(f, "lists", "A_x+y|B_Ü 1.0|empty|nested|no_type|nullable|numbers|one");
    check_keys(f, "nothing", "");
    check_list(f, "lists", "A_x+y", "g2|g1");
    check_list(f, "lists", "B_Ü 1.0", "g3");
    check_list(f, "lists", "nested/name", "g4|g5");
    check_list(f, "lists", "empty", "");
    check_list(f, "lists", "no_type", "");
    check_list(f, "lists", "one", "g6");
    check_list(f, "lists", "numbers", "3|1");
    check_list(f, "lists", "nullable", "g7|g8");
    check_list(f, "lists", "absent", "");
    check_list(f, "absent", "absent", "");
    check_keys(f, "rank_genes_groups/names", "A|B");
    check_list(f, "rank_genes_groups/names", "B", "b1|b2");
    check_list(f, "rank_genes_groups/names", "C", "");
    cpa_h5ad_close(&f);
    f = open_odd("layer_only.h5ad");
    check_keys(f, NULL, "");
    cpa_h5ad_close(&f);
}

typedef struct description {
    const char *file, *layer;
    cpa_layout layout;
    const char *dtype, *filters;
    int64_t chunk;
} description;

static void descriptions(void **state)
{
    (void)state;
    static const description wanted[] = {
        {"csr_f4.h5ad", NULL, CPA_LAYOUT_CSR, "float32", "none", 0},
        {"csr_f2.h5ad", NULL, CPA_LAYOUT_CSR, "float16", "none", 0},
        {"csr_big_u4.h5ad", NULL, CPA_LAYOUT_CSR, "uint32", "none", 0},
        {"csc_gzip.h5ad", NULL, CPA_LAYOUT_CSC, "float32", "gzip", 5},
        {"csr_lzf.h5ad", NULL, CPA_LAYOUT_CSR, "float32", "lzf", 5},
        {"dense_lzf_shuffle.h5ad", NULL, CPA_LAYOUT_DENSE, "float32", "shuffle+lzf+fletcher32", 10},
        {"dense_i8.h5ad", NULL, CPA_LAYOUT_DENSE, "int64", "none", 0},
        {"bool.h5ad", NULL, CPA_LAYOUT_CSR, "bool", "none", 0},
        {"legacy_csc.h5ad", NULL, CPA_LAYOUT_CSC, "float32", "none", 0},
        {"layer_only.h5ad", "counts", CPA_LAYOUT_CSR, "float32", "gzip", -1},
        {"layer_only.h5ad", "dense", CPA_LAYOUT_DENSE, "uint16", "none", 0},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const description *w = &wanted[i];
        cpa_h5ad *f = open_odd(w->file);
        cpa_matrix_info info;
        if (cpa_h5ad_matrix_info(f, w->layer, &info) != CPA_OK) {
            fail_msg("%s", cpa_message());
        }
        assert_int_equal(info.layout, w->layout);
        assert_string_equal(info.dtype, w->dtype);
        assert_string_equal(info.filters, w->filters);
        assert_true(w->chunk < 0 ? info.chunk > 0 : info.chunk == w->chunk);
        assert_int_equal(info.n_cells, ODD_CELLS);
        assert_int_equal(info.n_genes, ODD_GENES);
        assert_true(info.layout == CPA_LAYOUT_DENSE ? info.nnz == 108 : info.nnz > 40 && info.nnz < 80);
        cpa_h5ad_close(&f);
    }
    cpa_strings layers = {0};
    cpa_h5ad *f = open_odd("layer_only.h5ad");
    assert_int_equal(cpa_h5ad_layers(f, &layers), CPA_OK);
    assert_list(&layers, "counts|dense");
    cpa_strings_fini(&layers);
    cpa_h5ad_close(&f);
}

static void the_sample(void **state)
{
    (void)state;
    cpa_h5ad *f = NULL;
    cpa_strings columns = {0};
    if (cpa_h5ad_open(sample_file(), &f) != CPA_OK) {
        fail_msg("%s", cpa_message());
    }
    assert_int_equal(cpa_h5ad_n_cells(f), 5000);
    assert_int_equal(cpa_h5ad_n_genes(f), 300);
    assert_int_equal(cpa_h5ad_columns(f, "obs", &columns), CPA_OK);
    assert_list(&columns, "condition|treatment|patient_id|sample_id|dose|split|cov_cond");
    check_factor(f, "obs", "patient_id", "PW030|PW032|PW034|PW036|PW040", CODES(0, 0, 0, 0, 4));
    check_keys(f, "rank_genes_groups_cov",
               "PW030_panobinostat|PW032_panobinostat|PW034_panobinostat|PW036_panobinostat|PW040_panobinostat");
    cpa_strings genes = {0}, list = {0};
    assert_int_equal(cpa_h5ad_index(f, "var", &genes), CPA_OK);
    assert_int_equal(cpa_h5ad_uns_list(f, "rank_genes_groups_cov", "PW040_panobinostat", &list), CPA_OK);
    assert_int_equal(list.n, 50);
    for (int64_t i = 0; i < list.n; i++) {
        assert_true(cpa_strings_find(&genes, list.s[i]) >= 0);
    }
    cpa_strings_fini(&genes);
    cpa_strings_fini(&list);
    cpa_strings_fini(&columns);
    cpa_h5ad_close(&f);
}

static void check_open(const char *name, cpa_status status, const char *words)
{
    cpa_h5ad *f = NULL;
    cpa_status st = cpa_h5ad_open(odd(name), &f);
    if (st != status) {
        fail_msg("%s: status %d instead of %d: %s", name, st, status, st == CPA_OK ? "" : cpa_message());
    }
    assert_null(f);
    assert_says(odd(name));
    assert_says(words);
}

static void files_that_are_refused(void **state)
{
    (void)state;
    check_open("absent.h5ad", CPA_NO_INPUT, "no such file");
    check_open("text.h5ad/inside", CPA_NO_INPUT, "no such file");
    check_open("", CPA_BAD_DATA, "directory");
    check_open("text.h5ad", CPA_BAD_DATA, "not an HDF5 file");
    check_open("empty.h5ad", CPA_BAD_DATA, "empty");
    check_open("pointer.h5ad", CPA_BAD_DATA, "git lfs pull");
    check_open("truncated.h5ad", CPA_BAD_DATA, "truncated file: eof = 500000");
    check_open("tenx.h5", CPA_BAD_DATA, "10x Genomics");
    check_open("cells.loom", CPA_BAD_DATA, "loom");
    check_open("multi.h5mu", CPA_BAD_DATA, "MuData");
    check_open("no_var.h5ad", CPA_BAD_DATA, "there is no 'var'");
    check_open("no_index.h5ad", CPA_BAD_DATA, "'obs/_index', which is missing");
    check_open("no_cells.h5ad", CPA_BAD_DATA, "0 cells and 9 genes");
    check_open("no_genes.h5ad", CPA_BAD_DATA, "12 cells and 0 genes");
    check_open("columns07.h5ad.gz", CPA_NO_INPUT, "no such file");
}

static void check_info(const char *name, const char *layer, const char *words)
{
    cpa_h5ad *f = open_odd(name);
    cpa_matrix_info info;
    if (cpa_h5ad_matrix_info(f, layer, &info) != CPA_BAD_DATA) {
        fail_msg("%s is not refused", name);
    }
    assert_says(odd(name));
    assert_says(words);
    cpa_h5ad_close(&f);
}

static void matrices_that_are_refused(void **state)
{
    (void)state;
    check_info("no_x.h5ad", NULL, "there is no X; choose a layer: 'counts', 'spliced'");
    check_info("no_x.h5ad", "splice", "there is no layer 'splice'; the layers are: 'spliced', 'counts'");
    check_info("csr_f4.h5ad", "counts", "the layers are: none");
    check_info("unknown_encoding.h5ad", NULL, "X has the encoding 'coo_matrix'");
    check_info("parts_differ.h5ad", NULL, "X/indices has");
    check_info("indptr_length.h5ad", NULL, "X/indptr has 12 elements, 13 are needed for 12 cells");
    check_info("indices_float.h5ad", NULL, "X/indices should hold integers, but has type float64");
    check_info("shape_wrong.h5ad", NULL, "X is 12 x 10, but obs and var make it 12 cells x 9 genes");
    check_info("shape_wrong_dense.h5ad", NULL, "X is 11 x 9, but obs and var make it 12 cells x 9 genes");
    check_info("no_shape.h5ad", NULL, "X has no attribute 'shape'");
    check_info("dense_text.h5ad", NULL, "X should hold numbers, but has type string");
    check_info("blosc2.h5ad", NULL, "X/data is compressed with blosc2 (filter 32026), which is not available here");
}

static void check_column(cpa_h5ad *f, const char *column, const char *words)
{
    cpa_factor x;
    if (cpa_h5ad_factor(f, "obs", column, &x) != CPA_BAD_DATA) {
        fail_msg("column %s is not refused", column);
    }
    assert_null(x.code);
    assert_int_equal(x.level.n, 0);
    assert_says(cpa_h5ad_path(f));
    assert_says(words);
}

static void columns_that_are_refused(void **state)
{
    (void)state;
    cpa_h5ad *f = open_odd("columns_bad.h5ad");
    check_column(f, "codes_high", "obs/codes_high/codes: row 5 has the code 3, but there are 3 categories");
    check_column(f, "codes_low", "row 5 has the code -2");
    check_column(f, "short", "column 'short' of obs has 11 rows, but obs has 12");
    check_column(f, "ragged", "obs/ragged has the encoding 'awkward-array'");
    check_column(f, "latin", "obs/latin: the text of row 1 is not valid UTF-8 (byte 0xe9 after 'caf')");
    check_column(f, "matrix", "obs/matrix has 2 dimensions");
    check_column(f, "listed_only", "no dataset 'obs/listed_only'");
    check_column(f, "Codes_hihg", "obs has no column 'Codes_hihg'; its columns are 'codes_high', 'codes_low', ");
    cpa_h5ad_close(&f);
    cpa_strings cells = {0};
    f = open_odd("gaps.h5ad");
    assert_int_equal(cpa_h5ad_index(f, "obs", &cells), CPA_BAD_DATA);
    assert_says("obs/barcode: row 5 is missing");
    assert_int_equal(cells.n, 0);
    cpa_h5ad_close(&f);
}

typedef struct sums {
    int64_t n, rows[ODD_CELLS];
    int stop_after;
} sums;

static cpa_status add(void *ctx, const cpa_h5ad_block *b)
{
    sums *s = ctx;
    for (int64_t i = 0; i < b->n; i++) {
        assert_true(b->value[i] == odd_count(b->cell[i], b->gene[i]));
        s->rows[b->cell[i]]++;
        s->n++;
    }
    return --s->stop_after == 0 ? cpa_fail(CPA_AGAIN, "enough") : CPA_OK;
}

static void parts_of_a_matrix(void **state)
{
    (void)state;
    static const char *const files[] = {"csr_f4.h5ad", "dense_gzip.h5ad"};
    for (size_t k = 0; k < 2; k++) {
        cpa_h5ad *f = open_odd(files[k]);
        for (int64_t first = 0; first <= ODD_CELLS; first++) {
            for (int64_t last = first; last <= ODD_CELLS; last++) {
                sums s = {0};
                int64_t count[ODD_CELLS], n = 0;
                assert_int_equal(cpa_h5ad_scan(f, NULL, first, last, add, &s), CPA_OK);
                assert_int_equal(cpa_h5ad_count(f, NULL, first, last, count), CPA_OK);
                for (int64_t cell = 0; cell < ODD_CELLS; cell++) {
                    bool inside = cell >= first && cell < last;
                    assert_int_equal(s.rows[cell], inside ? count[cell - first] : 0);
                    for (int64_t gene = 0; inside && gene < ODD_GENES; gene++) {
                        n += odd_count(cell, gene) > 0;
                    }
                }
                assert_int_equal(s.n, n);
            }
        }
        sums s = {.stop_after = 1};
        assert_int_equal(cpa_h5ad_scan(f, NULL, 0, ODD_CELLS, add, &s), CPA_AGAIN);
        assert_string_equal(cpa_message(), "enough");
        cpa_h5ad_close(&f);
    }
}

// A list of these files beside the odd ones.
static cpa_h5ad *open_list(const char *lines)
{
    FILE *list = fopen(odd("list.txt"), "w");
    fputs(lines, list);
    fclose(list);
    return open_odd("list.txt");
}

static cpa_status add_of_any_file(void *ctx, const cpa_h5ad_block *b)
{
    sums *s = ctx;
    for (int64_t i = 0; i < b->n; i++) {
        assert_true(b->value[i] == odd_count(b->cell[i] % ODD_CELLS, b->gene[i]));
        s->rows[b->cell[i] / ODD_CELLS]++;
        s->n++;
    }
    return CPA_OK;
}

static void cells_of_several_files(void **state)
{
    (void)state;
    cpa_h5ad *f = open_list("csr_f4.h5ad\n\n  csc_gzip.h5ad \r\ndense_gzip.h5ad\n");
    assert_int_equal(cpa_h5ad_scan(f, NULL, 0, 1, add_of_any_file, NULL), CPA_BAD_DATA);
    assert_says("list.txt: one file is needed here, not a list of 3");
    assert_int_equal(cpa_h5ad_select(f, NULL, NULL), CPA_OK);
    enum { ALL = 3 * ODD_CELLS };
    assert_int_equal(cpa_h5ad_n_cells(f), ALL);
    assert_int_equal(cpa_h5ad_n_genes(f), ODD_GENES);
    cpa_matrix_info info;
    assert_int_equal(cpa_h5ad_matrix_info(f, NULL, &info), CPA_OK);
    assert_int_equal(info.layout, CPA_LAYOUT_MIXED);
    assert_int_equal(info.n_cells, ALL);
    assert_string_equal(info.dtype, "float32");
    assert_string_equal(info.filters, "mixed");
    for (int64_t first = 0; first <= ALL; first += 5) {
        for (int64_t last = first; last <= ALL; last += 7) {
            sums s = {0};
            int64_t count[ALL] = {0}, n = 0;
            assert_int_equal(cpa_h5ad_scan(f, NULL, first, last, add_of_any_file, &s), CPA_OK);
            assert_int_equal(cpa_h5ad_count(f, NULL, first, last, count), CPA_OK);
            for (int64_t i = 0; i < last - first; i++) {
                n += count[i];
            }
            assert_int_equal(s.n, n);
        }
    }
    int64_t row;
    assert_string_equal(cpa_h5ad_cell(f, ODD_CELLS - 1, &row), odd("csr_f4.h5ad"));
    assert_int_equal(row, ODD_CELLS - 1);
    assert_string_equal(cpa_h5ad_cell(f, ODD_CELLS, &row), odd("csc_gzip.h5ad"));
    assert_int_equal(row, 0);
    cpa_h5ad_raw *raw;
    const char *why, *which;
    assert_int_equal(cpa_h5ad_raw_open(f, NULL, &info, &raw, &why, &which), CPA_OK);
    assert_null(raw);
    assert_int_equal(info.n_cells, ALL);
    assert_string_equal(which, odd("csc_gzip.h5ad"));
    cpa_h5ad_close(&f);
}

static void columns_of_several_files(void **state)
{
    (void)state;
    cpa_strings columns = {0};
    cpa_h5ad *f = open_list("columns.h5ad\ncolumns06.h5ad\n");
    assert_int_equal(cpa_h5ad_select(f, NULL, NULL), CPA_OK);
    cpa_factor x, one, other;
    assert_int_equal(cpa_h5ad_factor(f, "obs", "category", &x), CPA_OK);
    cpa_h5ad *a = open_odd("columns.h5ad"), *b = open_odd("columns06.h5ad");
    assert_int_equal(cpa_h5ad_factor(a, "obs", "category", &one), CPA_OK);
    assert_int_equal(cpa_h5ad_factor(b, "obs", "category", &other), CPA_OK);
    assert_int_equal(x.n, one.n + other.n);
    for (int64_t i = 0; i < x.n; i++) {
        const cpa_factor *of = i < one.n ? &one : &other;
        int32_t code = of->code[i < one.n ? i : i - one.n];
        assert_true((x.code[i] < 0) == (code < 0));
        assert_true(code < 0 || strcmp(x.level.s[x.code[i]], of->level.s[code]) == 0);
    }
    cpa_factor_fini(&x);
    cpa_factor_fini(&one);
    cpa_factor_fini(&other);
    assert_int_equal(cpa_h5ad_columns(f, "obs", &columns), CPA_OK);
    assert_true(cpa_strings_find(&columns, "truth") >= 0);
    assert_int_equal(cpa_h5ad_factor(f, "obs", "truth", &x), CPA_BAD_DATA);
    assert_says("columns06.h5ad: obs has no column 'truth'");
    cpa_strings_fini(&columns);
    cpa_h5ad_close(&a);
    cpa_h5ad_close(&b);
    cpa_h5ad_close(&f);
}

static void nothing_is_left_behind(void **state)
{
    (void)state;
    assert_int_equal(cpa_alloc_balance(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(todays_columns),
        cmocka_unit_test(names_of_every_age),
        cmocka_unit_test(older_columns),
        cmocka_unit_test(lists),
        cmocka_unit_test(descriptions),
        cmocka_unit_test(the_sample),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(matrices_that_are_refused),
        cmocka_unit_test(columns_that_are_refused),
        cmocka_unit_test(parts_of_a_matrix),
        cmocka_unit_test(cells_of_several_files),
        cmocka_unit_test(columns_of_several_files),
        cmocka_unit_test(nothing_is_left_behind),
    };
    return cmocka_run_group_tests_name("h5ad", tests, make_odd_files, remove_odd_files);
}
