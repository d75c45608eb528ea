// Owns: scoring held-out groups: what the model and each baseline predict for a group, against its real cells. Never
// prints.
#include <math.h>
#include <string.h>

#include "cpa/base/log.h"
#include "evaluate_impl.h"

enum { TOP = 20 };

// What a set of cells looks like on the two scales; var NULL: not known.
typedef struct view {
    double *mean, *var, *bulk; // [n_genes]
} view;

typedef struct scorer {
    cpa_trained *t;
    const cpa_plan *plan;
    const cpa_cell_list *chosen;
    cpa_baselines baselines;
    cpa_profile profile, part;
    cpa_cell_list held; // real cells of the current group; room for all chosen ones
    view real, control, predicted[N_PREDICTORS];
    double *a, *b; // [n_genes] differences
    cpa_scale scale;
    int n_genes;
} scorer;

static cpa_status make_view(view *v, int n_genes)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_alloc((size_t)n_genes, sizeof(double), &v->mean));
    CPA_TRY(cpa_alloc((size_t)n_genes, sizeof(double), &v->var));
    CPA_TRY(cpa_alloc((size_t)n_genes, sizeof(double), &v->bulk));
cleanup:
    return st;
}

static void free_view(view *v)
{
    cpa_free(&v->mean);
    cpa_free(&v->var);
    cpa_free(&v->bulk);
}

static void look_at(const cpa_profile *p, cpa_scale scale, view *v)
{
    memcpy(v->mean, p->mean, (size_t)p->n_genes * sizeof *p->mean);
    cpa_profile_variance(p, v->var);
    cpa_profile_pseudobulk(p, scale, v->bulk);
}

// All real cells of a group: those chosen that have its category and context.
static void list_held(scorer *s, int category, int context)
{
    s->held.n = 0;
    for (int64_t i = 0; i < s->chosen->n; i++) {
        int64_t row = s->chosen->cell[i];
        if (s->t->registry->category_of[row] == category && s->plan->contexts.of[row] == context) {
            s->held.cell[s->held.n++] = row;
        }
    }
}

// The model's prediction of a group: its doses, each weighing as many cells as the group has of it.
static cpa_status predict_group(scorer *s, const cpa_target *target, int64_t n)
{
    cpa_status st = CPA_OK;
    cpa_profile_clear(&s->profile);
    for (int64_t i = 0; i < n; i++) {
        CPA_TRY(cpa_trained_profile(s->t, &target[i], s->scale, &s->part));
        cpa_profile_reweigh(&s->part, (double)target[i].n_held);
        cpa_profile_merge(&s->profile, s->part.v);
    }
    look_at(&s->profile, s->scale, &s->predicted[BY_MODEL]);
cleanup:
    return st;
}

// Turns effects in mean and bulk into predictions.
static void add_control(const scorer *s, view *v)
{
    for (int g = 0; g < s->n_genes; g++) {
        v->mean[g] += s->control.mean[g];
        v->bulk[g] += s->control.bulk[g];
    }
}

// What the baselines say; known[k] is false for one without an answer.
static cpa_status predict_simply(scorer *s, int context, bool known[N_PREDICTORS])
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = s->t->registry;
    const cpa_condition *c = &r->condition[r->condition_of[s->held.cell[0]]];
    const cpa_baselines *b = &s->baselines;
    view *v = &s->predicted[BY_NO_CHANGE], *mean = &s->predicted[BY_MEAN_EFFECT], *sum = &s->predicted[BY_ADDITIVE];
    int *component = NULL, n;
    CPA_TRY(cpa_alloc((size_t)c->n, sizeof *component, &component));
    cpa_components_of(c, component, &n);
    memcpy(v->mean, s->control.mean, (size_t)s->n_genes * sizeof(double));
    memcpy(v->var, s->control.var, (size_t)s->n_genes * sizeof(double));
    memcpy(v->bulk, s->control.bulk, (size_t)s->n_genes * sizeof(double));
    known[BY_MODEL] = known[BY_NO_CHANGE] = true;
    known[BY_MEAN_EFFECT] =
        cpa_effects_mean(b->log, context, mean->mean) && cpa_effects_mean(b->bulk, context, mean->bulk);
    known[BY_ADDITIVE] = cpa_effects_additive(b->log, context, component, n, sum->mean) &&
                         cpa_effects_additive(b->bulk, context, component, n, sum->bulk);
    add_control(s, mean);
    add_control(s, sum);
cleanup:
    cpa_free(&component);
    return st;
}

static void subtract(const double *x, const double *y, int n, double *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = x[i] - y[i];
    }
}

