// Owns: a column that several files have as one column: which kind it becomes, and its rows, a stretch at a time.
// Must never hold more of a column of cells with categories or numbers than a stretch, nor change a value: what is neither a number in
// every file nor a text in every row becomes categories.
#include <math.h>
#include <string.h>

#include "convert_impl.h"

enum { STRETCH = 1 << 14 };                    // rows at a time
static const int64_t EXACT = INT64_C(1) << 53; // a double holds all integers up to here

// In the order in which one kind gives way to another: integers and floats together are floats.
typedef enum kind { ABSENT, BOOL, INT, FLOAT, TEXT, FACTOR } kind;

// The column of one file.
typedef struct place {
    kind kind;
    bool is_single, is_ordered;
    char *path, *mask, *labels; // of its values or codes; of what is missing, of its categories: or NULL
    const char *field;
} place;

typedef struct uniting {
    const cpa_conversion *c;
    const char *frame, *column, *to;
    int n_parts;
    place *at; // [n_parts]
    kind kind;
    bool gaps, is_single;         // some row has no value; all floats have 32 bits
    const cpa_gene_map *selected; // of all rows, or NULL: all
    cpa_union level;              // FACTOR
    bool is_ordered;
} uniting;

// ---- What there is

static kind kind_of(cpa_h5_class class)
{
    switch (class) {
    case CPA_H5_CLASS_INT:
        return INT;
    case CPA_H5_CLASS_BOOL:
        return BOOL;
    case CPA_H5_CLASS_FLOAT:
        return FLOAT;
    case CPA_H5_CLASS_STRING:
        return TEXT;
    case CPA_H5_CLASS_COMPOUND:
    case CPA_H5_CLASS_OTHER:
        break;
    }
    return ABSENT;
}

static cpa_status read_order(const cpa_h5 *h5, const char *object, bool *out)
{
    int64_t stated = 0;
    int n;
    cpa_status st = cpa_h5_has_attr(h5, object, "ordered")
                        ? cpa_h5_attr_numbers(h5, object, "ordered", CPA_H5_I64, 1, &stated, &n)
                        : CPA_OK;
    *out = stated != 0;
    return st;
}

// Codes and categories, or values and a mask.
static cpa_status enter_group(const cpa_h5 *h5, place *p)
{
    cpa_status st;
    char *group = p->path, *codes = NULL;
    p->path = NULL;
    CPA_TRY(cpa_h5ad_check_version(h5, group));
    CPA_TRY(cpa_sprintf(&codes, "%s/codes", group));
    bool coded = cpa_h5_kind_of(h5, codes) == CPA_H5_DATASET;
    CPA_TRY(cpa_sprintf(&p->path, "%s/%s", group, coded ? "codes" : "values"));
    CPA_TRY(cpa_sprintf(coded ? &p->labels : &p->mask, "%s/%s", group, coded ? "categories" : "mask"));
    CPA_TRY(coded ? read_order(h5, group, &p->is_ordered) : CPA_OK);
cleanup:
    cpa_free(&group);
    cpa_free(&codes);
    return st;
}

static cpa_status find_place(const uniting *u, cpa_part *part, place *p)
{
    cpa_status st = CPA_OK;
    cpa_h5_data *d = NULL;
    const cpa_h5 *h5 = part->h5;
    if (!cpa_part_has_column(part, u->frame, u->column)) {
        return CPA_OK;
    }
    CPA_TRY(cpa_h5ad_locate(h5, u->frame, u->column, &p->path, &p->field));
    CPA_TRY(cpa_h5ad_old_categories(h5, u->frame, u->column, p->path, p->field, &p->labels));
    if (cpa_h5_kind_of(h5, p->path) == CPA_H5_GROUP) {
        CPA_TRY(enter_group(h5, p));
    } else if (p->labels != NULL) {
        CPA_TRY(read_order(h5, p->labels, &p->is_ordered));
    }
    CPA_TRY(cpa_h5_data_open(h5, p->path, p->field, &d));
    const cpa_h5_info *info = cpa_h5_data_info(d);
    CPA_TRY(p->labels != NULL ? cpa_h5ad_check_codes(h5, p->path, info) : CPA_OK);
    p->kind = p->labels != NULL ? FACTOR : kind_of(info->class);
    p->is_single = strcmp(info->dtype, "float32") == 0;
    CPA_REQUIRE(p->kind != ABSENT && info->rank <= 1, CPA_BAD_DATA,
                "%s: %s is of a kind that cannot be joined with that of other files", part->path, p->path);
    CPA_TRY(cpa_part_check_rows(part, u->frame, u->column, info->n));
cleanup:
    cpa_h5_data_close(&d);
    return st;
}

