// Owns: the file of a prediction: its skeleton, written by rank 0, and its numbers, which every rank writes into its
// own rows. The bytes do not depend on the number of ranks. Never leaves a file under the final name unless it is
// complete.
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/data/h5ad_write.h"
#include "output_impl.h"
#include "predict_impl.h"

// The matrices of the file, with a row per cell or per target.
static const char *const OF_CELLS[] = {"X", "layers/draw_variance"};
static const char *const OF_MEANS[] = {"X", "layers/variance", "layers/log_fold_change"};

typedef struct output {
    cpa_trained *t;       // borrowed
    const cpa_plan *plan; // borrowed
    const cpa_options *o; // borrowed
    bool by_cell;
    int n_matrices;
    const char *const *matrix;
    int64_t n_rows, n_genes;
} output;

static cpa_status write_obs(const output *out, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    cpa_labels l;
    cpa_h5ad_column *column = NULL;
    int n = 0;
    CPA_TRY(cpa_labels_create(out->t, out->plan, out->by_cell, &l));
    CPA_TRY(cpa_alloc((size_t)l.n_covs + 5, sizeof *column, &column));
    if (out->by_cell) {
        column[n++] = (cpa_h5ad_column){.name = "source_cell", .strings = &l.source};
    }
    column[n++] = (cpa_h5ad_column){.name = "perturbation", .factor = &l.pert};
    column[n++] = (cpa_h5ad_column){.name = "dose", .factor = &l.dose};
    for (int c = 0; c < l.n_covs; c++) {
        column[n++] = (cpa_h5ad_column){.name = l.cov_name[c], .factor = &l.cov[c]};
    }
    column[n++] = (cpa_h5ad_column){.name = "group", .factor = &l.group};
    if (!out->by_cell) {
        column[n++] = (cpa_h5ad_column){.name = "n_cells", .integer = l.n_cells};
    }
    CPA_TRY(cpa_h5ad_write_frame(f, "obs", &l.index, column, n));
cleanup:
    cpa_labels_fini(&l);
    cpa_free(&column);
    return st;
}

// What a value is, in words.
static cpa_status describe_values(const output *out, char **text)
{
    const char *library = out->o->library;
    if (cpa_trained_scale(out->t) == CPA_SCALE_GIVEN) {
        return cpa_strdup("means on the scale of the training data", text);
    }
    if (strcmp(library, "control") == 0) {
        return cpa_strdup("mean counts at the library size of the source cell", text);
    }
    return strcmp(library, "condition-mean") == 0
               ? cpa_strdup("mean counts at the mean library size of the condition's training cells", text)
               : cpa_sprintf(text, "mean counts at the library size %s", library);
}

// How the file was made.
static cpa_status write_notes(const output *out, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    const cpa_trained *t = out->t;
    cpa_strings added = {0};
    char *values = NULL, *draws = NULL;
    CPA_TRY(describe_values(out, &values));
    CPA_TRY(cpa_sprintf(&draws, "%d", t->n_draws));
    const cpa_note note[] = {
        {"mode", out->plan->mode},
        {"meaning", strcmp(out->plan->mode, "reconstruct") == 0
                        ? "reconstruction: each cell predicted as what it is, not counterfactual"
                        : "counterfactual: counts of control cells, predicted under another condition"},
        {"output", out->by_cell ? "cells" : "mean"},
        {"values", values},
        {"latent", out->o->latent},
        {"draws", draws},
        {"zinb_mean", t->decoding.thin && strcmp(t->meta.config.recon_loss, "zinb") == 0 ? "true" : "false"},
    };
    CPA_TRY(cpa_notes_write(f, &t->meta, &t->registry->spec, note, sizeof note / sizeof *note));
    for (int c = 0; c < cpa_trained_n_covs(t); c++) {
        if (cpa_trained_adds(t, c)) {
            CPA_TRY(cpa_strings_add(&added, t->meta.cov_name.s[c]));
        }
    }
    CPA_TRY(cpa_h5ad_write_list(f, "uns/cpa_hpc/added_covariates", &added));
cleanup:
    cpa_strings_fini(&added);
    cpa_free(&values);
    cpa_free(&draws);
    return st;
}

