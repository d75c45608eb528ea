// Owns: the description of the data: its copy, its end, and what its left-out keys become. Never reads counts, never
// overrides what was given.
#include <string.h>

#include "cpa/base/log.h"
#include "registry_impl.h"

// The names that a control has in published files, in the order in which they are tried.
static const char *const control_names[] = {"ctrl",         "control", "CTRL",          "Control", "DMSO",
                                            "vehicle",      "Vehicle", "non-targeting", "NT",      "untreated",
                                            "unstimulated", "mock",    "neg_control"};

void cpa_data_spec_fini(cpa_data_spec *spec)
{
    cpa_free(&spec->perturbation_key);
    cpa_free(&spec->control_group);
    cpa_free(&spec->dosage_key);
    cpa_strings_fini(&spec->categorical_covariate_keys);
    cpa_free(&spec->batch_key);
    cpa_free(&spec->layer);
    cpa_free(&spec->genes);
    cpa_free(&spec->split_key);
    cpa_free(&spec->train_split);
    cpa_free(&spec->valid_split);
    cpa_free(&spec->test_split);
    cpa_strings_fini(&spec->holdout);
    cpa_free(&spec->deg_uns_key);
    cpa_free(&spec->deg_uns_cat_key);
}

cpa_status cpa_data_spec_copy(const cpa_data_spec *spec, cpa_data_spec *out)
{
    cpa_status st;
    out->train_size = spec->train_size;
    out->max_comb_len = spec->max_comb_len;
    out->seed = spec->seed;
    out->compat_dose_order = spec->compat_dose_order;
    CPA_TRY(cpa_strdup(spec->perturbation_key, &out->perturbation_key));
    CPA_TRY(cpa_strdup(spec->control_group, &out->control_group));
    CPA_TRY(cpa_strdup(spec->dosage_key, &out->dosage_key));
    CPA_TRY(cpa_strings_copy(&spec->categorical_covariate_keys, &out->categorical_covariate_keys));
    CPA_TRY(cpa_strdup(spec->batch_key, &out->batch_key));
    CPA_TRY(cpa_strdup(spec->layer, &out->layer));
    CPA_TRY(cpa_strdup(spec->genes, &out->genes));
    CPA_TRY(cpa_strdup(spec->split_key, &out->split_key));
    CPA_TRY(cpa_strdup(spec->train_split, &out->train_split));
    CPA_TRY(cpa_strdup(spec->valid_split, &out->valid_split));
    CPA_TRY(cpa_strdup(spec->test_split, &out->test_split));
    CPA_TRY(cpa_strings_copy(&spec->holdout, &out->holdout));
    CPA_TRY(cpa_strdup(spec->deg_uns_key, &out->deg_uns_key));
    CPA_TRY(cpa_strdup(spec->deg_uns_cat_key, &out->deg_uns_cat_key));
cleanup:
    if (st != CPA_OK) {
        cpa_data_spec_fini(out);
    }
    return st;
}

static bool has_column(const cpa_registry_build *b, const char *column)
{
    return cpa_strings_find(&b->columns, column) >= 0;
}

// Sets a left-out key to `column` when it is there, else to "" (none), and says so.
static cpa_status infer_column(const cpa_registry_build *b, const char *what, const char *column, const char *without,
                               char **key)
{
    if (*key != NULL) {
        return CPA_OK;
    }
    bool there = has_column(b, column);
    cpa_info("%s: %s (inferred)", what, there ? column : without);
    return cpa_strdup(there ? column : "", key);
}

