// Owns: the command `check`: everything that training would object to, or a summary of what it would see.
// Never trains and never judges: the registry and the cells do.
#include <stdio.h>
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/base/log.h"
#include "cpa/data/cells.h"
#include "cpa/data/pert_table.h"
#include "cpa/data/sampler.h"

enum { MAX_LINES = 20 }; // of one kind in the summary

// Appends the message of a failure, unless it was said before.
static cpa_status add_message(cpa_problems *problems, cpa_status st)
{
    cpa_status added = CPA_OK;
    char *message = NULL;
    if (st != CPA_OK) {
        added = cpa_strdup(cpa_message(), &message);
        if (added == CPA_OK && strstr(cpa_text_str(&problems->text), message) == NULL) {
            added = cpa_problems_add(problems, "%s", message);
        }
    }
    cpa_free(&message);
    return added;
}

// "900 train, 100 validation, 234 held out, 0 unused".
static void print_splits(const cpa_registry *r)
{
    int64_t n[4] = {0};
    for (int64_t i = 0; i < r->n_cells; i++) {
        n[r->split[i]]++;
    }
    bool by_column = r->spec.split_key != NULL && r->spec.split_key[0] != '\0';
    printf("splits: %lld train, %lld validation, %lld held out, %lld unused (%s%s)\n", (long long)n[CPA_SPLIT_TRAIN],
           (long long)n[CPA_SPLIT_VALID], (long long)n[CPA_SPLIT_TEST], (long long)n[CPA_SPLIT_NONE],
           by_column ? "obs column " : "a random split", by_column ? r->spec.split_key : "");
}

static void print_conditions(const cpa_registry *r)
{
    printf("perturbations: %lld, in combinations of up to %d; control %s\n", (long long)r->pert.n - 2, r->max_comb_len,
           r->pert.s[CPA_CONTROL]);
    printf("conditions: %d\n", r->n_conditions);
    for (int i = 0; i < r->n_conditions && i < MAX_LINES; i++) {
        const cpa_condition *c = &r->condition[i];
        printf("  %s, dose %s: %lld cells\n", c->name, c->dose_text, (long long)c->n_cells);
    }
    if (r->n_conditions > MAX_LINES) {
        printf("  and %d more\n", r->n_conditions - MAX_LINES);
    }
}

static void print_covariates(const cpa_registry *r)
{
    printf("covariates: %d%s\n", r->n_covs, r->spec.batch_key != NULL ? ", the last one the batch" : "");
    for (int c = 0; c < r->n_covs; c++) {
        const cpa_strings *value = &r->cov[c].value;
        printf("  %s, %lld values:", r->cov[c].name, (long long)value->n);
        for (int64_t i = 0; i < value->n && i < MAX_LINES; i++) {
            printf("%s %s", i > 0 ? "," : "", value->s[i]);
        }
        printf("%s\n", value->n > MAX_LINES ? ", ..." : "");
    }
}

static void print_summary(const cpa_registry *r, const cpa_matrix *m)
{
    int n_lists = 0;
    for (int i = 0; i < r->n_categories; i++) {
        n_lists += r->deg[i] != NULL;
    }
    printf("cells: %lld (%lld without counts)\n", (long long)m->info.n_cells, (long long)m->stats.n_empty);
    printf("genes: %lld\n", (long long)m->info.n_genes);
    printf("counts: %lld values in %s%s, largest %g; %lld are not integers\n", (long long)m->nnz,
           r->spec.layer != NULL ? "layer " : "X", r->spec.layer != NULL ? r->spec.layer : "", m->stats.max_count,
           (long long)m->stats.n_non_integer);
    print_conditions(r);
    print_covariates(r);
    print_splits(r);
    printf("categories: %d, of which %d have a list of differential genes\n", r->n_categories, n_lists);
}