// Everything but the numbers.
static cpa_status write_skeleton(const void *ctx, const char *path, int64_t *offset)
{
    cpa_status st = CPA_OK;
    const output *out = ctx;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_create(path, &f));
    CPA_TRY(cpa_h5ad_write_root(f));
    CPA_TRY(write_obs(out, f));
    CPA_TRY(cpa_h5ad_write_frame(f, "var", &out->t->meta.gene, NULL, 0));
    if (out->n_matrices > 1) {
        CPA_TRY(cpa_h5ad_write_dict(f, "layers"));
    }
    CPA_TRY(write_notes(out, f));
    for (int m = 0; m < out->n_matrices; m++) {
        CPA_TRY(cpa_h5ad_write_matrix(f, out->matrix[m], out->n_rows, out->n_genes, &offset[m]));
    }
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    return st;
}

// The cells of this rank's blocks, in the order of the rows. Collective.
static cpa_status list_cells(const output *out, const cpa_row_file *file, int64_t **cell)
{
    cpa_status st;
    int64_t n = 0;
    st = cpa_alloc((size_t)(file->n_mine * CPA_BLOCK), sizeof **cell, cell);
    CPA_TRY(cpa_comm_agree(out->t->comm, st));
    for (int64_t k = 0; k < file->n_mine; k++) {
        int64_t first = file->mine[k] * CPA_BLOCK;
        for (int i = 0; i < cpa_row_file_rows(file, file->mine[k]); i++) {
            cpa_plan_row(out->plan, first + i, &(*cell)[n++]);
        }
    }
    CPA_TRY(out->t->feed ? cpa_trained_list(out->t, *cell, n) : CPA_OK);
cleanup:
    return st;
}

// A row per cell: this rank's share of the blocks of rows. Fails on this rank alone only after its collective calls.
static cpa_status fill_cells(const output *out, cpa_row_file *file)
{
    cpa_status st = CPA_OK;
    const cpa_target *as[CPA_BLOCK];
    int64_t cell[CPA_BLOCK], *all = NULL;
    CPA_TRY(list_cells(out, file, &all));
    for (int64_t k = 0; k < file->n_mine; k++) {
        int64_t block = file->mine[k];
        int n = cpa_row_file_rows(file, block);
        for (int i = 0; i < n; i++) {
            as[i] = cpa_plan_row(out->plan, block * CPA_BLOCK + i, &cell[i]);
        }
        CPA_TRY(cpa_trained_predict(out->t, cell, as, n));
        CPA_TRY(cpa_row_file_write(file, 0, block, out->t->means));
        if (out->n_matrices > 1) {
            CPA_TRY(cpa_row_file_write(file, 1, block, out->t->spread));
        }
        cpa_progress(false, "predicted %lld of %lld blocks of rank 0", (long long)k + 1, (long long)file->n_mine);
    }
cleanup:
    cpa_free(&all);
    return st;
}

// To base 2: of the mean CP10k, or of values that are logarithms already (`given`) their difference.
static double log_fold_change(bool given, const cpa_profile *p, const cpa_profile *control, int64_t g)
{
    return given ? (p->mean[g] - control->mean[g]) / log(2) : log2((p->cp10k[g] + 1) / (control->cp10k[g] + 1));
}

// The three rows of a target. `control` is the profile of the cells that it is compared with.
static cpa_status write_target(const output *out, cpa_row_file *file, int64_t row, const cpa_profile *p,
                               const cpa_profile *control, cpa_real *value)
{
    cpa_status st = CPA_OK;
    double weight = p->v[0];
    bool given = cpa_trained_scale(out->t) == CPA_SCALE_GIVEN;
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)p->mean[g];
    }
    CPA_TRY(cpa_row_file_write(file, 0, row, value));
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)(p->m2[g] / weight);
    }
    CPA_TRY(cpa_row_file_write(file, 1, row, value));
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)(control->v[0] > 0 ? log_fold_change(given, p, control, g) : NAN);
    }
    CPA_TRY(cpa_row_file_write(file, 2, row, value));
