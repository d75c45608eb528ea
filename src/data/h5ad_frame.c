// Owns: the columns and names of obs and var in all their encodings, today's and the older ones.
// Must never give a meaning to a column: that is the registry's.
#define _GNU_SOURCE // qsort_r
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5ad_impl.h"

enum {
    PATH_BYTES = 1 << 16, // a longer path leads nowhere
    STRETCH = 1 << 12,    // codes read at a time
};

// ---- Where an element lies

// "var" stands for the genes of the counts that were selected.
static const char *selected(const cpa_part *f, const char *frame)
{
    return strcmp(frame, "var") == 0 ? f->var : frame;
}

static bool is_table(const cpa_h5 *h5, const char *frame) // the oldest encoding: a compound dataset
{
    return cpa_h5_kind_of(h5, frame) == CPA_H5_DATASET;
}

static bool has_member(const cpa_h5 *h5, const char *group, const char *name)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", group, name);
    return n < PATH_BYTES && cpa_h5_kind_of(h5, path) != CPA_H5_NOTHING;
}

cpa_status cpa_h5ad_index_name(const cpa_h5 *h5, const char *frame, char **out)
{
    cpa_status st = CPA_OK;
    cpa_strings fields = {0};
    if (is_table(h5, frame)) {
        CPA_TRY(cpa_h5_fields(h5, frame, &fields));
        CPA_TRY(cpa_strdup(fields.s[0], out));
    } else if (cpa_h5_has_attr(h5, frame, "_index")) {
        CPA_TRY(cpa_h5_attr_string(h5, frame, "_index", out));
        CPA_REQUIRE(has_member(h5, frame, *out), CPA_BAD_DATA,
                    "%s: the names of %s should be in '%s/%s', which is missing", cpa_h5_path(h5), frame, frame, *out);
    } else {
        const char *name = has_member(h5, frame, "_index") ? "_index" : "index";
        CPA_REQUIRE(has_member(h5, frame, name), CPA_BAD_DATA,
                    "%s: %s has no attribute '_index' and no member of that name", cpa_h5_path(h5), frame);
        CPA_TRY(cpa_strdup(name, out));
    }
cleanup:
    if (st != CPA_OK) {
        cpa_free(out);
    }
    cpa_strings_fini(&fields);
    return st;
}

cpa_status cpa_h5ad_locate(const cpa_h5 *h5, const char *frame, const char *name, char **path, const char **field)
{
    bool table = is_table(h5, frame);
    *field = table ? name : NULL;
    return table ? cpa_strdup(frame, path) : cpa_sprintf(path, "%s/%s", frame, name);
}

static cpa_status array_length(const cpa_h5 *h5, const char *path, int64_t *n)
{
    cpa_h5_info info;
    cpa_status st;
    char *inner = NULL;
    if (cpa_h5_kind_of(h5, path) == CPA_H5_GROUP) {
        CPA_TRY(cpa_sprintf(&inner, "%s/%s", path, has_member(h5, path, "values") ? "values" : "codes"));
        path = inner;
    }
    CPA_TRY(cpa_h5_describe(h5, path, &info));
    CPA_REQUIRE(info.rank <= 1, CPA_BAD_DATA, "%s: %s has %d dimensions, one is expected", cpa_h5_path(h5), path,
                info.rank);
    *n = info.n;
cleanup:
    cpa_free(&inner);
    return st;
}

cpa_status cpa_h5ad_frame_length(const cpa_h5 *h5, const char *frame, int64_t *n)
{
    cpa_status st;
    char *name = NULL, *path = NULL;
    const char *field;
    CPA_TRY(cpa_h5ad_index_name(h5, frame, &name));
    CPA_TRY(cpa_h5ad_locate(h5, frame, name, &path, &field));
    CPA_TRY(array_length(h5, path, n));
cleanup:
    cpa_free(&name);
    cpa_free(&path);
    return st;
}

// ---- Values as text

// The shortest text that reads back as the same number; whole numbers without point or exponent.
static void float_text(double v, bool is_single, char out[40])
{
    if (fabs(v) < 1e15 && v == trunc(v)) {
        snprintf(out, 40, "%.0f", v == 0 ? 0.0 : v);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, v);
        double back = strtod(out, NULL);
        if (back == v || (is_single && (float)back == (float)v)) {
            return;
        }
    }
}

// One array in memory; which of the three is set tells its kind.
typedef struct values {
    int64_t n;
    cpa_strings s;
    double *f;
    int64_t *i;
    bool is_bool, is_single;
} values;