// The external vectors, if any: the file as such, then (once the metadata are right) whether it has every perturbation.
static cpa_status check_vectors(cpa_comm *comm, const cpa_options *o, const cpa_registry *r, cpa_pert_table **table,
                                cpa_problems *problems)
{
    cpa_status st = CPA_OK;
    float *features = NULL;
    if (!o->pert_embeddings) {
        goto cleanup;
    }
    cpa_status read = cpa_pert_table_read(comm, o->pert_embeddings, NULL, table);
    CPA_REQUIRE(read == CPA_OK || read == CPA_BAD_DATA, read, "%s", cpa_message());
    CPA_TRY(add_message(problems, read));
    if (read == CPA_OK && r) {
        st = cpa_alloc((size_t)r->pert.n * (size_t)(*table)->n_features, sizeof *features, &features);
        CPA_TRY(cpa_comm_agree(comm, st));
        CPA_TRY(add_message(problems, cpa_pert_table_expand(*table, &r->pert, features)));
    }
cleanup:
    cpa_free(&features);
    return st;
}

// Looks at every count: without keeping any where threads can read the matrix, else by loading it.
static cpa_status look_at_counts(cpa_comm *comm, cpa_h5ad *file, const char *layer, cpa_matrix **m, cpa_cells **cells)
{
    cpa_status st;
    CPA_TRY(cpa_matrix_open(comm, file, layer, m));
    if ((*m)->raw == NULL) {
        return cpa_cells_load_matrix(m, cells);
    }
    CPA_TRY(cpa_matrix_judge(*m));
    CPA_TRY(cpa_matrix_warn(*m));
cleanup:
    return st;
}

// Training never reads the names of cells, so it would not object to any.
static cpa_status warn_of_names(cpa_h5ad *file)
{
    cpa_status st = cpa_h5ad_warn_of_names(file);
    if (st == CPA_BAD_DATA) {
        cpa_warn("%s", cpa_message());
        st = CPA_OK;
    }
    return st;
}

cpa_status cpa_cmd_check(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    cpa_h5ad *file = NULL;
    cpa_registry *registry = NULL;
    cpa_matrix *matrix = NULL;
    cpa_cells *cells = NULL; // or this
    cpa_pert_table *vectors = NULL;
    cpa_problems problems = {0};
    cpa_comm_phase("checking");
    CPA_TRY(cpa_comm_agree(comm, cpa_h5ad_open(o->path, &file)));
    cpa_status selected = cpa_comm_agree(comm, cpa_h5ad_select(file, o->data.layer, o->data.genes));
    CPA_REQUIRE(selected == CPA_OK || selected == CPA_BAD_DATA, selected, "%s", cpa_message());
    CPA_TRY(add_message(&problems, selected));
    cpa_status metadata = cpa_comm_agree(comm, cpa_registry_create(file, &o->data, true, &registry));
    CPA_REQUIRE(metadata == CPA_OK || metadata == CPA_BAD_DATA, metadata, "%s", cpa_message());
    CPA_TRY(add_message(&problems, metadata));
    // The counts are looked at even when the metadata are wrong, so that one run names everything.
    cpa_status counts = look_at_counts(comm, file, o->data.layer, &matrix, &cells);
    CPA_REQUIRE(counts == CPA_OK || counts == CPA_BAD_DATA, counts, "%s", cpa_message());
    CPA_TRY(add_message(&problems, counts));
    CPA_TRY(check_vectors(comm, o, registry, &vectors, &problems));
    CPA_TRY(cpa_comm_agree_rested(comm, cpa_comm_alone(comm) ? warn_of_names(file) : CPA_OK));
    CPA_TRY(cpa_problems_status(&problems, CPA_BAD_DATA));
    if (cpa_comm_rank(comm) == 0) {
        if (registry->n_train < CPA_MIN_BATCH) { // which is no fault of cells to predict from
            cpa_warn("%s: %lld cells train; training needs at least %d", o->path, (long long)registry->n_train,
                     CPA_MIN_BATCH);
        }
        print_summary(registry, cells != NULL ? cells->matrix : matrix);
    }
cleanup:
    cpa_problems_fini(&problems);
    cpa_pert_table_destroy(&vectors);
    cpa_cells_destroy(&cells);
    cpa_matrix_close(&matrix);
    cpa_registry_destroy(&registry);
    cpa_h5ad_close(&file);
    return st;
}
