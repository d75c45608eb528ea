// Owns: when a checkpoint is due and what becomes of it. Never writes a file itself (checkpoints_write.c) nor reads one
// (checkpoints_find.c).
#include "cpa/app/checkpoints.h"

#include <math.h>
#include <string.h>

#include "checkpoints_impl.h"
#include "cpa/base/log.h"
#include "cpa/base/signals.h"
#include "cpa/platform/range.h"

static const double LAYING = 0.01; // seconds of a pause in which the file is laid out, in good time

struct cpa_checkpoints {
    cpa_checkpoints_plan plan;
    cpa_writer *writer;   // rank 0
    cpa_checkpoint *file; // NULL until one will soon be due
    bool is_laid;         // whether it can take a state
    double last_time;     // when the last one was due
    int64_t last_steps;   // steps taken then
    int64_t best_written; // epoch of best.h5
    void *best;           // the next one as bytes, NULL until one is made
    size_t n_best;
    int64_t best_made;      // its epoch
    double longest, paused; // seconds of training that the next one takes, at most in one pause and in all
};

static int64_t steps_of(const cpa_train_state *s)
{
    return s->at.epoch * s->n_steps + s->at.step;
}

cpa_status cpa_checkpoints_open(const cpa_checkpoints_plan *plan, const cpa_train_state *state, cpa_checkpoints **out)
{
    cpa_status st;
    cpa_checkpoints *c = NULL;
    char *folder = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    *c = (cpa_checkpoints){.plan = *plan, .best_written = -1};
    c->last_time = cpa_seconds();
    c->last_steps = steps_of(state);
    if (cpa_comm_rank(plan->comm) == 0) {
        CPA_TRY(cpa_sprintf(&folder, "%s/checkpoints", cpa_rundir_path(plan->dir)));
        CPA_TRY(cpa_writer_start(folder, plan->keep, &c->writer));
    }
    *out = c;
    c = NULL;
cleanup:
    cpa_free(&folder);
    cpa_checkpoints_close(&c);
    return st;
}

void cpa_checkpoints_close(cpa_checkpoints **c)
{
    if (*c != NULL) {
        cpa_writer_stop(&(*c)->writer);
        cpa_checkpoint_destroy(&(*c)->file);
        cpa_free(&(*c)->best);
        cpa_free(c);
    }
}

// What became of the last one; *st (may be NULL) is its failure.
static void collect(cpa_checkpoints *c, bool wait, cpa_status *st)
{
    cpa_write_result r;
    if (!cpa_writer_take(c->writer, wait, &r)) {
        return;
    }
    const cpa_runlog_field fields[] = {{.name = "epoch", .number = (double)r.job.epoch},
                                       {.name = "step", .number = (double)r.job.step},
                                       {.name = "bytes", .number = (double)r.n},
                                       {.name = "pause_ms", .number = 1e3 * r.job.longest},
                                       {.name = "paused_ms", .number = 1e3 * r.job.paused},
                                       {.name = "write_ms", .number = 1e3 * r.seconds},
                                       {.name = "error", .text = r.error}};
    if (r.error[0] == '\0') {
        cpa_rundir_settle(c->plan.dir);
        cpa_runlog_note(c->plan.log, "checkpoint", fields, 6);
        return;
    }
    c->best_written = -1;
    cpa_runlog_note(c->plan.log, "checkpoint_failed", fields, 7);
    if (st != NULL) {
        *st = cpa_fail(CPA_IO, "the checkpoint on which to stop was not written: %s", r.error);
    } else {
        cpa_warn("a checkpoint was not written: %s; training goes on, and older ones stay", r.error);
    }
}

// Makes the file ready to take a state, in pauses of so many seconds.
static cpa_status lay(cpa_checkpoints *c, const cpa_train_state *s, double seconds)
{
    cpa_status st = CPA_OK;
    if (c->file != NULL && cpa_checkpoint_is_small(c->file, s)) {
        cpa_checkpoint_destroy(&c->file);
        c->is_laid = false;
    }
    if (c->file == NULL) {
        CPA_TRY(cpa_checkpoint_create(s, c->plan.facts, &c->file));
    }
    if (!c->is_laid) {
        CPA_TRY(cpa_checkpoint_lay(c->file, s, seconds, &c->is_laid));
    }
cleanup:
    return st;
}