static void values_fini(values *v)
{
    cpa_strings_fini(&v->s);
    cpa_free(&v->f);
    cpa_free(&v->i);
}

static const char *value_text(const values *v, int64_t at, char room[40])
{
    if (v->f != NULL) {
        float_text(v->f[at], v->is_single, room);
    } else if (v->i == NULL) {
        return v->s.s[at];
    } else if (v->is_bool) {
        return v->i[at] != 0 ? "True" : "False";
    } else {
        snprintf(room, 40, "%lld", (long long)v->i[at]);
    }
    return room;
}

// Length of the UTF-8 character at `s`, 0 when it is none (overlong forms and surrogates are none).
static int utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) {
        return 1;
    }
    int n = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool wrong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
                 (s[0] == 0xF4 && s[1] > 0x8F);
    return wrong ? 0 : n;
}

static cpa_status check_utf8(const cpa_h5 *h5, const char *path, const cpa_strings *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        for (const char *s = list->s[i]; *s != '\0';) {
            int n = utf8_length((const unsigned char *)s);
            if (n == 0) {
                return cpa_fail(
                    CPA_BAD_DATA, "%s: %s: the text of row %lld is not valid UTF-8 (byte 0x%02x after '%.*s')",
                    cpa_h5_path(h5), path, (long long)i, (unsigned char)*s, (int)(s - list->s[i]), list->s[i]);
            }
            s += n;
        }
    }
    return CPA_OK;
}

static cpa_status check_rank(const cpa_h5 *h5, const char *path, const cpa_h5_info *info)
{
    return info->rank <= 1
               ? CPA_OK
               : cpa_fail(CPA_BAD_DATA, "%s: %s has %d dimensions, one is expected", cpa_h5_path(h5), path, info->rank);
}

// Reads a dataset, or a field of a table.
static cpa_status read_values(const cpa_h5 *h5, const char *path, const char *field, values *out)
{
    cpa_h5_data *d = NULL;
    *out = (values){0};
    cpa_status st = cpa_h5_data_open(h5, path, field, &d);
    if (st != CPA_OK) {
        return st;
    }
    const cpa_h5_info *info = cpa_h5_data_info(d);
    int64_t origin = 0;
    out->n = info->n;
    out->is_bool = info->class == CPA_H5_CLASS_BOOL;
    out->is_single = strcmp(info->dtype, "float32") == 0;
    CPA_TRY(check_rank(h5, path, info));
    if (info->class == CPA_H5_CLASS_STRING) {
        CPA_TRY(cpa_h5_data_strings(d, 0, info->n, &out->s));
        CPA_TRY(check_utf8(h5, path, &out->s));
    } else if (info->class == CPA_H5_CLASS_FLOAT) {
        CPA_TRY(cpa_alloc((size_t)info->n, sizeof *out->f, &out->f));
        CPA_TRY(cpa_h5_data_read(d, CPA_H5_F64, &origin, &out->n, out->f));
    } else {
        CPA_TRY(cpa_alloc((size_t)info->n, sizeof *out->i, &out->i));
        CPA_TRY(cpa_h5_data_read(d, CPA_H5_I64, &origin, &out->n, out->i));
    }
cleanup:
    cpa_h5_data_close(&d);
    if (st != CPA_OK) {
        values_fini(out);
    }
    return st;
}

static cpa_status unknown_encoding(const cpa_h5 *h5, const char *path)
{
    char *encoding = NULL;
    cpa_status st = cpa_h5ad_encoding(h5, path, &encoding);
    if (st == CPA_OK) {
        st =
            cpa_fail(CPA_BAD_DATA,
                     "%s: %s has the encoding '%s', which is not known; known are categorical, string, number, boolean "
                     "and nullable arrays",
                     cpa_h5_path(h5), path, encoding);
    }
    cpa_free(&encoding);
    return st;
}

// A group as the text of each row.
static cpa_status group_texts(const cpa_h5 *h5, const char *path, cpa_strings *out);

cpa_status cpa_h5ad_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_strings *out)
{
    if (cpa_h5_kind_of(h5, path) == CPA_H5_GROUP) {
        return group_texts(h5, path, out);
    }
    values v;
    char room[40];
    cpa_status st = read_values(h5, path, field, &v);
    if (st == CPA_OK && v.f == NULL && v.i == NULL) {
        *out = v.s;
        return CPA_OK;
    }
    for (int64_t i = 0; i < v.n && st == CPA_OK; i++) {
        st = cpa_strings_add(out, value_text(&v, i, room));
    }
    values_fini(&v);
    return st;
}

