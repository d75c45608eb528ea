// Owns: the command `train`: from an .h5ad to a run folder. Never computes: it puts the parts together and reports.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/base/log.h"
#include "cpa/base/signals.h"
#include "train_impl.h"

static cpa_status report_epoch(void *ctx, const cpa_epoch_report *e)
{
    cpa_train_run *t = ctx;
    double elapsed = cpa_seconds() - t->started,
           left = elapsed / (double)(e->epoch + 1 - t->first_epoch) * (double)(e->n_epochs - e->epoch - 1);
    char metric[64] = "", r2[32] = "";
    size_t rss, high;
    if (e->validated) {
        snprintf(metric, sizeof metric, ", cpa_metric %.4f%s", e->cpa_metric, e->is_best ? " (best)" : "");
    }
    if (!isnan(e->r2_mean)) { // else no batch of the epoch was measured
        snprintf(r2, sizeof r2, ", r2_mean %.4f", e->r2_mean);
    }
    cpa_progress(e->validated || e->epoch == 0, "epoch %lld/%lld: recon_loss %.4f%s%s; %.0f cells/s, %.0f s left",
                 (long long)e->epoch + 1, (long long)e->n_epochs, e->recon_loss, r2, metric,
                 (double)e->cells / e->seconds, left);
    cpa_rss(&rss, &high);
    const cpa_runlog_field fields[] = {{.name = "epoch", .number = (double)e->epoch},
                                       {.name = "recon_loss", .number = e->recon_loss},
                                       {.name = "cpa_metric", .number = e->validated ? e->cpa_metric : NAN},
                                       {.name = "cells_per_s", .number = (double)e->cells / e->seconds},
                                       {.name = "rss", .number = (double)rss},
                                       {.name = "allocations", .number = (double)e->allocations}};
    cpa_runlog_note(t->log, "epoch", fields, 6);
    return CPA_OK;
}

// Before the first step: on from a checkpoint, if there is one.
static cpa_status begin(void *ctx, cpa_train_state *state)
{
    cpa_status st;
    cpa_train_run *t = ctx;
    const cpa_checkpoints_plan plan = {.comm = t->comm,
                                       .dir = t->dir,
                                       .log = t->log,
                                       .facts = &t->facts,
                                       .meta = &t->meta,
                                       .every_steps = t->options.checkpoint_every_steps,
                                       .every_seconds = t->options.checkpoint_every_seconds,
                                       .keep = t->options.keep};
    CPA_TRY(cpa_train_go_on(t, state));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_checkpoints_open(&plan, state, &t->checkpoints)));
    t->first_epoch = state->at.epoch;
    t->started = cpa_seconds();
cleanup:
    return st;
}

static cpa_status pause_training(void *ctx, const cpa_train_state *state, bool stop)
{
    return cpa_checkpoints_pause(((cpa_train_run *)ctx)->checkpoints, state, stop);
}

// model.h5 and history.csv, by rank 0.
static cpa_status write_results(cpa_train_run *t)
{
    cpa_status st = CPA_OK;
    const char *model, *history;
    cpa_comm_phase("writing the model");
    CPA_TRY(cpa_rundir_file(t->dir, "model.h5", &model));
    CPA_TRY(cpa_rundir_file(t->dir, "history.csv", &history));
    if (cpa_comm_rank(t->comm) == 0) {
        const char *csv = cpa_history_csv(t->history);
        CPA_TRY(cpa_output_write(history, csv, strlen(csv)));
        CPA_TRY(cpa_modelfile_save(model, cpa_model_params(t->model), &t->meta));
    }
cleanup:
    return st;
}

static void report_end(const cpa_train_run *t, const cpa_train_summary *s)
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

cpa_status cpa_cmd_train(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_train_run t = {.comm = comm};
    cpa_train_summary summary;
    bool finished = false;
    cpa_stop_listen();
    CPA_TRY(cpa_train_is_finished(comm, o, &finished));
    if (finished) {
        cpa_info("'%s' is finished; nothing to do", o->out);
        return CPA_OK;
    }
    CPA_TRY(cpa_train_set_up(&t, o));
    cpa_step_parts parts = cpa_train_parts(&t);
    const cpa_train_hooks hooks = {begin, report_epoch, pause_training, &t};
    CPA_TRY(cpa_train(&parts, t.history, &hooks, &summary));
    CPA_TRY(cpa_comm_agree(comm, write_results(&t)));
    cpa_runlog_work work = cpa_train_work(&t);
    work.read -= t.set_up.read;
    work.seconds -= t.set_up.seconds;
    CPA_TRY(cpa_runlog_stage(t.log, comm, "trained", &work));
    CPA_TRY(cpa_runlog_items(t.log, comm, &t.ledger));
    report_end(&t, &summary);
cleanup:
    cpa_train_tear_down(&t, st == CPA_OK);
    return st;
}