// The kind that holds what all files have.
static cpa_status settle_kind(uniting *u)
{
    cpa_status st;
    cpa_part *part;
    bool all_text = true;
    u->is_single = true;
    CPA_TRY(cpa_alloc((size_t)u->n_parts, sizeof *u->at, &u->at));
    for (int k = 0; k < u->n_parts; k++) {
        place *p = &u->at[k];
        CPA_TRY(cpa_h5ad_part(u->c->all, k, &part));
        CPA_TRY(find_place(u, part, p));
        u->kind = p->kind > u->kind ? p->kind : u->kind;
        u->gaps = u->gaps || p->kind == ABSENT || p->mask != NULL;
        u->is_single = u->is_single && (p->kind != FLOAT || p->is_single) && p->kind != INT;
        all_text = all_text && p->kind == TEXT;
    }
    if (u->kind == TEXT && (u->gaps || !all_text)) {
        u->kind = FACTOR;
    }
cleanup:
    return st;
}

// ---- Rows, a stretch at a time

// What is read of a stretch, and what is written.
typedef struct rows {
    int64_t n;
    int64_t *integer, *mask; // mask: not 0 where a value is missing
    double *real;            // of a file with floats instead of integers; where the column is FLOAT, of all
    float *single;
    uint8_t *byte;
    int32_t *code;
} rows;

typedef cpa_status (*use_rows)(const uniting *u, void *ctx, rows *r);

static cpa_status rows_init(rows *r, int64_t most)
{
    cpa_status st;
    size_t n = (size_t)most;
    CPA_TRY(cpa_alloc(n, sizeof *r->integer, &r->integer));
    CPA_TRY(cpa_alloc(n, sizeof *r->mask, &r->mask));
    CPA_TRY(cpa_alloc(n, sizeof *r->real, &r->real));
    CPA_TRY(cpa_alloc(n, sizeof *r->single, &r->single));
    CPA_TRY(cpa_alloc(n, sizeof *r->byte, &r->byte));
    CPA_TRY(cpa_alloc(n, sizeof *r->code, &r->code));
cleanup:
    return st;
}

static void rows_fini(rows *r)
{
    cpa_free(&r->integer);
    cpa_free(&r->mask);
    cpa_free(&r->real);
    cpa_free(&r->single);
    cpa_free(&r->byte);
    cpa_free(&r->code);
}

// Leaves the rows that are selected.
static void pick(const uniting *u, rows *r)
{
    for (int64_t k = 0; u->selected != NULL && k < u->selected->n_genes; k++) {
        int32_t from = u->selected->chosen[k]; // these ascend, so no row is overwritten before it is read
        r->integer[k] = r->integer[from];
        r->real[k] = r->real[from];
        r->mask[k] = r->mask[from];
    }
    r->n = u->selected != NULL ? u->selected->n_genes : r->n;
}

// Rows of file k, and how many of them to take at a time: where only some are selected all, since these are genes.
static int64_t rows_of(const uniting *u, const cpa_part *part, int64_t *step)
{
    int64_t n = strcmp(u->frame, "obs") == 0 ? part->n_cells : part->n_stored;
    *step = u->selected != NULL || n < STRETCH ? n : STRETCH;
    return n;
}

// Integers of a file as the floats that other files have.
static cpa_status make_real(const uniting *u, const cpa_part *part, int64_t at, rows *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        int64_t v = r->integer[i];
        if (r->mask[i] == 0 && (v > EXACT || v < -EXACT)) {
            return cpa_fail(
                CPA_BAD_DATA,
                "%s: %s/%s: row %lld holds the integer %lld, but other files hold floats there, which are not "
                "exact beyond 2^53; store the column as one type in all files",
                part->path, u->frame, u->column, (long long)(at + i), (long long)v);
        }
        r->real[i] = (double)v;
    }
    return CPA_OK;
}

