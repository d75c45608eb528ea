// Owns: conditions to predict cells as, from names to the model's numbers. Never touches cells.
#include <string.h>

#include "cpa/app/trained.h"
#include "cpa/base/text.h"

enum { MOST_LISTED = 20 }; // names in a message before the rest are only counted

cpa_status cpa_target_init(const cpa_trained *t, const char *name, const char *dose, cpa_target *target)
{
    cpa_status st = CPA_OK;
    int max = t->meta.max_comb_len;
    *target = (cpa_target){.category = -1};
    CPA_TRY(cpa_alloc((size_t)max, sizeof *target->pert, &target->pert));
    CPA_TRY(cpa_alloc((size_t)max, sizeof *target->dose_of, &target->dose_of));
    CPA_TRY(cpa_alloc((size_t)cpa_trained_n_covs(t), sizeof *target->cov, &target->cov));
    for (int c = 0; c < cpa_trained_n_covs(t); c++) {
        target->cov[c] = -1;
    }
    CPA_TRY(cpa_condition_parse(&t->meta.pert, name, dose, max, target->pert, target->dose_of, &target->n));
    CPA_TRY(cpa_strdup(name, &target->name));
    if (dose) {
        CPA_TRY(cpa_strdup(dose, &target->dose));
    } else { // as upstream writes it
        CPA_TRY(cpa_strdup("1.0", &target->dose));
        for (int k = 1; k < target->n; k++) {
            char *shorter = target->dose;
            target->dose = NULL;
            st = cpa_sprintf(&target->dose, "%s+1.0", shorter);
            cpa_free(&shorter);
            CPA_TRY(st);
        }
    }
cleanup:
    if (st != CPA_OK) {
        cpa_target_fini(target);
    }
    return st;
}

// "a, b, c and 12 more"
static cpa_status list_names(cpa_text *text, const cpa_strings *names)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < names->n && i < MOST_LISTED; i++) {
        CPA_TRY(cpa_text_add(text, "%s%s", i ? ", " : "", names->s[i]));
    }
    if (names->n > MOST_LISTED) {
        CPA_TRY(cpa_text_add(text, " and %lld more", (long long)(names->n - MOST_LISTED)));
    }
cleanup:
    return st;
}

cpa_status cpa_target_set(const cpa_trained *t, cpa_target *target, const char *covariate, const char *value)
{
    cpa_status st = CPA_OK;
    cpa_text known = {0};
    int64_t c = cpa_strings_find(&t->meta.cov_name, covariate);
    if (c < 0) {
        CPA_TRY(list_names(&known, &t->meta.cov_name));
        CPA_REQUIRE(false, CPA_BAD_DATA, "the model has no covariate '%s'; it has %s%s", covariate,
                    t->meta.cov_name.n ? "" : "none", cpa_text_str(&known));
    }
    int64_t v = cpa_strings_find(&t->meta.cov_value[c], value);
    if (v < 0) {
        CPA_TRY(list_names(&known, &t->meta.cov_value[c]));
        CPA_REQUIRE(false, CPA_BAD_DATA, "the model does not know the value '%s' of the covariate '%s'; it knows %s",
                    value, covariate, cpa_text_str(&known));
    }
    target->cov[c] = (int)v;
cleanup:
    cpa_text_fini(&known);
    return st;
}

void cpa_target_fini(cpa_target *target)
{
    cpa_free(&target->name);
    cpa_free(&target->dose);
    cpa_free(&target->pert);
    cpa_free(&target->dose_of);
    cpa_free(&target->cov);
    *target = (cpa_target){0};
}
