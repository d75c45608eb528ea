// Owns: the registry as a whole: reading the columns in turn, classes, covariates, categories, and its end. Never parses
// names or doses itself, never loops over cells with strings in hand.
#include "cpa/data/registry.h"

#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "registry_impl.h"

cpa_status cpa_registry_column(cpa_registry_build *b, const char *column, bool may_miss, cpa_factor *out)
{
    cpa_status st;
    int64_t n_dropped, n_missing = 0, first = 0;
    st = cpa_h5ad_factor(b->f, "obs", column, out);
    if (st == CPA_BAD_DATA) {
        *out = (cpa_factor){0};
        return cpa_problems_add(&b->problems, "%s", cpa_message());
    }
    if (st != CPA_OK) {
        goto cleanup;
    }
    int64_t n_levels = out->level.n;
    CPA_TRY(cpa_factor_normalise(out, &n_dropped));
    if (n_dropped > 0) {
        cpa_info("obs/%s: %lld of %lld categories have no cell and are dropped", column, (long long)n_dropped,
                 (long long)n_levels);
    }
    for (int64_t i = out->n - 1; i >= 0; i--) {
        if (out->code[i] < 0) {
            n_missing++;
            first = i;
        }
    }
    if (n_missing > 0 && !may_miss) {
        const char *file = cpa_h5ad_cell(b->f, first, &first);
        CPA_TRY(cpa_problems_add(
            &b->problems,
            "%s: obs/%s: %lld of %lld cells have no value, the first in row %lld; fill them in or leave "
            "those cells out of the file",
            file, column, (long long)n_missing, (long long)out->n, (long long)first));
    }
cleanup:
    return st;
}

cpa_status cpa_registry_class_weights(const cpa_registry *r, bool train_only, double *weight)
{
    cpa_status st;
    int64_t *n_of = NULL, n = train_only ? r->n_train : r->n_cells;
    CPA_TRY(cpa_alloc((size_t)r->label.n, sizeof *n_of, &n_of));
    for (int64_t i = 0; i < r->n_cells; i++) {
        n_of[r->condition[r->condition_of[i]].label] += !train_only || r->split[i] == CPA_SPLIT_TRAIN;
    }
    for (int64_t l = 0; l < r->label.n; l++) {
        weight[l] = n_of[l] > 0 ? (double)n / (double)n_of[l] - 1 : 0;
    }
cleanup:
    cpa_free(&n_of);
    return st;
}

// The classes of the perturbation adversary: the distinct perturbation strings, and their weights over all cells.
static cpa_status build_labels(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    CPA_TRY(cpa_strings_copy(&b->pert.level, &r->label));
    CPA_TRY(cpa_alloc((size_t)r->label.n, sizeof *r->label_weight, &r->label_weight));
    CPA_TRY(cpa_registry_class_weights(r, false, r->label_weight));
cleanup:
    return st;
}

static cpa_status read_covariate(cpa_registry_build *b, const char *column)
{
    cpa_status st;
    cpa_registry *r = b->r;
    cpa_factor factor = {0};
    CPA_TRY(cpa_registry_column(b, column, false, &factor));
    if (factor.code == NULL) {
        goto cleanup;
    }
    if (factor.level.n > UINT16_MAX + 1) {
        CPA_TRY(cpa_problems_add(&b->problems, "%s: obs/%s: %lld values are too many for a covariate; at most %d",
                                 b->path, column, (long long)factor.level.n, UINT16_MAX + 1));
        goto cleanup;
    }
    cpa_covariate *cov = &r->cov[r->n_covs++];
    CPA_TRY(cpa_strdup(column, &cov->name));
    CPA_TRY(cpa_alloc((size_t)factor.n, sizeof *cov->code, &cov->code));
    for (int64_t i = 0; i < factor.n; i++) {
        cov->code[i] = (uint16_t)factor.code[i];
    }
    cov->value = factor.level;
    factor.level = (cpa_strings){0};
cleanup:
    cpa_factor_fini(&factor);
    return st;
}

