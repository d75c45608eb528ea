// Owns: what perturbations that were never trained are to a model. Never reads or writes a file.
#include "cpa/train/unseen.h"

#include <stdlib.h>
#include <string.h>

static const char EMBEDDING[] = "module/pert_network.pert_embedding.weight";
static const char WEIGHT[] = "module/pert_network.pert_transformation.weight";
static const char BIAS[] = "module/pert_network.pert_transformation.bias";
static const char *const CURVE[] = {"module/pert_network.dosers.beta", "module/pert_network.dosers.bias"};

// A tensor by name into a fresh array.
static cpa_status get(const cpa_params *t, const char *name, cpa_real **out)
{
    cpa_status st = CPA_OK;
    int id = cpa_params_find(t, name);
    CPA_REQUIRE(id >= 0, CPA_INTERNAL, "the model has no tensor '%s'", name);
    CPA_TRY(cpa_alloc((size_t)cpa_param_size(&t->p[id]), sizeof **out, out));
    CPA_TRY(cpa_params_get(t, t->value, id, *out));
cleanup:
    return st;
}

// ---- Dose curves

// The mean over the perturbations that trained (NULL: all), neither padding nor control; as initially when there are none.
static cpa_real mean_curve(const cpa_real *value, int64_t n, const bool *trained, double initially)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t p = CPA_CONTROL + 1; p < n; p++) {
        if (!trained || trained[p]) {
            sum += (double)value[p];
            count++;
        }
    }
    return (cpa_real)(count > 0 ? sum / (double)count : initially);
}

static double initially(int curve)
{
    return curve == 0 ? 1 : 0; // the slope, the shift
}

cpa_status cpa_unseen_mark(cpa_model_meta *meta, const cpa_registry *r)
{
    cpa_status st = CPA_OK;
    bool *condition = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof *condition, &condition));
    CPA_TRY(cpa_alloc((size_t)r->pert.n, sizeof *meta->trained, &meta->trained));
    for (int64_t i = 0; i < r->n_cells; i++) {
        condition[r->condition_of[i]] |= r->split[i] == CPA_SPLIT_TRAIN;
    }
    for (int k = 0; k < r->n_conditions; k++) {
        for (int i = 0; condition[k] && i < r->condition[k].n; i++) {
            meta->trained[r->condition[k].pert[i]] = true;
        }
    }
cleanup:
    cpa_free(&condition);
    return st;
}

void cpa_unseen_settle(const cpa_model_meta *meta, const char *name, cpa_real *value)
{
    for (int c = 0; meta->trained && c < 2; c++) {
        if (strcmp(name, CURVE[c]) == 0) {
            cpa_real mean = mean_curve(value, meta->pert.n, meta->trained, initially(c));
            for (int64_t p = CPA_CONTROL + 1; p < meta->pert.n; p++) {
                value[p] = meta->trained[p] ? value[p] : mean;
            }
        }
    }
}

// ---- Names

typedef struct named {
    const char *name;
    cpa_pert_source source;
    int order; // of two with one name the lower one counts
} named;

static int compare_named(const void *x, const void *y)
{
    const named *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : (a->order > b->order) - (a->order < b->order);
}

static void gather(const cpa_pert_table *table, int order, const cpa_model_meta *meta, named *all, int64_t *n)
{
    for (int64_t i = 0; table && i < table->name.n; i++) {
        const char *name = table->name.s[i];
        if (strcmp(name, meta->pert.s[CPA_PAD]) != 0 && strcmp(name, meta->pert.s[CPA_CONTROL]) != 0) {
            all[(*n)++] = (named){name, {table, i}, order};
        }
    }
}

static cpa_status check_width(const cpa_model_meta *meta, const cpa_pert_table *table)
{
    return !table || table->n_features == meta->n_pert_features
               ? CPA_OK
               : cpa_fail(CPA_BAD_DATA, "%s: its vectors have %d numbers, those that the model was trained with %d",
                          table->path, table->n_features, meta->n_pert_features);
}

cpa_status cpa_unseen_add(cpa_model_meta *meta, const cpa_pert_table *more)
{
    cpa_status st = CPA_OK;
    const cpa_pert_table *table[] = {meta->vectors, more};
    named *all = NULL;
    cpa_strings pert = {0};
    int64_t n = 0, most = meta->pert.n;
    CPA_REQUIRE(!more || meta->n_pert_features > 0, CPA_CONFIG,
                "%s: the model learned its embeddings from cells and can make none of vectors; leave --pert-embeddings "
                "out, or train with it",
                more->path);
    if (meta->n_pert_features == 0) {
        goto cleanup;
    }
    for (int k = 0; k < 2; k++) {
        CPA_TRY(check_width(meta, table[k]));
        most += table[k] ? table[k]->name.n : 0;
    }
    CPA_TRY(cpa_alloc((size_t)most, sizeof *all, &all));
    CPA_TRY(cpa_alloc((size_t)most, sizeof *meta->source, &meta->source));
    for (int64_t p = CPA_CONTROL + 1; p < meta->pert.n; p++) {
        all[n++] = (named){meta->pert.s[p], {NULL, p}, 0};
    }
    gather(table[0], 1, meta, all, &n);
    gather(table[1], 2, meta, all, &n);
    qsort(all, (size_t)n, sizeof *all, compare_named);
    for (int64_t p = CPA_PAD; p <= CPA_CONTROL; p++) {
        CPA_TRY(cpa_strings_add(&pert, meta->pert.s[p]));
        meta->source[p] = (cpa_pert_source){NULL, p};
    }
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(all[i].name, all[i - 1].name) != 0) {
            meta->source[pert.n] = all[i].source;
            CPA_TRY(cpa_strings_add(&pert, all[i].name));
        }
    }
    cpa_strings_fini(&meta->pert);
    meta->pert = pert;
    pert = (cpa_strings){0};
