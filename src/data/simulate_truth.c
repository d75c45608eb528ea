// Owns: drawing what a simulated atlas is made of: names, conditions, effects, held-out groups, library sizes.
// Never draws a cell.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simulate_impl.h"

// The shape of the truth, like that of screens with a few thousand variable genes. Logarithms are natural.
static const double basal_sd = 2;                               // of the genes' means
static const double type_part = 0.2, type_sd = 1;               // genes that differ between cell types, and by how much
static const double batch_sd = 0.1;                             // of every gene
static const double effect_part = 0.1, effect_sd = 1;           // genes that a perturbation changes
static const double both_part = 0.02, both_sd = 0.5;            // genes on which two perturbations interact
static const double dispersion_mean = 1.6, dispersion_sd = 0.7; // of its logarithm
static const double dispersion_least = 0.5, dispersion_most = 50;
static const double slope_least = 0.7, slope_most = 2;
static const double library_sd = 0.4;

// ---- Names

// "NAME_01", "NAME_02", ..., as many digits as the last one needs.
static cpa_status number_names(const char *word, int64_t n, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    char *name = NULL;
    int digits = 1;
    for (int64_t k = n; k >= 10; k /= 10) {
        digits++;
    }
    for (int64_t k = 1; k <= n; k++) {
        CPA_TRY(cpa_sprintf(&name, "%s_%0*lld", word, digits, (long long)k));
        CPA_TRY(cpa_strings_add(out, name));
        cpa_free(&name);
    }
cleanup:
    cpa_free(&name);
    return st;
}

static cpa_status add_joined(cpa_strings *out, const char *a, const char *joint, const char *b)
{
    char *both = NULL;
    cpa_status st = cpa_sprintf(&both, "%s%s%s", a, joint, b);
    if (st == CPA_OK) {
        st = cpa_strings_add(out, both);
    }
    cpa_free(&both);
    return st;
}

static cpa_status make_names(cpa_truth *t)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    CPA_TRY(number_names("gene", c->n_genes, &t->gene));
    CPA_TRY(number_names("pert", c->perturbations, &t->pert));
    CPA_TRY(number_names("type", c->cell_types, &t->type));
    CPA_TRY(number_names("batch", c->batches, &t->batch));
cleanup:
    return st;
}

static cpa_status read_doses(cpa_truth *t)
{
    cpa_status st = CPA_OK;
    const cpa_strings *list = &t->config->doses;
    CPA_REQUIRE(list->n > 0, CPA_USAGE, "--doses: wants at least one number above 0");
    CPA_TRY(cpa_alloc((size_t)list->n, sizeof *t->dose, &t->dose));
    for (int64_t d = 0; d < list->n; d++) {
        char *end;
        t->dose[d] = strtod(list->s[d], &end);
        bool plain = strspn(list->s[d], "0123456789.eE-") == strlen(list->s[d]);
        CPA_REQUIRE(plain && end != list->s[d] && *end == '\0' && isfinite(t->dose[d]) && t->dose[d] > 0, CPA_USAGE,
                    "--doses: wants numbers above 0, separated by commas, not '%s'", list->s[d]);
        for (int64_t k = 0; k < d; k++) {
            CPA_REQUIRE(t->dose[k] != t->dose[d], CPA_USAGE, "--doses: '%s' and '%s' are the same dose", list->s[k],
                        list->s[d]);
        }
    }
cleanup:
    return st;
}

// ---- Conditions

static cpa_status level_of(cpa_strings *levels, const char *a, const char *b, int *out)
{
    cpa_status st;
    char *text = NULL;
    CPA_TRY(b != NULL ? cpa_sprintf(&text, "%s+%s", a, b) : cpa_strdup(a, &text));
    int64_t at = cpa_strings_find(levels, text);
    *out = (int)(at >= 0 ? at : levels->n);
    if (at < 0) {
        CPA_TRY(cpa_strings_add(levels, text));
    }
cleanup:
    cpa_free(&text);
    return st;
}

// The pairs (a, b), a < b, are numbered row by row.
static void pair_of(int64_t k, int n, int pair[2])
{
    int a = 0;
    while (k >= n - 1 - a) {
        k -= n - 1 - a;
        a++;
    }
    pair[0] = a;
    pair[1] = (int)(a + 1 + k);
}