// Hands over the values or codes of file k.
static cpa_status scan_rows(const uniting *u, int k, use_rows use, void *ctx)
{
    cpa_status st;
    cpa_part *part;
    cpa_h5_data *value = NULL, *mask = NULL;
    rows r = {0};
    const place *p = &u->at[k];
    bool real = p->kind == FLOAT;
    int64_t step;
    CPA_TRY(cpa_h5ad_part(u->c->all, k, &part));
    int64_t n = rows_of(u, part, &step);
    CPA_TRY(rows_init(&r, step));
    if (p->kind != ABSENT) {
        CPA_TRY(cpa_h5_data_open(part->h5, p->path, p->field, &value));
        CPA_TRY(p->mask != NULL ? cpa_h5_data_open(part->h5, p->mask, NULL, &mask) : CPA_OK);
    }
    for (int64_t at = 0; at < n; at += step) {
        r.n = n - at < step ? n - at : step;
        for (int64_t i = 0; i < r.n; i++) {
            r.integer[i] = 0;
            r.real[i] = 0;
            r.mask[i] = value == NULL;
        }
        if (value != NULL) {
            CPA_TRY(
                cpa_h5_data_read(value, real ? CPA_H5_F64 : CPA_H5_I64, &at, &r.n, real ? (void *)r.real : r.integer));
        }
        CPA_TRY(mask != NULL ? cpa_h5_data_read(mask, CPA_H5_I64, &at, &r.n, r.mask) : CPA_OK);
        CPA_TRY(u->kind == FLOAT && !real ? make_real(u, part, at, &r) : CPA_OK);
        pick(u, &r);
        CPA_TRY(use(u, ctx, &r));
    }
cleanup:
    cpa_h5_data_close(&value);
    cpa_h5_data_close(&mask);
    rows_fini(&r);
    return st;
}

// ---- Numbers

typedef struct numbers {
    cpa_h5_append *value, *mask; // mask: NULL where no row lacks a value, or NaN says so
} numbers;

static cpa_status put_numbers(const uniting *u, void *ctx, rows *r)
{
    cpa_status st = CPA_OK;
    const numbers *to = ctx;
    for (int64_t i = 0; i < r->n; i++) {
        r->real[i] = r->mask[i] != 0 ? (double)NAN : r->real[i];
        r->single[i] = (float)r->real[i];
        r->byte[i] = r->integer[i] != 0;
    }
    CPA_TRY(cpa_h5_append_rows(to->value, r->n,
                               u->kind == BOOL  ? (const void *)r->byte
                               : u->kind == INT ? (const void *)r->integer
                               : u->is_single   ? (const void *)r->single
                                                : (const void *)r->real));
    for (int64_t i = 0; to->mask != NULL && i < r->n; i++) {
        r->byte[i] = r->mask[i] != 0;
    }
    CPA_TRY(to->mask != NULL ? cpa_h5_append_rows(to->mask, r->n, r->byte) : CPA_OK);
cleanup:
    return st;
}

static cpa_status open_array(const uniting *u, const char *path, cpa_h5_type type, cpa_h5_append **out)
{
    cpa_status st;
    CPA_TRY(cpa_h5_append_open(u->c->out, path, type, 0, STRETCH, u->c->gzip, out));
    CPA_TRY(cpa_h5ad_encode(u->c->out, path, "array", "0.2.0"));
cleanup:
    return st;
}

