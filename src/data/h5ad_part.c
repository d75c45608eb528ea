// Owns: opening one AnnData file, its layers and the lists in `uns`. Columns are in h5ad_frame.c, matrices in
// h5ad_matrix.c, the data set that may have several files in h5ad.c. Must never keep cell data: every answer is read anew
// and belongs to the caller.
#include <stdlib.h>
#include <string.h>

#include "h5ad_impl.h"

// Formats that are easily taken for AnnData, by a member of the root.
static const struct {
    const char *member, *format, *advice;
} other_formats[] = {
    {"col_attrs", "a loom file", "convert it with scanpy.read_loom(...).write_h5ad(...)"},
    {"mod", "a MuData file (.h5mu)", "save one modality with mdata['rna'].write_h5ad(...)"},
    {"assays", "an h5Seurat file", "convert it with SeuratDisk::Convert(..., dest = 'h5ad')"},
    {"matrix", "a 10x Genomics file", "convert it with scanpy.read_10x_h5(...).write_h5ad(...)"},
};

static cpa_status check_format(const cpa_h5 *h5)
{
    const char *path = cpa_h5_path(h5);
    bool obs = cpa_h5_kind_of(h5, "obs") != CPA_H5_NOTHING, var = cpa_h5_kind_of(h5, "var") != CPA_H5_NOTHING;
    for (size_t i = 0; i < sizeof other_formats / sizeof *other_formats; i++) {
        bool here = cpa_h5_kind_of(h5, other_formats[i].member) != CPA_H5_NOTHING;
        if (here && (!obs || !var || strcmp(other_formats[i].member, "mod") == 0)) {
            return cpa_fail(CPA_BAD_DATA, "%s: this looks like %s, not like AnnData: %s", path, other_formats[i].format,
                            other_formats[i].advice);
        }
    }
    if (!obs || !var) {
        return cpa_fail(CPA_BAD_DATA, "%s: not an AnnData file: there is no %s", path,
                        obs   ? "'var'"
                        : var ? "'obs'"
                              : "'obs' and no 'var'");
    }
    return CPA_OK;
}

cpa_status cpa_part_open(const char *path, cpa_part *f)
{
    cpa_status st;
    *f = (cpa_part){.x = "X", .var = "var"};
    CPA_TRY(cpa_strdup(path, &f->path));
    CPA_TRY(cpa_h5_open(path, &f->h5));
    CPA_TRY(check_format(f->h5));
    CPA_TRY(cpa_h5ad_check_version(f->h5, "/"));
    CPA_TRY(cpa_h5ad_check_version(f->h5, "obs"));
    CPA_TRY(cpa_h5ad_check_version(f->h5, "var"));
    CPA_TRY(cpa_h5ad_frame_length(f->h5, "obs", &f->n_cells));
    CPA_TRY(cpa_h5ad_frame_length(f->h5, "var", &f->n_var));
    f->n_stored = f->n_genes = f->n_var;
    CPA_REQUIRE(f->n_cells > 0 && f->n_genes > 0, CPA_BAD_DATA, "%s: the file has %lld cells and %lld genes", path,
                (long long)f->n_cells, (long long)f->n_genes);
    CPA_REQUIRE(f->n_genes <= INT32_MAX, CPA_BAD_DATA, "%s: the file has %lld genes, at most %d can be read", path,
                (long long)f->n_genes, INT32_MAX);
cleanup:
    return st;
}

// As since anndata 0.7, or until 0.6.
static cpa_status use_raw(cpa_part *f)
{
    cpa_status st;
    bool old = cpa_h5_kind_of(f->h5, "raw.X") != CPA_H5_NOTHING;
    f->x = old ? "raw.X" : "raw/X";
    f->var = old ? "raw.var" : "raw/var";
    CPA_REQUIRE(cpa_h5_kind_of(f->h5, f->x) != CPA_H5_NOTHING && cpa_h5_kind_of(f->h5, f->var) != CPA_H5_NOTHING,
                CPA_BAD_DATA, "%s: there is no raw/X with a raw/var, and no layer of the name 'raw'", f->path);
    CPA_TRY(cpa_h5ad_frame_length(f->h5, f->var, &f->n_stored));
    CPA_REQUIRE(f->n_stored > 0 && f->n_stored <= INT32_MAX, CPA_BAD_DATA, "%s: %s has %lld genes", f->path, f->var,
                (long long)f->n_stored);
cleanup:
    return st;
}

cpa_status cpa_part_use(cpa_part *f, bool raw)
{
    cpa_part_choose_all(f);
    f->x = "X";
    f->var = "var";
    f->n_stored = f->n_var;
    cpa_status st = raw ? use_raw(f) : CPA_OK;
    f->n_genes = f->n_stored;
    return st;
}

void cpa_part_fini(cpa_part *f)
{
    cpa_part_choose_all(f);
    cpa_h5_close(&f->h5);
    cpa_free(&f->path);
}

cpa_status cpa_h5ad_encoding(const cpa_h5 *h5, const char *path, char **out)
{
    if (cpa_h5_has_attr(h5, path, "encoding-type")) {
        return cpa_h5_attr_string(h5, path, "encoding-type", out);
    }
    return cpa_strdup("", out);
}

