// Owns: turning options into a plan: which cells are predicted as what, in which order. Never runs the model.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "predict_impl.h"

void cpa_plan_fini(cpa_plan *plan)
{
    for (int64_t i = 0; i < plan->n; i++) {
        cpa_target_fini(&plan->target[i]);
    }
    cpa_free(&plan->target);
    cpa_free(&plan->first);
    cpa_contexts_fini(&plan->contexts);
    cpa_cell_list_fini(&plan->list);
    *plan = (cpa_plan){0};
}

cpa_status cpa_plan_add(cpa_plan *plan, cpa_target *target)
{
    cpa_status st = CPA_OK;
    if ((plan->n & (plan->n - 1)) == 0) { // full at powers of two
        CPA_TRY(cpa_realloc((size_t)(plan->n > 0 ? 2 * plan->n : 1), sizeof *plan->target, &plan->target));
    }
    plan->target[plan->n++] = *target;
    *target = (cpa_target){0};
cleanup:
    cpa_target_fini(target);
    return st;
}

cpa_status cpa_plan_number_rows(cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_alloc((size_t)plan->n + 1, sizeof *plan->first, &plan->first));
    for (int64_t i = 0; i < plan->n; i++) {
        plan->first[i + 1] = plan->first[i] + plan->target[i].n_cells;
    }
cleanup:
    return st;
}

const cpa_target *cpa_plan_row(const cpa_plan *plan, int64_t row, int64_t *cell)
{
    int64_t low = 0, high = plan->n - 1; // the last target that begins at or before the row
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (plan->first[mid] <= row) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    *cell = plan->target[low].cell[row - plan->first[low]];
    return &plan->target[low];
}

// A cell in the order of its group: category, context (names of categories may collide), condition.
typedef struct grouped_cell {
    int32_t category, context, condition;
    int64_t row;
} grouped_cell;

static int compare_groups(const void *x, const void *y)
{
    const grouped_cell *a = x, *b = y;
    if (a->category != b->category) {
        return a->category < b->category ? -1 : 1;
    }
    if (a->context != b->context) {
        return a->context < b->context ? -1 : 1;
    }
    if (a->condition != b->condition) {
        return a->condition < b->condition ? -1 : 1;
    }
    return (a->row > b->row) - (a->row < b->row);
}

static bool same_group(const grouped_cell *a, const grouped_cell *b)
{
    return a->category == b->category && a->context == b->context && a->condition == b->condition;
}

static cpa_status group_cells(const cpa_trained *t, const cpa_plan *plan, const cpa_cell_list *chosen,
                              grouped_cell **out)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_alloc((size_t)chosen->n, sizeof **out, out));
    for (int64_t i = 0; i < chosen->n; i++) {
        int64_t row = chosen->cell[i];
        (*out)[i] =
            (grouped_cell){t->registry->category_of[row], plan->contexts.of[row], t->registry->condition_of[row], row};
    }
    qsort(*out, (size_t)chosen->n, sizeof **out, compare_groups);
cleanup:
    return st;
}

// A target of a condition of the file.
static cpa_status target_of(const cpa_trained *t, const cpa_condition *c, cpa_target *target)
{
    cpa_status st = CPA_OK;
    int max = t->meta.max_comb_len;
    *target = (cpa_target){.category = -1, .n = c->n};
    CPA_REQUIRE(c->n <= max, CPA_BAD_DATA, "%s: '%s' combines %d perturbations; the model combines at most %d",
                cpa_h5ad_path(t->file), c->name, c->n, max);
    CPA_TRY(cpa_alloc((size_t)max, sizeof *target->pert, &target->pert));
    CPA_TRY(cpa_alloc((size_t)max, sizeof *target->dose_of, &target->dose_of));
    CPA_TRY(cpa_alloc((size_t)cpa_trained_n_covs(t), sizeof *target->cov, &target->cov));
    for (int k = 0; k < c->n; k++) {
        target->pert[k] = t->pert_of[c->pert[k]];
        target->dose_of[k] = c->dose[k];
        CPA_REQUIRE(target->pert[k] >= 0, CPA_BAD_DATA,
                    "%s: the model does not know '%s', which the cells of '%s' have", cpa_h5ad_path(t->file),
                    t->registry->pert.s[c->pert[k]], c->name);
    }
    for (int k = 0; k < cpa_trained_n_covs(t); k++) {
        target->cov[k] = -1;
    }
    CPA_TRY(cpa_strdup(c->name, &target->name));
    CPA_TRY(cpa_strdup(c->dose_text, &target->dose));
cleanup:
    if (st != CPA_OK) {
        cpa_target_fini(target);
    }
    return st;
}