static cpa_status write_numbers(const uniting *u)
{
    cpa_status st;
    numbers to = {0};
    char *value = NULL, *mask = NULL;
    bool masked = u->gaps && u->kind != FLOAT;
    cpa_h5_type type = u->kind == BOOL  ? CPA_H5_BOOL
                       : u->kind == INT ? CPA_H5_I64
                       : u->is_single   ? CPA_H5_F32
                                        : CPA_H5_F64;
    CPA_TRY(cpa_sprintf(&value, masked ? "%s/values" : "%s", u->to));
    CPA_TRY(cpa_sprintf(&mask, "%s/mask", u->to));
    if (masked) {
        CPA_TRY(cpa_h5_write_group(u->c->out, u->to));
        CPA_TRY(cpa_h5ad_encode(u->c->out, u->to, u->kind == BOOL ? "nullable-boolean" : "nullable-integer", "0.1.0"));
        CPA_TRY(open_array(u, mask, CPA_H5_BOOL, &to.mask));
    }
    CPA_TRY(open_array(u, value, type, &to.value));
    for (int k = 0; k < u->n_parts; k++) {
        CPA_TRY(scan_rows(u, k, put_numbers, &to));
    }
    CPA_TRY(cpa_h5_append_finish(&to.value));
    CPA_TRY(masked ? cpa_h5_append_finish(&to.mask) : CPA_OK);
cleanup:
    cpa_h5_append_close(&to.value);
    cpa_h5_append_close(&to.mask);
    cpa_free(&value);
    cpa_free(&mask);
    return st;
}

// ---- Texts

typedef struct texts {
    const uniting *u;
    int64_t at;
} texts;

static cpa_status put_texts(void *ctx, const cpa_strings *some)
{
    texts *t = ctx;
    cpa_status st = cpa_h5_fill_strings(t->u->c->out, t->u->to, t->at, some);
    t->at += some->n;
    return st;
}

static cpa_status write_texts(const uniting *u)
{
    cpa_status st;
    cpa_part *part;
    texts t = {.u = u};
    CPA_TRY(cpa_h5_create_strings(u->c->out, u->to, u->c->all->n_cells));
    for (int k = 0; k < u->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(u->c->all, k, &part));
        CPA_TRY(cpa_h5ad_scan_texts(part->h5, u->at[k].path, u->at[k].field, put_texts, &t));
    }
    CPA_TRY(cpa_h5ad_encode(u->c->out, u->to, "string-array", "0.2.0"));
cleanup:
    return st;
}

// The genes in use.
static cpa_status write_gene_texts(const uniting *u)
{
    cpa_status st;
    cpa_part *part;
    cpa_strings all = {0}, kept = {0};
    CPA_TRY(cpa_h5ad_part(u->c->all, 0, &part));
    CPA_TRY(cpa_h5ad_texts(part->h5, u->at[0].path, u->at[0].field, &all));
    for (int64_t g = 0; u->selected != NULL && g < u->selected->n_genes; g++) {
        CPA_TRY(cpa_strings_add(&kept, all.s[u->selected->chosen[g]]));
    }
    CPA_TRY(cpa_h5ad_write_list(u->c->out, u->to, u->selected != NULL ? &kept : &all));
cleanup:
    cpa_strings_fini(&all);
    cpa_strings_fini(&kept);
    return st;
}

// ---- Categories

// What the codes of file k stand for: its categories, or the values of a column that has none, which is then read as a whole.
static cpa_status read_levels(const uniting *u, int k, cpa_factor *out)
{
    cpa_status st;
    cpa_part *part;
    CPA_TRY(cpa_h5ad_part(u->c->all, k, &part));
    CPA_TRY(u->at[k].kind == FACTOR ? cpa_h5ad_texts(part->h5, u->at[k].labels, NULL, &out->level)
                                    : cpa_part_factor(part, u->frame, u->column, out));
cleanup:
    return st;
}

// The categories of all files. They are ordered where they are so in every file, in the same order.
static cpa_status unite_levels(uniting *u)
{
    cpa_status st = CPA_OK;
    cpa_factor one = {0};
    u->is_ordered = true;
    for (int k = 0; k < u->n_parts; k++) {
        if (u->at[k].kind == ABSENT) {
            continue;
        }
        int64_t before = u->level.value.n;
        bool same = true;
        CPA_TRY(read_levels(u, k, &one));
        for (int64_t l = 0; l < one.level.n; l++) {
            int32_t at;
            CPA_TRY(cpa_union_add(&u->level, one.level.s[l], &at));
            same = same && at == l;
        }
        same = same && one.level.n == u->level.value.n && (before == 0 || before == one.level.n);
        u->is_ordered = u->is_ordered && same && u->at[k].is_ordered;
        cpa_factor_fini(&one);
    }
cleanup:
    cpa_factor_fini(&one);
    return st;
}

