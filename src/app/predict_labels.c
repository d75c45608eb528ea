// Owns: what the rows of a prediction are called: names, conditions, covariates, groups. Never touches counts.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/text.h"
#include "predict_impl.h"

// Labels in the making. The caches hold codes plus one, 0: not yet known.
typedef struct builder {
    const cpa_trained *t;
    const cpa_plan *plan;
    cpa_labels *out;
    cpa_strings name;             // of the cells
    int32_t *own_pert, *own_dose; // [conditions]
    int32_t *own_group;           // [categories]
    int32_t **own_cov;            // [covariates][values]
    int32_t *group;               // [contexts], of the current target
    const cpa_target *current;
    int32_t current_pert, current_dose;
} builder;

static cpa_status intern(cpa_factor *f, const char *level, int32_t *code)
{
    cpa_status st = CPA_OK;
    int64_t at = cpa_strings_find(&f->level, level);
    if (at < 0) {
        at = f->level.n;
        CPA_TRY(cpa_strings_add(&f->level, level));
    }
    *code = (int32_t)at;
cleanup:
    return st;
}

// The same through a cache.
static cpa_status intern_once(cpa_factor *f, const char *level, int32_t *cache, int32_t *code)
{
    cpa_status st = CPA_OK;
    if (*cache == 0) {
        CPA_TRY(intern(f, level, code));
        *cache = *code + 1;
    }
    *code = *cache - 1;
cleanup:
    return st;
}

// The value of covariate c that a cell is predicted with.
static const char *value_of(const builder *b, const cpa_target *target, int64_t cell, int c)
{
    const cpa_covariate *cov = &b->t->registry->cov[c];
    bool set = !target->own && c < cpa_trained_n_covs(b->t) && target->cov[c] >= 0;
    return set ? b->t->meta.cov_value[c].s[target->cov[c]] : cov->value.s[cov->code[cell]];
}

// "batch_covariates_perturbation", as the categories of training are called.
static cpa_status group_name(const builder *b, const cpa_target *target, int64_t cell, cpa_text *text)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = b->t->registry;
    const char *batch = r->spec.batch_key ? r->spec.batch_key : "";
    for (int first = 1; first >= 0; first--) {
        for (int c = 0; c < r->n_covs; c++) {
            if ((strcmp(r->cov[c].name, batch) == 0) == (first == 1)) {
                CPA_TRY(cpa_text_add(text, "%s_", value_of(b, target, cell, c)));
            }
        }
    }
    CPA_TRY(cpa_text_add(text, "%s", target->name));
cleanup:
    return st;
}

static cpa_status label_own(builder *b, int64_t row, int64_t cell)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = b->t->registry;
    cpa_labels *o = b->out;
    int32_t condition = r->condition_of[cell], category = r->category_of[cell];
    CPA_TRY(intern_once(&o->pert, r->condition[condition].name, &b->own_pert[condition], &o->pert.code[row]));
    CPA_TRY(intern_once(&o->dose, r->condition[condition].dose_text, &b->own_dose[condition], &o->dose.code[row]));
    CPA_TRY(intern_once(&o->group, r->category.s[category], &b->own_group[category], &o->group.code[row]));
cleanup:
    return st;
}

static cpa_status label_as(builder *b, const cpa_target *target, int64_t row, int64_t cell)
{
    cpa_status st = CPA_OK;
    cpa_labels *o = b->out;
    cpa_text name = {0};
    if (b->current != target) {
        b->current = target;
        CPA_TRY(intern(&o->pert, target->name, &b->current_pert));
        CPA_TRY(intern(&o->dose, target->dose, &b->current_dose));
        memset(b->group, 0, (size_t)b->plan->contexts.n * sizeof *b->group);
    }
    o->pert.code[row] = b->current_pert;
    o->dose.code[row] = b->current_dose;
    int32_t *cache = &b->group[b->plan->contexts.of[cell]];
    if (*cache == 0) {
        CPA_TRY(group_name(b, target, cell, &name));
    }
    CPA_TRY(intern_once(&o->group, cpa_text_str(&name), cache, &o->group.code[row]));
cleanup:
    cpa_text_fini(&name);
    return st;
}