// Makes best.h5 of the best state, unless it is there.
static cpa_status make_best(cpa_checkpoints *c, const cpa_train_state *s)
{
    cpa_status st = CPA_OK;
    if (c->best != NULL && c->best_made == s->at.best_epoch) {
        return CPA_OK;
    }
    cpa_free(&c->best);
    CPA_TRY(cpa_modelfile_image(s->params, s->best, c->plan.meta, &c->best, &c->n_best));
    c->best_made = s->at.best_epoch;
cleanup:
    return st;
}

static void note_pause(cpa_checkpoints *c, double since)
{
    double seconds = cpa_seconds() - since;
    c->longest = seconds > c->longest ? seconds : c->longest;
    c->paused += seconds;
}

// Copies the state and hands it to the writer, which must be idle.
static cpa_status begin_write(cpa_checkpoints *c, const cpa_train_state *s)
{
    cpa_status st;
    double start = cpa_seconds();
    cpa_write_job job = {.epoch = s->at.epoch, .step = s->at.step};
    c->last_time = start;
    c->last_steps = steps_of(s);
    CPA_TRY(lay(c, s, INFINITY));
    CPA_TRY(cpa_checkpoint_take(c->file, s));
    if (s->at.best_epoch != c->best_written) {
        CPA_TRY(make_best(c, s));
        job.best = c->best;
        job.n_best = c->n_best;
        c->best = NULL;
        c->best_written = s->at.best_epoch;
    }
    note_pause(c, start);
    job.longest = c->longest;
    job.paused = c->paused;
    c->longest = c->paused = 0;
    job.file = c->file;
    cpa_checkpoint_name(job.epoch, job.step, job.name);
    cpa_writer_submit(c->writer, &job);
cleanup:
    return st;
}

static bool is_due(const cpa_checkpoints *c, const cpa_train_state *s, double share)
{
    int64_t every = c->plan.every_steps, steps = steps_of(s);
    return (every > 0 && steps / every > c->last_steps / every) ||
           (c->plan.every_seconds > 0 && cpa_seconds() - c->last_time >= share * c->plan.every_seconds);
}

// What can be done before a checkpoint is due, a little in each pause.
static cpa_status prepare(cpa_checkpoints *c, const cpa_train_state *s)
{
    cpa_status st = CPA_OK;
    double start = cpa_seconds();
    if (!c->is_laid) {
        CPA_TRY(lay(c, s, LAYING));
    } else if (s->at.best_epoch != c->best_written) {
        CPA_TRY(make_best(c, s));
    }
    note_pause(c, start);
cleanup:
    return st;
}

// Rank 0's work when training goes on.
static void write_if_due(cpa_checkpoints *c, const cpa_train_state *s)
{
    cpa_status st = CPA_OK;
    collect(c, false, NULL);
    if (is_due(c, s, 1)) {
        st = cpa_writer_is_idle(c->writer) ? CPA_IN_RANGE("checkpoint", begin_write(c, s)) : CPA_OK;
    } else if (is_due(c, s, 0.5)) {
        st = CPA_IN_RANGE("preparing a checkpoint", prepare(c, s));
    }
    if (st != CPA_OK) {
        cpa_warn("a checkpoint was not written: %s; training goes on, and older ones stay", cpa_message());
        c->last_time = cpa_seconds();
    }
}

// Rank 0's work when training stops.
static cpa_status write_last(cpa_checkpoints *c, const cpa_train_state *s)
{
    cpa_status st = CPA_OK;
    collect(c, true, NULL);
    CPA_TRY(CPA_IN_RANGE("checkpoint", begin_write(c, s)));
    collect(c, true, &st);
cleanup:
    return st;
}

cpa_status cpa_checkpoints_pause(cpa_checkpoints *c, const cpa_train_state *state, bool stop)
{
    cpa_status st = CPA_OK;
    bool is_first = cpa_comm_rank(c->plan.comm) == 0;
    if (!stop) {
        if (is_first) {
            write_if_due(c, state);
        }
        return CPA_OK;
    }
    cpa_comm_phase("writing the last checkpoint");
    CPA_TRY(cpa_comm_agree(c->plan.comm, is_first ? write_last(c, state) : CPA_OK));
    st = cpa_fail(CPA_AGAIN,
                  "stopped by %s after %lld epochs and %lld steps; to go on, run the same command again with --resume",
                  cpa_stop_reason(), (long long)state->at.epoch, (long long)state->at.step);
cleanup:
    return st;
}
