// Owns: obs and var in today's encoding. Must never change a value, nor the order of columns.
#include <string.h>

#include "convert_impl.h"

// Marks a copied array by what its elements are.
static cpa_status mark_array(const cpa_conversion *c, const char *path)
{
    cpa_status st;
    cpa_h5_info info;
    // Its type is that of the original, which can be read.
    CPA_TRY(cpa_h5_describe(c->out, path, &info));
    CPA_TRY(cpa_h5ad_encode(c->out, path, info.class == CPA_H5_CLASS_STRING ? "string-array" : "array", "0.2.0"));
cleanup:
    return st;
}

static cpa_status copy_array(const cpa_conversion *c, const char *from, const char *field, const char *to)
{
    cpa_status st;
    CPA_TRY(field != NULL ? cpa_h5_copy_field(c->in->h5, from, field, c->out, to)
                          : cpa_h5_copy(c->in->h5, from, c->out, to));
    CPA_TRY(mark_array(c, to));
cleanup:
    return st;
}

// Codes here, categories there: as a group with both.
static cpa_status copy_factor(const cpa_conversion *c, const char *codes, const char *field, const char *labels,
                              const char *to)
{
    cpa_status st;
    char *member = NULL;
    int64_t stated = 0;
    int n = 0;
    cpa_h5_info info = {0};
    cpa_strings only = {0};
    if (cpa_h5_has_attr(c->in->h5, labels, "ordered")) {
        CPA_TRY(cpa_h5_attr_numbers(c->in->h5, labels, "ordered", CPA_H5_I64, 1, &stated, &n));
    }
    uint8_t ordered = stated != 0;
    CPA_TRY(cpa_h5_write_group(c->out, to));
    CPA_TRY(cpa_h5ad_encode(c->out, to, "categorical", "0.2.0"));
    CPA_TRY(cpa_h5_write_attr_numbers(c->out, to, "ordered", CPA_H5_BOOL, -1, &ordered));
    CPA_TRY(cpa_sprintf(&member, "%s/categories", to));
    if (cpa_h5_kind_of(c->in->h5, labels) == CPA_H5_DATASET) {
        CPA_TRY(cpa_h5_describe(c->in->h5, labels, &info));
    }
    if (info.rank == 0 && info.n == 1) { // a single category was stored as a scalar
        CPA_TRY(cpa_h5ad_texts(c->in->h5, labels, NULL, &only));
        CPA_TRY(cpa_h5ad_write_list(c->out, member, &only));
    } else {
        CPA_TRY(copy_array(c, labels, NULL, member));
    }
    cpa_free(&member);
    CPA_TRY(cpa_sprintf(&member, "%s/codes", to));
    CPA_TRY(copy_array(c, codes, field, member));
cleanup:
    cpa_strings_fini(&only);
    cpa_free(&member);
    return st;
}

static cpa_status count_levels(const cpa_h5 *h5, const char *labels, int64_t *n)
{
    cpa_status st;
    cpa_h5_info info;
    cpa_strings level = {0};
    if (cpa_h5_kind_of(h5, labels) == CPA_H5_DATASET) {
        CPA_TRY(cpa_h5_describe(h5, labels, &info));
        *n = info.n;
    } else {
        CPA_TRY(cpa_h5ad_texts(h5, labels, NULL, &level));
        *n = level.n;
    }
cleanup:
    cpa_strings_fini(&level);
    return st;
}