// Condition, group and covariates of a row.
static cpa_status label_row(builder *b, const cpa_target *target, int64_t row, int64_t cell)
{
    cpa_status st = CPA_OK;
    cpa_labels *o = b->out;
    CPA_TRY(target->own ? label_own(b, row, cell) : label_as(b, target, row, cell));
    for (int c = 0; c < o->n_covs; c++) {
        const char *value = value_of(b, target, cell, c);
        bool set = !target->own && c < cpa_trained_n_covs(b->t) && target->cov[c] >= 0;
        if (set) {
            CPA_TRY(intern(&o->cov[c], value, &o->cov[c].code[row]));
        } else {
            CPA_TRY(intern_once(&o->cov[c], value, &b->own_cov[c][b->t->registry->cov[c].code[cell]],
                                &o->cov[c].code[row]));
        }
    }
cleanup:
    return st;
}

// The label of a whole target: what all its cells share; a covariate or group in which they differ has no value.
static cpa_status label_target(builder *b, const cpa_target *target, int64_t row)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = b->t->registry;
    cpa_labels *o = b->out;
    CPA_TRY(label_row(b, target, row, target->cell[0]));
    for (int c = 0; c < o->n_covs; c++) {
        bool set = !target->own && c < cpa_trained_n_covs(b->t) && target->cov[c] >= 0;
        for (int64_t i = 1; i < target->n_cells && !set; i++) {
            if (r->cov[c].code[target->cell[i]] != r->cov[c].code[target->cell[0]]) {
                o->cov[c].code[row] = -1;
                o->group.code[row] = -1;
                break;
            }
        }
    }
    o->n_cells[row] = target->n_cells;
cleanup:
    return st;
}

typedef struct indexed_name {
    char **name;
    int64_t row;
} indexed_name;

static int compare_index(const void *x, const void *y)
{
    const indexed_name *a = x, *b = y;
    int order = strcmp(*a->name, *b->name);
    return order ? order : (a->row > b->row) - (a->row < b->row);
}

cpa_status cpa_labels_make_unique(cpa_strings *index)
{
    cpa_status st = CPA_OK;
    indexed_name *sorted = NULL;
    uint8_t *repeated = NULL;
    char *longer = NULL;
    CPA_TRY(cpa_alloc((size_t)index->n, sizeof *sorted, &sorted));
    CPA_TRY(cpa_alloc((size_t)index->n, sizeof *repeated, &repeated));
    for (int64_t i = 0; i < index->n; i++) {
        sorted[i] = (indexed_name){&index->s[i], i};
    }
    qsort(sorted, (size_t)index->n, sizeof *sorted, compare_index);
    for (int64_t i = 1; i < index->n; i++) {
        if (strcmp(*sorted[i].name, *sorted[i - 1].name) == 0) {
            repeated[sorted[i].row] = repeated[sorted[i - 1].row] = 1;
        }
    }
    for (int64_t i = 0; i < index->n; i++) {
        if (repeated[i]) {
            CPA_TRY(cpa_sprintf(&longer, "%s#%lld", index->s[i], (long long)i));
            cpa_free(&index->s[i]);
            index->s[i] = longer;
            longer = NULL;
        }
    }
cleanup:
    cpa_free(&sorted);
    cpa_free(&repeated);
    return st;
}

static cpa_status label_cells(builder *b)
{
    cpa_status st = CPA_OK;
    cpa_labels *o = b->out;
    char *index = NULL;
    for (int64_t row = 0; row < o->pert.n; row++) {
        int64_t cell;
        const cpa_target *target = cpa_plan_row(b->plan, row, &cell);
        CPA_TRY(label_row(b, target, row, cell));
        CPA_TRY(cpa_sprintf(&index, "%s->%s", b->name.s[cell], o->pert.level.s[o->pert.code[row]]));
        CPA_TRY(cpa_strings_add(&o->index, index));
        CPA_TRY(cpa_strings_add(&o->source, b->name.s[cell]));
        cpa_free(&index);
    }
cleanup:
    cpa_free(&index);
    return st;
}