// A random choice of distinct pairs: Floyd's, which needs no list of all.
static cpa_status choose_pairs(const cpa_truth *t, int64_t *pair)
{
    const cpa_simulate_config *c = t->config;
    int64_t all = (int64_t)c->perturbations * (c->perturbations - 1) / 2, n = c->combinations;
    if (n > all) {
        return cpa_fail(CPA_USAGE, "--combinations: %d perturbations have %lld pairs, not %lld", c->perturbations,
                        (long long)all, (long long)n);
    }
    for (int64_t k = 0; k < n; k++) {
        uint32_t w[4];
        int64_t last = all - n + k, chosen;
        cpa_sim_words(t, CPA_DRAW_PAIR, k, 0, w);
        chosen = (int64_t)cpa_below(w[0], w[1], (uint64_t)last + 1);
        for (int64_t i = 0; i < k; i++) {
            if (pair[i] == chosen) {
                chosen = last;
                break;
            }
        }
        pair[k] = chosen;
    }
    return CPA_OK;
}

static cpa_status add_condition(cpa_truth *t, cpa_sim_condition c)
{
    cpa_status st = CPA_OK;
    const cpa_strings *dose = &t->config->doses;
    if (c.n > 0) {
        CPA_TRY(level_of(&t->dose_text, dose->s[c.dose[0]], c.n > 1 ? dose->s[c.dose[1]] : NULL, &c.text));
    }
    t->condition[t->n_conditions++] = c;
cleanup:
    return st;
}

static cpa_status make_combination(cpa_truth *t, int k, int64_t number)
{
    cpa_status st = CPA_OK;
    int pair[2], n_doses = (int)t->config->doses.n;
    pair_of(number, t->config->perturbations, pair);
    CPA_TRY(add_joined(&t->combo, t->pert.s[pair[0]], "+", t->pert.s[pair[1]]));
    CPA_TRY(cpa_strings_add(&t->name, t->combo.s[k]));
    for (int d = 0; d < n_doses; d++) { // every dose of the first, each with any of the second
        uint32_t w[4];
        cpa_sim_words(t, CPA_DRAW_PAIR_DOSE, k, (uint32_t)d, w);
        int other = n_doses > 1 ? (int)cpa_below(w[0], w[1], (uint64_t)n_doses) : 0;
        CPA_TRY(add_condition(
            t,
            (cpa_sim_condition){.name = (int)t->name.n - 1, .n = 2, .pert = {pair[0], pair[1]}, .dose = {d, other}}));
    }
cleanup:
    return st;
}

static cpa_status make_conditions(cpa_truth *t)
{
    cpa_status st = CPA_OK;
    const cpa_simulate_config *c = t->config;
    int64_t *pair = NULL;
    CPA_TRY(cpa_alloc((size_t)c->combinations, sizeof *pair, &pair));
    CPA_TRY(cpa_alloc(1 + (size_t)(c->perturbations + c->combinations) * (size_t)c->doses.n, sizeof *t->condition,
                      &t->condition));
    CPA_TRY(cpa_strings_add(&t->name, "ctrl"));
    CPA_TRY(cpa_strings_add(&t->dose_text, "1.0"));
    CPA_TRY(add_condition(t, (cpa_sim_condition){0}));
    for (int p = 0; p < c->perturbations; p++) {
        CPA_TRY(cpa_strings_add(&t->name, t->pert.s[p]));
        for (int d = 0; d < c->doses.n; d++) {
            CPA_TRY(add_condition(t, (cpa_sim_condition){.name = 1 + p, .n = 1, .pert = {p}, .dose = {d}}));
        }
    }
    CPA_TRY(choose_pairs(t, pair));
    for (int k = 0; k < c->combinations; k++) {
        CPA_TRY(make_combination(t, k, pair[k]));
    }
    for (int64_t k = 0; k < t->type.n * t->name.n; k++) {
        CPA_TRY(add_joined(&t->cov_cond, t->type.s[k / t->name.n], "_", t->name.s[k % t->name.n]));
    }
cleanup:
    cpa_free(&pair);
    return st;
}