// The covariates in the given order, the batch last.
static cpa_status build_covariates(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    const cpa_strings *key = &r->spec.categorical_covariate_keys;
    const char *batch = r->spec.batch_key != NULL ? r->spec.batch_key : "";
    CPA_TRY(cpa_alloc((size_t)key->n + 1, sizeof *r->cov, &r->cov));
    for (int64_t k = 0; k < key->n; k++) {
        CPA_REQUIRE(cpa_strings_find(key, key->s[k]) == k, CPA_CONFIG,
                    "the covariate '%s' is named twice in categorical_covariate_keys; name it once", key->s[k]);
        if (key->s[k][0] != '\0') {
            CPA_TRY(read_covariate(b, key->s[k]));
        }
    }
    if (batch[0] != '\0' && cpa_strings_find(key, batch) < 0) {
        CPA_TRY(read_covariate(b, batch));
    }
cleanup:
    return st;
}

// One more part for the categories' names: the distinct (category so far, value), with "so far_value" as their names.
static cpa_status extend_categories(int32_t **of, cpa_strings *name, const int32_t *code, const cpa_strings *value,
                                    int64_t n)
{
    cpa_status st;
    cpa_pairs pairs = {0};
    cpa_strings longer = {0};
    char *joined = NULL;
    CPA_TRY(cpa_pairs_create(*of, code, n, &pairs));
    for (int32_t k = 0; k < pairs.n; k++) {
        const char *so_far = name->n > 0 ? name->s[pairs.a[k]] : "";
        CPA_TRY(cpa_sprintf(&joined, "%s%s%s", so_far, name->n > 0 ? "_" : "", value->s[pairs.b[k]]));
        CPA_TRY(cpa_strings_add(&longer, joined));
        cpa_free(&joined);
    }
    cpa_strings_fini(name);
    *name = longer;
    longer = (cpa_strings){0};
    int32_t *old = *of;
    *of = pairs.of;
    pairs.of = old;
cleanup:
    cpa_free(&joined);
    cpa_strings_fini(&longer);
    cpa_pairs_fini(&pairs);
    return st;
}

static cpa_status extend_by_covariate(const cpa_registry *r, const cpa_covariate *cov, int32_t **of, cpa_strings *name)
{
    cpa_status st;
    int32_t *code = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *code, &code));
    for (int64_t i = 0; i < r->n_cells; i++) {
        code[i] = cov->code[i];
    }
    CPA_TRY(extend_categories(of, name, code, &cov->value, r->n_cells));
cleanup:
    cpa_free(&code);
    return st;
}

static bool is_batch(const cpa_registry *r, const cpa_covariate *cov)
{
    return r->spec.batch_key != NULL && strcmp(cov->name, r->spec.batch_key) == 0;
}

// Upstream's CPA_cat: batch, the other covariates and the perturbation, joined by '_'; the dose is not part of it.
static cpa_status build_categories(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    cpa_factor joined = {.n = r->n_cells};
    int64_t n_dropped;
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *joined.code, &joined.code));
    for (int batch_first = 1; batch_first >= 0; batch_first--) {
        for (int c = 0; c < r->n_covs; c++) {
            if (is_batch(r, &r->cov[c]) == (batch_first == 1)) {
                CPA_TRY(extend_by_covariate(r, &r->cov[c], &joined.code, &joined.level));
            }
        }
    }
    CPA_TRY(extend_categories(&joined.code, &joined.level, b->pert.code, &b->pert.level, r->n_cells));
    CPA_TRY(cpa_factor_normalise(&joined, &n_dropped)); // different parts may join to the same name: one category
    r->n_categories = (int)joined.level.n;
    r->category = joined.level;
    r->category_of = joined.code;
    joined = (cpa_factor){0};
cleanup:
    cpa_factor_fini(&joined);
    return st;
}

