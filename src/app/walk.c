// Owns: runs that take single steps, for measurements: set up behind all warm-ups, taken down. Never times anything.
#include "walk_impl.h"

#include <limits.h>

int cpa_walk_cycle(const cpa_train_config *c)
{
    return c->adv_steps > 0 ? c->adv_steps : 1;
}

// Data and options, for all points. Cells that would be streamed are opened anew for each, because windows depend on the lanes.
cpa_status cpa_walk_read(cpa_train_run *base, const cpa_options *o, int lanes)
{
    cpa_status st;
    CPA_TRY(cpa_train_take_options(base, o));
    base->options.train.lanes = lanes;
    base->options.train.max_epochs = INT_MAX; // a feed looks ahead to the next
    CPA_TRY(cpa_train_read(base));
    CPA_TRY(cpa_comm_agree(base->comm, cpa_train_make_sampler(base)));
    CPA_TRY(cpa_train_open_feed(base));
    if (cpa_feed_reported(base->feed).streamed) {
        cpa_feed_close(&base->feed);
    }
cleanup:
    return st;
}

// Whether no lane has more or fewer cells than a batch.
static bool is_full(const cpa_train_run *run, int64_t step)
{
    for (int lane = 0; lane < run->options.train.lanes; lane++) {
        const int64_t *row;
        int n;
        cpa_sampler_batch(run->sampler, lane, step, &row, &n);
        if (n != run->options.train.batch_size) {
            return false;
        }
    }
    return true;
}

// Begins where pretraining and warm-ups are over, and counts the steps that are alike.
static cpa_status find_steps(cpa_walk *w)
{
    cpa_status st = CPA_OK;
    const cpa_train_config *c = &w->run.options.train;
    int64_t warm = (int64_t)c->n_steps_pretrain_ae + c->n_steps_adv_warmup + c->n_steps_kl_warmup + 1;
    int cycle = cpa_walk_cycle(c);
    w->epoch = (int64_t)c->n_epochs_pretrain_ae + c->n_epochs_adv_warmup + c->n_epochs_kl_warmup +
               c->n_epochs_mixup_warmup + warm / cpa_sampler_steps(w->run.sampler) + 1;
    CPA_TRY(cpa_sampler_epoch(w->run.sampler, w->epoch));
    while (w->n_full < cpa_sampler_steps(w->run.sampler) && is_full(&w->run, w->n_full)) {
        w->n_full++;
    }
    w->n_full -= w->n_full % cycle;
    CPA_REQUIRE(
        w->n_full > 0, CPA_BAD_DATA,
        "%s: %lld training cells are too few for %d full steps of %d lanes x %d cells on %d ranks; use a smaller "
        "--batch-size, or cells that cpa-hpc simulate makes",
        cpa_h5ad_path(w->run.file), (long long)w->run.registry->n_train, cycle, c->lanes, c->batch_size,
        cpa_comm_size(w->run.comm));
cleanup:
    return st;
}

static cpa_status make_stepper(cpa_walk *w)
{
    cpa_status st;
    const cpa_train_config *c = &w->run.options.train;
    cpa_step_parts parts = cpa_train_parts(&w->run);
    CPA_TRY(cpa_stepper_create(&parts, &w->stepper));
    cpa_stepper_optimizer(w->stepper)->steps =
        (int64_t)c->n_steps_pretrain_ae + c->n_steps_adv_warmup + c->n_steps_kl_warmup + 1;
cleanup:
    return st;
}

cpa_status cpa_walk_begin(const cpa_train_run *base, cpa_comm *part, int lanes, cpa_walk *w)
{
    cpa_status st;
    w->run = *base;
    w->run.comm = part;
    w->run.sampler = NULL;
    w->run.feed = NULL;
    w->run.options.train.lanes = lanes;
    CPA_TRY(cpa_comm_agree(part, cpa_train_make_sampler(&w->run)));
    CPA_TRY(cpa_comm_agree(part, find_steps(w)));
    if (base->feed != NULL) {
        CPA_TRY(cpa_comm_agree(part, cpa_feed_share(base->feed, w->run.sampler, &w->run.feed)));
    } else {
        CPA_TRY(cpa_train_open_feed(&w->run));
    }
    CPA_TRY(cpa_comm_agree(part, cpa_train_make_model(&w->run)));
    CPA_TRY(cpa_train_connect(&w->run));
    CPA_TRY(cpa_comm_agree(part, make_stepper(w)));
cleanup:
    return st;
}

void cpa_walk_end(cpa_walk *w)
{
    cpa_stepper_destroy(&w->stepper);
    cpa_device_sum_destroy(&w->run.device_sum);
    cpa_model_destroy(&w->run.model);
    cpa_backend_destroy(&w->run.be);
    cpa_feed_close(&w->run.feed);
    cpa_sampler_destroy(&w->run.sampler);
}

cpa_status cpa_walk_step(cpa_walk *w, cpa_step_result *result)
{
    cpa_status st = CPA_OK;
    if (w->step == w->n_full) {
        w->step = 0;
        CPA_TRY(cpa_sampler_epoch(w->run.sampler, ++w->epoch));
    }
    CPA_TRY(cpa_stepper_run(w->stepper, w->epoch, w->step++, result));
cleanup:
    return st;
}