typedef struct coding {
    cpa_h5ad_codes *to;
    const char *file;
    int64_t n_levels, row;
    int32_t *at; // [n_levels] of the file: where each is among all
} coding;

static cpa_status put_codes(const uniting *u, void *ctx, rows *r)
{
    coding *c = ctx;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t code = r->mask[i] != 0 ? -1 : r->integer[i];
        if (code < -1 || code >= c->n_levels) {
            return cpa_fail(CPA_BAD_DATA, "%s: %s/%s: row %lld has the code %lld, but there are %lld categories",
                            c->file, u->frame, u->column, (long long)(c->row + i), (long long)code,
                            (long long)c->n_levels);
        }
        r->code[i] = code >= 0 ? c->at[code] : -1;
    }
    c->row += r->n;
    return cpa_h5ad_codes_add(c->to, r->n, r->code);
}

// The same from memory.
static cpa_status put_factor(const uniting *u, coding *c, const cpa_factor *f)
{
    cpa_status st = CPA_OK;
    int64_t n = u->selected != NULL ? u->selected->n_genes : f->n;
    for (int64_t i = 0; i < n; i++) {
        int32_t code = f->code[u->selected != NULL ? u->selected->chosen[i] : i];
        code = code >= 0 ? c->at[code] : -1;
        CPA_TRY(cpa_h5ad_codes_add(c->to, 1, &code));
    }
cleanup:
    return st;
}

static cpa_status write_codes(uniting *u, int k, cpa_h5ad_codes *to)
{
    cpa_status st = CPA_OK;
    cpa_factor one = {0};
    coding c = {.to = to, .file = cpa_h5ad_file(u->c->all, k)};
    if (u->at[k].kind != ABSENT) {
        CPA_TRY(read_levels(u, k, &one));
    }
    c.n_levels = one.level.n;
    CPA_TRY(cpa_alloc((size_t)c.n_levels, sizeof *c.at, &c.at));
    for (int64_t l = 0; l < c.n_levels; l++) {
        CPA_TRY(cpa_union_add(&u->level, one.level.s[l], &c.at[l]));
    }
    CPA_TRY(one.code != NULL ? put_factor(u, &c, &one) : scan_rows(u, k, put_codes, &c));
cleanup:
    cpa_free(&c.at);
    cpa_factor_fini(&one);
    return st;
}

static cpa_status write_factor(uniting *u)
{
    cpa_status st;
    cpa_h5ad_codes *to = NULL;
    CPA_TRY(unite_levels(u));
    CPA_TRY(cpa_h5ad_codes_open(u->c->out, u->to, &u->level.value, u->c->gzip, &to));
    for (int k = 0; k < u->n_parts; k++) {
        CPA_TRY(write_codes(u, k, to));
    }
    CPA_TRY(cpa_h5ad_codes_finish(&to));
    uint8_t ordered = u->is_ordered;
    CPA_TRY(cpa_h5_write_attr_numbers(u->c->out, u->to, "ordered", CPA_H5_BOOL, -1, &ordered));
cleanup:
    cpa_h5ad_codes_close(&to);
    return st;
}

// ---- All

cpa_status cpa_convert_column(const cpa_conversion *c, const char *frame, const char *column, const char *to)
{
    cpa_status st;
    bool obs = strcmp(frame, "obs") == 0;
    uniting u = {.c = c, .frame = frame, .column = column, .to = to, .n_parts = obs ? c->all->n_parts : 1};
    u.selected = obs ? NULL : c->all->part[0].genes;
    CPA_TRY(settle_kind(&u));
    if (u.kind == TEXT) {
        CPA_TRY(obs ? write_texts(&u) : write_gene_texts(&u));
    } else {
        CPA_TRY(u.kind == FACTOR ? write_factor(&u) : write_numbers(&u));
    }
cleanup:
    for (int k = 0; u.at != NULL && k < u.n_parts; k++) {
        cpa_free(&u.at[k].path);
        cpa_free(&u.at[k].mask);
        cpa_free(&u.at[k].labels);
    }
    cpa_free(&u.at);
    cpa_union_fini(&u.level);
    return st;
}