// Reads what the columns say, noting problems as it goes.
static cpa_status read_columns(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    CPA_TRY(cpa_registry_infer_keys(b));
    const cpa_data_spec *spec = &r->spec;
    if (spec->perturbation_key != NULL) {
        CPA_TRY(cpa_registry_column(b, spec->perturbation_key, false, &b->pert));
    }
    if (spec->dosage_key[0] != '\0') {
        CPA_TRY(cpa_registry_column(b, spec->dosage_key, false, &b->dose));
    }
    if (spec->deg_uns_cat_key[0] != '\0') {
        CPA_TRY(cpa_registry_column(b, spec->deg_uns_cat_key, true, &b->deg));
    }
    if (b->pert.code != NULL) {
        CPA_TRY(cpa_registry_infer_control(b));
        CPA_TRY(cpa_registry_conditions(b));
    }
    cpa_factor_fini(&b->dose);
    CPA_TRY(cpa_registry_infer_covariates(b));
    CPA_TRY(build_covariates(b));
    if (spec->split_key[0] != '\0') {
        CPA_TRY(cpa_registry_column(b, spec->split_key, false, &b->split));
    }
    CPA_TRY(cpa_registry_split(b));
    cpa_factor_fini(&b->split);
cleanup:
    return st;
}

cpa_status cpa_registry_create(cpa_h5ad *f, const cpa_data_spec *spec, bool need_training, cpa_registry **out)
{
    cpa_status st;
    cpa_registry *r = NULL;
    cpa_registry_build b = {.f = f, .path = cpa_h5ad_path(f), .need_training = need_training};
    *out = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *r, &r));
    b.r = r;
    r->n_cells = cpa_h5ad_n_cells(f);
    r->n_genes = (int32_t)cpa_h5ad_n_genes(f);
    CPA_TRY(cpa_data_spec_copy(spec, &r->spec));
    CPA_TRY(read_columns(&b));
    CPA_TRY(cpa_problems_status(&b.problems, CPA_BAD_DATA));
    CPA_TRY(build_labels(&b));
    CPA_TRY(build_categories(&b));
    cpa_factor_fini(&b.pert);
    CPA_TRY(cpa_registry_deg(&b));
    *out = r;
    r = NULL;
cleanup:
    cpa_factor_fini(&b.pert);
    cpa_factor_fini(&b.dose);
    cpa_factor_fini(&b.split);
    cpa_factor_fini(&b.deg);
    cpa_strings_fini(&b.columns);
    cpa_problems_fini(&b.problems);
    cpa_registry_destroy(&r);
    return st;
}

static void destroy_conditions(cpa_registry *r)
{
    for (int k = 0; k < r->n_conditions; k++) {
        cpa_free(&r->condition[k].name);
        cpa_free(&r->condition[k].dose_text);
        cpa_free(&r->condition[k].pert);
        cpa_free(&r->condition[k].dose);
    }
    cpa_free(&r->condition);
    cpa_free(&r->condition_of);
}

void cpa_registry_destroy(cpa_registry **out)
{
    cpa_registry *r = *out;
    if (r == NULL) {
        return;
    }
    cpa_data_spec_fini(&r->spec);
    cpa_strings_fini(&r->pert);
    cpa_strings_fini(&r->label);
    cpa_free(&r->label_weight);
    destroy_conditions(r);
    for (int c = 0; c < r->n_covs; c++) {
        cpa_free(&r->cov[c].name);
        cpa_strings_fini(&r->cov[c].value);
        cpa_free(&r->cov[c].code);
    }
    cpa_free(&r->cov);
    cpa_strings_fini(&r->category);
    cpa_free(&r->category_of);
    for (int c = 0; c < r->n_categories; c++) {
        if (r->deg != NULL) {
            cpa_free(&r->deg[c]);
        }
        if (r->deg_list != NULL) {
            cpa_free(&r->deg_list[c].gene);
        }
    }
    cpa_free(&r->deg);
    cpa_free(&r->deg_list);
    cpa_free(&r->split);
    cpa_free(out);
}