// Adds the group g[0..n) unless no control cell could stand in for it.
static cpa_status add_held_out(const cpa_trained *t, const grouped_cell *g, int64_t n, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_target target = {0};
    const cpa_cell_list *control = &plan->contexts.control[g->context];
    if (control->n == 0) {
        cpa_warn("group '%s' (%lld cells) is left out: there is no control cell with the same covariates",
                 t->registry->category.s[g->category], (long long)n);
        return CPA_OK;
    }
    CPA_TRY(target_of(t, &t->registry->condition[g->condition], &target));
    target.category = g->category;
    target.n_held = n;
    target.n_cells = target.n_control = control->n;
    target.cell = target.control = control->cell;
    CPA_TRY(cpa_trained_check(t, &target));
    CPA_TRY(cpa_plan_add(plan, &target));
cleanup:
    cpa_target_fini(&target);
    return st;
}

cpa_status cpa_plan_held_out(const cpa_trained *t, const cpa_cell_list *chosen, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    grouped_cell *g = NULL;
    plan->mode = "held-out";
    CPA_TRY(group_cells(t, plan, chosen, &g));
    for (int64_t i = 0, end; i < chosen->n; i = end) {
        for (end = i + 1; end < chosen->n && same_group(&g[i], &g[end]); end++) {
        }
        CPA_TRY(add_held_out(t, &g[i], end - i, plan));
    }
    CPA_REQUIRE(plan->n > 0, CPA_BAD_DATA,
                "%s: no held-out group has control cells with the same covariates, so there is nothing to predict from",
                cpa_h5ad_path(t->file));
cleanup:
    cpa_free(&g);
    return st;
}

// Cells as what they are: all in one target, in their order, or, for means, sorted into a target per group and
// condition.
static cpa_status plan_reconstruct(const cpa_trained *t, bool by_group, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    grouped_cell *g = NULL;
    cpa_target whole = {.own = true, .category = -1, .n_cells = plan->list.n, .cell = plan->list.cell};
    plan->mode = "reconstruct";
    CPA_TRY(cpa_trained_check(t, &whole));
    if (!by_group) {
        CPA_TRY(cpa_plan_add(plan, &whole));
        goto cleanup;
    }
    CPA_TRY(group_cells(t, plan, &plan->list, &g));
    for (int64_t i = 0; i < plan->list.n; i++) {
        plan->list.cell[i] = g[i].row;
    }
    for (int64_t i = 0, end; i < plan->list.n; i = end) {
        for (end = i + 1; end < plan->list.n && same_group(&g[i], &g[end]); end++) {
        }
        const cpa_cell_list *control = &plan->contexts.control[g[i].context];
        CPA_TRY(cpa_plan_add(plan, &(cpa_target){.own = true,
                                                 .category = g[i].category,
                                                 .n_cells = end - i,
                                                 .cell = plan->list.cell + i,
                                                 .n_control = control->n,
                                                 .control = control->cell}));
    }
cleanup:
    cpa_free(&g);
    return st;
}

// One condition on the plan's list.
static cpa_status plan_one(const cpa_trained *t, const cpa_options *o, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_target target = {0};
    char *covariate = NULL;
    plan->mode = "perturbation";
    CPA_TRY(cpa_target_init(t, o->perturbation, o->dose, &target));
    for (int64_t i = 0; i < o->set.n; i++) {
        const char *equals = strchr(o->set.s[i], '=');
        CPA_REQUIRE(equals && equals > o->set.s[i], CPA_USAGE, "--set %s: write COLUMN=VALUE", o->set.s[i]);
        CPA_TRY(cpa_sprintf(&covariate, "%.*s", (int)(equals - o->set.s[i]), o->set.s[i]));
        int64_t c = cpa_strings_find(&t->meta.cov_name, covariate);
        CPA_REQUIRE(c < 0 || target.cov[c] < 0, CPA_USAGE, "--set %s: '%s' is set a second time", o->set.s[i],
                    covariate);
        CPA_TRY(cpa_target_set(t, &target, covariate, equals + 1));
        cpa_free(&covariate);
    }
    CPA_TRY(cpa_plan_add(plan, &target));
cleanup:
    cpa_free(&covariate);
    cpa_target_fini(&target);
    return st;
}

