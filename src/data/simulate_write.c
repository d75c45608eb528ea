// Owns: the truth of a simulated atlas in `uns`: its numbers, and the lists of genes that follow from them.
// Never changes the truth.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/data/h5ad_write.h"
#include "simulate_impl.h"

enum {
    LISTED = 50,         // genes of a list
    ROW_BYTES = 1 << 20, // of a chunk of the tables, at most
};

static const char model[] =
    "counts ~ NegativeBinomial(mean, dispersion), variance = mean + mean^2 / dispersion; mean = library * "
    "basal[cell_type] "
    "* exp(batch[batch] + sum over components of hill * log_fold_change[perturbation] + (combinations) hill * hill * "
    "interaction[combination]); hill = dose^slope / (dose^slope + ec50^slope); log(library) ~ Normal(library_log_mean, "
    "library_log_sd); logarithms are natural, rows of tables follow the lists of names, columns the genes";

// A table of n_rows x genes, a row at a time.
static cpa_status open_table(const cpa_truth *t, cpa_h5 *f, const char *name, cpa_h5_append **out)
{
    cpa_status st;
    char *path = NULL;
    int64_t n_genes = t->config->n_genes, rows = ROW_BYTES / (n_genes * (int64_t)sizeof(float));
    CPA_TRY(cpa_sprintf(&path, "uns/truth/%s", name));
    CPA_TRY(cpa_h5_append_open(f, path, CPA_H5_F32, n_genes, rows > 0 ? rows : 1, t->config->gzip, out));
    CPA_TRY(cpa_h5ad_encode(f, path, "array", "0.2.0"));
cleanup:
    cpa_free(&path);
    return st;
}

static cpa_status write_rows(const cpa_truth *t, cpa_h5 *f, const char *name, int64_t n, const float *rows)
{
    cpa_status st;
    cpa_h5_append *table = NULL;
    CPA_TRY(open_table(t, f, name, &table));
    CPA_TRY(cpa_h5_append_rows(table, n, rows));
    CPA_TRY(cpa_h5_append_finish(&table));
cleanup:
    cpa_h5_append_close(&table);
    return st;
}

static cpa_status write_effects(const cpa_truth *t, cpa_h5 *f, const char *name, int64_t n, const cpa_effect *effect)
{
    cpa_status st;
    cpa_h5_append *table = NULL;
    float *row = NULL;
    size_t n_genes = (size_t)t->config->n_genes;
    CPA_TRY(cpa_alloc(n_genes, sizeof *row, &row));
    CPA_TRY(open_table(t, f, name, &table));
    for (int64_t k = 0; k < n; k++) {
        memset(row, 0, n_genes * sizeof *row);
        for (int32_t i = 0; i < effect[k].n; i++) {
            row[effect[k].gene[i]] = effect[k].change[i];
        }
        CPA_TRY(cpa_h5_append_rows(table, 1, row));
    }
    CPA_TRY(cpa_h5_append_finish(&table));
cleanup:
    cpa_h5_append_close(&table);
    cpa_free(&row);
    return st;
}

static cpa_status write_doubles(cpa_h5 *f, const char *path, int64_t n, const double *value)
{
    cpa_status st;
    CPA_TRY(cpa_h5_write(f, path, CPA_H5_F64, 1, &n, value, 0));
    CPA_TRY(cpa_h5ad_encode(f, path, "array", "0.2.0"));
cleanup:
    return st;
}

static cpa_status write_numbers(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    CPA_TRY(cpa_h5ad_write_dict(f, "uns/truth"));
    CPA_TRY(cpa_h5ad_write_text(f, "uns/truth/model", model));
    CPA_TRY(cpa_h5ad_write_number(f, "uns/truth/seed", (double)c->seed));
    CPA_TRY(cpa_h5ad_write_list(f, "uns/truth/perturbations", &t->pert));
    CPA_TRY(cpa_h5ad_write_list(f, "uns/truth/combinations", &t->combo));
    CPA_TRY(cpa_h5ad_write_list(f, "uns/truth/cell_types", &t->type));
    CPA_TRY(cpa_h5ad_write_list(f, "uns/truth/batches", &t->batch));
    CPA_TRY(write_doubles(f, "uns/truth/ec50", c->perturbations, t->ec50));
    CPA_TRY(write_doubles(f, "uns/truth/slope", c->perturbations, t->slope));
    CPA_TRY(cpa_h5ad_write_number(f, "uns/truth/library_log_mean", t->library_mean));
    CPA_TRY(cpa_h5ad_write_number(f, "uns/truth/library_log_sd", t->library_sd));
    CPA_TRY(cpa_h5ad_write_floats(f, "uns/truth/dispersion", c->n_genes, 0, t->dispersion, c->gzip));
    CPA_TRY(write_rows(t, f, "basal", c->cell_types, t->basal));
    CPA_TRY(write_rows(t, f, "batch", c->batches, t->batch_change));
    CPA_TRY(write_effects(t, f, "log_fold_change", c->perturbations, t->effect));
    CPA_TRY(write_effects(t, f, "interaction", c->combinations, t->interaction));
cleanup:
    return st;
}

