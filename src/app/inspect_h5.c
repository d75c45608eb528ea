// Owns: what a model, a checkpoint or any HDF5 file holds, as JSON, and its digest. Never prints the description.
#include <stdio.h>
#include <string.h>

#include "cpa/base/hash.h"
#include "cpa/base/log.h"
#include "inspect_impl.h"

enum { MAX_NUMBERS = 64, MAX_DEPTH = 16 };

cJSON *cpa_inspect_strings(const cpa_strings *list)
{
    cJSON *array = cJSON_CreateArray();
    for (int64_t i = 0; i < list->n && i < CPA_INSPECT_FIRST; i++) {
        cJSON_AddItemToArray(array, cJSON_CreateString(list->s[i]));
    }
    if (list->n > CPA_INSPECT_FIRST) {
        cJSON_AddItemToArray(array, cJSON_CreateString("..."));
    }
    return array;
}

// A number, or an array of them.
static cJSON *numbers(const double *x, int n)
{
    return n == 1 ? cJSON_CreateNumber(x[0]) : cJSON_CreateDoubleArray(x, n);
}

// One attribute: a text, a list of texts, numbers, or what it is when it is none of these.
static cJSON *attribute(const cpa_h5 *f, const char *name)
{
    cpa_strings texts = {0};
    double x[MAX_NUMBERS];
    int n = 0;
    cJSON *value;
    if (cpa_h5_attr_strings(f, "/", name, &texts) == CPA_OK) {
        value = texts.n == 1 ? cJSON_CreateString(texts.s[0]) : cpa_inspect_strings(&texts);
    } else if (cpa_h5_attr_numbers(f, "/", name, CPA_H5_F64, MAX_NUMBERS, x, &n) == CPA_OK) {
        value = numbers(x, n);
    } else {
        value = cJSON_CreateString("(neither text nor a few numbers)");
    }
    cpa_strings_fini(&texts);
    return value;
}

static cpa_status add_attributes(const cpa_h5 *f, cJSON *doc)
{
    cpa_status st;
    cpa_strings names = {0};
    CPA_TRY(cpa_h5_attrs(f, "/", &names));
    cJSON *object = cJSON_AddObjectToObject(doc, "attributes");
    for (int64_t i = 0; i < names.n; i++) {
        cJSON_AddItemToObject(object, names.s[i], attribute(f, names.s[i]));
    }
cleanup:
    cpa_strings_fini(&names);
    return st;
}

// Folds an array of floating-point numbers into the digest, as floats whatever their width in the file, so that a
// model has the digest that its model file states.
static cpa_status digest_data(const cpa_h5 *f, const char *path, int64_t n, uint64_t *hash)
{
    cpa_status st;
    float *data = NULL;
    CPA_TRY(cpa_h5_read(f, path, CPA_H5_F32, &data, NULL));
    *hash = cpa_hash(*hash, path, strlen(path) + 1);
    *hash = cpa_hash(*hash, data, (size_t)n * sizeof *data);
cleanup:
    cpa_free(&data);
    return st;
}

// One array: its description, and for tensors of a model its share of the digest.
static cpa_status add_array(const cpa_h5 *f, const char *path, cJSON *arrays, uint64_t *hash)
{
    cpa_status st;
    cpa_h5_info info;
    CPA_TRY(cpa_h5_describe(f, path, &info));
    cJSON *entry = cJSON_AddObjectToObject(arrays, path);
    cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
    cJSON_AddStringToObject(entry, "dtype", info.dtype);
    for (int i = 0; i < info.rank; i++) {
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)info.shape[i]));
    }
    if (info.class == CPA_H5_CLASS_FLOAT && strncmp(path, "module/", strlen("module/")) == 0) {
        st = digest_data(f, path, info.n, hash);
    }
cleanup:
    return st;
}

// Walks a group in the order of names.
static cpa_status add_group(const cpa_h5 *f, const char *group, int depth, cJSON *arrays, uint64_t *hash)
{
    cpa_status st;
    cpa_strings names = {0};
    char *path = NULL;
    CPA_REQUIRE(depth < MAX_DEPTH, CPA_BAD_DATA, "%s: groups are nested more than %d deep at '%s'", cpa_h5_path(f),
                MAX_DEPTH, group);
    CPA_TRY(cpa_h5_list(f, group, &names));
    for (int64_t i = 0; i < names.n; i++) {
        CPA_TRY(cpa_sprintf(&path, "%s%s%s", group, *group != '\0' ? "/" : "", names.s[i]));
        cpa_h5_kind kind = cpa_h5_kind_of(f, path);
        if (kind == CPA_H5_GROUP) {
            CPA_TRY(add_group(f, path, depth + 1, arrays, hash));
        } else if (kind == CPA_H5_DATASET) {
            CPA_TRY(add_array(f, path, arrays, hash));
        }
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    cpa_strings_fini(&names);
    return st;
}

// A model file states its digest; another one means that its bytes have changed since.
static void compare_digest(const cpa_h5 *f, const char *digest)
{
    char *stated = NULL;
    if (cpa_h5_attr_string(f, "/", "digest", &stated) == CPA_OK && strcmp(stated, digest) != 0) {
        cpa_warn("%s states the digest %s, but its tensors have %s: the file is damaged", cpa_h5_path(f), stated,
                 digest);
    }
    cpa_free(&stated);
}

cpa_status cpa_inspect_h5(const cpa_h5 *f, cJSON *doc)
{
    cpa_status st;
    uint64_t hash = CPA_HASH_START;
    char digest[17];
    bool is_model = cpa_h5_kind_of(f, "module") == CPA_H5_GROUP;
    cJSON_AddStringToObject(doc, "path", cpa_h5_path(f));
    cJSON_AddStringToObject(doc, "kind", is_model ? "model" : "HDF5 file");
    CPA_TRY(add_attributes(f, doc));
    CPA_TRY(add_group(f, "", 0, cJSON_AddObjectToObject(doc, "arrays"), &hash));
    if (is_model) {
        snprintf(digest, sizeof digest, "%016llx", (unsigned long long)hash);
        cJSON_AddStringToObject(doc, "digest", digest);
        compare_digest(f, digest);
    }
cleanup:
    return st;
}
