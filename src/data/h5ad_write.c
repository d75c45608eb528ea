// Owns: writing AnnData's elements with their encodings. Never writes counts, never knows why a file is written.
#include "cpa/data/h5ad_write.h"

// AnnData dispatches on these two attributes of every element.
static cpa_status encode(cpa_h5 *f, const char *object, const char *type, const char *version)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_attr_string(f, object, "encoding-type", type));
    CPA_TRY(cpa_h5_write_attr_string(f, object, "encoding-version", version));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_root(cpa_h5 *f)
{
    return encode(f, "/", "anndata", "0.1.0");
}

cpa_status cpa_h5ad_write_dict(cpa_h5 *f, const char *path)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_group(f, path));
    CPA_TRY(encode(f, path, "dict", "0.1.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_text(cpa_h5 *f, const char *path, const char *text)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_string(f, path, text));
    CPA_TRY(encode(f, path, "string", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_list(cpa_h5 *f, const char *path, const cpa_strings *list)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_strings(f, path, list));
    CPA_TRY(encode(f, path, "string-array", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_matrix(cpa_h5 *f, const char *path, int64_t n_rows, int64_t n_cols, int64_t *offset)
{
    cpa_status st = CPA_OK;
    *offset = 0;
    CPA_TRY(cpa_h5_create_rows(f, path, CPA_H5_F32, n_rows, n_cols));
    CPA_TRY(encode(f, path, "array", "0.2.0"));
    if (n_rows > 0 && n_cols > 0) {
        CPA_TRY(cpa_h5_rows_offset(f, path, offset));
    }
cleanup:
    return st;
}

// Codes in the smallest type that holds them, as pandas stores them.
static cpa_status write_codes(cpa_h5 *f, const char *path, const cpa_factor *factor)
{
    cpa_status st = CPA_OK;
    int8_t *small = NULL;
    int16_t *medium = NULL;
    if (factor->level.n <= INT8_MAX) {
        CPA_TRY(cpa_alloc((size_t)factor->n, sizeof *small, &small));
        for (int64_t i = 0; i < factor->n; i++) {
            small[i] = (int8_t)factor->code[i];
        }
        CPA_TRY(cpa_h5_write(f, path, CPA_H5_I8, 1, &factor->n, small, 0));
    } else if (factor->level.n <= INT16_MAX) {
        CPA_TRY(cpa_alloc((size_t)factor->n, sizeof *medium, &medium));
        for (int64_t i = 0; i < factor->n; i++) {
            medium[i] = (int16_t)factor->code[i];
        }
        CPA_TRY(cpa_h5_write(f, path, CPA_H5_I16, 1, &factor->n, medium, 0));
    } else {
        CPA_TRY(cpa_h5_write(f, path, CPA_H5_I32, 1, &factor->n, factor->code, 0));
    }
    CPA_TRY(encode(f, path, "array", "0.2.0"));
cleanup:
    cpa_free(&small);
    cpa_free(&medium);
    return st;
}

static cpa_status write_factor(cpa_h5 *f, const char *path, const cpa_factor *factor)
{
    cpa_status st = CPA_OK;
    char *member = NULL;
    uint8_t ordered = 0;
    CPA_TRY(cpa_h5_write_group(f, path));
    CPA_TRY(encode(f, path, "categorical", "0.2.0"));
    CPA_TRY(cpa_h5_write_attr_numbers(f, path, "ordered", CPA_H5_BOOL, -1, &ordered));
    CPA_TRY(cpa_sprintf(&member, "%s/categories", path));
    CPA_TRY(cpa_h5ad_write_list(f, member, &factor->level));
    cpa_free(&member);
    CPA_TRY(cpa_sprintf(&member, "%s/codes", path));
    CPA_TRY(write_codes(f, member, factor));
cleanup:
    cpa_free(&member);
    return st;
}

static cpa_status write_column(cpa_h5 *f, const char *path, const cpa_h5ad_column *c, int64_t n)
{
    cpa_status st = CPA_OK;
    int64_t length = c->factor ? c->factor->n : c->strings ? c->strings->n : n;
    CPA_REQUIRE(length == n, CPA_INTERNAL, "column '%s' has %lld values for %lld rows", path, (long long)length,
                (long long)n);
    if (c->factor) {
        CPA_TRY(write_factor(f, path, c->factor));
    } else if (c->strings) {
        CPA_TRY(cpa_h5ad_write_list(f, path, c->strings));
    } else {
        CPA_TRY(cpa_h5_write(f, path, CPA_H5_I64, 1, &n, c->integer, 0));
        CPA_TRY(encode(f, path, "array", "0.2.0"));
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_frame(cpa_h5 *f, const char *frame, const cpa_strings *index, const cpa_h5ad_column *column,
                                int n_columns)
{
    cpa_status st = CPA_OK;
    cpa_strings order = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5_write_group(f, frame));
    CPA_TRY(encode(f, frame, "dataframe", "0.2.0"));
    CPA_TRY(cpa_h5_write_attr_string(f, frame, "_index", "_index"));
    for (int c = 0; c < n_columns; c++) {
        CPA_TRY(cpa_strings_add(&order, column[c].name));
    }
    CPA_TRY(cpa_h5_write_attr_strings(f, frame, "column-order", &order));
    CPA_TRY(cpa_sprintf(&path, "%s/_index", frame));
    CPA_TRY(cpa_h5ad_write_list(f, path, index));
    for (int c = 0; c < n_columns; c++) {
        cpa_free(&path);
        CPA_TRY(cpa_sprintf(&path, "%s/%s", frame, column[c].name));
        CPA_TRY(write_column(f, path, &column[c], index->n));
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&order);
    return st;
}
