// Owns: the command `embeddings`: which vectors of perturbations and covariate values, and the file that holds them.
// Never reads cells, and never leaves a file under the final name unless it is complete.
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/app/trained.h"
#include "cpa/base/log.h"
#include "cpa/data/h5ad_write.h"
#include "cpa/train/unseen.h"
#include "output_impl.h"
#include "predict_impl.h"

// A perturbation or a combination at a dose.
typedef struct entry {
    int n, *pert;    // components, owned
    double *dose_of; // [n], owned
} entry;

typedef struct embeddings {
    char *model_path;
    cpa_model_meta meta;
    cpa_pert_table *vectors, *more; // the model's and those of --pert-embeddings
    cpa_backend *be;
    cpa_model *model;
    cpa_batch *batch;
    int64_t n_entries, n_rows; // rows: the entries, then the values of every covariate
    entry *entry;
    cpa_factor kind, dose; // of the rows
    cpa_strings name, index;
    cpa_real *value; // [CPA_BLOCK, n_latent]
} embeddings;

static cpa_status open_model(embeddings *e, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_rundir_trained(o->path, &e->model_path));
    CPA_TRY(cpa_modelfile_meta(e->model_path, &e->meta));
    CPA_TRY(cpa_modelfile_vectors(NULL, e->model_path, &e->vectors));
    e->meta.vectors = e->vectors;
    if (o->pert_embeddings) {
        CPA_TRY(cpa_pert_table_read(NULL, o->pert_embeddings, NULL, &e->more));
    }
    CPA_TRY(cpa_unseen_add(&e->meta, e->more));
    CPA_TRY(cpa_backend_create(o->backend, &e->be));
    CPA_TRY(cpa_modelfile_load(e->model_path, &e->meta, e->be, CPA_BLOCK, 1, &e->model));
    CPA_TRY(
        cpa_batch_create(CPA_BLOCK, 1, (int)e->meta.gene.n, (int)e->meta.cov_name.n, e->meta.max_comb_len, &e->batch));
    CPA_TRY(cpa_alloc((size_t)(CPA_BLOCK * cpa_model_n_latent(e->model)), sizeof *e->value, &e->value));
cleanup:
    return st;
}

// A row's names; `kind` and `dose` (-1: none) are codes.
static cpa_status add_row(embeddings *e, int32_t kind, const char *name, int32_t dose)
{
    cpa_status st = CPA_OK;
    char *index = NULL;
    if ((e->n_rows & (e->n_rows - 1)) == 0) { // full at powers of two
        size_t room = (size_t)(e->n_rows > 0 ? 2 * e->n_rows : 1);
        CPA_TRY(cpa_realloc(room, sizeof *e->kind.code, &e->kind.code));
        CPA_TRY(cpa_realloc(room, sizeof *e->dose.code, &e->dose.code));
    }
    e->kind.code[e->n_rows] = kind;
    e->dose.code[e->n_rows] = dose;
    e->kind.n = e->dose.n = ++e->n_rows;
    CPA_TRY(cpa_sprintf(&index, dose >= 0 ? "%s:%s@%s" : "%s:%s", e->kind.level.s[kind], name,
                        dose >= 0 ? e->dose.level.s[dose] : ""));
    CPA_TRY(cpa_strings_add(&e->name, name));
    CPA_TRY(cpa_strings_add(&e->index, index));
cleanup:
    cpa_free(&index);
    return st;
}

static cpa_status level_of(cpa_factor *f, const char *level, int32_t *code)
{
    int64_t at = cpa_strings_find(&f->level, level);
    *code = (int32_t)(at >= 0 ? at : f->level.n);
    return at >= 0 ? CPA_OK : cpa_strings_add(&f->level, level);
}

// Adds a row of kind 0 for components that are the model's.
static cpa_status add_entry(embeddings *e, const char *name, const char *dose, int n, const int *pert,
                            const double *dose_of)
{
    cpa_status st = CPA_OK;
    int32_t code;
    if ((e->n_entries & (e->n_entries - 1)) == 0) {
        CPA_TRY(cpa_realloc((size_t)(e->n_entries > 0 ? 2 * e->n_entries : 1), sizeof *e->entry, &e->entry));
    }
    entry *to = &e->entry[e->n_entries];
    *to = (entry){.n = n};
    e->n_entries++;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *to->pert, &to->pert));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *to->dose_of, &to->dose_of));
    memcpy(to->pert, pert, (size_t)n * sizeof *pert);
    memcpy(to->dose_of, dose_of, (size_t)n * sizeof *dose_of);
    CPA_TRY(level_of(&e->dose, dose, &code));
    CPA_TRY(add_row(e, 0, name, code));
