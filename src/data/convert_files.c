// Owns: several files as one: which of their elements come together, and which are left out. Must never leave one out without saying so.
#include <string.h>

#include "convert_impl.h"
#include "cpa/base/log.h"

static cpa_status all_have(const cpa_conversion *c, const char *path, bool *out)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    *out = true;
    for (int k = 0; *out && k < c->all->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        *out = cpa_h5_kind_of(p->h5, path) != CPA_H5_NOTHING;
    }
cleanup:
    return st;
}

// ---- Names and columns

typedef struct naming {
    cpa_h5 *out;
    int64_t at;
} naming;

static cpa_status put_names(void *ctx, const cpa_strings *names)
{
    naming *n = ctx;
    cpa_status st = cpa_h5_fill_strings(n->out, "obs/_index", n->at, names);
    n->at += names->n;
    return st;
}

static cpa_status write_cell_names(const cpa_conversion *c)
{
    cpa_status st;
    cpa_part *p;
    naming names = {.out = c->out};
    CPA_TRY(cpa_h5_create_strings(c->out, "obs/_index", c->all->n_cells));
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        CPA_TRY(cpa_part_scan_names(p, put_names, &names));
    }
    CPA_TRY(cpa_h5ad_encode(c->out, "obs/_index", "string-array", "0.2.0"));
cleanup:
    return st;
}

static cpa_status write_columns(const cpa_conversion *c, const char *frame, const char *to, const cpa_strings *columns)
{
    cpa_status st = CPA_OK;
    char *path = NULL;
    for (int64_t i = 0; i < columns->n; i++) {
        CPA_TRY(cpa_sprintf(&path, "%s/%s", to, columns->s[i]));
        CPA_TRY(cpa_convert_column(c, frame, columns->s[i], path));
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    return st;
}

// A column cannot be called as the names of the rows are here. One that is no file's names is a loss.
static cpa_status drop_index(const cpa_conversion *c, const char *frame, cpa_strings *columns)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    char *index = NULL;
    bool lost = false;
    int64_t at = cpa_strings_find(columns, "_index");
    for (int k = 0; at >= 0 && k < (strcmp(frame, "obs") == 0 ? c->all->n_parts : 1); k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        CPA_TRY(cpa_h5ad_index_name(p->h5, frame, &index));
        lost = lost || (strcmp(index, "_index") != 0 && cpa_part_has_column(p, frame, "_index"));
        cpa_free(&index);
    }
    if (lost) {
        cpa_warn("%s: the column '_index' of %s is left out: the names are called so here", c->all->path, frame);
    }
    if (at >= 0) {
        cpa_free(&columns->s[at]);
        columns->n--;
        memmove(columns->s + at, columns->s + at + 1, (size_t)(columns->n - at) * sizeof *columns->s);
    }
cleanup:
    cpa_free(&index);
    return st;
}

static cpa_status unite_obs(const cpa_conversion *c)
{
    cpa_status st;
    cpa_strings columns = {0};
    CPA_TRY(cpa_h5ad_columns(c->all, "obs", &columns));
    CPA_TRY(drop_index(c, "obs", &columns));
    CPA_TRY(cpa_h5ad_begin_frame(c->out, "obs", &columns));
    CPA_TRY(write_cell_names(c));
    CPA_TRY(write_columns(c, "obs", "obs", &columns));
cleanup:
    cpa_strings_fini(&columns);
    return st;
}

// The genes in use, with the columns of the first file.
static cpa_status write_genes(const cpa_conversion *c, const char *to)
{
    cpa_status st;
    cpa_part *first;
    cpa_strings columns = {0}, names = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5ad_part(c->all, 0, &first));
    CPA_TRY(cpa_h5ad_columns(c->all, "var", &columns));
    CPA_TRY(drop_index(c, first->var, &columns));
    CPA_TRY(cpa_h5ad_index(c->all, "var", &names));
    CPA_TRY(cpa_h5ad_begin_frame(c->out, to, &columns));
    CPA_TRY(cpa_sprintf(&path, "%s/_index", to));
    CPA_TRY(cpa_h5ad_write_list(c->out, path, &names));
    CPA_TRY(write_columns(c, first->var, to, &columns));
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&columns);
    cpa_strings_fini(&names);
    return st;
}

