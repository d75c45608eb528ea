// Owns: what an AnnData file holds, as JSON. Never prints; says what is wrong with a part and goes on with the others.
#include "inspect_impl.h"

static const char *const layouts[] = {
    [CPA_LAYOUT_CSR] = "CSR", [CPA_LAYOUT_CSC] = "CSC", [CPA_LAYOUT_DENSE] = "dense", [CPA_LAYOUT_MIXED] = "mixed"};

// A part that is bad is described by what is bad about it; other failures end the command.
static cpa_status add_part(cJSON *object, const char *name, cJSON *part, cpa_status st)
{
    if (st == CPA_BAD_DATA) {
        cJSON_Delete(part);
        part = cJSON_CreateObject();
        cJSON_AddStringToObject(part, "error", cpa_message());
        st = CPA_OK;
    }
    cJSON_AddItemToObject(object, name, part);
    return st;
}

static cpa_status add_matrix(cpa_h5ad *f, const char *layer, const char *name, cJSON *object)
{
    cpa_matrix_info m = {0};
    cJSON *part = cJSON_CreateObject();
    cpa_status st = cpa_h5ad_matrix_info(f, layer, &m);
    if (st == CPA_OK) {
        double elements = (double)m.n_cells * (double)m.n_genes;
        cJSON_AddStringToObject(part, "layout", layouts[m.layout]);
        cJSON_AddStringToObject(part, "dtype", m.dtype);
        cJSON_AddNumberToObject(part, "stored", (double)m.nnz);
        cJSON_AddNumberToObject(part, "density", elements > 0 ? (double)m.nnz / elements : 0);
        cJSON_AddStringToObject(part, "filters", m.filters);
        cJSON_AddNumberToObject(part, "chunk", (double)m.chunk);
    }
    return add_part(object, name, part, st);
}

static cpa_status add_column(cpa_h5ad *f, const char *frame, const char *column, cJSON *object)
{
    cpa_factor factor = {0};
    cJSON *part = cJSON_CreateObject();
    cpa_status st = cpa_h5ad_factor(f, frame, column, &factor);
    if (st == CPA_OK) {
        int64_t missing = 0;
        for (int64_t i = 0; i < factor.n; i++) {
            missing += factor.code[i] < 0;
        }
        cJSON_AddNumberToObject(part, "values", (double)factor.level.n);
        if (missing > 0) {
            cJSON_AddNumberToObject(part, "missing", (double)missing);
        }
        cJSON_AddItemToObject(part, "first", cpa_inspect_strings(&factor.level));
        cpa_factor_fini(&factor);
    }
    return add_part(object, column, part, st);
}

static cpa_status add_frame(cpa_h5ad *f, const char *frame, cJSON *doc)
{
    cpa_status st;
    cpa_strings columns = {0};
    cJSON *object = cJSON_AddObjectToObject(doc, frame);
    CPA_TRY(cpa_h5ad_columns(f, frame, &columns));
    for (int64_t i = 0; i < columns.n; i++) {
        CPA_TRY(add_column(f, frame, columns.s[i], object));
    }
cleanup:
    cpa_strings_fini(&columns);
    return st;
}

static cpa_status add_layers(cpa_h5ad *f, cJSON *doc)
{
    cpa_status st;
    cpa_strings layers = {0};
    cJSON *object = cJSON_AddObjectToObject(doc, "layers");
    CPA_TRY(cpa_h5ad_layers(f, &layers));
    for (int64_t i = 0; i < layers.n; i++) {
        CPA_TRY(add_matrix(f, layers.s[i], layers.s[i], object));
    }
cleanup:
    cpa_strings_fini(&layers);
    return st;
}

static cpa_status add_uns(cpa_h5ad *f, cJSON *doc)
{
    cpa_status st;
    cpa_strings keys = {0};
    CPA_TRY(cpa_h5ad_uns_keys(f, NULL, &keys));
    cJSON *list = cJSON_AddArrayToObject(doc, "uns");
    for (int64_t i = 0; i < keys.n; i++) {
        cJSON_AddItemToArray(list, cJSON_CreateString(keys.s[i]));
    }
cleanup:
    cpa_strings_fini(&keys);
    return st;
}

static void add_files(const cpa_h5ad *f, cJSON *doc)
{
    cJSON *list = cJSON_AddArrayToObject(doc, "files");
    for (int k = 0; k < cpa_h5ad_n_files(f); k++) {
        cJSON_AddItemToArray(list, cJSON_CreateString(cpa_h5ad_file(f, k)));
    }
}

static cpa_status warn_of_names(cpa_h5ad *f, cJSON *doc)
{
    cpa_status st = cpa_h5ad_warn_of_names(f);
    return st != CPA_OK ? add_part(doc, "names", NULL, st) : CPA_OK;
}

cpa_status cpa_inspect_h5ad(const char *path, cJSON *doc)
{
    cpa_status st;
    cpa_h5ad *f = NULL;
    CPA_TRY(cpa_h5ad_open(path, &f));
    CPA_TRY(cpa_h5ad_select(f, NULL, NULL));
    cJSON_AddStringToObject(doc, "path", path);
    cJSON_AddStringToObject(doc, "kind", "AnnData");
    if (cpa_h5ad_n_files(f) > 1) {
        add_files(f, doc);
    }
    cJSON_AddNumberToObject(doc, "cells", (double)cpa_h5ad_n_cells(f));
    cJSON_AddNumberToObject(doc, "genes", (double)cpa_h5ad_n_genes(f));
    CPA_TRY(add_matrix(f, NULL, "X", doc));
    CPA_TRY(add_layers(f, doc));
    CPA_TRY(add_frame(f, "obs", doc));
    CPA_TRY(add_frame(f, "var", doc));
    CPA_TRY(add_uns(f, doc));
    CPA_TRY(warn_of_names(f, doc));
cleanup:
    cpa_h5ad_close(&f);
    return st;
}