cleanup:
    return st;
}

static int components_of(const char *name)
{
    int n = 1;
    for (; *name != '\0'; name++) {
        n += *name == '+';
    }
    return n;
}

// A combination at a dose. One number is the dose of each component; several are for combinations of as many.
static cpa_status add_combination(embeddings *e, const char *name, const char *dose, int *pert, double *dose_of)
{
    cpa_status st = CPA_OK;
    cpa_text each = {0};
    int n;
    for (int i = 0; i < components_of(name); i++) {
        CPA_TRY(cpa_text_add(&each, "%s%s", i ? "+" : "", dose));
    }
    const char *doses = components_of(dose) > 1 ? dose : cpa_text_str(&each);
    CPA_TRY(cpa_condition_parse(&e->meta.pert, name, doses, e->meta.max_comb_len, pert, dose_of, &n));
    CPA_TRY(add_entry(e, name, doses, n, pert, dose_of));
cleanup:
    cpa_text_fini(&each);
    return st;
}

// Every perturbation and every combination that is asked for, at one dose.
static cpa_status add_dose(embeddings *e, const cpa_strings *combination, const char *dose, int *pert, double *dose_of)
{
    cpa_status st = CPA_OK;
    int64_t before = e->n_entries;
    int n, wanted = components_of(dose);
    if (wanted == 1) {
        CPA_TRY(cpa_condition_parse(&e->meta.pert, e->meta.pert.s[CPA_CONTROL], dose, 1, pert, dose_of, &n));
        for (int p = CPA_CONTROL; p < e->meta.pert.n; p++) {
            CPA_TRY(add_entry(e, e->meta.pert.s[p], dose, 1, &p, dose_of));
        }
    }
    for (int64_t i = 0; i < combination->n; i++) {
        if (wanted == 1 || wanted == components_of(combination->s[i])) {
            CPA_TRY(add_combination(e, combination->s[i], dose, pert, dose_of));
        }
    }
    CPA_REQUIRE(
        e->n_entries > before, CPA_BAD_DATA,
        "--dose %s is for a combination of %d perturbations, but none is asked for; name it with --perturbation", dose,
        wanted);
cleanup:
    return st;
}

// The rows, by name.
static cpa_status list_rows(embeddings *e, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_strings combination = {0}, dose = {0};
    int *pert = NULL;
    double *dose_of = NULL;
    size_t max = (size_t)e->meta.max_comb_len;
    CPA_TRY(cpa_alloc(max, sizeof *pert, &pert));
    CPA_TRY(cpa_alloc(max, sizeof *dose_of, &dose_of));
    CPA_TRY(cpa_strings_split(&combination, o->perturbation ? o->perturbation : "", ','));
    CPA_TRY(cpa_strings_split(&dose, o->dose ? o->dose : "1.0", ','));
    CPA_TRY(cpa_strings_add(&e->kind.level, "perturbation"));
    for (int64_t d = 0; d < dose.n; d++) {
        CPA_TRY(add_dose(e, &combination, dose.s[d], pert, dose_of));
    }
    for (int64_t c = 0; c < e->meta.cov_name.n; c++) {
        CPA_TRY(cpa_strings_add(&e->kind.level, e->meta.cov_name.s[c]));
        for (int64_t v = 0; v < e->meta.cov_value[c].n; v++) {
            CPA_TRY(add_row(e, (int32_t)c + 1, e->meta.cov_value[c].s[v], -1));
        }
    }
    CPA_TRY(cpa_labels_make_unique(&e->index));
cleanup:
    cpa_strings_fini(&combination);
    cpa_strings_fini(&dose);
    cpa_free(&pert);
    cpa_free(&dose_of);
    return st;
}

// Cells without counts, one per entry from `first` on: the model's own path from components and doses to a vector.
static void fill_batch(embeddings *e, int64_t first, int n)
{
    cpa_batch *b = e->batch;
    b->n_cells = n;
    b->nnz = 0;
    for (int i = 0; i < n; i++) {
        const entry *from = &e->entry[first + i];
        for (int k = 0; k < b->max_comb_len; k++) {
            b->pert[i * b->max_comb_len + k] = k < from->n ? from->pert[k] : CPA_PAD;
            b->dose[i * b->max_comb_len + k] = k < from->n ? (cpa_real)from->dose_of[k] : 0;
        }
    }
}

