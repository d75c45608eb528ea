// Owns: what several files say together: their list, the columns, values, names and lists of all. Genes are in h5ad_join.c.
// Must never judge: a value is the same where its text is.
#include <string.h>

#include "cpa/base/hash.h"
#include "h5ad_impl.h"

// ---- The list

cpa_status cpa_h5ad_read_list(const char *path, cpa_strings *out)
{
    cpa_status st;
    cpa_strings line = {0};
    char *full = NULL;
    const char *slash = strrchr(path, '/');
    int folder = slash != NULL ? (int)(slash - path) + 1 : 0;
    CPA_TRY(cpa_h5ad_read_lines(path, &line));
    CPA_REQUIRE(line.n > 0, CPA_BAD_DATA, "%s: names no file; write the path of an .h5ad file on each line", path);
    CPA_REQUIRE(line.n <= INT32_MAX, CPA_BAD_DATA, "%s: names too many files", path);
    for (int64_t i = 0; i < line.n; i++) {
        const char *name = line.s[i];
        size_t n = strlen(name);
        CPA_REQUIRE(n < 4 || strcmp(name + n - 4, ".txt") != 0, CPA_BAD_DATA,
                    "%s: '%s' is a list, too; name the files themselves", path, name);
        CPA_TRY(cpa_sprintf(&full, "%.*s%s", name[0] != '/' ? folder : 0, path, name));
        CPA_TRY(cpa_strings_add(out, full));
        cpa_free(&full);
    }
cleanup:
    cpa_free(&full);
    cpa_strings_fini(&line);
    return st;
}

// ---- Values

static uint64_t slot_of(const cpa_union *u, const char *value)
{
    return cpa_hash(CPA_HASH_START, value, strlen(value)) & (uint64_t)(u->n_slots - 1);
}

// Puts a position where it will be found.
static void put(const cpa_union *u, int32_t at)
{
    uint64_t k = slot_of(u, u->value.s[at]);
    while (u->slot[k] >= 0) {
        k = (k + 1) & (uint64_t)(u->n_slots - 1);
    }
    u->slot[k] = at;
}

// At most half of the slots are in use.
static cpa_status make_room(cpa_union *u)
{
    cpa_status st = CPA_OK;
    if (2 * (u->value.n + 1) <= u->n_slots) {
        return CPA_OK;
    }
    cpa_free(&u->slot);
    u->n_slots = u->n_slots > 0 ? 2 * u->n_slots : 16;
    CPA_TRY(cpa_alloc((size_t)u->n_slots, sizeof *u->slot, &u->slot));
    memset(u->slot, -1, (size_t)u->n_slots * sizeof *u->slot);
    for (int32_t i = 0; i < u->value.n; i++) {
        put(u, i);
    }
cleanup:
    return st;
}

cpa_status cpa_union_add(cpa_union *u, const char *value, int32_t *at)
{
    cpa_status st;
    CPA_TRY(make_room(u));
    for (uint64_t k = slot_of(u, value); u->slot[k] >= 0; k = (k + 1) & (uint64_t)(u->n_slots - 1)) {
        if (strcmp(u->value.s[u->slot[k]], value) == 0) {
            *at = u->slot[k];
            return CPA_OK;
        }
    }
    CPA_TRY(cpa_strings_add(&u->value, value));
    *at = (int32_t)(u->value.n - 1);
    put(u, *at);
cleanup:
    return st;
}

void cpa_union_fini(cpa_union *u)
{
    cpa_strings_fini(&u->value);
    cpa_free(&u->slot);
}

// Adds all of them and empties the list.
static cpa_status add_all(cpa_union *u, cpa_strings *list)
{
    cpa_status st = CPA_OK;
    int32_t at;
    for (int64_t i = 0; i < list->n; i++) {
        CPA_TRY(cpa_union_add(u, list->s[i], &at));
    }
cleanup:
    cpa_strings_fini(list);
    return st;
}

// ---- Frames

// How many files have a say: of obs all, of var the first.
static int n_heard(const cpa_h5ad *f, const char *frame)
{
    return strcmp(frame, "obs") == 0 ? f->n_parts : 1;
}

