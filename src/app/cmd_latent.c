// Owns: the command `latent`: which latents of which cells, and the file that holds them. Never runs the decoder, and
// never leaves a file under the final name unless it is complete.
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/data/h5ad_write.h"
#include "output_impl.h"
#include "predict_impl.h"

enum { MOST_KINDS = 6 }; // each once

typedef struct latent_run {
    cpa_trained t;
    cpa_plan plan; // one target: the cells, each as what it is
    int n_kinds;
    const cpa_latent_kind *kind[MOST_KINDS];
    int64_t n_rows, n_latent;
    cpa_real *value;      // [CPA_BLOCK, n_latent]
    const cpa_options *o; // borrowed
} latent_run;

static cpa_status choose_kinds(const cpa_strings *which, latent_run *r)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < which->n; i++) {
        const cpa_latent_kind *found = cpa_latent_find(which->s[i]);
        CPA_REQUIRE(found, CPA_USAGE,
                    "--which: there is no latent '%s'; there are basal, after, corrected, no_pert, no_pert_corrected "
                    "and covs",
                    which->s[i]);
        for (int k = 0; k < r->n_kinds; k++) {
            CPA_REQUIRE(r->kind[k] != found, CPA_USAGE, "--which names '%s' twice", which->s[i]);
        }
        r->kind[r->n_kinds++] = found;
    }
    CPA_REQUIRE(r->n_kinds > 0, CPA_USAGE, "--which names no latent");
cleanup:
    return st;
}

static cpa_status check_options(const cpa_options *o, latent_run *r)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(!o->cells || !o->split, CPA_CONFIG, "--cells and --split contradict each other; give one of them");
    CPA_TRY(choose_kinds(&o->which, r));
    CPA_TRY(cpa_predict_check_place(o));
cleanup:
    return st;
}

// Which cells, each as what it is. Only what a latent contains needs to be known to the model: every cell has a basal one.
static cpa_status make_plan(latent_run *r, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_target own = {.own = true, .category = -1};
    r->plan.mode = "latent";
    r->t.parts = 0;
    for (int k = 0; k < r->n_kinds; k++) {
        r->t.parts |= r->kind[k]->parts;
    }
    CPA_TRY(cpa_choose_asked(&r->t, o, &r->plan.list));
    own.n_cells = r->plan.list.n;
    own.cell = r->plan.list.cell;
    CPA_TRY(cpa_trained_check(&r->t, &own));
    CPA_TRY(cpa_plan_add(&r->plan, &own));
    CPA_TRY(cpa_plan_number_rows(&r->plan));
    r->n_rows = r->plan.list.n;
    r->n_latent = cpa_model_n_latent(r->t.model);
    CPA_TRY(cpa_alloc((size_t)(CPA_BLOCK * r->n_latent), sizeof *r->value, &r->value));
cleanup:
    return st;
}

// The split of every row: the column that the run's split is in, where the file has it; else the random split, where
// cells were asked for by it.
static cpa_status find_splits(const latent_run *r, const cpa_options *o, cpa_factor *out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *registry = r->t.registry;
    cpa_data_spec spec = {0};
    cpa_factor column = {0};
    CPA_TRY(cpa_data_spec_copy(&r->t.meta.spec, &spec));
    CPA_TRY(cpa_spec_override(o, &spec));
    const char *key = spec.split_key ? spec.split_key : "split"; // which is what it is inferred to be
    bool in_file = *key && cpa_h5ad_has_column(r->t.file, "obs", key);
    if (!in_file && !o->split) {
        goto cleanup;
    }
    CPA_TRY(cpa_alloc((size_t)r->n_rows, sizeof *out->code, &out->code));
    out->n = r->n_rows;
    if (in_file) {
        CPA_TRY(cpa_h5ad_factor(r->t.file, "obs", key, &column));
        CPA_TRY(cpa_strings_copy(&column.level, &out->level));
    } else {
        CPA_TRY(cpa_strings_add(&out->level, registry->spec.train_split));
        CPA_TRY(cpa_strings_add(&out->level, registry->spec.valid_split));
        CPA_TRY(cpa_strings_add(&out->level, registry->spec.test_split));
    }
    for (int64_t i = 0; i < r->n_rows; i++) {
        int64_t cell = r->plan.list.cell[i];
        out->code[i] = in_file ? column.code[cell] : registry->split[cell] - CPA_SPLIT_TRAIN;
    }
cleanup:
    cpa_data_spec_fini(&spec);
    cpa_factor_fini(&column);
    return st;
}

static cpa_status write_obs(const latent_run *r, const cpa_options *o, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    cpa_labels l = {0};
    cpa_factor split = {0};
    cpa_h5ad_column *column = NULL;
    int n = 0;
    CPA_TRY(cpa_labels_create(&r->t, &r->plan, true, &l));
    CPA_TRY(cpa_labels_make_unique(&l.source)); // a file of cells may name one twice
    CPA_TRY(find_splits(r, o, &split));
    CPA_TRY(cpa_alloc((size_t)l.n_covs + 4, sizeof *column, &column));
    column[n++] = (cpa_h5ad_column){.name = "perturbation", .factor = &l.pert};
    column[n++] = (cpa_h5ad_column){.name = "dose", .factor = &l.dose};
    for (int c = 0; c < l.n_covs; c++) {
        column[n++] = (cpa_h5ad_column){.name = l.cov_name[c], .factor = &l.cov[c]};
    }
    if (split.n > 0) {
        column[n++] = (cpa_h5ad_column){.name = "split", .factor = &split};
    }
    column[n++] = (cpa_h5ad_column){.name = "category", .factor = &l.group};
    CPA_TRY(cpa_h5ad_write_frame(f, "obs", &l.source, column, n));
cleanup:
    cpa_labels_fini(&l);
    cpa_factor_fini(&split);
    cpa_free(&column);
    return st;
}