// Combinations are held out in all cell types. Where there are none, perturbations are in one or more, but not in all.
static cpa_status hold_out(cpa_truth *t)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    int64_t n_perts = c->perturbations, n_combos = c->combinations, n_types = c->cell_types, *unit = NULL, n = 0;
    int64_t n_units = n_combos > 0 ? n_combos : n_perts * n_types;
    int64_t want = llround(c->ood * (double)n_units);
    want = c->ood > 0 && want == 0 ? 1 : want;
    CPA_TRY(cpa_alloc((size_t)(n_types * t->name.n), 1, &t->held_out));
    CPA_TRY(cpa_alloc((size_t)n_units, sizeof *unit, &unit));
    for (int64_t k = 0; k < n_units; k++) {
        unit[k] = k;
    }
    cpa_shuffle(c->seed, CPA_STREAM_SIMULATE, 0, CPA_DRAW_HELD_OUT, unit, n_units);
    for (int64_t k = 0; n_combos > 0 && k < want; k++) {
        for (int64_t type = 0; type < n_types; type++) {
            t->held_out[type * t->name.n + 1 + n_perts + unit[k]] = 1;
        }
    }
    for (int64_t k = 0; n_combos == 0 && k < n_units && n < want; k++) {
        int64_t name = 1 + unit[k] % n_perts, left = n_types;
        for (int64_t type = 0; type < n_types; type++) {
            left -= t->held_out[type * t->name.n + name];
        }
        if (left > 1) {
            t->held_out[unit[k] / n_perts * t->name.n + name] = 1;
            n++;
        }
    }
cleanup:
    cpa_free(&unit);
    return st;
}

// ---- Numbers

// Changes of some genes: each with the chance `part`, normal with `sd`.
static cpa_status draw_effect(const cpa_truth *t, cpa_draw draw, int64_t row, double part, double sd, cpa_effect *e)
{
    cpa_status st = CPA_OK;
    int32_t n_genes = t->config->n_genes, n = 0;
    uint32_t w[4];
    for (int32_t g = 0; g < n_genes; g++) {
        cpa_sim_words(t, draw, row, (uint32_t)g, w);
        n += cpa_sim_unit(w[0]) < part;
    }
    CPA_TRY(cpa_alloc((size_t)n, sizeof *e->gene, &e->gene));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *e->change, &e->change));
    for (int32_t g = 0; g < n_genes; g++) {
        cpa_sim_words(t, draw, row, (uint32_t)g, w);
        if (cpa_sim_unit(w[0]) < part) {
            e->gene[e->n] = g;
            e->change[e->n++] = (float)(sd * cpa_sim_normal(w[1], w[2]));
        }
    }
cleanup:
    return st;
}

static cpa_status draw_effects(cpa_truth *t)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    double least = log(t->dose[0]), most = least;
    for (int64_t d = 1; d < c->doses.n; d++) {
        least = fmin(least, log(t->dose[d]));
        most = fmax(most, log(t->dose[d]));
    }
    CPA_TRY(cpa_alloc((size_t)c->perturbations, sizeof *t->effect, &t->effect));
    CPA_TRY(cpa_alloc((size_t)c->combinations, sizeof *t->interaction, &t->interaction));
    CPA_TRY(cpa_alloc((size_t)c->perturbations, sizeof *t->ec50, &t->ec50));
    CPA_TRY(cpa_alloc((size_t)c->perturbations, sizeof *t->slope, &t->slope));
    for (int p = 0; p < c->perturbations; p++) {
        uint32_t w[4];
        cpa_sim_words(t, CPA_DRAW_RESPONSE, p, 0, w);
        // Half of the effect is reached between a third of the least dose and a third of the largest one.
        t->ec50[p] = exp(least + cpa_sim_unit(w[0]) * (most - least)) / 3;
        t->slope[p] = slope_least + cpa_sim_unit(w[1]) * (slope_most - slope_least);
        CPA_TRY(draw_effect(t, CPA_DRAW_EFFECT, p, effect_part, effect_sd, &t->effect[p]));
    }
    for (int k = 0; k < c->combinations; k++) {
        CPA_TRY(draw_effect(t, CPA_DRAW_INTERACTION, k, both_part, both_sd, &t->interaction[k]));
    }
cleanup:
    return st;
}

static cpa_status draw_means(cpa_truth *t)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    int64_t n_genes = c->n_genes;
    uint32_t w[4], v[4];
    CPA_TRY(cpa_alloc((size_t)(c->cell_types * n_genes), sizeof *t->basal, &t->basal));
    for (int64_t k = 0; k < c->cell_types; k++) {
        float *basal = t->basal + k * n_genes;
        double sum = 0;
        for (int64_t g = 0; g < n_genes; g++) {
            cpa_sim_words(t, CPA_DRAW_BASAL, 0, (uint32_t)g, w);
            cpa_sim_words(t, CPA_DRAW_TYPE, k, (uint32_t)g, v);
            double differs = cpa_sim_unit(v[0]) < type_part ? type_sd : 0;
            basal[g] = (float)exp(basal_sd * cpa_sim_normal(w[0], w[1]) + differs * cpa_sim_normal(v[1], v[2]));
            sum += basal[g];
        }
        for (int64_t g = 0; g < n_genes; g++) {
            basal[g] = (float)(basal[g] / sum);
        }
    }
