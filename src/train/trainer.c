// Owns: the epoch loop and the best state. Never computes a loss or a metric.
#include "cpa/train/trainer.h"

#include <math.h>

#include "cpa/base/log.h"
#include "cpa/platform/range.h"
#include "cpa/train/soundness.h"

// A run of training.
typedef struct trainer {
    const cpa_step_parts *parts;
    const cpa_train_hooks *hooks;
    cpa_stepper *stepper;
    cpa_validator *validator;
    cpa_train_state state; // owns `best`
    int64_t n_epochs, n_steps;
    bool stop; // some rank was asked to, in the last step
} trainer;

static cpa_status create(trainer *t, const cpa_step_parts *parts, cpa_history *history, const cpa_train_hooks *hooks)
{
    cpa_status st = CPA_OK;
    cpa_params *params = cpa_model_params(parts->model);
    *t = (trainer){.parts = parts, .hooks = hooks};
    t->n_epochs = cpa_schedule_epochs(parts->config, parts->registry->n_cells);
    t->n_steps = cpa_sampler_steps(parts->sampler);
    CPA_TRY(cpa_stepper_create(parts, &t->stepper));
    cpa_ledger_enter(parts->ledger, CPA_ITEM_LANES);
    CPA_TRY(cpa_validator_create(parts, &t->validator));
    cpa_ledger_enter(parts->ledger, CPA_ITEM_VALIDATION);
    t->state = (cpa_train_state){.at = {.best_metric = -INFINITY, .best_epoch = -1},
                                 .n_steps = t->n_steps,
                                 .optimizer = cpa_stepper_optimizer(t->stepper),
                                 .params = params,
                                 .history = history};
    CPA_TRY(cpa_alloc((size_t)params->n_value, sizeof *t->state.best, &t->state.best));
    cpa_ledger_enter(parts->ledger, CPA_ITEM_BEST);
cleanup:
    return st;
}

static void destroy(trainer *t)
{
    cpa_free(&t->state.best);
    cpa_validator_destroy(&t->validator);
    cpa_stepper_destroy(&t->stepper);
}

// Takes a validation's metric; keeps the state when it is the best so far.
static cpa_status take_metric(trainer *t, double metric, int64_t epoch, bool *is_best)
{
    cpa_train_position *at = &t->state.at;
    *is_best = metric > at->best_metric;
    at->waited++;
    if (!*is_best) {
        return CPA_OK;
    }
    at->best_metric = metric;
    at->best_epoch = epoch;
    at->waited = 0;
    const cpa_params *params = t->state.params;
    return cpa_op_download(params->be, t->state.best, params->value, (size_t)params->n_value * sizeof(cpa_real));
}

// What is left of the epoch's steps, then its row of the history.
static cpa_status train_epoch(trainer *t, cpa_epoch_report *report)
{
    cpa_status st = CPA_OK;
    cpa_train_position *at = &t->state.at;
    if (at->step == t->n_steps) {
        return CPA_OK; // stopped before its validation
    }
    CPA_TRY(cpa_sampler_epoch(t->parts->sampler, at->epoch));
    while (at->step < t->n_steps) {
        cpa_step_result result;
        double start = cpa_seconds();
        long allocations = cpa_alloc_count();
        cpa_comm_phase("training");
        CPA_TRY(cpa_stepper_run(t->stepper, at->epoch, at->step, &result));
        cpa_history_step(t->state.history, &result);
        report->allocations += cpa_alloc_count() - allocations;
        double seconds = cpa_seconds() - start;
        t->stop = result.stop;
        at->step++;
        at->cells += result.n_cells;
        at->seconds += seconds;
        report->cells += result.n_cells;
        report->seconds += seconds;
        if (at->step < t->n_steps) {
            CPA_TRY(t->hooks->pause(t->hooks->ctx, &t->state, t->stop));
        }
    }
    report->recon_loss = cpa_history_mean(t->state.history, "recon_loss");
    report->r2_mean = cpa_history_mean(t->state.history, "r2_mean");
    CPA_TRY(cpa_history_row(t->state.history, at->epoch, "train"));
cleanup:
    return st;
}

static bool is_validation_epoch(const trainer *t)
{
    int64_t done = t->state.at.epoch + 1;
    return t->parts->registry->n_valid > 0 &&
           (done % t->parts->config->check_val_every_n_epoch == 0 || done == t->n_epochs);
}

static cpa_status validate_epoch(trainer *t, cpa_epoch_report *report)
{
    cpa_comm_phase("validating");
    cpa_status st = CPA_IN_RANGE("validation", cpa_validator_run(t->validator, t->state.history, &report->cpa_metric));
    if (st == CPA_AGAIN) { // asked to stop: to be done again
        return t->hooks->pause(t->hooks->ctx, &t->state, true);
    }
    CPA_REQUIRE(st != CPA_NONFINITE, st, "epoch %lld: %s", (long long)report->epoch + 1, cpa_message());
    CPA_TRY(st);
    CPA_TRY(cpa_history_row(t->state.history, report->epoch, "valid"));
    CPA_TRY(take_metric(t, report->cpa_metric, report->epoch, &report->is_best));
    report->validated = true;
cleanup:
    return st;
}