cleanup:
    cpa_free(&all);
    cpa_strings_fini(&pert);
    return st;
}

int64_t cpa_unseen_n_stored(const cpa_model_meta *meta)
{
    int64_t n = 0;
    for (int64_t p = 0; p < meta->pert.n; p++) {
        n += !meta->source || !meta->source[p].table;
    }
    return n;
}

// ---- Embeddings

// What the projection makes of a vector x[n]: out[latent] = bias + weight x. `turned` is the weight [n, latent].
static void project(const float *x, int n, const double *turned, const cpa_real *bias, int latent, double *sum,
                    cpa_real *out)
{
    for (int l = 0; l < latent; l++) {
        sum[l] = (double)bias[l];
    }
    for (int k = 0; k < n; k++) {
        if (x[k] != 0) { // fingerprints are mostly zeros
            for (int l = 0; l < latent; l++) {
                sum[l] += (double)x[k] * turned[(int64_t)k * latent + l];
            }
        }
    }
    for (int l = 0; l < latent; l++) {
        out[l] = (cpa_real)sum[l];
    }
}

static void vector_of(const cpa_pert_source *source, const cpa_real *stored, int n, float *x)
{
    if (source->table) {
        cpa_pert_table_row(source->table, source->row, x);
        return;
    }
    for (int k = 0; k < n; k++) {
        x[k] = (float)stored[source->row * n + k];
    }
}

static cpa_status fill_embeddings(const cpa_model_meta *meta, const cpa_params *from, cpa_params *to)
{
    cpa_status st = CPA_OK;
    int n = meta->n_pert_features, latent = meta->config.n_latent;
    cpa_real *stored = NULL, *weight = NULL, *bias = NULL, *out = NULL;
    double *turned = NULL, *sum = NULL;
    float *x = NULL;
    CPA_TRY(get(from, EMBEDDING, &stored));
    CPA_TRY(get(from, WEIGHT, &weight));
    CPA_TRY(get(from, BIAS, &bias));
    CPA_TRY(cpa_alloc((size_t)n * (size_t)latent, sizeof *turned, &turned));
    CPA_TRY(cpa_alloc((size_t)latent, sizeof *sum, &sum));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *x, &x));
    CPA_TRY(cpa_alloc((size_t)meta->pert.n * (size_t)latent, sizeof *out, &out));
    for (int64_t i = 0; i < (int64_t)n * latent; i++) {
        turned[i] = (double)weight[i % latent * n + i / latent];
    }
    for (int64_t p = CPA_CONTROL; p < meta->pert.n; p++) { // the padding's stays 0
        vector_of(&meta->source[p], stored, n, x);
        project(x, n, turned, bias, latent, sum, out + p * latent);
    }
    CPA_TRY(cpa_params_set(to, cpa_params_find(to, EMBEDDING), out));
cleanup:
    cpa_free(&stored);
    cpa_free(&weight);
    cpa_free(&bias);
    cpa_free(&out);
    cpa_free(&turned);
    cpa_free(&sum);
    cpa_free(&x);
    return st;
}

static cpa_status fill_curve(const cpa_model_meta *meta, int curve, const cpa_params *from, cpa_params *to)
{
    cpa_status st = CPA_OK;
    cpa_real *stored = NULL, *out = NULL;
    CPA_TRY(get(from, CURVE[curve], &stored));
    CPA_TRY(cpa_alloc((size_t)meta->pert.n, sizeof *out, &out));
    cpa_real mean = mean_curve(stored, cpa_unseen_n_stored(meta), NULL, initially(curve));
    for (int64_t p = 0; p < meta->pert.n; p++) {
        out[p] = meta->source[p].table ? mean : stored[meta->source[p].row];
    }
    CPA_TRY(cpa_params_set(to, cpa_params_find(to, CURVE[curve]), out));
cleanup:
    cpa_free(&stored);
    cpa_free(&out);
    return st;
}

static bool depends_on_perturbations(const char *name)
{
    return strcmp(name, EMBEDDING) == 0 || strcmp(name, CURVE[0]) == 0 || strcmp(name, CURVE[1]) == 0;
}

cpa_status cpa_unseen_fill(const cpa_model_meta *meta, const cpa_params *from, cpa_params *to)
{
    cpa_status st = CPA_OK;
    cpa_real *value = NULL;
    for (int i = 0; i < to->n; i++) {
        if (!depends_on_perturbations(to->p[i].name)) {
            CPA_TRY(get(from, to->p[i].name, &value));
            CPA_TRY(cpa_params_set(to, i, value));
            cpa_free(&value);
        }
    }
    CPA_TRY(fill_embeddings(meta, from, to));
    CPA_TRY(fill_curve(meta, 0, from, to));
    CPA_TRY(fill_curve(meta, 1, from, to));
cleanup:
    cpa_free(&value);
    return st;
}