static cpa_status infer_perturbation_key(cpa_registry_build *b)
{
    cpa_status st = CPA_OK;
    cpa_text names = {0};
    char **key = &b->r->spec.perturbation_key;
    if (*key != NULL) {
        goto cleanup;
    }
    const char *column = has_column(b, "condition")      ? "condition"
                         : has_column(b, "perturbation") ? "perturbation"
                                                         : NULL;
    if (column != NULL) {
        cpa_info("perturbation_key: %s (inferred)", column);
        CPA_TRY(cpa_strdup(column, key));
        goto cleanup;
    }
    for (int64_t i = 0; i < b->columns.n; i++) {
        CPA_TRY(cpa_text_add(&names, "%s%s", i > 0 ? ", " : "", b->columns.s[i]));
    }
    CPA_TRY(
        cpa_problems_add(&b->problems,
                         "%s: obs has neither 'condition' nor 'perturbation'; name the column of perturbations with "
                         "--perturbation-key; there are: %s",
                         b->path, cpa_text_str(&names)));
cleanup:
    cpa_text_fini(&names);
    return st;
}

// Both keys of the lists of differential genes, or none; one that was given calls for the other.
static cpa_status infer_deg_keys(cpa_registry_build *b)
{
    cpa_status st;
    cpa_data_spec *spec = &b->r->spec;
    cpa_strings members = {0};
    cpa_text near = {0};
    bool given = (spec->deg_uns_key != NULL && spec->deg_uns_key[0] != '\0') ||
                 (spec->deg_uns_cat_key != NULL && spec->deg_uns_cat_key[0] != '\0');
    bool off = !given && (spec->deg_uns_key != NULL || spec->deg_uns_cat_key != NULL);
    CPA_TRY(cpa_h5ad_uns_keys(b->f, NULL, &members));
    const char *key = spec->deg_uns_key != NULL ? spec->deg_uns_key : "rank_genes_groups_cov";
    const char *column = spec->deg_uns_cat_key != NULL ? spec->deg_uns_cat_key : "cov_cond";
    bool key_there = cpa_strings_find(&members, key) >= 0, column_there = has_column(b, column);
    if (given && !key_there) {
        CPA_TRY(cpa_text_add_near(&near, &members, 0, key));
        CPA_TRY(cpa_problems_add(&b->problems, "%s: uns has no '%s' (--deg-uns-key)%s%s", b->path, key,
                                 members.n > 0 ? "; nearest: " : "; it has no members", cpa_text_str(&near)));
    }
    bool use = given || (!off && key_there && column_there);
    if (use && (spec->deg_uns_key == NULL || spec->deg_uns_cat_key == NULL)) {
        cpa_info("deg_uns_key, deg_uns_cat_key: %s, %s (inferred)", key, column);
    }
    if (!use || spec->deg_uns_key == NULL) {
        cpa_free(&spec->deg_uns_key);
        CPA_TRY(cpa_strdup(use ? "rank_genes_groups_cov" : "", &spec->deg_uns_key));
    }
    if (!use || spec->deg_uns_cat_key == NULL) {
        cpa_free(&spec->deg_uns_cat_key);
        CPA_TRY(cpa_strdup(use ? "cov_cond" : "", &spec->deg_uns_cat_key));
    }
cleanup:
    cpa_text_fini(&near);
    cpa_strings_fini(&members);
    return st;
}

cpa_status cpa_registry_infer_keys(cpa_registry_build *b)
{
    cpa_status st;
    cpa_data_spec *spec = &b->r->spec;
    CPA_TRY(cpa_h5ad_columns(b->f, "obs", &b->columns));
    CPA_TRY(infer_perturbation_key(b));
    CPA_TRY(infer_column(b, "dosage_key", "dose", "none, every dose is 1", &spec->dosage_key));
    CPA_TRY(infer_column(b, "split_key", "split", "none, a random split", &spec->split_key));
    CPA_TRY(infer_deg_keys(b));
    if (spec->train_split == NULL) {
        CPA_TRY(cpa_strdup("train", &spec->train_split));
    }
    if (spec->valid_split == NULL) {
        CPA_TRY(cpa_strdup("test", &spec->valid_split));
    }
    if (spec->test_split == NULL) {
        CPA_TRY(cpa_strdup("ood", &spec->test_split));
    }
    spec->train_size = spec->train_size == 0 ? 0.9 : spec->train_size;
cleanup:
    return st;
}

