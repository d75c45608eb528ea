// Owns: the command `train`: from an .h5ad to a run folder. Never computes: it puts the parts together and reports.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/app/runlog.h"
#include "cpa/base/log.h"
#include "cpa/platform/binding.h"
#include "cpa/train/modelfile.h"
#include "cpa/train/trainer.h"

// Everything a training run holds.
typedef struct train_run {
    cpa_comm *comm;      // borrowed
    cpa_options options; // resolved
    cpa_h5ad *file;
    cpa_registry *registry;
    cpa_cells *cells;
    cpa_strings gene;
    cpa_rundir *dir;
    cpa_runlog *log;
    cpa_backend *be;
    cpa_sampler *sampler;
    cpa_model *model;
    cpa_history *history;
    double started;
} train_run;

// Reads metadata and counts; what is wrong is wrong on all ranks.
static cpa_status read_data(train_run *t, const char *path)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_comm_agree(t->comm, cpa_h5ad_open(path, &t->file)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_registry_create(t->file, &t->options.data, true, &t->registry)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_h5ad_index(t->file, "var", &t->gene)));
    CPA_TRY(cpa_cells_load(t->comm, t->file, t->registry->spec.layer, &t->cells));
cleanup:
    return st;
}

// The training cells in file order, dealt to lanes.
static cpa_status make_sampler(train_run *t)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    const cpa_train_config *c = &t->options.train;
    int64_t *cell = NULL, n = 0, window = 0;
    int block = 1;
    if (c->shuffle[0] != 'f') { // not "full"
        cpa_sampler_default(c->shuffle[0] == 'b' ? INT64_MAX : r->n_train, &block, &window);
    }
    CPA_TRY(cpa_alloc((size_t)r->n_train, sizeof *cell, &cell));
    for (int64_t i = 0; i < r->n_cells; i++) {
        if (r->split[i] == CPA_SPLIT_TRAIN) {
            cell[n++] = i;
        }
    }
    st = cpa_sampler_create(cell, n, c->lanes, c->batch_size, block, window, (uint64_t)t->options.model.seed,
                            &t->sampler);
    CPA_REQUIRE(st == CPA_OK, st, "%s: %s", cpa_h5ad_path(t->file), cpa_message());
cleanup:
    cpa_free(&cell);
    return st;
}

static cpa_status make_model(train_run *t)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    const char **name = NULL;
    int *size = NULL;
    cpa_shape s = {.n_genes = r->n_genes,
                   .n_perts = (int)r->pert.n,
                   .n_labels = (int)r->label.n,
                   .n_covs = r->n_covs,
                   .max_comb_len = r->max_comb_len,
                   .batch_cov = r->spec.batch_key && r->spec.batch_key[0] ? r->n_covs - 1 : -1,
                   .max_cells = t->options.train.batch_size + 2,
                   .mixup = t->options.train.mixup_alpha > 0};
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *name, &name));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *size, &size));
    for (int c = 0; c < r->n_covs; c++) {
        name[c] = r->cov[c].name;
        size[c] = (int)r->cov[c].value.n;
    }
    s.cov_name = name;
    s.cov_size = size;
    CPA_TRY(cpa_loader_max_nnz(t->cells, s.max_cells, &s.max_nnz));
    CPA_TRY(cpa_backend_create(t->options.backend, &t->be));
    CPA_TRY(cpa_model_create(t->be, &t->options.model, &s, true, r->label_weight, r->deg, &t->model));
    CPA_TRY(cpa_params_init(cpa_model_params(t->model), (uint64_t)t->options.model.seed));
cleanup:
    cpa_free(&name);
    cpa_free(&size);
    return st;
}

static void describe(const train_run *t)
{
    const cpa_registry *r = t->registry;
    cpa_info("%lld cells x %d genes, %lld values in %.1f MB; %lld train, %lld validate, %lld held out",
             (long long)r->n_cells, r->n_genes, (long long)t->cells->nnz, (double)t->cells->bytes / 1e6,
             (long long)r->n_train, (long long)r->n_valid, (long long)r->n_test);
    cpa_info("%d perturbations, %d conditions, %d covariates, %d categories; %lld steps an epoch; %d rank%s (%s), %d "
             "lane%s of %d cells",
             (int)r->pert.n - 2, r->n_conditions, r->n_covs, r->n_categories, (long long)cpa_sampler_steps(t->sampler),
             cpa_comm_size(t->comm), cpa_comm_size(t->comm) == 1 ? "" : "s", cpa_comm_name(t->comm),
             t->options.train.lanes, t->options.train.lanes == 1 ? "" : "s", t->options.train.batch_size);
}