// ---- Factors

void cpa_factor_fini(cpa_factor *factor)
{
    cpa_free(&factor->code);
    cpa_strings_fini(&factor->level);
    factor->n = 0;
}

cpa_status cpa_h5ad_check_codes(const cpa_h5 *h5, const char *path, const cpa_h5_info *info)
{
    return info->class == CPA_H5_CLASS_INT || info->class == CPA_H5_CLASS_BOOL
               ? check_rank(h5, path, info)
               : cpa_fail(CPA_BAD_DATA, "%s: %s should hold the integer codes of a categorical column", cpa_h5_path(h5),
                          path);
}

cpa_status cpa_h5ad_read_codes(const cpa_h5 *h5, const char *path, const char *field, const char *labels,
                               int64_t n_levels, cpa_h5_data *d, int32_t *out)
{
    cpa_status st = CPA_OK;
    int64_t code[STRETCH], rows = cpa_h5_data_info(d)->n;
    for (int64_t at = 0, n; at < rows; at += n) {
        n = rows - at < STRETCH ? rows - at : STRETCH;
        CPA_TRY(cpa_h5_data_read(d, CPA_H5_I64, &at, &n, code));
        for (int64_t i = 0; i < n; i++) {
            CPA_REQUIRE(code[i] >= -1 && code[i] < n_levels, CPA_BAD_DATA,
                        "%s: %s%s%s: row %lld has the code %lld, but there are %lld categories (in %s)",
                        cpa_h5_path(h5), path, field != NULL ? "/" : "", field != NULL ? field : "",
                        (long long)(at + i), (long long)code[i], (long long)n_levels, labels);
            if (out != NULL) {
                out[at + i] = (int32_t)code[i];
            }
        }
    }
cleanup:
    return st;
}

// Codes and the labels they number. `labels` may be empty when every code is missing.
static cpa_status factor_of_codes(const cpa_h5 *h5, const char *path, const char *field, const char *labels,
                                  cpa_factor *out)
{
    cpa_h5_data *d = NULL;
    cpa_status st = cpa_h5_data_open(h5, path, field, &d);
    CPA_TRY(st);
    const cpa_h5_info *info = cpa_h5_data_info(d);
    CPA_TRY(cpa_h5ad_check_codes(h5, path, info));
    CPA_REQUIRE(!has_member(h5, labels, "codes"), CPA_BAD_DATA, "%s: %s: categories cannot have categories",
                cpa_h5_path(h5), labels); // they may be the column itself
    CPA_TRY(cpa_h5ad_texts(h5, labels, NULL, &out->level));
    CPA_TRY(cpa_alloc((size_t)info->n, sizeof *out->code, &out->code));
    out->n = info->n;
    CPA_TRY(cpa_h5ad_read_codes(h5, path, field, labels, out->level.n, d, out->code));
cleanup:
    cpa_h5_data_close(&d);
    return st;
}

static int compare_rows(const void *a, const void *b, void *ctx)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    const values *v = ctx;
    if (v->f != NULL) {
        return v->f[x] < v->f[y] ? -1 : v->f[x] > v->f[y];
    }
    if (v->i != NULL) {
        return v->i[x] < v->i[y] ? -1 : v->i[x] > v->i[y];
    }
    return strcmp(v->s.s[x], v->s.s[y]);
}

// Sorts the rows that have a value and numbers the distinct values. `mask` (1: missing) may be NULL.
static cpa_status factor_of_values(values *v, const int64_t *mask, cpa_factor *out)
{
    cpa_status st;
    int64_t *row = NULL, n = 0;
    char room[40];
    CPA_TRY(cpa_alloc((size_t)v->n, sizeof *row, &row));
    CPA_TRY(cpa_alloc((size_t)v->n, sizeof *out->code, &out->code));
    out->n = v->n;
    for (int64_t i = 0; i < v->n; i++) {
        out->code[i] = -1;
        if ((mask == NULL || mask[i] == 0) && (v->f == NULL || !isnan(v->f[i]))) {
            row[n++] = i;
        }
    }
    qsort_r(row, (size_t)n, sizeof *row, compare_rows, v);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || compare_rows(&row[i - 1], &row[i], v) != 0) {
            CPA_TRY(cpa_strings_add(&out->level, value_text(v, row[i], room)));
        }
        out->code[row[i]] = (int32_t)(out->level.n - 1);
    }