cpa_status cpa_registry_infer_control(cpa_registry_build *b)
{
    cpa_status st = CPA_OK;
    cpa_data_spec *spec = &b->r->spec;
    cpa_text near = {0};
    const char *control = spec->control_group;
    for (size_t i = 0; control == NULL && i < sizeof control_names / sizeof *control_names; i++) {
        if (cpa_sorted_find(&b->pert.level, 0, control_names[i]) >= 0) {
            control = control_names[i];
            cpa_info("control_group: %s (inferred)", control);
            CPA_TRY(cpa_strdup(control, &spec->control_group));
        }
    }
    if (control != NULL && cpa_sorted_find(&b->pert.level, 0, control) >= 0) {
        goto cleanup;
    }
    CPA_TRY(cpa_text_add_near(&near, &b->pert.level, 0, control != NULL ? control : "control"));
    if (control != NULL) {
        CPA_TRY(cpa_problems_add(&b->problems, "%s: obs/%s: no cell is the control '%s'; nearest of %lld values: %s",
                                 b->path, spec->perturbation_key, control, (long long)b->pert.level.n,
                                 cpa_text_str(&near)));
    } else {
        CPA_TRY(cpa_problems_add(&b->problems,
                                 "%s: obs/%s: none of its %lld values is a usual name of the control; name it with "
                                 "--control-group, for example: %s",
                                 b->path, spec->perturbation_key, (long long)b->pert.level.n, cpa_text_str(&near)));
    }
cleanup:
    cpa_text_fini(&near);
    return st;
}

// Cuts "_<condition>" off the category's name of every distinct (category, condition); *all_fit when each ends so.
static cpa_status cut_conditions(const cpa_pairs *pairs, const cpa_factor *category, const cpa_factor *pert,
                                 cpa_strings *value, bool *all_fit)
{
    cpa_status st = CPA_OK;
    char *cut = NULL;
    *all_fit = false;
    for (int32_t k = 0; k < pairs->n; k++) {
        if (pairs->a[k] < 0 || pairs->b[k] < 0) {
            goto cleanup;
        }
        const char *whole = category->level.s[pairs->a[k]], *condition = pert->level.s[pairs->b[k]];
        size_t n = strlen(whole), tail = strlen(condition) + 1;
        if (n < tail || whole[n - tail] != '_' || strcmp(whole + n - tail + 1, condition) != 0) {
            goto cleanup;
        }
        CPA_TRY(cpa_sprintf(&cut, "%.*s", (int)(n - tail), whole));
        CPA_TRY(cpa_strings_add(value, cut));
        cpa_free(&cut);
    }
    *all_fit = pairs->n > 0;
cleanup:
    cpa_free(&cut);
    return st;
}

// In how many cells of pair k this column has the value value[k].
static cpa_status count_fits(const cpa_pairs *pairs, const cpa_strings *value, const cpa_factor *column, int64_t *n)
{
    cpa_status st;
    int32_t *code = NULL; // [pairs] of the value, -1: not met yet
    *n = 0;
    CPA_TRY(cpa_alloc((size_t)pairs->n, sizeof *code, &code));
    for (int32_t k = 0; k < pairs->n; k++) {
        code[k] = -1;
    }
    for (int64_t i = 0; i < column->n; i++) {
        int32_t k = pairs->of[i], own = column->code[i];
        if (own >= 0 && code[k] < 0 && strcmp(column->level.s[own], value->s[k]) == 0) {
            code[k] = own;
        }
        *n += own >= 0 && own == code[k];
    }
cleanup:
    cpa_free(&code);
    return st;
}