cleanup:
    return st;
}

// A row per target: all ranks compute, rank 0 writes. Collective; ends with the same status everywhere.
static cpa_status fill_means(const output *out, cpa_row_file *file)
{
    cpa_status st = CPA_OK;
    cpa_profile p = {0}, control = {0};
    const int64_t *compared = NULL;
    cpa_real *value = NULL;
    bool writer = cpa_comm_rank(out->t->comm) == 0;
    st = cpa_profile_init(&p, (int)out->n_genes);
    st = st == CPA_OK ? cpa_profile_init(&control, (int)out->n_genes) : st;
    st = st == CPA_OK ? cpa_alloc((size_t)out->n_genes, sizeof *value, &value) : st;
    CPA_TRY(cpa_comm_agree(out->t->comm, st));
    for (int64_t i = 0; i < out->plan->n; i++) {
        const cpa_target *target = &out->plan->target[i];
        if (file->there[i]) {
            continue;
        }
        CPA_TRY(cpa_trained_profile(out->t, target, CPA_SCALE_COUNTS, &p));
        if (writer && (compared == NULL || target->control != compared)) {
            cpa_profile_of_cells(&control, out->t->cells, target->control, target->n_control, CPA_SCALE_COUNTS);
            compared = target->control;
        }
        CPA_TRY(cpa_comm_agree(out->t->comm, writer ? write_target(out, file, i, &p, &control, value) : CPA_OK));
        cpa_progress(false, "predicted %lld of %lld conditions", (long long)i + 1, (long long)out->plan->n);
    }
cleanup:
    cpa_profile_fini(&p);
    cpa_profile_fini(&control);
    cpa_free(&value);
    return st;
}

cpa_status cpa_predict_check_place(const cpa_options *o)
{
    cpa_status st = CPA_OK;
    struct stat data, out;
    bool same = stat(o->data_path, &data) == 0 && stat(o->out, &out) == 0 && data.st_dev == out.st_dev &&
                data.st_ino == out.st_ino;
    CPA_REQUIRE(!same, CPA_CONFIG, "--out '%s' is the data file itself; name another file", o->out);
    CPA_TRY(cpa_output_check(o->out));
cleanup:
    return st;
}

cpa_status cpa_predict_write(cpa_trained *t, const cpa_options *o, const cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    bool by_cell = strcmp(o->output, "cells") == 0;
    cpa_row_file file = {0};
    const output out = {.t = t,
                        .plan = plan,
                        .o = o,
                        .by_cell = by_cell,
                        .n_matrices = !by_cell         ? 3
                                      : t->n_draws > 1 ? 2
                                                       : 1,
                        .matrix = by_cell ? OF_CELLS : OF_MEANS,
                        .n_rows = by_cell ? plan->first[plan->n] : plan->n,
                        .n_genes = t->meta.gene.n};
    const cpa_row_plan rows = {.comm = t->comm,
                               .out = o->out,
                               .inputs = cpa_plan_digest(t, plan),
                               .n_rows = out.n_rows,
                               .n_cols = out.n_genes,
                               .block = by_cell ? CPA_BLOCK : 1,
                               .n_matrices = out.n_matrices,
                               .write_skeleton = write_skeleton,
                               .ctx = &out};
    cpa_comm_phase("predicting");
    CPA_TRY(cpa_row_file_open(&rows, &file));
    CPA_TRY(by_cell ? cpa_comm_agree(t->comm, fill_cells(&out, &file)) : fill_means(&out, &file));
    CPA_TRY(cpa_row_file_commit(&file));
    cpa_info("%s: %lld rows x %lld genes, %s (%s), from model %s", o->out, (long long)out.n_rows,
             (long long)out.n_genes, plan->mode, o->output, t->meta.digest);
cleanup:
    cpa_row_file_fini(&file);
    return st;
}