cleanup:
    cpa_free(&row);
    return st;
}

// Values with a mask of missing ones, or without (`mask` NULL).
static cpa_status factor_of_array(const cpa_h5 *h5, const char *path, const char *field, const char *mask,
                                  cpa_factor *out)
{
    values v, gaps = {0};
    cpa_status st = read_values(h5, path, field, &v);
    if (st != CPA_OK) {
        return st;
    }
    if (mask != NULL) {
        CPA_TRY(read_values(h5, mask, NULL, &gaps));
        CPA_REQUIRE(gaps.i != NULL && gaps.n == v.n, CPA_BAD_DATA,
                    "%s: %s should hold a boolean for each of the %lld rows of %s", cpa_h5_path(h5), mask,
                    (long long)v.n, path);
    }
    CPA_TRY(factor_of_values(&v, gaps.i, out));
cleanup:
    values_fini(&gaps);
    values_fini(&v);
    return st;
}

static cpa_status factor_of_group(const cpa_h5 *h5, const char *path, cpa_factor *out)
{
    cpa_status st;
    char *first = NULL, *second = NULL;
    CPA_TRY(cpa_h5ad_check_version(h5, path));
    if (has_member(h5, path, "codes") && has_member(h5, path, "categories")) {
        CPA_TRY(cpa_sprintf(&first, "%s/codes", path));
        CPA_TRY(cpa_sprintf(&second, "%s/categories", path));
        CPA_TRY(factor_of_codes(h5, first, NULL, second, out));
    } else if (has_member(h5, path, "values") && has_member(h5, path, "mask")) {
        CPA_TRY(cpa_sprintf(&first, "%s/values", path));
        CPA_TRY(cpa_sprintf(&second, "%s/mask", path));
        CPA_TRY(factor_of_array(h5, first, NULL, second, out));
    } else {
        st = unknown_encoding(h5, path);
    }
cleanup:
    cpa_free(&first);
    cpa_free(&second);
    return st;
}

static cpa_status group_texts(const cpa_h5 *h5, const char *path, cpa_strings *out)
{
    cpa_factor rows = {0};
    cpa_status st = factor_of_group(h5, path, &rows);
    for (int64_t i = 0; i < rows.n && st == CPA_OK; i++) {
        st = rows.code[i] >= 0 ? cpa_strings_add(out, rows.level.s[rows.code[i]])
                               : cpa_fail(CPA_BAD_DATA, "%s: %s: row %lld is missing, every row needs a text",
                                          cpa_h5_path(h5), path, (long long)i);
    }
    if (st != CPA_OK) {
        cpa_strings_fini(out);
    }
    cpa_factor_fini(&rows);
    return st;
}

// anndata 0.7: an attribute that refers to <frame>/__categories/<column>; before: uns/<column>_categories for the integer
// fields of a table.
cpa_status cpa_h5ad_old_categories(const cpa_h5 *h5, const char *frame, const char *column, const char *path,
                                   const char *field, char **out)
{
    cpa_status st = CPA_OK;
    *out = NULL;
    if (field != NULL) {
        CPA_TRY(cpa_sprintf(out, "uns/%s_categories", column));
        if (cpa_h5_kind_of(h5, *out) == CPA_H5_NOTHING) {
            cpa_free(out);
        }
    } else if (cpa_h5_has_attr(h5, path, "categories")) {
        CPA_TRY(cpa_h5_attr_target(h5, path, "categories", out));
        if (*out == NULL) { // repacking tools break references
            CPA_TRY(cpa_sprintf(out, "%s/__categories/%s", frame, column));
        }
        CPA_REQUIRE(cpa_h5_kind_of(h5, *out) != CPA_H5_NOTHING, CPA_BAD_DATA,
                    "%s: the categories of %s should be in '%s', which is missing", cpa_h5_path(h5), path, *out);
    }
cleanup:
    return st;
}

static cpa_status missing_column(cpa_part *f, const char *frame, const char *column, const cpa_strings *columns)
{
    cpa_text names = {0};
    cpa_status st = cpa_h5ad_add_names(&names, columns, column);
    if (st == CPA_OK) {
        st = cpa_fail(CPA_BAD_DATA, "%s: %s has no column '%s'; its columns are %s", f->path, frame, column,
                      cpa_text_str(&names));
    }
    cpa_text_fini(&names);
    return st;
}

