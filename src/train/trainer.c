// Owns: the epoch loop and the best state. Never computes a loss or a metric.
#include "cpa/train/trainer.h"

#include <math.h>

#include "cpa/base/log.h"

// The state that will be handed back.
typedef struct best_state {
    cpa_params *t;       // borrowed
    cpa_dev_real *value; // owned copy of the value arena
    double metric;
    int64_t epoch;
    int waited; // validations since
} best_state;

static cpa_status copy_arena(const cpa_params *t, cpa_dev_real *to, const cpa_dev_real *from)
{
    return cpa_op_axpby(t->be, cpa_mat_of(to, 1, (int)t->n_value), 1, cpa_mat_of(from, 1, (int)t->n_value), 0);
}

static cpa_status best_init(best_state *b, cpa_params *t)
{
    *b = (best_state){.t = t, .metric = -INFINITY, .epoch = -1};
    return cpa_op_alloc(t->be, (size_t)t->n_value * sizeof(cpa_real), (void **)&b->value);
}

// Takes a validation's metric; keeps the state when it is the best so far.
static cpa_status best_take(best_state *b, double metric, int64_t epoch, bool *is_best)
{
    *is_best = metric > b->metric;
    b->waited++;
    if (!*is_best) {
        return CPA_OK;
    }
    b->metric = metric;
    b->epoch = epoch;
    b->waited = 0;
    return copy_arena(b->t, b->value, b->t->value);
}

static cpa_status train_epoch(const cpa_step_parts *parts, cpa_stepper *stepper, cpa_history *history,
                              cpa_epoch_report *report)
{
    cpa_status st = CPA_OK;
    double start = cpa_seconds();
    int64_t steps = cpa_sampler_steps(parts->sampler);
    CPA_TRY(cpa_sampler_epoch(parts->sampler, report->epoch));
    for (int64_t step = 0; step < steps; step++) {
        cpa_step_result result;
        CPA_TRY(cpa_stepper_run(stepper, report->epoch, step, &result));
        cpa_history_step(history, &result);
        report->cells += result.n_cells;
    }
    report->seconds = cpa_seconds() - start;
    report->recon_loss = cpa_history_mean(history, "recon_loss");
    report->r2_mean = cpa_history_mean(history, "r2_mean");
    CPA_TRY(cpa_history_row(history, report->epoch, "train"));
cleanup:
    return st;
}

static bool is_validation_epoch(const cpa_step_parts *parts, int64_t epoch, int64_t n_epochs)
{
    return parts->registry->n_valid > 0 &&
           ((epoch + 1) % parts->config->check_val_every_n_epoch == 0 || epoch + 1 == n_epochs);
}

static cpa_status validate_epoch(cpa_validator *validator, cpa_history *history, best_state *best,
                                 cpa_epoch_report *report)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_validator_run(validator, history, &report->cpa_metric));
    double recon_loss = cpa_history_mean(history, "recon_loss"); // the metric can look fine beside it
    CPA_REQUIRE(
        isfinite(recon_loss), CPA_NONFINITE,
        "epoch %lld: the reconstruction loss of the validation cells is %g; a smaller learning rate (--lr) may help",
        (long long)report->epoch + 1, recon_loss);
    CPA_TRY(cpa_history_row(history, report->epoch, "valid"));
    CPA_TRY(best_take(best, report->cpa_metric, report->epoch, &report->is_best));
    report->validated = true;
cleanup:
    return st;
}

static bool should_stop(const cpa_train_config *c, const best_state *best, const cpa_epoch_report *report)
{
    return report->validated && (isnan(report->cpa_metric) || best->waited >= c->early_stopping_patience);
}

cpa_status cpa_train(const cpa_step_parts *parts, cpa_history *history, const cpa_train_hooks *hooks,
                     cpa_train_summary *summary)
{
    cpa_status st = CPA_OK;
    cpa_stepper *stepper = NULL;
    cpa_validator *validator = NULL;
    best_state best = {0};
    *summary = (cpa_train_summary){.best_epoch = -1, .best_metric = NAN};
    int64_t n_epochs = cpa_schedule_epochs(parts->config, parts->registry->n_cells);
    CPA_TRY(cpa_stepper_create(parts, &stepper));
    CPA_TRY(cpa_validator_create(parts, &validator));
    CPA_TRY(best_init(&best, cpa_model_params(parts->model)));
    for (int64_t epoch = 0; epoch < n_epochs && !summary->stopped_early; epoch++) {
        cpa_epoch_report report = {.epoch = epoch, .n_epochs = n_epochs};
        CPA_TRY(train_epoch(parts, stepper, history, &report));
        if (is_validation_epoch(parts, epoch, n_epochs)) {
            CPA_TRY(validate_epoch(validator, history, &best, &report));
        }
        summary->epochs++;
        summary->cells += report.cells;
        summary->seconds += report.seconds;
        summary->stopped_early = should_stop(parts->config, &best, &report) && epoch + 1 < n_epochs;
        CPA_TRY(hooks->epoch(hooks->ctx, &report));
    }
    if (best.epoch >= 0) {
        CPA_TRY(copy_arena(best.t, best.t->value, best.value));
        summary->best_epoch = best.epoch;
        summary->best_metric = best.metric;
    }
cleanup:
    if (best.value) {
        cpa_op_release(best.t->be, best.value);
    }
    cpa_validator_destroy(&validator);
    cpa_stepper_destroy(&stepper);
    return st;
}