static bool is_own_column(const cpa_data_spec *spec, const char *column)
{
    const char *own[] = {spec->perturbation_key, spec->dosage_key, spec->split_key, spec->deg_uns_cat_key,
                         spec->batch_key};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (own[i] != NULL && strcmp(own[i], column) == 0) {
            return true;
        }
    }
    return false;
}

// The column c with category == c + "_" + condition in most cells: its position among the columns and how many they are, or -1 and 0.
// With one that has it in all cells the search ends.
static cpa_status find_covariate(cpa_registry_build *b, const char *category_column, const cpa_factor *category,
                                 int64_t *found, int64_t *n_found)
{
    cpa_status st;
    cpa_pairs pairs = {0};
    cpa_strings value = {0};
    cpa_factor column = {0};
    bool all_fit;
    *found = -1;
    *n_found = 0;
    CPA_TRY(cpa_pairs_create(category->code, b->pert.code, b->pert.n, &pairs));
    CPA_TRY(cut_conditions(&pairs, category, &b->pert, &value, &all_fit));
    for (int64_t c = 0; all_fit && *n_found < b->pert.n && c < b->columns.n; c++) {
        const char *name = b->columns.s[c];
        int64_t n = 0;
        if (is_own_column(&b->r->spec, name) || strcmp(name, category_column) == 0) {
            continue;
        }
        st = cpa_h5ad_factor(b->f, "obs", name, &column);
        if (st != CPA_OK && st != CPA_BAD_DATA) { // a column that cannot be read is no candidate
            goto cleanup;
        }
        if (st == CPA_OK) {
            CPA_TRY(count_fits(&pairs, &value, &column, &n));
        }
        if (n > *n_found) {
            *found = c;
            *n_found = n;
        }
        cpa_factor_fini(&column);
    }
    st = CPA_OK;
cleanup:
    cpa_factor_fini(&column);
    cpa_strings_fini(&value);
    cpa_pairs_fini(&pairs);
    return st;
}

// A column that is a covariate in most cells is more likely one with faults than none.
static void warn_of_near(const cpa_registry_build *b, const char *key, const char *name, int64_t n)
{
    if (n > b->pert.n / 2) {
        cpa_warn("%s: obs/%s is the covariate of obs/%s in %lld of %lld cells, and has another value, or none, in the "
                 "rest: it is not taken; mend it, or say what is meant by --categorical-covariate-keys",
                 b->path, name, key, (long long)n, (long long)b->pert.n);
    }
}

cpa_status cpa_registry_infer_covariates(cpa_registry_build *b)
{
    cpa_status st = CPA_OK;
    cpa_data_spec *spec = &b->r->spec;
    cpa_factor own = {0};
    if (spec->categorical_covariate_keys.n > 0) {
        goto cleanup;
    }
    const char *key = spec->deg_uns_cat_key[0] != '\0' ? spec->deg_uns_cat_key : "cov_cond";
    const cpa_factor *category = &b->deg;
    int64_t found = -1, n_found = 0;
    if (category->code == NULL && spec->deg_uns_cat_key[0] == '\0' && has_column(b, key)) {
        CPA_TRY(cpa_registry_column(b, key, true, &own));
        category = &own;
    }
    if (category->code != NULL && b->pert.code != NULL) {
        CPA_TRY(find_covariate(b, key, category, &found, &n_found));
    }
    const char *near = found >= 0 ? b->columns.s[found] : "";
    const char *name = n_found == b->pert.n && found >= 0                                ? near
                       : has_column(b, "cell_type") && !is_own_column(spec, "cell_type") ? "cell_type"
                                                                                         : "";
    if (strcmp(near, name) != 0) {
        warn_of_near(b, key, near, n_found);
    }
    cpa_info("categorical_covariate_keys: %s (inferred)", name[0] != '\0' ? name : "none");
    CPA_TRY(cpa_strings_add(&spec->categorical_covariate_keys, name));
cleanup:
    cpa_factor_fini(&own);
    return st;
}
