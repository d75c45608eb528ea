// Owns: writing AnnData's elements with their encodings. Never writes counts, never knows why a file is written.
#include "cpa/data/h5ad_write.h"

#include <string.h>

#include "h5ad_impl.h"

cpa_status cpa_h5ad_encode(cpa_h5 *f, const char *object, const char *type, const char *version)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_attr_string(f, object, "encoding-type", type));
    CPA_TRY(cpa_h5_write_attr_string(f, object, "encoding-version", version));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_root(cpa_h5 *f)
{
    return cpa_h5ad_encode(f, "/", "anndata", "0.1.0");
}

cpa_status cpa_h5ad_write_dict(cpa_h5 *f, const char *path)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_group(f, path));
    CPA_TRY(cpa_h5ad_encode(f, path, "dict", "0.1.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_text(cpa_h5 *f, const char *path, const char *text)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_string(f, path, text));
    CPA_TRY(cpa_h5ad_encode(f, path, "string", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_list(cpa_h5 *f, const char *path, const cpa_strings *list)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_strings(f, path, list));
    CPA_TRY(cpa_h5ad_encode(f, path, "string-array", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_number(cpa_h5 *f, const char *path, double value)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write(f, path, CPA_H5_F64, 0, NULL, &value, 0));
    CPA_TRY(cpa_h5ad_encode(f, path, "numeric-scalar", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_floats(cpa_h5 *f, const char *path, int64_t n, int64_t n_cols, const float *value, int gzip)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write(f, path, CPA_H5_F32, n_cols > 0 ? 2 : 1, (const int64_t[]){n, n_cols}, value, gzip));
    CPA_TRY(cpa_h5ad_encode(f, path, "array", "0.2.0"));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_matrix(cpa_h5 *f, const char *path, int64_t n_rows, int64_t n_cols, int64_t *offset)
{
    cpa_status st = CPA_OK;
    *offset = 0;
    CPA_TRY(cpa_h5_create_rows(f, path, CPA_H5_F32, n_rows, n_cols));
    CPA_TRY(cpa_h5ad_encode(f, path, "array", "0.2.0"));
    if (n_rows > 0 && n_cols > 0) {
        CPA_TRY(cpa_h5_rows_offset(f, path, offset));
    }
cleanup:
    return st;
}

cpa_h5_type cpa_h5ad_code_type(int64_t n_levels)
{
    return n_levels <= INT8_MAX ? CPA_H5_I8 : n_levels <= INT16_MAX ? CPA_H5_I16 : CPA_H5_I32;
}

void cpa_h5ad_narrow(cpa_h5_type type, int64_t n, const int32_t *code, void *out)
{
    int8_t *small = out;
    int16_t *medium = out;
    for (int64_t i = 0; type == CPA_H5_I8 && i < n; i++) {
        small[i] = (int8_t)code[i];
    }
    for (int64_t i = 0; type == CPA_H5_I16 && i < n; i++) {
        medium[i] = (int16_t)code[i];
    }
    if (type == CPA_H5_I32) {
        memcpy(out, code, (size_t)n * sizeof *code);
    }
}

cpa_status cpa_h5ad_begin_factor(cpa_h5 *f, const char *path, const cpa_strings *level)
{
    cpa_status st = CPA_OK;
    char *member = NULL;
    uint8_t ordered = 0;
    CPA_TRY(cpa_h5_write_group(f, path));
    CPA_TRY(cpa_h5ad_encode(f, path, "categorical", "0.2.0"));
    CPA_TRY(cpa_h5_write_attr_numbers(f, path, "ordered", CPA_H5_BOOL, -1, &ordered));
    CPA_TRY(cpa_sprintf(&member, "%s/categories", path));
    CPA_TRY(cpa_h5ad_write_list(f, member, level));
cleanup:
    cpa_free(&member);
    return st;
}

static cpa_status write_factor(cpa_h5 *f, const char *path, const cpa_factor *factor)
{
    cpa_status st = CPA_OK;
    char *member = NULL;
    int32_t *narrow = NULL;
    cpa_h5_type type = cpa_h5ad_code_type(factor->level.n);
    CPA_TRY(cpa_h5ad_begin_factor(f, path, &factor->level));
    CPA_TRY(cpa_alloc((size_t)factor->n, sizeof *narrow, &narrow));
    cpa_h5ad_narrow(type, factor->n, factor->code, narrow);
    CPA_TRY(cpa_sprintf(&member, "%s/codes", path));
    CPA_TRY(cpa_h5_write(f, member, type, 1, &factor->n, narrow, 0));
    CPA_TRY(cpa_h5ad_encode(f, member, "array", "0.2.0"));
cleanup:
    cpa_free(&member);
    cpa_free(&narrow);
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
        CPA_TRY(cpa_h5ad_encode(f, path, "array", "0.2.0"));
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_begin_frame(cpa_h5 *f, const char *frame, const cpa_strings *columns)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_group(f, frame));
    CPA_TRY(cpa_h5ad_encode(f, frame, "dataframe", "0.2.0"));
    CPA_TRY(cpa_h5_write_attr_string(f, frame, "_index", "_index"));
    CPA_TRY(cpa_h5_write_attr_strings(f, frame, "column-order", columns));
cleanup:
    return st;
}

cpa_status cpa_h5ad_write_frame(cpa_h5 *f, const char *frame, const cpa_strings *index, const cpa_h5ad_column *column,
                                int n_columns)
{
    cpa_status st = CPA_OK;
    cpa_strings order = {0};
    char *path = NULL;
    for (int c = 0; c < n_columns; c++) {
        CPA_TRY(cpa_strings_add(&order, column[c].name));
    }
    CPA_TRY(cpa_h5ad_begin_frame(f, frame, &order));
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