// What has codes is copied as it is, so they must be those of its categories, and as many as the rows.
static cpa_status check_column(const cpa_conversion *c, const char *from, const char *column)
{
    cpa_status st;
    const cpa_h5 *h5 = c->in->h5;
    cpa_h5_data *d = NULL;
    char *path = NULL, *codes = NULL, *labels = NULL;
    const char *field;
    int64_t n_levels;
    CPA_TRY(cpa_h5ad_locate(h5, from, column, &path, &field));
    CPA_TRY(cpa_h5ad_old_categories(h5, from, column, path, field, &labels));
    if (labels != NULL) {
        CPA_TRY(cpa_strdup(path, &codes));
    } else {
        CPA_TRY(cpa_sprintf(&codes, "%s/codes", path));
        CPA_TRY(cpa_sprintf(&labels, "%s/categories", path));
    }
    if (cpa_h5_kind_of(h5, codes) != CPA_H5_DATASET || cpa_h5_kind_of(h5, labels) == CPA_H5_NOTHING) {
        goto cleanup;
    }
    CPA_TRY(cpa_h5_data_open(h5, codes, field, &d));
    CPA_TRY(cpa_h5ad_check_codes(h5, codes, cpa_h5_data_info(d)));
    CPA_TRY(cpa_part_check_rows(c->in, from, column, cpa_h5_data_info(d)->n));
    CPA_TRY(count_levels(h5, labels, &n_levels));
    CPA_TRY(cpa_h5ad_read_codes(h5, codes, field, labels, n_levels, d, NULL));
cleanup:
    cpa_h5_data_close(&d);
    cpa_free(&path);
    cpa_free(&codes);
    cpa_free(&labels);
    return st;
}

static cpa_status copy_column(const cpa_conversion *c, const char *from, const char *column, const char *to)
{
    cpa_status st;
    const cpa_h5 *h5 = c->in->h5;
    char *path = NULL, *target = NULL, *labels = NULL;
    const char *field;
    CPA_TRY(cpa_h5ad_locate(h5, from, column, &path, &field));
    CPA_TRY(cpa_sprintf(&target, "%s/%s", to, column));
    CPA_TRY(cpa_h5ad_old_categories(h5, from, column, path, field, &labels));
    if (cpa_h5_kind_of(h5, path) == CPA_H5_GROUP) {
        CPA_TRY(cpa_h5_copy(h5, path, c->out, target));
    } else if (labels != NULL) {
        CPA_TRY(copy_factor(c, path, field, labels, target));
    } else {
        CPA_TRY(copy_array(c, path, field, target));
    }
cleanup:
    cpa_free(&path);
    cpa_free(&target);
    cpa_free(&labels);
    return st;
}

static cpa_status rewrite_frame(const cpa_conversion *c, const char *from, const char *to)
{
    cpa_status st;
    const cpa_h5 *h5 = c->in->h5;
    cpa_strings columns = {0};
    char *index = NULL, *path = NULL, *target = NULL;
    const char *field;
    CPA_TRY(cpa_part_columns(c->in, from, &columns));
    CPA_TRY(cpa_h5ad_index_name(h5, from, &index));
    CPA_TRY(cpa_h5ad_locate(h5, from, index, &path, &field));
    CPA_TRY(cpa_h5ad_begin_frame(c->out, to, &columns));
    CPA_TRY(cpa_sprintf(&target, "%s/_index", to));
    CPA_TRY(copy_array(c, path, field, target));
    for (int64_t k = 0; k < columns.n; k++) {
        if (strcmp(columns.s[k], index) != 0) {
            CPA_TRY(copy_column(c, from, columns.s[k], to));
        }
    }
cleanup:
    cpa_strings_fini(&columns);
    cpa_free(&index);
    cpa_free(&path);
    cpa_free(&target);
    return st;
}

cpa_status cpa_convert_frame(const cpa_conversion *c, const char *from, const char *to)
{
    cpa_status st;
    char *version = NULL;
    cpa_strings columns = {0};
    CPA_TRY(cpa_part_columns(c->in, from, &columns));
    for (int64_t k = 0; k < columns.n; k++) {
        CPA_TRY(check_column(c, from, columns.s[k]));
    }
    if (cpa_h5_kind_of(c->in->h5, from) == CPA_H5_GROUP && cpa_h5_has_attr(c->in->h5, from, "encoding-version")) {
        CPA_TRY(cpa_h5_attr_string(c->in->h5, from, "encoding-version", &version));
    }
    bool today = version != NULL && strcmp(version, "0.2.0") == 0;
    CPA_TRY(today ? cpa_h5_copy(c->in->h5, from, c->out, to) : rewrite_frame(c, from, to));
cleanup:
    cpa_strings_fini(&columns);
    cpa_free(&version);
    return st;
}