static cpa_status write_perturbations(embeddings *e, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    for (int64_t first = 0; first < e->n_entries; first += CPA_BLOCK) {
        int64_t left = e->n_entries - first;
        int n = (int)(left < CPA_BLOCK ? left : CPA_BLOCK);
        fill_batch(e, first, n);
        CPA_TRY(cpa_model_infer(e->model, e->batch));
        CPA_TRY(cpa_model_latent(e->model, CPA_LATENT_PERT, e->value));
        CPA_TRY(cpa_h5_write_rows(f, "X", (cpa_h5_type)CPA_H5_REAL, first, n, e->value));
    }
cleanup:
    return st;
}

static cpa_status write_covariates(embeddings *e, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    const cpa_params *t = cpa_model_params(e->model);
    char *name = NULL;
    cpa_real *host = NULL;
    int64_t first = e->n_entries;
    for (int64_t c = 0; c < e->meta.cov_name.n; c++) {
        CPA_TRY(cpa_sprintf(&name, "module/covars_embeddings.%s.weight", e->meta.cov_name.s[c]));
        int id = cpa_params_find(t, name);
        CPA_REQUIRE(id >= 0, CPA_INTERNAL, "'%s' has no tensor '%s'", e->model_path, name);
        CPA_TRY(cpa_realloc((size_t)cpa_param_size(&t->p[id]), sizeof *host, &host));
        CPA_TRY(cpa_params_get(t, t->value, id, host));
        CPA_TRY(cpa_h5_write_rows(f, "X", (cpa_h5_type)CPA_H5_REAL, first, e->meta.cov_value[c].n, host));
        first += e->meta.cov_value[c].n;
        cpa_free(&name);
    }
cleanup:
    cpa_free(&name);
    cpa_free(&host);
    return st;
}

static cpa_status write_file(embeddings *e, const char *path)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    int64_t offset, n_latent = cpa_model_n_latent(e->model);
    const cpa_note note[] = {{"mode", "embeddings"}};
    const cpa_h5ad_column column[] = {{.name = "kind", .factor = &e->kind},
                                      {.name = "name", .strings = &e->name},
                                      {.name = "dose", .factor = &e->dose}};
    CPA_TRY(cpa_h5_create(path, &f));
    CPA_TRY(cpa_h5ad_write_root(f));
    CPA_TRY(cpa_h5ad_write_frame(f, "obs", &e->index, column, sizeof column / sizeof *column));
    CPA_TRY(cpa_latent_write_var(f, n_latent));
    CPA_TRY(cpa_notes_write(f, &e->meta, NULL, note, sizeof note / sizeof *note));
    CPA_TRY(cpa_h5ad_write_matrix(f, "X", e->n_rows, n_latent, &offset));
    CPA_TRY(write_perturbations(e, f));
    CPA_TRY(write_covariates(e, f));
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    return st;
}

static void close_model(embeddings *e)
{
    for (int64_t i = 0; i < e->n_entries; i++) {
        cpa_free(&e->entry[i].pert);
        cpa_free(&e->entry[i].dose_of);
    }
    cpa_free(&e->entry);
    cpa_factor_fini(&e->kind);
    cpa_factor_fini(&e->dose);
    cpa_strings_fini(&e->name);
    cpa_strings_fini(&e->index);
    cpa_free(&e->value);
    cpa_batch_destroy(&e->batch);
    cpa_model_destroy(&e->model);
    if (e->be) {
        cpa_backend_destroy(&e->be);
    }
    cpa_model_meta_fini(&e->meta);
    cpa_pert_table_destroy(&e->vectors);
    cpa_pert_table_destroy(&e->more);
    cpa_free(&e->model_path);
}

// Rank 0's work; there is too little to share.
static cpa_status make(const cpa_options *o)
{
    cpa_status st = CPA_OK;
    embeddings e = {0};
    char *temporary = NULL;
    CPA_TRY(cpa_output_begin(o->out, &temporary));
    CPA_TRY(open_model(&e, o));
    CPA_TRY(list_rows(&e, o));
    CPA_TRY(write_file(&e, temporary));
    CPA_TRY(cpa_output_commit(temporary, o->out));
    cpa_info("%s: %lld vectors of perturbations, %lld of covariate values, from model %s", o->out,
             (long long)e.n_entries, (long long)(e.n_rows - e.n_entries), e.meta.digest);
cleanup:
    if (st != CPA_OK) {
        cpa_output_discard(temporary);
    }
    cpa_free(&temporary);
    close_model(&e);
    return st;
}

cpa_status cpa_cmd_embeddings(cpa_comm *comm, const cpa_options *o)
{
    return cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? make(o) : CPA_OK);
}
