// Owns: scores of predictions and the effects behind the baselines. Never reads cells, never prints.
#include "cpa/app/scores.h"

#include <math.h>

static int gene_at(cpa_genes genes, int i)
{
    return genes.gene ? genes.gene[i] : i;
}

static double mean_of(const double *x, cpa_genes genes)
{
    double sum = 0;
    for (int i = 0; i < genes.n; i++) {
        sum += x[gene_at(genes, i)];
    }
    return sum / genes.n;
}

double cpa_score_r2_of(const double *real, const double *predicted, cpa_genes genes)
{
    if (genes.n < 2) {
        return NAN;
    }
    double mean = mean_of(real, genes), residual = 0, total = 0;
    for (int i = 0; i < genes.n; i++) {
        int g = gene_at(genes, i);
        residual += (real[g] - predicted[g]) * (real[g] - predicted[g]);
        total += (real[g] - mean) * (real[g] - mean);
    }
    if (total > 0) {
        return 1 - residual / total;
    }
    return residual > 0 ? 0 : 1;
}

double cpa_score_pearson(const double *a, const double *b, cpa_genes genes)
{
    if (genes.n < 2) {
        return NAN;
    }
    double ma = mean_of(a, genes), mb = mean_of(b, genes), aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < genes.n; i++) {
        double da = a[gene_at(genes, i)] - ma, db = b[gene_at(genes, i)] - mb;
        aa += da * da;
        bb += db * db;
        ab += da * db;
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

// Sum of effects and how many.
typedef struct effect_sum {
    double *sum; // NULL: none yet
    int n;
} effect_sum;

struct cpa_effects {
    int n_genes, n_contexts, n_components;
    effect_sum all;
    effect_sum *context;   // [n_contexts]
    effect_sum *component; // [n_components, n_contexts], of the wanted components
    unsigned char *wanted; // [n_components]
};

cpa_status cpa_effects_create(int n_genes, int n_contexts, int n_components, const unsigned char *wanted,
                              cpa_effects **out)
{
    cpa_status st = CPA_OK;
    cpa_effects *e = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *e, &e));
    *e = (cpa_effects){.n_genes = n_genes, .n_contexts = n_contexts, .n_components = n_components};
    CPA_TRY(cpa_alloc((size_t)n_contexts, sizeof *e->context, &e->context));
    CPA_TRY(cpa_alloc((size_t)n_components * (size_t)n_contexts, sizeof *e->component, &e->component));
    CPA_TRY(cpa_alloc((size_t)n_components, sizeof *e->wanted, &e->wanted));
    for (int i = 0; i < n_components; i++) {
        e->wanted[i] = wanted[i];
    }
    *out = e;
    e = NULL;
cleanup:
    cpa_effects_destroy(&e);
    return st;
}

void cpa_effects_destroy(cpa_effects **out)
{
    cpa_effects *e = *out;
    if (!e) {
        return;
    }
    cpa_free(&e->all.sum);
    for (int c = 0; e->context && c < e->n_contexts; c++) {
        cpa_free(&e->context[c].sum);
    }
    for (int64_t i = 0; e->component && i < (int64_t)e->n_components * e->n_contexts; i++) {
        cpa_free(&e->component[i].sum);
    }
    cpa_free(&e->context);
    cpa_free(&e->component);
    cpa_free(&e->wanted);
    cpa_free(out);
}

static cpa_status add_effect(const cpa_effects *e, effect_sum *s, const double *mean, const double *control)
{
    cpa_status st = CPA_OK;
    if (!s->sum) {
        CPA_TRY(cpa_alloc((size_t)e->n_genes, sizeof *s->sum, &s->sum));
    }
    for (int g = 0; g < e->n_genes; g++) {
        s->sum[g] += mean[g] - control[g];
    }
    s->n++;
cleanup:
    return st;
}

cpa_status cpa_effects_add(cpa_effects *e, int context, int component, const double *mean, const double *control)
{
    cpa_status st = CPA_OK;
    CPA_TRY(add_effect(e, &e->all, mean, control));
    CPA_TRY(add_effect(e, &e->context[context], mean, control));
    if (component >= 0 && e->wanted[component]) {
        CPA_TRY(add_effect(e, &e->component[(int64_t)component * e->n_contexts + context], mean, control));
    }
cleanup:
    return st;
}

bool cpa_effects_mean(const cpa_effects *e, int context, double *out)
{
    const effect_sum *s = e->context[context].n > 0 ? &e->context[context] : &e->all;
    for (int g = 0; g < e->n_genes && s->n > 0; g++) {
        out[g] = s->sum[g] / s->n;
    }
    return s->n > 0;
}

// Adds a component's effect to out; false when it was never seen alone.
static bool add_component(const cpa_effects *e, int context, int component, double *out)
{
    const effect_sum *by_context = &e->component[(int64_t)component * e->n_contexts];
    bool here = by_context[context].n > 0;
    int n = 0;
    for (int c = 0; c < e->n_contexts; c++) {
        n += by_context[c].n > 0 && (!here || c == context);
    }
    for (int c = 0; c < e->n_contexts; c++) {
        if (by_context[c].n > 0 && (!here || c == context)) {
            for (int g = 0; g < e->n_genes; g++) {
                out[g] += by_context[c].sum[g] / by_context[c].n / n;
            }
        }
    }
    return n > 0;
}

bool cpa_effects_additive(const cpa_effects *e, int context, const int *component, int n, double *out)
{
    for (int g = 0; g < e->n_genes; g++) {
        out[g] = 0;
    }
    for (int i = 0; i < n; i++) {
        if (!add_component(e, context, component[i], out)) {
            return false;
        }
    }
    return n > 0;
}