// The control cells that conditions are applied to. Cells named by a file are taken as they are.
static cpa_status choose_sources(const cpa_trained *t, const cpa_options *o, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    int64_t treated = 0;
    if (!o->cells) {
        CPA_TRY(cpa_choose_controls(t, &o->where, &plan->list));
        goto cleanup;
    }
    CPA_TRY(cpa_choose_named(t, o->cells, &plan->list));
    for (int64_t i = 0; i < plan->list.n; i++) {
        treated += !t->registry->condition[t->registry->condition_of[plan->list.cell[i]]].is_control;
    }
    if (treated > 0) {
        cpa_warn("%s: %lld of %lld cells are not control cells; predictions start from their counts all the same",
                 o->cells, (long long)treated, (long long)plan->list.n);
    }
cleanup:
    return st;
}

static cpa_status plan_conditions(const cpa_trained *t, const cpa_options *o, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    CPA_TRY(choose_sources(t, o, plan));
    if (o->grid) {
        plan->mode = "grid";
        CPA_TRY(cpa_plan_add_grid(t, o->grid, plan));
    } else {
        CPA_TRY(plan_one(t, o, plan));
    }
    for (int64_t i = 0; i < plan->n; i++) {
        plan->target[i].n_cells = plan->target[i].n_control = plan->list.n;
        plan->target[i].cell = plan->target[i].control = plan->list.cell;
        CPA_TRY(cpa_trained_check(t, &plan->target[i]));
    }
cleanup:
    return st;
}

// What does not go together. Each row: an option that is given, and those that make no sense with it.
cpa_status cpa_plan_check_options(const cpa_options *o)
{
    const struct {
        bool given;
        const char *name;
        unsigned excludes;
    } option[] = {
        {o->reconstruct, "--reconstruct", 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8},
        {o->grid != NULL, "--grid", 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7},
        {o->perturbation != NULL, "--perturbation", 1 << 7},
        {o->dose != NULL, "--dose", 0},
        {o->set.n > 0, "--set", 0},
        {o->where.n > 0, "--where", 1 << 6 | 1 << 7},
        {o->cells != NULL, "--cells", 1 << 7},
        {o->split != NULL, "--split", 0},
        {strcmp(o->library, "control") != 0, "--library", 0},
    };
    enum { N = sizeof option / sizeof *option };
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            if (option[i].given && option[j].given && (option[i].excludes >> j & 1)) {
                return cpa_fail(CPA_CONFIG, "%s and %s contradict each other; give one of them", option[i].name,
                                option[j].name);
            }
        }
    }
    if (!o->reconstruct && !o->grid && !o->perturbation) {
        for (int j = 3; j < 7; j++) {
            if (option[j].given) {
                return cpa_fail(
                    CPA_CONFIG,
                    "%s says how to apply a condition, but there is none; name it with --perturbation or --grid",
                    option[j].name);
            }
        }
    }
    return cpa_library_check_option(o->library);
}

cpa_status cpa_plan_create(const cpa_trained *t, const cpa_options *o, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_contexts_create(t->registry, &plan->contexts));
    if (o->perturbation || o->grid) {
        CPA_TRY(plan_conditions(t, o, plan));
    } else if (o->reconstruct) {
        CPA_TRY(cpa_choose_asked(t, o, &plan->list));
        CPA_TRY(plan_reconstruct(t, strcmp(o->output, "mean") == 0, plan));
    } else {
        CPA_TRY(cpa_choose_split(t, o->split, &plan->list));
        CPA_TRY(cpa_plan_held_out(t, &plan->list, plan));
    }
    CPA_TRY(cpa_library_set(t, o->library, plan));
    CPA_TRY(cpa_plan_number_rows(plan));
cleanup:
    return st;
}