cpa_status cpa_h5ad_columns(cpa_h5ad *f, const char *frame, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    cpa_strings list = {0};
    cpa_union all = {0};
    for (int k = 0; k < n_heard(f, frame); k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_columns(p, frame, &list));
        CPA_TRY(add_all(&all, &list));
    }
    *out = all.value;
    all.value = (cpa_strings){0};
cleanup:
    cpa_strings_fini(&list);
    cpa_union_fini(&all);
    return st;
}

bool cpa_h5ad_has_column(cpa_h5ad *f, const char *frame, const char *column)
{
    cpa_part *p;
    for (int k = 0; k < n_heard(f, frame); k++) {
        if (cpa_h5ad_part(f, k, &p) == CPA_OK && cpa_part_has_column(p, frame, column)) {
            return true;
        }
    }
    return false;
}

cpa_status cpa_h5ad_index(cpa_h5ad *f, const char *frame, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    cpa_strings more = {0};
    for (int k = 0; k < n_heard(f, frame); k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_index(p, frame, k == 0 ? out : &more));
        for (int64_t i = 0; i < more.n; i++) {
            CPA_TRY(cpa_strings_add(out, more.s[i]));
        }
        cpa_strings_fini(&more);
    }
cleanup:
    cpa_strings_fini(&more);
    if (st != CPA_OK) {
        cpa_strings_fini(out);
    }
    return st;
}

// Puts one file's column behind those of the files before it.
static cpa_status append_factor(const cpa_factor *from, int64_t first, cpa_union *level, int32_t *code)
{
    cpa_status st;
    int32_t *at = NULL;
    CPA_TRY(cpa_alloc((size_t)from->level.n, sizeof *at, &at));
    for (int64_t l = 0; l < from->level.n; l++) {
        CPA_TRY(cpa_union_add(level, from->level.s[l], &at[l]));
    }
    for (int64_t i = 0; i < from->n; i++) {
        code[first + i] = from->code[i] >= 0 ? at[from->code[i]] : -1;
    }
cleanup:
    cpa_free(&at);
    return st;
}

static cpa_status unite_factors(cpa_h5ad *f, const char *frame, const char *column, cpa_factor *out)
{
    cpa_status st;
    cpa_part *p;
    cpa_union level = {0};
    cpa_factor one = {0};
    CPA_TRY(cpa_alloc((size_t)f->n_cells, sizeof *out->code, &out->code));
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_factor(p, frame, column, &one));
        CPA_TRY(append_factor(&one, p->first, &level, out->code));
        cpa_factor_fini(&one);
    }
    out->n = f->n_cells;
    out->level = level.value;
    level.value = (cpa_strings){0};
cleanup:
    cpa_factor_fini(&one);
    cpa_union_fini(&level);
    if (st != CPA_OK) {
        cpa_factor_fini(out);
    }
    return st;
}

cpa_status cpa_h5ad_factor(cpa_h5ad *f, const char *frame, const char *column, cpa_factor *out)
{
    cpa_part *p;
    *out = (cpa_factor){0};
    if (n_heard(f, frame) > 1) {
        return unite_factors(f, frame, column, out);
    }
    cpa_status st = cpa_h5ad_part(f, 0, &p);
    return st == CPA_OK ? cpa_part_factor(p, frame, column, out) : st;
}

// ---- The rest

cpa_status cpa_h5ad_layers(cpa_h5ad *f, cpa_strings *out)
{
    cpa_part *p;
    cpa_status st = cpa_h5ad_part(f, 0, &p);
    return st == CPA_OK ? cpa_part_layers(p, out) : st;
}

cpa_status cpa_h5ad_uns_keys(cpa_h5ad *f, const char *key, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    cpa_strings list = {0};
    cpa_union all = {0};
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_uns_keys(p, key, &list));
        CPA_TRY(add_all(&all, &list));
    }
    *out = all.value;
    all.value = (cpa_strings){0};
cleanup:
    cpa_strings_fini(&list);
    cpa_union_fini(&all);
    return st;
}

cpa_status cpa_h5ad_uns_list(cpa_h5ad *f, const char *key, const char *name, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    for (int k = 0; k < f->n_parts && out->n == 0; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_uns_list(p, key, name, out));
    }
cleanup:
    return st;
}