// Where the ranks run, a line each; with one rank only what is wrong with that.
static cpa_status describe_binding(train_run *t)
{
    cpa_status st = CPA_OK;
    cpa_text table = {0}, problems = {0};
    char *line, *rest = NULL;
    CPA_TRY(cpa_binding_describe(t->comm, &table, &problems));
    if (cpa_comm_size(t->comm) > 1) {
        for (line = strtok_r(table.s, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
            cpa_info("%s", line);
        }
    }
    for (line = problems.s ? strtok_r(problems.s, "\n", &rest) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        cpa_warn("%s", line);
    }
cleanup:
    cpa_text_fini(&table);
    cpa_text_fini(&problems);
    return st;
}

static cpa_status report_epoch(void *ctx, const cpa_epoch_report *e)
{
    train_run *t = ctx;
    double elapsed = cpa_seconds() - t->started,
           left = elapsed / (double)(e->epoch + 1) * (double)(e->n_epochs - e->epoch - 1);
    char metric[64] = "";
    if (e->validated) {
        snprintf(metric, sizeof metric, ", cpa_metric %.4f%s", e->cpa_metric, e->is_best ? " (best)" : "");
    }
    cpa_progress(e->validated || e->epoch == 0,
                 "epoch %lld/%lld: recon_loss %.4f, r2_mean %.4f%s; %.0f cells/s, %.0f s left", (long long)e->epoch + 1,
                 (long long)e->n_epochs, e->recon_loss, e->r2_mean, metric, (double)e->cells / e->seconds, left);
    const cpa_runlog_field fields[] = {{.name = "epoch", .number = (double)e->epoch},
                                       {.name = "recon_loss", .number = e->recon_loss},
                                       {.name = "cpa_metric", .number = e->validated ? e->cpa_metric : NAN},
                                       {.name = "cells_per_s", .number = (double)e->cells / e->seconds}};
    return cpa_comm_agree(t->comm, cpa_runlog_event(t->log, "epoch", fields, 4));
}

// config.yaml with every option as it was resolved.
static cpa_status write_config(train_run *t)
{
    cpa_status st = CPA_OK;
    const char *path;
    cpa_data_spec_fini(&t->options.data);
    CPA_TRY(cpa_data_spec_copy(&t->registry->spec, &t->options.data));
    t->options.train.max_epochs = cpa_schedule_epochs(&t->options.train, t->registry->n_cells);
    CPA_TRY(cpa_rundir_file(t->dir, "config.yaml", &path));
    if (cpa_comm_rank(t->comm) == 0) {
        CPA_TRY(cpa_options_write(&t->options, path));
    }
cleanup:
    return st;
}

static cpa_status set_up(train_run *t, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_comm_agree(t->comm, cpa_options_copy(o, &t->options)));
    CPA_TRY(cpa_rundir_create(t->comm, o->out, &t->dir));
    CPA_TRY(cpa_runlog_open(t->comm, t->dir, &t->log));
    CPA_TRY(cpa_runlog_stage(t->log, t->comm, "start"));
    CPA_TRY(read_data(t, o->path));
    CPA_TRY(cpa_comm_agree(t->comm, make_sampler(t)));
    CPA_TRY(cpa_comm_agree(t->comm, make_model(t)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_history_create(t->registry, &t->history)));
    CPA_TRY(cpa_comm_agree(t->comm, write_config(t)));
    CPA_TRY(cpa_runlog_stage(t->log, t->comm, "setup"));
    describe(t);
    CPA_TRY(describe_binding(t));
cleanup:
    return st;
}

// model.h5 and history.csv, by rank 0.
static cpa_status write_results(train_run *t)
{
    cpa_status st = CPA_OK;
    cpa_model_meta meta = {0};
    const char *model, *history;
    CPA_TRY(cpa_rundir_file(t->dir, "model.h5", &model));
    CPA_TRY(cpa_rundir_file(t->dir, "history.csv", &history));
    if (cpa_comm_rank(t->comm) == 0) {
        const char *csv = cpa_history_csv(t->history);
        CPA_TRY(cpa_model_meta_of(t->registry, &t->gene, &t->options.model, &meta));
        CPA_TRY(cpa_output_write(history, csv, strlen(csv)));
        CPA_TRY(cpa_modelfile_save(model, cpa_model_params(t->model), &meta));
    }
cleanup:
    cpa_model_meta_fini(&meta);
    return st;
}

static void report_end(const train_run *t, const cpa_train_summary *s)
{
    if (s->best_epoch >= 0) {
        cpa_info("%s after %lld epochs, %.0f cells/s; best epoch %lld, cpa_metric %.4f; model in %s/model.h5",
                 s->stopped_early ? "stopped early" : "done", (long long)s->epochs, (double)s->cells / s->seconds,
                 (long long)s->best_epoch + 1, s->best_metric, cpa_rundir_path(t->dir));
    } else {
        cpa_info("done after %lld epochs, %.0f cells/s; no validation cells, so the last state; model in %s/model.h5",
                 (long long)s->epochs, (double)s->cells / s->seconds, cpa_rundir_path(t->dir));
    }
}

static void tear_down(train_run *t, bool keep)
{
    cpa_runlog_close(&t->log);
    cpa_rundir_close(&t->dir, keep);
    cpa_history_destroy(&t->history);
    cpa_model_destroy(&t->model);
    cpa_sampler_destroy(&t->sampler);
    cpa_backend_destroy(&t->be);
    cpa_cells_destroy(&t->cells);
    cpa_registry_destroy(&t->registry);
    cpa_strings_fini(&t->gene);
    cpa_h5ad_close(&t->file);
    cpa_options_fini(&t->options);
}

cpa_status cpa_cmd_train(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    train_run t = {.comm = comm};
    cpa_train_summary summary;
    CPA_TRY(set_up(&t, o));
    t.started = cpa_seconds();
    cpa_step_parts parts = {.comm = comm,
                            .be = t.be,
                            .model = t.model,
                            .cells = t.cells,
                            .registry = t.registry,
                            .sampler = t.sampler,
                            .config = &t.options.train,
                            .seed = (uint64_t)t.options.model.seed};
    CPA_TRY(cpa_train(&parts, t.history, &(cpa_train_hooks){report_epoch, &t}, &summary));
    CPA_TRY(cpa_comm_agree(comm, write_results(&t)));
    CPA_TRY(cpa_runlog_stage(t.log, comm, "trained"));
    report_end(&t, &summary);
cleanup:
    tear_down(&t, st == CPA_OK);
    return st;
}
