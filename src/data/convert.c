// Owns: which element of an AnnData file is rewritten how. Must never leave one out without saying so.
#include "cpa/data/convert.h"

#include <string.h>

#include "convert_impl.h"

static bool has(const cpa_conversion *c, const char *path)
{
    return cpa_h5_kind_of(c->in->h5, path) != CPA_H5_NOTHING;
}

static cpa_status convert_layers(const cpa_conversion *c)
{
    cpa_status st;
    cpa_strings layers = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5ad_write_dict(c->out, "layers"));
    CPA_TRY(cpa_part_layers(c->in, &layers));
    for (int64_t k = 0; k < layers.n; k++) {
        CPA_TRY(cpa_sprintf(&path, "layers/%s", layers.s[k]));
        CPA_TRY(cpa_convert_matrix(c, layers.s[k], path));
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&layers);
    return st;
}

// raw, also from before it was a group.
static cpa_status convert_raw(const cpa_conversion *c)
{
    cpa_status st;
    bool old = has(c, "raw.X");
    const char *varm = old ? "raw.varm" : "raw/varm";
    CPA_TRY(cpa_part_use(c->in, true));
    CPA_TRY(cpa_h5_write_group(c->out, "raw"));
    CPA_TRY(cpa_h5ad_encode(c->out, "raw", "raw", "0.1.0"));
    CPA_TRY(cpa_convert_frame(c, c->in->var, "raw/var"));
    CPA_TRY(cpa_convert_matrix(c, NULL, "raw/X"));
    if (has(c, varm)) {
        CPA_TRY(cpa_h5_copy(c->in->h5, varm, c->out, "raw/varm"));
    }
    CPA_TRY(cpa_part_use(c->in, false));
cleanup:
    return st;
}

// Until anndata 0.6 obsm and varm were tables with an array in every field.
static cpa_status convert_table(const cpa_conversion *c, const char *name)
{
    cpa_status st;
    cpa_strings fields = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5ad_write_dict(c->out, name));
    CPA_TRY(cpa_h5_fields(c->in->h5, name, &fields));
    for (int64_t k = 0; k < fields.n; k++) {
        CPA_TRY(cpa_sprintf(&path, "%s/%s", name, fields.s[k]));
        CPA_TRY(cpa_h5_copy_field(c->in->h5, name, fields.s[k], c->out, path));
        CPA_TRY(cpa_h5ad_encode(c->out, path, "array", "0.2.0"));
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&fields);
    return st;
}

static cpa_status convert_member(const cpa_conversion *c, const char *name)
{
    bool dataset = cpa_h5_kind_of(c->in->h5, name) == CPA_H5_DATASET;
    if (strcmp(name, "X") == 0) {
        return cpa_convert_matrix(c, NULL, name);
    }
    if (strcmp(name, "obs") == 0 || strcmp(name, "var") == 0) {
        return cpa_convert_frame(c, name, name);
    }
    if (strcmp(name, "layers") == 0) {
        return convert_layers(c);
    }
    if ((strcmp(name, "raw") == 0 && has(c, "raw/X")) || strcmp(name, "raw.X") == 0) {
        return convert_raw(c);
    }
    if (strcmp(name, "raw.var") == 0 || strcmp(name, "raw.varm") == 0) {
        return CPA_OK; // with raw.X
    }
    if (strcmp(name, "uns") == 0 && !dataset) {
        return cpa_convert_uns(c);
    }
    if ((strcmp(name, "obsm") == 0 || strcmp(name, "varm") == 0) && dataset) {
        return convert_table(c, name);
    }
    return cpa_h5_copy(c->in->h5, name, c->out, name);
}

static cpa_status convert_file(const cpa_conversion *c)
{
    cpa_status st;
    cpa_strings members = {0};
    CPA_TRY(cpa_h5_list(c->in->h5, "/", &members));
    for (int64_t k = 0; k < members.n; k++) {
        CPA_TRY(convert_member(c, members.s[k]));
    }
cleanup:
    cpa_strings_fini(&members);
    return st;
}

cpa_status cpa_convert(const char *in, const char *out, int gzip)
{
    cpa_status st;
    cpa_h5ad *f = NULL;
    cpa_conversion c = {.gzip = gzip};
    CPA_TRY(cpa_h5ad_open(in, &f));
    c.all = f;
    CPA_TRY(cpa_h5ad_part(f, 0, &c.in));
    if (f->n_parts > 1) {
        CPA_TRY(cpa_h5ad_select(f, NULL, NULL));
    }
    CPA_TRY(cpa_h5_create(out, &c.out));
    CPA_TRY(cpa_h5ad_write_root(c.out));
    CPA_TRY(f->n_parts > 1 ? cpa_convert_files(&c) : convert_file(&c));
    CPA_TRY(cpa_h5_finish(&c.out));
cleanup:
    cpa_h5_close(&c.out);
    cpa_h5ad_close(&f);
    return st;
}