static cpa_status write_notes(const latent_run *r, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    cpa_strings which = {0};
    const cpa_note note[] = {{"mode", r->plan.mode}, {"x", r->kind[0]->name}};
    CPA_TRY(cpa_notes_write(f, &r->t.meta, &r->t.registry->spec, note, sizeof note / sizeof *note));
    for (int k = 0; k < r->n_kinds; k++) {
        CPA_TRY(cpa_strings_add(&which, r->kind[k]->name));
    }
    CPA_TRY(cpa_h5ad_write_list(f, "uns/cpa_hpc/which", &which));
cleanup:
    cpa_strings_fini(&which);
    return st;
}

// Everything but the numbers: X is the first latent, obsm holds every one.
static cpa_status write_skeleton(const void *ctx, const char *to, int64_t *offset)
{
    cpa_status st = CPA_OK;
    const latent_run *r = ctx;
    cpa_h5 *f = NULL;
    char *path = NULL;
    CPA_TRY(cpa_h5_create(to, &f));
    CPA_TRY(cpa_h5ad_write_root(f));
    CPA_TRY(write_obs(r, r->o, f));
    CPA_TRY(cpa_latent_write_var(f, r->n_latent));
    CPA_TRY(write_notes(r, f));
    CPA_TRY(cpa_h5ad_write_dict(f, "obsm"));
    CPA_TRY(cpa_h5ad_write_matrix(f, "X", r->n_rows, r->n_latent, &offset[0]));
    for (int k = 0; k < r->n_kinds; k++) {
        CPA_TRY(cpa_sprintf(&path, "obsm/latent_%s", r->kind[k]->name));
        CPA_TRY(cpa_h5ad_write_matrix(f, path, r->n_rows, r->n_latent, &offset[1 + k]));
        cpa_free(&path);
    }
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_free(&path);
    cpa_h5_close(&f);
    return st;
}

static cpa_status fill_block(latent_run *r, cpa_row_file *file, int64_t block)
{
    cpa_status st = CPA_OK;
    const cpa_target *as[CPA_BLOCK];
    int n = cpa_row_file_rows(file, block);
    for (int i = 0; i < n; i++) {
        as[i] = &r->plan.target[0];
    }
    CPA_TRY(cpa_trained_encode(&r->t, r->plan.list.cell + block * CPA_BLOCK, as, n));
    for (int k = 0; k < r->n_kinds; k++) {
        CPA_TRY(cpa_model_latent(r->t.model, r->kind[k]->parts, r->value));
        if (k == 0) {
            CPA_TRY(cpa_row_file_write(file, 0, block, r->value));
        }
        CPA_TRY(cpa_row_file_write(file, 1 + k, block, r->value));
    }
cleanup:
    return st;
}

// This rank's share of the blocks. Fails on this rank alone only after its collective calls.
static cpa_status fill(latent_run *r, cpa_row_file *file)
{
    cpa_status st = CPA_OK;
    int64_t n = 0, *cell = NULL;
    st = cpa_alloc((size_t)(file->n_mine * CPA_BLOCK), sizeof *cell, &cell);
    CPA_TRY(cpa_comm_agree(r->t.comm, st));
    for (int64_t k = 0; k < file->n_mine; k++) {
        int n_rows = cpa_row_file_rows(file, file->mine[k]);
        memcpy(cell + n, r->plan.list.cell + file->mine[k] * CPA_BLOCK, (size_t)n_rows * sizeof *cell);
        n += n_rows;
    }
    CPA_TRY(cpa_trained_list(&r->t, cell, n));
    for (int64_t k = 0; k < file->n_mine; k++) {
        CPA_TRY(fill_block(r, file, file->mine[k]));
        cpa_progress(false, "encoded %lld of %lld blocks of rank 0", (long long)k + 1, (long long)file->n_mine);
    }
cleanup:
    cpa_free(&cell);
    return st;
}

static cpa_status write_file(latent_run *r)
{
    cpa_status st = CPA_OK;
    cpa_comm *comm = r->t.comm;
    cpa_row_file file = {0};
    const cpa_row_plan rows = {.comm = comm,
                               .out = r->o->out,
                               .inputs = cpa_plan_digest(&r->t, &r->plan),
                               .n_rows = r->n_rows,
                               .n_cols = r->n_latent,
                               .block = CPA_BLOCK,
                               .n_matrices = 1 + r->n_kinds,
                               .write_skeleton = write_skeleton,
                               .ctx = r};
    cpa_comm_phase("encoding");
    CPA_TRY(cpa_row_file_open(&rows, &file));
    CPA_TRY(cpa_comm_agree(comm, fill(r, &file)));
    CPA_TRY(cpa_row_file_commit(&file));
    cpa_info("%s: %lld cells x %lld dimensions, from model %s", r->o->out, (long long)r->n_rows, (long long)r->n_latent,
             r->t.meta.digest);
cleanup:
    cpa_row_file_fini(&file);
    return st;
}

cpa_status cpa_cmd_latent(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    latent_run r = {.o = o};
    CPA_TRY(cpa_comm_agree(comm, check_options(o, &r)));
    CPA_TRY(cpa_trained_open(comm, o, (cpa_trained_needs){.splits = o->split != NULL, .listed = true}, &r.t));
    CPA_TRY(cpa_comm_agree(comm, make_plan(&r, o)));
    CPA_TRY(write_file(&r));
cleanup:
    cpa_free(&r.value);
    cpa_plan_fini(&r.plan);
    cpa_trained_close(&r.t);
    return st;
}
