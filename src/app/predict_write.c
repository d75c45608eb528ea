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

// The matrices of the file and where they begin.
enum { MATRIX_X, MATRIX_VARIANCE, MATRIX_CHANGE, MATRIX_DRAWS, N_MATRICES };
static const char *const MATRIX[N_MATRICES] = {"X", "layers/variance", "layers/log_fold_change",
                                               "layers/draw_variance"};

typedef struct output {
    cpa_trained *t;       // borrowed
    const cpa_plan *plan; // borrowed
    const cpa_options *o; // borrowed
    bool by_cell;
    bool has[N_MATRICES];
    cpa_row_file file;
    int64_t n_rows, n_genes;
    int64_t offset[N_MATRICES];
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

// Everything but the numbers. Rank 0 only.
static cpa_status write_skeleton(output *out)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_create(out->file.temporary, &f));
    CPA_TRY(cpa_h5ad_write_root(f));
    CPA_TRY(write_obs(out, f));
    CPA_TRY(cpa_h5ad_write_frame(f, "var", &out->t->meta.gene, NULL, 0));
    if (!out->by_cell || out->has[MATRIX_DRAWS]) {
        CPA_TRY(cpa_h5ad_write_dict(f, "layers"));
    }
    CPA_TRY(write_notes(out, f));
    for (int m = 0; m < N_MATRICES; m++) {
        if (out->has[m]) {
            CPA_TRY(cpa_h5ad_write_matrix(f, MATRIX[m], out->n_rows, out->n_genes, &out->offset[m]));
        }
    }
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    return st;
}

// Writes rows [first, first + n) of a matrix, n at most CPA_BLOCK.
static cpa_status write_rows(const output *out, int matrix, int64_t first, int n, const cpa_real *value)
{
    return cpa_row_file_write(&out->file, out->offset[matrix], first, n, out->n_genes, value);
}

// A row per cell: this rank's share of the blocks of rows.
static cpa_status fill_cells(const output *out)
{
    cpa_status st = CPA_OK;
    int64_t n_blocks = (out->n_rows + CPA_BLOCK - 1) / CPA_BLOCK, ranks = cpa_comm_size(out->t->comm),
            rank = cpa_comm_rank(out->t->comm);
    int64_t begin = n_blocks * rank / ranks, end = n_blocks * (rank + 1) / ranks;
    const cpa_target *as[CPA_BLOCK];
    int64_t cell[CPA_BLOCK];
    for (int64_t b = begin; b < end; b++) {
        int64_t first = b * CPA_BLOCK, left = out->n_rows - first;
        int n = (int)(left < CPA_BLOCK ? left : CPA_BLOCK);
        for (int i = 0; i < n; i++) {
            as[i] = cpa_plan_row(out->plan, first + i, &cell[i]);
        }
        CPA_TRY(cpa_trained_predict(out->t, cell, as, n));
        CPA_TRY(write_rows(out, MATRIX_X, first, n, out->t->means));
        if (out->has[MATRIX_DRAWS]) {
            CPA_TRY(write_rows(out, MATRIX_DRAWS, first, n, out->t->spread));
        }
        cpa_progress(false, "predicted %lld of %lld rows of rank 0", (long long)(first + n - begin * CPA_BLOCK),
                     (long long)((end < n_blocks ? end * CPA_BLOCK : out->n_rows) - begin * CPA_BLOCK));
    }
cleanup:
    return st;
}

// To base 2: of the mean CP10k, or of values that are logarithms already (`given`) their difference.
static double log_fold_change(bool given, const cpa_profile *p, const cpa_profile *control, int64_t g)
{
    return given ? (p->mean[g] - control->mean[g]) / log(2) : log2((p->cp10k[g] + 1) / (control->cp10k[g] + 1));
}

// The three rows of a target. `control` is the profile of the cells that it is compared with.
static cpa_status write_target(const output *out, int64_t row, const cpa_profile *p, const cpa_profile *control,
                               cpa_real *value)
{
    cpa_status st = CPA_OK;
    double weight = p->v[0];
    bool given = cpa_trained_scale(out->t) == CPA_SCALE_GIVEN;
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)p->mean[g];
    }
    CPA_TRY(write_rows(out, MATRIX_X, row, 1, value));
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)(p->m2[g] / weight);
    }
    CPA_TRY(write_rows(out, MATRIX_VARIANCE, row, 1, value));
    for (int64_t g = 0; g < out->n_genes; g++) {
        value[g] = (cpa_real)(control->v[0] > 0 ? log_fold_change(given, p, control, g) : NAN);
    }
    CPA_TRY(write_rows(out, MATRIX_CHANGE, row, 1, value));
cleanup:
    return st;
}

// A row per target: all ranks compute, rank 0 writes. Collective; ends with the same status everywhere.
static cpa_status fill_means(const output *out)
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
        CPA_TRY(cpa_trained_profile(out->t, target, CPA_SCALE_COUNTS, &p));
        if (writer && (i == 0 || target->control != compared)) {
            cpa_profile_of_cells(&control, out->t->cells, target->control, target->n_control, CPA_SCALE_COUNTS);
            compared = target->control;
        }
        CPA_TRY(cpa_comm_agree(out->t->comm, writer ? write_target(out, i, &p, &control, value) : CPA_OK));
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
    char *temporary = NULL;
    struct stat data, out;
    bool same = stat(o->data_path, &data) == 0 && stat(o->out, &out) == 0 && data.st_dev == out.st_dev &&
                data.st_ino == out.st_ino;
    CPA_REQUIRE(!same, CPA_CONFIG, "--out '%s' is the data file itself; name another file", o->out);
    CPA_TRY(cpa_output_begin(o->out, &temporary));
cleanup:
    cpa_free(&temporary);
    return st;
}

cpa_status cpa_predict_write(cpa_trained *t, const cpa_options *o, const cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    bool by_cell = strcmp(o->output, "cells") == 0, writer = cpa_comm_rank(t->comm) == 0;
    output out = {.t = t,
                  .plan = plan,
                  .o = o,
                  .by_cell = by_cell,
                  .has = {true, !by_cell, !by_cell, by_cell && t->n_draws > 1},
                  .file = {.fd = -1},
                  .n_rows = by_cell ? plan->first[plan->n] : plan->n,
                  .n_genes = t->meta.gene.n};
    cpa_comm_phase("predicting");
    CPA_TRY(cpa_comm_agree(t->comm, cpa_output_begin(o->out, &out.file.temporary)));
    CPA_TRY(cpa_comm_agree(t->comm, writer ? write_skeleton(&out) : CPA_OK));
    CPA_TRY(cpa_comm_bcast(t->comm, out.offset, sizeof out.offset, 0));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_row_file_open(&out.file, CPA_BLOCK * out.n_genes)));
    CPA_TRY(by_cell ? cpa_comm_agree(t->comm, fill_cells(&out)) : fill_means(&out));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_row_file_close(&out.file)));
    CPA_TRY(cpa_comm_agree(t->comm, writer ? cpa_output_commit(out.file.temporary, o->out) : CPA_OK));
    cpa_info("%s: %lld rows x %lld genes, %s (%s), from model %s", o->out, (long long)out.n_rows,
             (long long)out.n_genes, plan->mode, o->output, t->meta.digest);
cleanup:
    if (st != CPA_OK && writer) {
        cpa_output_discard(out.file.temporary);
    }
    cpa_row_file_fini(&out.file);
    return st;
}