// ---- Lists of genes

typedef struct ranked_gene {
    double change;
    int32_t gene;
} ranked_gene;

static int by_change(const void *a, const void *b)
{
    const ranked_gene *x = a, *y = b;
    return x->change > y->change ? -1 : x->change < y->change ? 1 : x->gene < y->gene ? -1 : x->gene > y->gene;
}

// The condition that gives a name its largest dose.
static const cpa_sim_condition *strongest(const cpa_truth *t, int name)
{
    const cpa_sim_condition *best = NULL;
    for (int k = 0; k < t->n_conditions; k++) {
        const cpa_sim_condition *c = &t->condition[k];
        if (c->name == name && (best == NULL || t->dose[c->dose[0]] > t->dose[best->dose[0]])) {
            best = c;
        }
    }
    return best;
}

// Genes by how far the condition moves log1p of the counts per 10,000 of a cell type.
static void rank(const cpa_truth *t, int type, const cpa_sim_condition *c, float *mean, ranked_gene *ranked)
{
    int32_t n_genes = t->config->n_genes;
    const float *basal = t->basal + (int64_t)type * n_genes;
    double sum = 0;
    memcpy(mean, basal, (size_t)n_genes * sizeof *mean);
    cpa_truth_apply(t, c, mean);
    for (int32_t g = 0; g < n_genes; g++) {
        sum += mean[g];
    }
    for (int32_t g = 0; g < n_genes; g++) {
        ranked[g] = (ranked_gene){fabs(log1p(1e4 * mean[g] / sum) - log1p(1e4 * (double)basal[g])), g};
    }
    qsort(ranked, (size_t)n_genes, sizeof *ranked, by_change);
}

static cpa_status write_list(const cpa_truth *t, cpa_h5 *f, const char *group, const ranked_gene *ranked)
{
    cpa_status st;
    char *path = NULL;
    cpa_strings list = {0};
    CPA_TRY(cpa_sprintf(&path, "uns/rank_genes_groups_cov/%s", group));
    for (int k = 0; k < LISTED && k < t->config->n_genes; k++) {
        CPA_TRY(cpa_strings_add(&list, t->gene.s[ranked[k].gene]));
    }
    CPA_TRY(cpa_h5ad_write_list(f, path, &list));
cleanup:
    cpa_strings_fini(&list);
    cpa_free(&path);
    return st;
}

static cpa_status write_lists(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st;
    float *mean = NULL;
    ranked_gene *ranked = NULL;
    CPA_TRY(cpa_alloc((size_t)t->config->n_genes, sizeof *mean, &mean));
    CPA_TRY(cpa_alloc((size_t)t->config->n_genes, sizeof *ranked, &ranked));
    CPA_TRY(cpa_h5ad_write_dict(f, "uns/rank_genes_groups_cov"));
    for (int name = 1; name < t->name.n; name++) {
        const cpa_sim_condition *c = strongest(t, name);
        for (int type = 0; type < t->config->cell_types; type++) {
            rank(t, type, c, mean, ranked);
            CPA_TRY(write_list(t, f, t->cov_cond.s[type * t->name.n + name], ranked));
        }
    }
cleanup:
    cpa_free(&mean);
    cpa_free(&ranked);
    return st;
}

cpa_status cpa_truth_write(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st;
    CPA_TRY(cpa_h5ad_write_dict(f, "uns"));
    CPA_TRY(write_numbers(t, f));
    CPA_TRY(write_lists(t, f));
cleanup:
    return st;
}