static bool should_stop(const trainer *t, const cpa_epoch_report *report)
{
    return report->validated &&
           (isnan(report->cpa_metric) || t->state.at.waited >= t->parts->config->early_stopping_patience);
}

// From where the state stands to the end of training.
static cpa_status run(trainer *t, cpa_train_summary *summary)
{
    cpa_status st = CPA_OK;
    cpa_train_position *at = &t->state.at;
    while (at->epoch < t->n_epochs && !summary->stopped_early) {
        cpa_epoch_report report = {.epoch = at->epoch, .n_epochs = t->n_epochs, .recon_loss = NAN, .r2_mean = NAN};
        CPA_TRY(train_epoch(t, &report));
        if (is_validation_epoch(t)) {
            CPA_TRY(validate_epoch(t, &report));
        }
        at->epoch++;
        at->step = 0;
        summary->stopped_early = should_stop(t, &report) && at->epoch < t->n_epochs;
        CPA_TRY(t->hooks->epoch(t->hooks->ctx, &report));
        if (at->epoch < t->n_epochs && !summary->stopped_early) {
            CPA_TRY(t->hooks->pause(t->hooks->ctx, &t->state, t->stop));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_train(const cpa_step_parts *parts, cpa_history *history, const cpa_train_hooks *hooks,
                     cpa_train_summary *summary)
{
    cpa_status st = CPA_OK;
    trainer t = {0};
    const cpa_train_position *at = &t.state.at;
    *summary = (cpa_train_summary){.best_epoch = -1, .best_metric = NAN};
    CPA_TRY(cpa_comm_agree(parts->comm, create(&t, parts, history, hooks)));
    CPA_TRY(hooks->begin(hooks->ctx, &t.state));
    CPA_TRY(run(&t, summary));
    cpa_ledger_enter(parts->ledger, CPA_ITEM_STEPS);
    summary->epochs = at->epoch;
    summary->cells = at->cells;
    summary->seconds = at->seconds;
    if (at->best_epoch >= 0) {
        const cpa_params *params = t.state.params;
        CPA_TRY(cpa_op_upload(params->be, params->value, t.state.best, (size_t)params->n_value * sizeof(cpa_real)));
        summary->best_epoch = at->best_epoch;
        summary->best_metric = at->best_metric;
    }
    CPA_TRY(cpa_soundness_result(parts, at->best_epoch >= 0));
cleanup:
    destroy(&t);
    return st;
}

// A batch of the largest size, as far as memory depends on it: values and groups as many as there can be.
static cpa_status make_batch(const cpa_step_parts *parts, cpa_batch **out)
{
    cpa_status st;
    const cpa_registry *r = parts->registry;
    int n = cpa_sampler_max_batch(parts->sampler);
    int64_t nnz;
    CPA_TRY(cpa_feed_max_nnz(parts->feed, n, &nnz));
    CPA_TRY(cpa_batch_create(n, nnz, r->n_genes, r->n_covs, r->max_comb_len, out));
    (*out)->n_cells = n;
    (*out)->nnz = nnz;
    for (int i = 0; i < n; i++) {
        (*out)->category[i] = i % r->n_categories;
    }
cleanup:
    return st;
}

// One lane of a step of the adversaries, then of the autoencoder with everything that it can be asked for.
static cpa_status run_both(const cpa_step_parts *parts, cpa_rehearsal *r)
{
    cpa_status st;
    cpa_batch *batch = NULL;
    double *sums = NULL;
    const cpa_lane_plan adversaries = {.update_adversary = true, .label_weight = 1, .seed = parts->seed};
    cpa_lane_plan both[] = {adversaries, adversaries};
    both[1].update_adversary = false;
    both[1].update_autoencoder = both[1].adversary_in_loss = both[1].want_metrics = true;
    CPA_TRY(make_batch(parts, &batch));
    CPA_TRY(cpa_alloc((size_t)cpa_model_n_sums(parts->model), sizeof *sums, &sums));
    for (int i = 0; i < 2; i++) {
        both[i].n_cells = batch->n_cells;
        CPA_TRY(cpa_model_lane(parts->model, batch, &both[i], sums));
        r->scratch[i] = cpa_backend_counted_scratch(parts->be);
    }
cleanup:
    cpa_batch_destroy(&batch);
    cpa_free(&sums);
    return st;
}

cpa_status cpa_train_rehearse(const cpa_step_parts *parts, cpa_history *history, cpa_rehearsal *r)
{
    cpa_status st;
    trainer t = {0};
    CPA_TRY(create(&t, parts, history, NULL));
    CPA_TRY(run_both(parts, r));
    CPA_TRY(r->checkpoint ? r->checkpoint(r->ctx, &t.state) : CPA_OK);
    cpa_ledger_enter(parts->ledger, CPA_ITEM_STEPS);
cleanup:
    destroy(&t);
    return st;
}