// ---- Matrices

static cpa_status unite_layers(const cpa_conversion *c)
{
    cpa_status st;
    cpa_strings layers = {0};
    char *path = NULL;
    bool there;
    CPA_TRY(cpa_h5ad_layers(c->all, &layers));
    CPA_TRY(cpa_h5ad_write_dict(c->out, "layers"));
    for (int64_t i = 0; i < layers.n; i++) {
        CPA_TRY(cpa_sprintf(&path, "layers/%s", layers.s[i]));
        CPA_TRY(all_have(c, path, &there));
        if (there) {
            CPA_TRY(cpa_convert_matrix(c, layers.s[i], path));
        } else {
            cpa_warn("%s: %s is left out: not all files have it", c->all->path, path);
        }
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&layers);
    return st;
}

// raw with the genes that all have of it; last, since the other counts are then out of use.
static cpa_status unite_raw(const cpa_conversion *c)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        CPA_TRY(cpa_part_use(p, true));
    }
    CPA_TRY(cpa_h5ad_join_genes(c->all, false));
    CPA_TRY(cpa_h5_write_group(c->out, "raw"));
    CPA_TRY(cpa_h5ad_encode(c->out, "raw", "raw", "0.1.0"));
    CPA_TRY(write_genes(c, "raw/var"));
    CPA_TRY(cpa_convert_matrix(c, NULL, "raw/X"));
cleanup:
    return st;
}

// ---- The rest

// Whether a member of the root has something in it that was not written.
static bool is_left(const cpa_conversion *c, const cpa_part *p, const char *name)
{
    static const char *const written[] = {"X", "obs", "var", "layers", "uns", "__categories"};
    static const char *const raw[] = {"raw", "raw.X", "raw.var"};
    cpa_strings members = {0};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        if (strcmp(name, written[i]) == 0) {
            return strcmp(name, "X") == 0 && cpa_h5_kind_of(c->out, name) == CPA_H5_NOTHING;
        }
    }
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        if (strcmp(name, raw[i]) == 0) {
            return cpa_h5_kind_of(c->out, "raw") == CPA_H5_NOTHING;
        }
    }
    bool empty =
        cpa_h5_kind_of(p->h5, name) == CPA_H5_GROUP && cpa_h5_list(p->h5, name, &members) == CPA_OK && members.n == 0;
    cpa_strings_fini(&members);
    return !empty;
}

static cpa_status say_what_is_left(const cpa_conversion *c)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    cpa_strings members = {0};
    cpa_union left = {0};
    cpa_text text = {0};
    int32_t at;
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(c->all, k, &p));
        CPA_TRY(cpa_h5_list(p->h5, "/", &members));
        for (int64_t i = 0; i < members.n; i++) {
            CPA_TRY(is_left(c, p, members.s[i]) ? cpa_union_add(&left, members.s[i], &at) : CPA_OK);
        }
        cpa_strings_fini(&members);
    }
    if (left.value.n > 0) {
        CPA_TRY(cpa_text_add_names(&text, &left.value, left.value.n));
        cpa_warn("%s: left out, since it belongs to single files or not all have it: %s", c->all->path,
                 cpa_text_str(&text));
    }
cleanup:
    cpa_strings_fini(&members);
    cpa_union_fini(&left);
    cpa_text_fini(&text);
    return st;
}

cpa_status cpa_convert_files(const cpa_conversion *c)
{
    cpa_status st;
    bool x, raw, old_raw;
    CPA_TRY(unite_obs(c));
    CPA_TRY(write_genes(c, "var"));
    CPA_TRY(all_have(c, "X", &x));
    CPA_TRY(x ? cpa_convert_matrix(c, NULL, "X") : CPA_OK);
    CPA_TRY(unite_layers(c));
    CPA_TRY(cpa_convert_uns(c));
    CPA_TRY(all_have(c, "raw/X", &raw));
    CPA_TRY(all_have(c, "raw.X", &old_raw));
    CPA_TRY(raw || old_raw ? unite_raw(c) : CPA_OK);
    CPA_TRY(say_what_is_left(c));
cleanup:
    return st;
}