cpa_status cpa_part_check_rows(const cpa_part *f, const char *frame, const char *column, int64_t rows)
{
    int64_t n = strcmp(frame, "obs") == 0 ? f->n_cells : f->n_stored;
    return rows == n ? CPA_OK
                     : cpa_fail(CPA_BAD_DATA, "%s: column '%s' of %s has %lld rows, but %s has %lld", f->path, column,
                                frame, (long long)rows, frame, (long long)n);
}

cpa_status cpa_part_factor(cpa_part *f, const char *frame, const char *column, cpa_factor *out)
{
    cpa_status st;
    char *path = NULL, *labels = NULL;
    const char *field;
    cpa_strings columns = {0};
    *out = (cpa_factor){0};
    frame = selected(f, frame);
    CPA_TRY(cpa_part_columns(f, frame, &columns));
    if (cpa_strings_find(&columns, column) < 0) {
        st = missing_column(f, frame, column, &columns);
        goto cleanup;
    }
    CPA_TRY(cpa_h5ad_locate(f->h5, frame, column, &path, &field));
    CPA_TRY(cpa_h5ad_old_categories(f->h5, frame, column, path, field, &labels));
    if (cpa_h5_kind_of(f->h5, path) == CPA_H5_GROUP) {
        CPA_TRY(factor_of_group(f->h5, path, out));
    } else if (labels != NULL) {
        CPA_TRY(factor_of_codes(f->h5, path, field, labels, out));
    } else {
        CPA_TRY(factor_of_array(f->h5, path, field, NULL, out));
    }
    CPA_TRY(cpa_part_check_rows(f, frame, column, out->n));
cleanup:
    cpa_free(&path);
    cpa_free(&labels);
    cpa_strings_fini(&columns);
    if (st != CPA_OK) {
        cpa_factor_fini(out);
    }
    return st;
}

// ---- Names of columns and rows

cpa_status cpa_part_columns(cpa_part *f, const char *frame, cpa_strings *out)
{
    cpa_status st;
    char *index = NULL;
    cpa_strings members = {0};
    frame = selected(f, frame);
    if (!is_table(f->h5, frame) && cpa_h5_has_attr(f->h5, frame, "column-order")) {
        return cpa_h5_attr_strings(f->h5, frame, "column-order", out);
    }
    CPA_TRY(cpa_h5ad_index_name(f->h5, frame, &index));
    CPA_TRY(is_table(f->h5, frame) ? cpa_h5_fields(f->h5, frame, &members) : cpa_h5_list(f->h5, frame, &members));
    for (int64_t i = 0; i < members.n; i++) {
        if (strcmp(members.s[i], index) != 0 && strcmp(members.s[i], "__categories") != 0) {
            CPA_TRY(cpa_strings_add(out, members.s[i]));
        }
    }
cleanup:
    cpa_free(&index);
    cpa_strings_fini(&members);
    return st;
}

// Of the names of all genes those that are selected, in their order.
static cpa_status keep_chosen(const cpa_part *f, cpa_strings *names)
{
    cpa_status st = CPA_OK;
    cpa_strings kept = {0};
    for (int64_t g = 0; g < f->n_genes; g++) {
        CPA_TRY(cpa_strings_add(&kept, names->s[f->genes->chosen[g]]));
    }
    cpa_strings_fini(names);
    *names = kept;
    kept = (cpa_strings){0};
cleanup:
    cpa_strings_fini(&kept);
    return st;
}

cpa_status cpa_part_index(cpa_part *f, const char *frame, cpa_strings *out)
{
    cpa_status st;
    char *name = NULL, *path = NULL;
    const char *field;
    frame = selected(f, frame);
    CPA_TRY(cpa_h5ad_index_name(f->h5, frame, &name));
    CPA_TRY(cpa_h5ad_locate(f->h5, frame, name, &path, &field));
    CPA_TRY(cpa_h5ad_texts(f->h5, path, field, out));
    if (frame == f->var && f->genes != NULL) {
        CPA_TRY(keep_chosen(f, out));
    }
cleanup:
    cpa_free(&name);
    cpa_free(&path);
    return st;
}

bool cpa_part_has_column(cpa_part *f, const char *frame, const char *column)
{
    cpa_strings columns = {0};
    bool there = cpa_part_columns(f, frame, &columns) == CPA_OK && cpa_strings_find(&columns, column) >= 0;
    cpa_strings_fini(&columns);
    return there;
}