cleanup:
    return st;
}

static cpa_status draw_noise(cpa_truth *t)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    int64_t n_genes = c->n_genes;
    size_t n = (size_t)(c->batches * n_genes);
    uint32_t w[4];
    CPA_TRY(cpa_alloc(n, sizeof *t->batch_change, &t->batch_change));
    CPA_TRY(cpa_alloc(n, sizeof *t->batch_fold, &t->batch_fold));
    CPA_TRY(cpa_alloc((size_t)n_genes, sizeof *t->dispersion, &t->dispersion));
    for (size_t k = 0; k < n; k++) {
        cpa_sim_words(t, CPA_DRAW_BATCH, (int64_t)k / n_genes, (uint32_t)((int64_t)k % n_genes), w);
        t->batch_change[k] = (float)(batch_sd * cpa_sim_normal(w[0], w[1]));
        t->batch_fold[k] = (float)exp(t->batch_change[k]);
    }
    for (int64_t g = 0; g < n_genes; g++) {
        cpa_sim_words(t, CPA_DRAW_DISPERSION, 0, (uint32_t)g, w);
        double x = exp(dispersion_mean + dispersion_sd * cpa_sim_normal(w[0], w[1]));
        t->dispersion[g] = (float)fmin(fmax(x, dispersion_least), dispersion_most);
    }
cleanup:
    return st;
}

// The library size that gives the density asked for.
static void fit_library(cpa_truth *t)
{
    double low = 0, high = log(1e9);
    t->library_sd = library_sd;
    for (int i = 0; i < 40; i++) {
        t->library_mean = (low + high) / 2;
        *(cpa_sim_density(t) < t->config->density ? &low : &high) = t->library_mean;
    }
}

double cpa_truth_hill(const cpa_truth *t, const cpa_sim_condition *c, int k)
{
    int p = c->pert[k];
    return 1 / (1 + pow(t->ec50[p] / t->dose[c->dose[k]], t->slope[p]));
}

static void apply_effect(const cpa_effect *e, double part, float *mean)
{
    for (int32_t k = 0; k < e->n; k++) {
        mean[e->gene[k]] *= expf((float)part * e->change[k]);
    }
}

void cpa_truth_apply(const cpa_truth *t, const cpa_sim_condition *c, float *mean)
{
    double both = 1;
    for (int k = 0; k < c->n; k++) {
        double part = cpa_truth_hill(t, c, k);
        apply_effect(&t->effect[c->pert[k]], part, mean);
        both *= part;
    }
    if (c->n > 1) {
        apply_effect(&t->interaction[c->name - 1 - t->config->perturbations], both, mean);
    }
}

cpa_status cpa_truth_init(cpa_truth *t, const cpa_simulate_config *config)
{
    cpa_status st;
    *t = (cpa_truth){.config = config};
    CPA_TRY(make_names(t));
    CPA_TRY(read_doses(t));
    CPA_TRY(make_conditions(t));
    CPA_TRY(hold_out(t));
    CPA_TRY(draw_effects(t));
    CPA_TRY(draw_means(t));
    CPA_TRY(draw_noise(t));
    fit_library(t);
cleanup:
    return st;
}

static void free_effects(cpa_effect **e, int n)
{
    for (int k = 0; *e != NULL && k < n; k++) {
        cpa_free(&(*e)[k].gene);
        cpa_free(&(*e)[k].change);
    }
    cpa_free(e);
}

void cpa_truth_fini(cpa_truth *t)
{
    cpa_strings *lists[] = {&t->gene, &t->pert, &t->combo, &t->type, &t->batch, &t->name, &t->dose_text, &t->cov_cond};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        cpa_strings_fini(lists[i]);
    }
    free_effects(&t->effect, t->config->perturbations);
    free_effects(&t->interaction, t->config->combinations);
    cpa_free(&t->condition);
    cpa_free(&t->dose);
    cpa_free(&t->ec50);
    cpa_free(&t->slope);
    cpa_free(&t->basal);
    cpa_free(&t->batch_change);
    cpa_free(&t->batch_fold);
    cpa_free(&t->dispersion);
    cpa_free(&t->held_out);
}