static cpa_status label_targets(builder *b)
{
    cpa_status st = CPA_OK;
    cpa_labels *o = b->out;
    char *index = NULL;
    for (int64_t row = 0; row < o->pert.n; row++) {
        CPA_TRY(label_target(b, &b->plan->target[row], row));
        const char *group =
            o->group.code[row] >= 0 ? o->group.level.s[o->group.code[row]] : o->pert.level.s[o->pert.code[row]];
        CPA_TRY(cpa_sprintf(&index, "%s@%s", group, o->dose.level.s[o->dose.code[row]]));
        CPA_TRY(cpa_strings_add(&o->index, index));
        cpa_free(&index);
    }
cleanup:
    cpa_free(&index);
    return st;
}

static cpa_status make_factor(cpa_factor *f, int64_t n)
{
    f->n = n;
    return cpa_alloc((size_t)n, sizeof *f->code, &f->code);
}

// A covariate's column; one that is called like a column of ours gets a longer name.
static cpa_status column_name(const char *covariate, char **out)
{
    const char *taken[] = {"perturbation", "dose", "group", "source_cell", "n_cells", "split", "category", "_index"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        if (strcmp(covariate, taken[i]) == 0) {
            return cpa_sprintf(out, "covariate_%s", covariate);
        }
    }
    return cpa_strdup(covariate, out);
}

static cpa_status make_room(builder *b, int64_t n_rows)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = b->t->registry;
    cpa_labels *o = b->out;
    CPA_TRY(make_factor(&o->pert, n_rows));
    CPA_TRY(make_factor(&o->dose, n_rows));
    CPA_TRY(make_factor(&o->group, n_rows));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *o->cov, &o->cov));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *o->cov_name, &o->cov_name));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *b->own_cov, &b->own_cov));
    o->n_covs = r->n_covs;
    for (int c = 0; c < r->n_covs; c++) {
        CPA_TRY(column_name(r->cov[c].name, &o->cov_name[c]));
        CPA_TRY(make_factor(&o->cov[c], n_rows));
        CPA_TRY(cpa_alloc((size_t)r->cov[c].value.n, sizeof **b->own_cov, &b->own_cov[c]));
    }
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof *b->own_pert, &b->own_pert));
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof *b->own_dose, &b->own_dose));
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *b->own_group, &b->own_group));
    CPA_TRY(cpa_alloc((size_t)b->plan->contexts.n, sizeof *b->group, &b->group));
cleanup:
    return st;
}

cpa_status cpa_labels_create(const cpa_trained *t, const cpa_plan *plan, bool by_cell, cpa_labels *out)
{
    cpa_status st = CPA_OK;
    builder b = {.t = t, .plan = plan, .out = out};
    *out = (cpa_labels){0};
    CPA_TRY(make_room(&b, by_cell ? plan->first[plan->n] : plan->n));
    if (by_cell) {
        CPA_TRY(cpa_h5ad_index(t->file, "obs", &b.name));
        CPA_TRY(label_cells(&b));
    } else {
        CPA_TRY(cpa_alloc((size_t)plan->n, sizeof *out->n_cells, &out->n_cells));
        CPA_TRY(label_targets(&b));
    }
    CPA_TRY(cpa_labels_make_unique(&out->index));
cleanup:
    cpa_strings_fini(&b.name);
    for (int c = 0; b.own_cov && c < t->registry->n_covs; c++) {
        cpa_free(&b.own_cov[c]);
    }
    cpa_free(&b.own_cov);
    cpa_free(&b.own_pert);
    cpa_free(&b.own_dose);
    cpa_free(&b.own_group);
    cpa_free(&b.group);
    return st;
}

void cpa_labels_fini(cpa_labels *labels)
{
    for (int c = 0; c < labels->n_covs; c++) {
        cpa_free(&labels->cov_name[c]);
        cpa_factor_fini(&labels->cov[c]);
    }
    cpa_free(&labels->cov_name);
    cpa_free(&labels->cov);
    cpa_factor_fini(&labels->pert);
    cpa_factor_fini(&labels->dose);
    cpa_factor_fini(&labels->group);
    cpa_strings_fini(&labels->index);
    cpa_strings_fini(&labels->source);
    cpa_free(&labels->n_cells);
}
