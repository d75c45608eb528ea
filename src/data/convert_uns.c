// Owns: uns: the dictionaries of all files as one, in which the first file that has a key gives its value.
// Must never leave out another value of a later file without saying so.
#include <math.h>
#include <string.h>

#include "convert_impl.h"
#include "cpa/base/log.h"

enum { PIECE = 1 << 16 }; // values that are compared at a time

// ---- Whether two files have the same; what cannot be compared counts as another value

static bool is_number(const cpa_h5_info *info)
{
    return info->class == CPA_H5_CLASS_INT || info->class == CPA_H5_CLASS_FLOAT || info->class == CPA_H5_CLASS_BOOL;
}

// Whether an int64_t holds every value of the type.
static bool is_whole(const cpa_h5_info *info)
{
    return info->class != CPA_H5_CLASS_FLOAT && strcmp(info->dtype, "uint64") != 0;
}

// Values of 8 bytes each. NaN is as good as another.
static bool are_equal(bool whole, int64_t n, const double *x, const double *y)
{
    int64_t i = 0;
    while (!whole && i < n && (x[i] == y[i] || (isnan(x[i]) && isnan(y[i])))) {
        i++;
    }
    return whole ? memcmp(x, y, (size_t)n * sizeof *x) == 0 : i == n;
}

// Two arrays of the same shape, some rows at a time.
static cpa_status same_numbers(const cpa_h5_data *a, const cpa_h5_data *b, bool *same)
{
    cpa_status st;
    const cpa_h5_info *info = cpa_h5_data_info(a);
    double *x = NULL, *y = NULL;
    bool whole = is_whole(info) && is_whole(cpa_h5_data_info(b));
    cpa_h5_type type = whole ? CPA_H5_I64 : CPA_H5_F64;
    int64_t first[CPA_H5_MAX_RANK] = {0}, count[CPA_H5_MAX_RANK], rows = info->rank > 0 ? info->shape[0] : 1;
    int64_t width = rows > 0 ? info->n / rows : 0, step = width > 0 && width < PIECE ? PIECE / width : 1;
    step = step < rows ? step : rows;
    memcpy(count, info->shape, sizeof count);
    CPA_TRY(cpa_alloc((size_t)(step * width), sizeof *x, &x));
    CPA_TRY(cpa_alloc((size_t)(step * width), sizeof *y, &y));
    for (int64_t at = 0; *same && at < rows; at += step) {
        first[0] = at;
        count[0] = rows - at < step ? rows - at : step;
        CPA_TRY(cpa_h5_data_read(a, type, first, count, x));
        CPA_TRY(cpa_h5_data_read(b, type, first, count, y));
        *same = are_equal(whole, count[0] * width, x, y);
    }
cleanup:
    cpa_free(&x);
    cpa_free(&y);
    return st;
}

static cpa_status same_texts(const cpa_h5_data *a, const cpa_h5_data *b, bool *same)
{
    cpa_status st = CPA_OK;
    cpa_strings x = {0}, y = {0};
    int64_t n = cpa_h5_data_info(a)->n;
    for (int64_t at = 0; *same && at < n; at += PIECE) {
        int64_t some = n - at < PIECE ? n - at : PIECE;
        CPA_TRY(cpa_h5_data_strings(a, at, some, &x));
        CPA_TRY(cpa_h5_data_strings(b, at, some, &y));
        *same = cpa_strings_equal(&x, &y);
        cpa_strings_fini(&x);
        cpa_strings_fini(&y);
    }
cleanup:
    cpa_strings_fini(&x);
    cpa_strings_fini(&y);
    return st;
}

// A dataset, or one field of a table.
static cpa_status same_array(const cpa_h5 *a, const cpa_h5 *b, const char *path, const char *field, bool *same)
{
    cpa_status st;
    cpa_h5_data *x = NULL, *y = NULL;
    CPA_TRY(cpa_h5_data_open(a, path, field, &x));
    CPA_TRY(cpa_h5_data_open(b, path, field, &y));
    const cpa_h5_info *u = cpa_h5_data_info(x), *v = cpa_h5_data_info(y);
    *same = u->rank == v->rank && memcmp(u->shape, v->shape, (size_t)u->rank * sizeof *u->shape) == 0;
    if (is_number(u) && is_number(v)) {
        CPA_TRY(*same ? same_numbers(x, y, same) : CPA_OK);
    } else if (u->class == CPA_H5_CLASS_STRING && v->class == CPA_H5_CLASS_STRING && u->rank <= 1) {
        CPA_TRY(*same ? same_texts(x, y, same) : CPA_OK);
    } else {
        *same = false;
    }
cleanup:
    cpa_h5_data_close(&x);
    cpa_h5_data_close(&y);
    return st;
}

static cpa_status same_dataset(const cpa_h5 *a, const cpa_h5 *b, const char *path, bool *same)
{
    cpa_status st;
    cpa_h5_info u, v;
    cpa_strings x = {0}, y = {0};
    CPA_TRY(cpa_h5_describe(a, path, &u));
    CPA_TRY(cpa_h5_describe(b, path, &v));
    if (u.class != CPA_H5_CLASS_COMPOUND || v.class != CPA_H5_CLASS_COMPOUND) {
        CPA_TRY(same_array(a, b, path, NULL, same));
        goto cleanup;
    }
    CPA_TRY(cpa_h5_fields(a, path, &x));
    CPA_TRY(cpa_h5_fields(b, path, &y));
    *same = cpa_strings_equal(&x, &y);
    for (int64_t i = 0; *same && i < x.n; i++) {
        CPA_TRY(same_array(a, b, path, x.s[i], same));
    }
cleanup:
    cpa_strings_fini(&x);
    cpa_strings_fini(&y);
    return st;
}

