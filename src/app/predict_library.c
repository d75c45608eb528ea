// Owns: how many counts a predicted cell has. Never looks at genes.
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "predict_impl.h"

static cpa_status parse_number(const char *text, double *number)
{
    cpa_status st = CPA_OK;
    char *end = NULL;
    errno = 0;
    *number = strtod(text, &end);
    CPA_REQUIRE(end != text && *end == '\0' && errno == 0 && isfinite(*number) && *number > 0, CPA_USAGE,
                "--library %s: give control, condition-mean or a number of counts above 0", text);
cleanup:
    return st;
}

cpa_status cpa_library_check_option(const char *library)
{
    double number;
    bool word = strcmp(library, "control") == 0 || strcmp(library, "condition-mean") == 0;
    return word ? CPA_OK : parse_number(library, &number);
}

// Mean counts of the training cells of each condition of the file, 0 where it has none.
static cpa_status mean_libraries(const cpa_trained *t, double **out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    int64_t *n = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof *n, &n));
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof **out, out));
    for (int64_t i = 0; i < r->n_cells; i++) {
        if (r->split[i] == CPA_SPLIT_TRAIN) {
            n[r->condition_of[i]]++;
            (*out)[r->condition_of[i]] += (double)t->cells->library[i];
        }
    }
    for (int k = 0; k < r->n_conditions; k++) {
        (*out)[k] /= n[k] > 0 ? (double)n[k] : 1;
    }
cleanup:
    cpa_free(&n);
    return st;
}

// Whether a target is a condition of the file: the same components at the same doses, in any order.
static bool is_condition(const cpa_trained *t, const cpa_target *target, const cpa_condition *c)
{
    int same = 0;
    for (int i = 0; i < target->n && c->n == target->n; i++) {
        for (int k = 0; k < c->n; k++) {
            same += t->pert_of[c->pert[k]] == target->pert[i] && c->dose[k] == target->dose_of[i];
        }
    }
    return same > 0 && same == target->n;
}

cpa_status cpa_library_set(const cpa_trained *t, const char *library, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    double number = 0, *mean = NULL;
    cpa_problems problems = {0};
    bool by_condition = strcmp(library, "condition-mean") == 0;
    if (strcmp(library, "control") == 0) {
        return CPA_OK;
    }
    CPA_REQUIRE(cpa_trained_scale(t) != CPA_SCALE_GIVEN, CPA_CONFIG,
                "--library %s: the model '%s' has recon_loss gauss, which knows no number of counts; leave it out",
                library, t->model_path);
    CPA_TRY(by_condition ? mean_libraries(t, &mean) : parse_number(library, &number));
    for (int64_t i = 0; i < plan->n; i++) {
        cpa_target *target = &plan->target[i];
        target->library = number;
        for (int k = 0; by_condition && k < t->registry->n_conditions; k++) {
            if (is_condition(t, target, &t->registry->condition[k])) {
                target->library = mean[k];
            }
        }
        if (target->library <= 0) {
            CPA_TRY(cpa_problems_add(&problems,
                                     "%s: no training cell is '%s' at dose %s, so --library condition-mean has no "
                                     "number for it; give control or a number of counts",
                                     cpa_h5ad_path(t->file), target->name, target->dose));
        }
    }
    st = cpa_problems_status(&problems, CPA_BAD_DATA);
cleanup:
    cpa_problems_fini(&problems);
    cpa_free(&mean);
    return st;
}
