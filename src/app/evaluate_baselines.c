// Owns: the effects that the baselines add up, from the training cells of the data file. Never uses a model.
#include <stdlib.h>
#include <string.h>

#include "evaluate_impl.h"

// A training cell in the order of its condition: context, then perturbation string.
typedef struct trained_cell {
    int32_t context, label;
    int64_t row;
} trained_cell;

static int compare_cells(const void *x, const void *y)
{
    const trained_cell *a = x, *b = y;
    if (a->context != b->context) {
        return a->context < b->context ? -1 : 1;
    }
    if (a->label != b->label) {
        return a->label < b->label ? -1 : 1;
    }
    return (a->row > b->row) - (a->row < b->row);
}

void cpa_components_of(const cpa_condition *c, int *component, int *n)
{
    *n = 0;
    for (int k = 0; k < c->n; k++) {
        if (c->pert[k] != CPA_CONTROL) {
            component[(*n)++] = c->pert[k];
        }
    }
}

void cpa_baselines_fini(cpa_baselines *b)
{
    cpa_effects_destroy(&b->log);
    cpa_effects_destroy(&b->bulk);
}

// Treated training cells whose context has control cells, sorted; the row numbers alone in row[n].
static cpa_status sort_cells(const cpa_trained *t, const cpa_contexts *contexts, trained_cell **cell, int64_t **row,
                             int64_t *n)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    *n = 0;
    CPA_TRY(cpa_alloc((size_t)r->n_train, sizeof **cell, cell));
    CPA_TRY(cpa_alloc((size_t)r->n_train, sizeof **row, row));
    for (int64_t i = 0; i < r->n_cells; i++) {
        const cpa_condition *c = &r->condition[r->condition_of[i]];
        if (r->split[i] == CPA_SPLIT_TRAIN && !c->is_control && contexts->control[contexts->of[i]].n > 0) {
            (*cell)[(*n)++] = (trained_cell){contexts->of[i], c->label, i};
        }
    }
    qsort(*cell, (size_t)*n, sizeof **cell, compare_cells);
    for (int64_t i = 0; i < *n; i++) {
        (*row)[i] = (*cell)[i].row;
    }
cleanup:
    return st;
}

// Pseudobulk vectors of a condition and of its control, beside the profiles that hold the other scale.
typedef struct workspace {
    cpa_profile condition, control;
    double *bulk, *control_bulk;
    cpa_scale scale;
} workspace;

static cpa_status add_condition(const cpa_trained *t, const int64_t *row, int64_t n, int context, workspace *w,
                                cpa_baselines *b)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    const cpa_condition *c = &r->condition[r->condition_of[row[0]]];
    int *component = NULL, n_components;
    CPA_TRY(cpa_alloc((size_t)c->n, sizeof *component, &component));
    cpa_components_of(c, component, &n_components);
    int alone = n_components == 1 ? component[0] : -1;
    cpa_profile_of_cells(&w->condition, t->cells, row, n, w->scale);
    cpa_profile_pseudobulk(&w->condition, w->scale, w->bulk);
    CPA_TRY(cpa_effects_add(b->log, context, alone, w->condition.mean, w->control.mean));
    CPA_TRY(cpa_effects_add(b->bulk, context, alone, w->bulk, w->control_bulk));
cleanup:
    cpa_free(&component);
    return st;
}

// Components that some held-out condition is made of.
static cpa_status wanted_components(const cpa_trained *t, const cpa_cell_list *chosen, unsigned char **out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    CPA_TRY(cpa_alloc((size_t)r->pert.n, 1, out));
    for (int64_t i = 0; i < chosen->n; i++) {
        const cpa_condition *c = &r->condition[r->condition_of[chosen->cell[i]]];
        for (int k = 0; k < c->n; k++) {
            (*out)[c->pert[k]] = 1;
        }
    }
cleanup:
    return st;
}

cpa_status cpa_baselines_create(const cpa_trained *t, const cpa_plan *plan, cpa_baselines *out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    workspace w = {.scale = cpa_trained_scale(t)};
    trained_cell *cell = NULL;
    unsigned char *wanted = NULL;
    int64_t *row = NULL, n;
    int context = -1;
    CPA_TRY(wanted_components(t, &plan->list, &wanted));
    CPA_TRY(cpa_effects_create(r->n_genes, plan->contexts.n, (int)r->pert.n, wanted, &out->log));
    CPA_TRY(cpa_effects_create(r->n_genes, plan->contexts.n, (int)r->pert.n, wanted, &out->bulk));
    CPA_TRY(cpa_profile_init(&w.condition, r->n_genes));
    CPA_TRY(cpa_profile_init(&w.control, r->n_genes));
    CPA_TRY(cpa_alloc((size_t)r->n_genes, sizeof *w.bulk, &w.bulk));
    CPA_TRY(cpa_alloc((size_t)r->n_genes, sizeof *w.control_bulk, &w.control_bulk));
    CPA_TRY(sort_cells(t, &plan->contexts, &cell, &row, &n));
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && cell[end].context == cell[i].context && cell[end].label == cell[i].label; end++) {
        }
        if (end - i < CPA_EFFECT_CELLS) {
            continue;
        }
        if (cell[i].context != context) {
            context = cell[i].context;
            const cpa_cell_list *control = &plan->contexts.control[context];
            cpa_profile_of_cells(&w.control, t->cells, control->cell, control->n, w.scale);
            cpa_profile_pseudobulk(&w.control, w.scale, w.control_bulk);
        }
        CPA_TRY(add_condition(t, row + i, end - i, context, &w, out));
    }
cleanup:
    cpa_profile_fini(&w.condition);
    cpa_profile_fini(&w.control);
    cpa_free(&w.bulk);
    cpa_free(&w.control_bulk);
    cpa_free(&cell);
    cpa_free(&row);
    cpa_free(&wanted);
    return st;
}