static void score_view(scorer *s, const view *v, bool has_var, cpa_genes genes, double score[N_SCORES])
{
    score[R2_MEAN] = cpa_score_r2_of(s->real.mean, v->mean, genes);
    score[R2_VAR] = has_var ? cpa_score_r2_of(s->real.var, v->var, genes) : NAN;
    subtract(s->real.mean, s->control.mean, s->n_genes, s->a);
    subtract(v->mean, s->control.mean, s->n_genes, s->b);
    score[R2_DELTA] = cpa_score_r2_of(s->a, s->b, genes);
    score[PSEUDOBULK_R2] = cpa_score_r2_of(s->real.bulk, v->bulk, genes);
    subtract(s->real.bulk, s->control.bulk, s->n_genes, s->a);
    subtract(v->bulk, s->control.bulk, s->n_genes, s->b);
    score[PEARSON_DELTA] = cpa_score_pearson(s->a, s->b, genes);
}

// Positions of the first genes of the category's list; those that the file does not have are skipped.
static int top_genes(const scorer *s, int category, int32_t gene[TOP])
{
    const cpa_gene_list *list = &s->t->registry->deg_list[category];
    int n = 0;
    for (int64_t i = 0; i < list->n && i < TOP; i++) {
        if (list->gene[i] >= 0) {
            gene[n++] = list->gene[i];
        }
    }
    return n;
}

// Scores the group of target[0..n), its conditions.
static cpa_status score_group(scorer *s, const cpa_target *target, int64_t n, cpa_group_scores *out)
{
    cpa_status st = CPA_OK;
    bool known[N_PREDICTORS];
    int32_t top[TOP];
    int context = s->plan->contexts.of[target->control[0]];
    list_held(s, target->category, context);
    *out = (cpa_group_scores){s->t->registry->category.s[target->category], s->held.n, target->n_control, {{{0}}}};
    CPA_TRY(predict_group(s, target, n));
    cpa_profile_of_cells(&s->profile, s->t->cells, s->held.cell, s->held.n, s->scale);
    look_at(&s->profile, s->scale, &s->real);
    cpa_profile_of_cells(&s->profile, s->t->cells, target->control, target->n_control, s->scale);
    look_at(&s->profile, s->scale, &s->control);
    CPA_TRY(cpa_comm_agree(s->t->comm, predict_simply(s, context, known)));
    cpa_genes genes[N_GENE_SETS] = {{NULL, s->n_genes}, {top, top_genes(s, target->category, top)}};
    for (int k = 0; k < N_PREDICTORS; k++) {
        for (int g = 0; g < N_GENE_SETS; g++) {
            double *score = out->score[k][g];
            for (int i = 0; i < N_SCORES; i++) {
                score[i] = NAN;
            }
            if (known[k]) {
                score_view(s, &s->predicted[k], k == BY_MODEL || k == BY_NO_CHANGE, genes[g], score);
            }
        }
    }
cleanup:
    return st;
}

static cpa_status prepare(scorer *s)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_baselines_create(s->t, s->plan, &s->baselines));
    CPA_TRY(cpa_profile_init(&s->profile, s->n_genes));
    CPA_TRY(cpa_profile_init(&s->part, s->n_genes));
    CPA_TRY(cpa_alloc((size_t)s->chosen->n, sizeof *s->held.cell, &s->held.cell));
    CPA_TRY(make_view(&s->real, s->n_genes));
    CPA_TRY(make_view(&s->control, s->n_genes));
    for (int k = 0; k < N_PREDICTORS; k++) {
        CPA_TRY(make_view(&s->predicted[k], s->n_genes));
    }
    CPA_TRY(cpa_alloc((size_t)s->n_genes, sizeof *s->a, &s->a));
    CPA_TRY(cpa_alloc((size_t)s->n_genes, sizeof *s->b, &s->b));
cleanup:
    return st;
}

static void finish(scorer *s)
{
    cpa_baselines_fini(&s->baselines);
    cpa_profile_fini(&s->profile);
    cpa_profile_fini(&s->part);
    cpa_cell_list_fini(&s->held);
    free_view(&s->real);
    free_view(&s->control);
    for (int k = 0; k < N_PREDICTORS; k++) {
        free_view(&s->predicted[k]);
    }
    cpa_free(&s->a);
    cpa_free(&s->b);
}

cpa_status cpa_evaluate_groups(cpa_trained *t, const cpa_plan *plan, const cpa_cell_list *chosen,
                               cpa_group_scores **out, int64_t *n)
{
    cpa_status st = CPA_OK;
    scorer s = {.t = t, .plan = plan, .chosen = chosen, .n_genes = t->registry->n_genes, .scale = cpa_trained_scale(t)};
    *n = 0;
    st = cpa_alloc((size_t)plan->n, sizeof **out, out);
    CPA_TRY(cpa_comm_agree(t->comm, st == CPA_OK ? prepare(&s) : st));
    for (int64_t i = 0, end; i < plan->n; i = end) {
        const cpa_target *a = &plan->target[i];
        for (end = i + 1;
             end < plan->n && plan->target[end].category == a->category && plan->target[end].control == a->control;
             end++) {
        }
        CPA_TRY(score_group(&s, a, end - i, &(*out)[*n]));
        ++*n;
        cpa_progress(false, "scored %lld groups", (long long)*n);
    }
cleanup:
    finish(&s);
    return st;
}