// The newest version of each encoding; versions have one digit a place.
static const struct {
    const char *type, *version;
} encodings[] = {
    {"anndata", "0.1.0"},
    {"dataframe", "0.2.0"},
    {"categorical", "0.2.0"},
    {"array", "0.2.0"},
    {"csr_matrix", "0.1.0"},
    {"csc_matrix", "0.1.0"},
    {"nullable-integer", "0.1.0"},
    {"nullable-boolean", "0.1.0"},
    {"nullable-string-array", "0.1.0"},
};

cpa_status cpa_h5ad_check_version(const cpa_h5 *h5, const char *path)
{
    cpa_status st = CPA_OK;
    char *type = NULL, *version = NULL;
    if (!cpa_h5_has_attr(h5, path, "encoding-type") || !cpa_h5_has_attr(h5, path, "encoding-version")) {
        return CPA_OK;
    }
    CPA_TRY(cpa_h5_attr_string(h5, path, "encoding-type", &type));
    CPA_TRY(cpa_h5_attr_string(h5, path, "encoding-version", &version));
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
        CPA_REQUIRE(
            strcmp(type, encodings[i].type) != 0 || strcmp(version, encodings[i].version) <= 0, CPA_BAD_DATA,
            "%s: %s is a %s of version %s, which is newer than the %s that is known here; save the file with an "
            "older anndata",
            cpa_h5_path(h5), path, type, version, encodings[i].version);
    }
cleanup:
    cpa_free(&type);
    cpa_free(&version);
    return st;
}

cpa_status cpa_part_layers(cpa_part *f, cpa_strings *out)
{
    return cpa_h5_kind_of(f->h5, "layers") == CPA_H5_GROUP ? cpa_h5_list(f->h5, "layers", out) : CPA_OK;
}

cpa_status cpa_part_uns_keys(cpa_part *f, const char *key, cpa_strings *out)
{
    cpa_status st;
    char *path = NULL;
    CPA_TRY(key != NULL ? cpa_sprintf(&path, "uns/%s", key) : cpa_strdup("uns", &path));
    switch (cpa_h5_kind_of(f->h5, path)) {
    case CPA_H5_GROUP:
        CPA_TRY(cpa_h5_list(f->h5, path, out));
        break;
    case CPA_H5_DATASET: { // scanpy's tables: a field per group
        cpa_h5_info info;
        CPA_TRY(cpa_h5_describe(f->h5, path, &info));
        if (info.class == CPA_H5_CLASS_COMPOUND) {
            CPA_TRY(cpa_h5_fields(f->h5, path, out));
        }
        break;
    }
    case CPA_H5_NOTHING:
        break;
    }
cleanup:
    cpa_free(&path);
    return st;
}

cpa_status cpa_part_uns_list(cpa_part *f, const char *key, const char *name, cpa_strings *out)
{
    cpa_status st;
    char *path = NULL;
    cpa_strings fields = {0};
    CPA_TRY(cpa_sprintf(&path, "uns/%s", key));
    if (cpa_h5_kind_of(f->h5, path) == CPA_H5_DATASET) {
        CPA_TRY(cpa_part_uns_keys(f, key, &fields));
        if (cpa_strings_find(&fields, name) >= 0) {
            CPA_TRY(cpa_h5ad_texts(f->h5, path, name, out));
        }
        goto cleanup;
    }
    cpa_free(&path);
    CPA_TRY(cpa_sprintf(&path, "uns/%s/%s", key, name));
    if (cpa_h5_kind_of(f->h5, path) != CPA_H5_NOTHING) {
        CPA_TRY(cpa_h5ad_texts(f->h5, path, NULL, out));
    }
cleanup:
    cpa_strings_fini(&fields);
    cpa_free(&path);
    return st;
}

// ---- Names in messages

typedef struct ranked_name {
    const char *name;
    int distance;
    int64_t at;
} ranked_name;

static int by_distance(const void *a, const void *b)
{
    const ranked_name *x = a, *y = b;
    if (x->distance != y->distance) {
        return x->distance < y->distance ? -1 : 1;
    }
    return x->at < y->at ? -1 : x->at > y->at;
}

cpa_status cpa_h5ad_add_names(cpa_text *text, const cpa_strings *names, const char *wanted)
{
    cpa_status st;
    ranked_name *r = NULL;
    CPA_TRY(cpa_alloc((size_t)names->n, sizeof *r, &r));
    for (int64_t i = 0; i < names->n; i++) {
        r[i] = (ranked_name){names->s[i], wanted != NULL ? cpa_text_distance(names->s[i], wanted) : 0, i};
    }
    qsort(r, (size_t)names->n, sizeof *r, by_distance);
    for (int64_t i = 0; i < names->n; i++) {
        CPA_TRY(cpa_text_add(text, "%s'%s'", i > 0 ? ", " : "", r[i].name));
    }
    if (names->n == 0) {
        CPA_TRY(cpa_text_add(text, "none"));
    }
cleanup:
    cpa_free(&r);
    return st;
}