static cpa_status same_member(const cpa_h5 *a, const cpa_h5 *b, const char *path, bool *same)
{
    cpa_status st = CPA_OK;
    char *member = NULL;
    cpa_strings x = {0}, y = {0};
    *same = cpa_h5_kind_of(a, path) == cpa_h5_kind_of(b, path);
    if (!*same || cpa_h5_kind_of(a, path) == CPA_H5_DATASET) {
        return *same ? same_dataset(a, b, path, same) : CPA_OK;
    }
    CPA_TRY(cpa_h5_list(a, path, &x));
    CPA_TRY(cpa_h5_list(b, path, &y));
    *same = cpa_strings_equal(&x, &y);
    for (int64_t i = 0; *same && i < x.n; i++) {
        CPA_TRY(cpa_sprintf(&member, "%s/%s", path, x.s[i]));
        CPA_TRY(same_member(a, b, member, same));
        cpa_free(&member);
    }
cleanup:
    cpa_free(&member);
    cpa_strings_fini(&x);
    cpa_strings_fini(&y);
    return st;
}

// ---- All

static bool is_dict(const cpa_h5 *h5, const char *path)
{
    char *encoding = NULL;
    bool is = cpa_h5_kind_of(h5, path) == CPA_H5_GROUP && cpa_h5ad_encoding(h5, path, &encoding) == CPA_OK &&
              (strcmp(encoding, "dict") == 0 || encoding[0] == '\0');
    cpa_free(&encoding);
    return is;
}

// Copies what is not there yet. Dictionaries that several files have come together; the keys of other values go to `unlike`.
static cpa_status unite_member(const cpa_conversion *c, const cpa_part *p, const char *path, cpa_union *unlike)
{
    cpa_status st = CPA_OK;
    cpa_strings members = {0};
    char *member = NULL;
    bool same = true;
    int32_t at;
    if (cpa_h5_kind_of(c->out, path) == CPA_H5_NOTHING) {
        CPA_TRY(cpa_h5_copy(p->h5, path, c->out, path));
    } else if (is_dict(p->h5, path) && is_dict(c->out, path)) {
        CPA_TRY(cpa_h5_list(p->h5, path, &members));
    } else {
        CPA_TRY(same_member(c->out, p->h5, path, &same));
    }
    CPA_TRY(same ? CPA_OK : cpa_union_add(unlike, path + strlen("uns/"), &at));
    for (int64_t i = 0; i < members.n; i++) {
        CPA_TRY(cpa_sprintf(&member, "%s/%s", path, members.s[i]));
        CPA_TRY(unite_member(c, p, member, unlike));
        cpa_free(&member);
    }
cleanup:
    cpa_free(&member);
    cpa_strings_fini(&members);
    return st;
}

// Whether uns/<name> holds the categories of a column of a table, which are with the column now.
static bool is_old_categories(cpa_part *p, const char *name)
{
    static const char tail[] = "_categories";
    size_t n = strlen(name), t = sizeof tail - 1;
    char *column = NULL;
    bool is = n > t && strcmp(name + n - t, tail) == 0 && cpa_h5_kind_of(p->h5, "obs") == CPA_H5_DATASET &&
              cpa_sprintf(&column, "%.*s", (int)(n - t), name) == CPA_OK &&
              (cpa_part_has_column(p, "obs", column) || cpa_part_has_column(p, "var", column));
    cpa_free(&column);
    return is;
}

static cpa_status unite_file(const cpa_conversion *c, cpa_part *p, cpa_union *unlike)
{
    cpa_status st;
    cpa_strings keys = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5_list(p->h5, "uns", &keys));
    for (int64_t i = 0; i < keys.n; i++) {
        CPA_TRY(cpa_sprintf(&path, "uns/%s", keys.s[i]));
        CPA_TRY(is_old_categories(p, keys.s[i]) ? CPA_OK : unite_member(c, p, path, unlike));
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&keys);
    return st;
}

cpa_status cpa_convert_uns(const cpa_conversion *c)
{
    cpa_status st;
    cpa_part *p;
    cpa_union unlike = {0};
    cpa_text text = {0};
    CPA_TRY(cpa_h5ad_write_dict(c->out, "uns"));
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        CPA_TRY(cpa_h5_kind_of(p->h5, "uns") == CPA_H5_GROUP ? unite_file(c, p, &unlike) : CPA_OK);
    }
    if (unlike.value.n > 0) {
        CPA_TRY(cpa_text_add_names(&text, &unlike.value, unlike.value.n));
        cpa_warn("%s: uns: the first file's value is kept where others have another: %s", c->all->path,
                 cpa_text_str(&text));
    }
cleanup:
    cpa_union_fini(&unlike);
    cpa_text_fini(&text);
    return st;
}
