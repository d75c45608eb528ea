// Owns: one step over all lanes and ranks. Never decides how long to train.
#include "cpa/train/step.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ahead_impl.h"
#include "cpa/base/log.h"
#include "cpa/base/signals.h"
#include "cpa/data/mixup.h"
#include "cpa/platform/range.h"
#include "cpa/train/device_cells.h"
#include "cpa/train/together.h"

// What the sum over lanes carries behind the model's sums, so that all ranks learn it without a message of its own.
enum { WANT_STOP, FAILED, N_NEWS };

// The cells of a lane as they are read, and mixed (only with mixup).
typedef struct lane_cells {
    cpa_batch *read, *mixed;
} lane_cells;

// This rank's lanes side by side, for batch norms over all lanes.
typedef struct side_by_side {
    cpa_together *together;
    const cpa_batch **batch; // [n] of the lanes that have cells
    int *lane, n;            // their numbers
    double *sums;            // [n, the model's]
} side_by_side;

struct cpa_stepper {
    cpa_step_parts p;
    cpa_optimizer optimizer;
    cpa_device_cells *all; // what batches are taken from on the device; NULL: from the feed
    cpa_ahead ahead;       // the next batch, where there is one lane and the device has the counts
    lane_cells *cells;     // of one lane; of all of this rank's that run side by side
    int n_cells;
    int32_t *partner;
    side_by_side side; // only with batch norms over all lanes
    cpa_tree *tree;
    cpa_real *grad;        // the gradient arena, or where the host cannot see it `copy`; only with several lanes
    cpa_real *copy;        // of the gradient arena
    bool on_device;        // gradients are summed where they are, and the tree has the sums of losses alone
    cpa_dev_real *earlier; // then the sum of this rank's lanes but the last, where several run by turns
    cpa_range range[CPA_TREE_RANGES];             // what the step's sum covers, in the order in which it becomes final
    int n_ranges, end_of_piece[CPA_MODEL_PIECES]; // ranges up to each piece of the model
    int n_fetched;                                // ranges of the lane that are in `grad`
    double *lane_sums, *sums;                     // the model's, then the news
    int first_lane, end_lane;
    double summing; // seconds of the last sum over ranks
};

static cpa_status take_batches(cpa_stepper *s, int n)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = s->p.registry;
    int64_t nnz;
    int max = cpa_sampler_max_batch(s->p.sampler);
    CPA_TRY(cpa_feed_max_nnz(s->p.feed, max, &nnz));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *s->cells, &s->cells));
    s->n_cells = n;
    for (int i = 0; i < n; i++) {
        CPA_TRY(cpa_batch_create(max, nnz, r->n_genes, r->n_covs, r->max_comb_len, &s->cells[i].read));
        s->cells[i].read->all = cpa_device_cells_all(s->all);
        if (s->p.config->mixup_alpha > 0) {
            CPA_TRY(cpa_batch_create_mixed(max, nnz, r->n_genes, r->n_covs, r->max_comb_len, &s->cells[i].mixed));
        }
    }
    if (s->p.config->mixup_alpha > 0) {
        CPA_TRY(cpa_alloc((size_t)max, sizeof *s->partner, &s->partner));
    }
cleanup:
    return st;
}

// Another batch, for the step to come.
static cpa_status take_ahead(cpa_stepper *s)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = s->p.registry;
    const cpa_batch *like = s->cells[0].read;
    if (s->all == NULL || s->p.config->lanes > 1) {
        return CPA_OK;
    }
    s->ahead = (cpa_ahead){.feed = s->p.feed, .registry = r, .n_steps = cpa_sampler_steps(s->p.sampler)};
    CPA_TRY(cpa_batch_create(like->max_cells, like->max_nnz, r->n_genes, r->n_covs, r->max_comb_len, &s->ahead.batch));
    s->ahead.batch->all = like->all;
cleanup:
    return st;
}

static cpa_status take_side_by_side(cpa_stepper *s, int n)
{
    cpa_status st = CPA_OK;
    side_by_side *side = &s->side;
    CPA_TRY(cpa_together_create(s->p.comm, s->p.model, s->p.config->lanes, &side->together));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *side->batch, &side->batch));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *side->lane, &side->lane));
    CPA_TRY(cpa_alloc((size_t)n * (size_t)cpa_model_n_sums(s->p.model), sizeof *side->sums, &side->sums));
cleanup:
    return st;
}

// Gradients on the host: where it sees the backend's, these, else a copy.
static cpa_status take_host(cpa_stepper *s, bool side)
{
    cpa_status st = CPA_OK;
    const cpa_params *t = cpa_model_params(s->p.model);
    // Lanes that ran side by side are added up from one copy, as the model's own arena is the first one's.
    s->grad = side ? NULL : cpa_backend_host(s->p.be, t->grad);
    if (!s->grad) {
        CPA_TRY(cpa_alloc((size_t)t->n_grad, sizeof *s->copy, &s->copy));
        s->grad = s->copy;
    }
cleanup:
    return st;
}

static cpa_status take_device(cpa_stepper *s, bool side)
{
    size_t bytes = (size_t)cpa_model_params(s->p.model)->n_grad * sizeof(cpa_real);
    return side || s->end_lane - s->first_lane < 2 ? CPA_OK : cpa_op_alloc(s->p.be, bytes, (void **)&s->earlier);
}

cpa_status cpa_stepper_create(const cpa_step_parts *parts, cpa_stepper **out)
{
    cpa_status st = CPA_OK;
    cpa_stepper *s = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *s, &s));
    s->p = *parts;
    int lanes = parts->config->lanes, n_sums = cpa_model_n_sums(parts->model) + N_NEWS;
    bool side = lanes > 1 && cpa_model_n_pooled(parts->model) > 0 && strcmp(parts->config->batch_norm, "sync") == 0;
    cpa_lane_range(lanes, cpa_comm_size(parts->comm), cpa_comm_rank(parts->comm), &s->first_lane, &s->end_lane);
    CPA_TRY(cpa_device_cells_create(parts->be, parts->feed, parts->registry->n_genes, &s->all));
    cpa_ledger_enter(parts->ledger, CPA_ITEM_CELLS);
    CPA_TRY(take_batches(s, side ? s->end_lane - s->first_lane : 1));
    CPA_TRY(take_ahead(s));
    CPA_TRY(cpa_alloc((size_t)n_sums, sizeof *s->sums, &s->sums));
    CPA_TRY(cpa_alloc((size_t)n_sums, sizeof *s->lane_sums, &s->lane_sums));
    if (lanes > 1) {
        int64_t n = cpa_model_params(parts->model)->n_grad;
        cpa_reduce how;
        CPA_TRY(cpa_reduce_of(parts->config->reduce, &how));
        s->on_device = how == CPA_REDUCE_NCCL;
        CPA_TRY(s->on_device ? take_device(s, side) : take_host(s, side));
        CPA_TRY(cpa_tree_create(parts->comm, s->on_device ? CPA_REDUCE_TREE : how, lanes, s->on_device ? 0 : n, n_sums,
                                &s->tree));
    }
    CPA_TRY(side ? take_side_by_side(s, s->n_cells) : CPA_OK);
    *out = s;
    s = NULL;
cleanup:
    cpa_stepper_destroy(&s);
    return st;
}

void cpa_stepper_destroy(cpa_stepper **out)
{
    cpa_stepper *s = *out;
    if (!s) {
        return;
    }
    for (int i = 0; i < s->n_cells; i++) {
        cpa_batch_destroy(&s->cells[i].read);
        cpa_batch_destroy(&s->cells[i].mixed);
    }
    cpa_free(&s->cells);
    cpa_batch_destroy(&s->ahead.batch);
    cpa_device_cells_destroy(&s->all);
    cpa_free(&s->partner);
    cpa_together_destroy(&s->side.together);
    cpa_free(&s->side.batch);
    cpa_free(&s->side.lane);
    cpa_free(&s->side.sums);
    cpa_tree_destroy(&s->tree);
    cpa_free(&s->copy);
    if (s->earlier) {
        cpa_op_release(s->p.be, s->earlier);
    }
    cpa_free(&s->sums);
    cpa_free(&s->lane_sums);
    cpa_free(out);
}

// Cells and class weights of the whole global batch: every rank knows all lanes' cells. Returns how many lanes have cells.
static int global_batch(const cpa_stepper *s, int64_t step, cpa_lane_plan *plan)
{
    const cpa_registry *r = s->p.registry;
    int lanes = 0;
    if (cpa_ahead_has(&s->ahead, plan->epoch, step)) {
        plan->label_weight = s->ahead.label_weight;
        plan->n_cells = s->ahead.batch->n_cells;
        return plan->n_cells > 0;
    }
    for (int lane = 0; lane < s->p.config->lanes; lane++) {
        const int64_t *rows;
        int n;
        cpa_sampler_batch(s->p.sampler, lane, step, &rows, &n);
        for (int i = 0; i < n; i++) {
            plan->label_weight += r->label_weight[r->condition[r->condition_of[rows[i]]].label];
        }
        plan->n_cells += n;
        lanes += n > 0;
    }
    return lanes;
}

// The batch of a lane, mixed where the step mixes; NULL: the lane has no cells.
static cpa_status fill_lane(cpa_stepper *s, int lane, int64_t step, const cpa_lane_plan *plan, double alpha,
                            lane_cells *cells, const cpa_batch **batch)
{
    cpa_status st = CPA_OK;
    const int64_t *rows;
    int n;
    *batch = NULL;
    cpa_sampler_batch(s->p.sampler, lane, step, &rows, &n);
    if (n == 0) {
        return CPA_OK;
    }
    if (cpa_ahead_has(&s->ahead, plan->epoch, step)) {
        cpa_ahead_swap(&s->ahead, &cells->read);
    } else {
        CPA_TRY(cpa_feed_fill(s->p.feed, s->p.registry, lane, step, cells->read));
    }
    cpa_ahead_aim(&s->ahead, plan->epoch, step);
    *batch = cells->read;
    if (alpha > 0) {
        double lambda;
        cpa_mixup_draw(s->p.seed, plan->epoch, lane, step, alpha, n, &lambda, s->partner);
        CPA_TRY(cpa_mixup_apply(cells->read, lambda, s->partner, cells->mixed));
        *batch = cells->mixed;
    }
cleanup:
    return st;
}

static cpa_status run_lane(cpa_stepper *s, int lane, int64_t step, const cpa_lane_plan *plan, double alpha,
                           double *sums)
{
    cpa_status st = CPA_OK;
    const cpa_batch *batch;
    CPA_TRY(fill_lane(s, lane, step, plan, alpha, &s->cells[0], &batch));
    CPA_TRY(batch ? cpa_model_lane(s->p.model, batch, plan, sums) : cpa_model_no_lane(s->p.model, sums));
cleanup:
    return st;
}

// All lanes of all ranks side by side. Collective; so is a failure.
static cpa_status run_side_by_side(cpa_stepper *s, int64_t step, const cpa_phase *phase, const cpa_lane_plan *plan)
{
    cpa_status mine = CPA_OK;
    side_by_side *side = &s->side;
    side->n = 0;
    for (int lane = s->first_lane; lane < s->end_lane && mine == CPA_OK; lane++) {
        const cpa_batch *batch;
        mine = fill_lane(s, lane, step, plan, phase->mixup_alpha, &s->cells[lane - s->first_lane], &batch);
        if (batch) {
            side->batch[side->n] = batch;
            side->lane[side->n++] = lane;
        }
    }
    return cpa_together_run(side->together, side->batch, side->lane, side->n, plan, mine, side->sums);
}

// What the phase sums, cut where the model's gradients become final one piece after another.
static void list_ranges(cpa_stepper *s, const cpa_phase *phase)
{
    cpa_range piece[CPA_MODEL_PIECES], span[3];
    int n_spans = cpa_optimizer_spans(cpa_model_params(s->p.model), phase, span);
    cpa_model_pieces(s->p.model, piece);
    s->n_ranges = 0;
    for (int k = 0; k < CPA_MODEL_PIECES; k++) {
        int64_t from = piece[k].offset, to = from + piece[k].length;
        for (int i = 0; i < n_spans; i++) {
            int64_t begin = span[i].offset > from ? span[i].offset : from, end = span[i].offset + span[i].length;
            end = end < to ? end : to;
            if (begin < end) {
                s->range[s->n_ranges++] = (cpa_range){begin, end - begin};
            }
        }
        s->end_of_piece[k] = s->n_ranges;
    }
}

// Copies ranges of a gradient arena between the backend and the host, where the host has a copy.
static cpa_status copy_ranges(cpa_stepper *s, cpa_dev_real *arena, int first, int end, bool to_host)
{
    cpa_status st = CPA_OK;
    for (int i = first; i < end && s->copy; i++) {
        cpa_dev_real *dev = cpa_real_at(arena, s->range[i].offset);
        cpa_real *host = s->copy + s->range[i].offset;
        size_t bytes = (size_t)s->range[i].length * sizeof *host;
        CPA_TRY(to_host ? cpa_op_download(s->p.be, host, dev, bytes) : cpa_op_upload(s->p.be, dev, host, bytes));
    }
cleanup:
    return st;
}

// Adds ranges of one arena on the device to those of another; `first`: puts them there.
static cpa_status add_ranges(cpa_stepper *s, cpa_dev_real *to, const cpa_dev_real *from, int begin, int end, bool first)
{
    cpa_status st = CPA_OK;
    for (int i = begin; i < end; i++) {
        cpa_range r = s->range[i];
        CPA_TRY(cpa_op_axpby(s->p.be, cpa_mat_of(cpa_real_at(to, r.offset), 1, (int)r.length), 1,
                             cpa_mat_of(cpa_real_at(from, r.offset), 1, (int)r.length), first ? 0 : 1));
    }
cleanup:
    return st;
}

// The last lane's ranges before `end` where they are summed: on the host, or on the device with the lanes before it.
static cpa_status fetch(cpa_stepper *s, int end)
{
    cpa_status st = CPA_OK;
    cpa_dev_real *grad = cpa_model_params(s->p.model)->grad;
    CPA_TRY(s->earlier ? add_ranges(s, grad, s->earlier, s->n_fetched, end, false)
                       : copy_ranges(s, grad, s->n_fetched, end, true));
    s->n_fetched = end > s->n_fetched ? end : s->n_fetched;
cleanup:
    return st;
}

// Pieces of the last lane's gradients are final: they may travel while the others are computed.
static cpa_status send_ahead(void *ctx, int n_pieces)
{
    cpa_status st = CPA_OK;
    cpa_stepper *s = ctx;
    int n = s->end_of_piece[n_pieces - 1];
    CPA_TRY(fetch(s, n));
    CPA_TRY(s->on_device ? cpa_device_sum_ahead(s->p.device_sum, n) : cpa_tree_ahead(s->tree, s->grad, n));
cleanup:
    return st;
}

// A lane of those that ran side by side, and its gradients where they are summed.
static cpa_status fetch_side(cpa_stepper *s, int lane)
{
    int k = 0, n_sums = cpa_model_n_sums(s->p.model);
    while (k < s->side.n && s->side.lane[k] != lane) {
        k++;
    }
    cpa_params *t = cpa_model_params(s->p.model);
    size_t bytes = (size_t)t->n_grad * sizeof(cpa_real);
    if (k == s->side.n) {
        memset(s->lane_sums, 0, (size_t)n_sums * sizeof *s->lane_sums);
        if (s->on_device) { // the first one's arena has the sum
            return s->side.n == 0 ? cpa_op_zero(s->p.be, t->grad, bytes) : CPA_OK;
        }
        memset(s->copy, 0, bytes);
        return CPA_OK;
    }
    memcpy(s->lane_sums, s->side.sums + (size_t)k * (size_t)n_sums, (size_t)n_sums * sizeof *s->lane_sums);
    if (s->on_device) {
        return k > 0 ? add_ranges(s, t->grad, cpa_model_lane_grad(s->p.model, k), 0, s->n_ranges, false) : CPA_OK;
    }
    return copy_ranges(s, cpa_model_lane_grad(s->p.model, k), 0, s->n_ranges, true);
}

// A lane and its gradients where they are summed.
static cpa_status fetch_lane(cpa_stepper *s, int lane, int64_t step, const cpa_phase *phase, const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_lane_plan of_lane = *plan;
    if (s->side.together) {
        return fetch_side(s, lane);
    }
    bool is_last = lane + 1 == s->end_lane;
    of_lane.final = is_last ? send_ahead : NULL;
    of_lane.final_ctx = s;
    s->n_fetched = 0;
    CPA_TRY(run_lane(s, lane, step, &of_lane, phase->mixup_alpha, s->lane_sums));
    if (s->earlier && !is_last) {
        return add_ranges(s, s->earlier, cpa_model_params(s->p.model)->grad, 0, s->n_ranges, lane == s->first_lane);
    }
    CPA_TRY(fetch(s, s->n_ranges));
cleanup:
    return st;
}

// Ranges of the gradients, and sums of losses: the tree has both, or with devices the latter alone.
static cpa_status begin_sum(cpa_stepper *s)
{
    cpa_status st = CPA_OK;
    cpa_dev_real *grad = cpa_model_params(s->p.model)->grad;
    CPA_TRY(cpa_tree_begin(s->tree, s->range, s->on_device ? 0 : s->n_ranges));
    CPA_TRY(s->on_device ? cpa_device_sum_begin(s->p.device_sum, grad, s->range, s->n_ranges) : CPA_OK);
cleanup:
    return st;
}

// Completes the sum over GPUs. Where this rank's own work failed before (`mine`, whose message is the last), a device that is of no use any
// more fails the sum too: that which came first is told.
static cpa_status finish_on_device(cpa_stepper *s, cpa_status mine)
{
    char why[1024];
    snprintf(why, sizeof why, "%s", mine != CPA_OK ? cpa_message() : "");
    cpa_status st = cpa_device_sum_finish(s->p.device_sum);
    return st != CPA_OK && mine != CPA_OK ? cpa_fail(mine, "%s", why) : st;
}

// This rank's lanes one after another or side by side, then the sum over all lanes; with one lane the gradients never leave the backend.
// A rank that fails takes part in the sum all the same, and tells the others by it.
static cpa_status run_lanes(cpa_stepper *s, int64_t step, const cpa_phase *phase, const cpa_lane_plan *plan, bool *stop)
{
    cpa_status st = CPA_OK, mine = CPA_OK;
    list_ranges(s, phase);
    if (!s->tree) {
        cpa_lane_plan of_lane = *plan;
        of_lane.meanwhile = cpa_ahead_fill;
        of_lane.meanwhile_ctx = &s->ahead;
        st = run_lane(s, 0, step, &of_lane, phase->mixup_alpha, s->sums);
        *stop = cpa_stop_wanted();
        return st;
    }
    int n_sums = cpa_model_n_sums(s->p.model);
    CPA_TRY(s->side.together ? run_side_by_side(s, step, phase, plan) : CPA_OK);
    CPA_TRY(begin_sum(s));
    for (int lane = s->first_lane; lane < s->end_lane; lane++) {
        bool is_last = lane + 1 == s->end_lane;
        mine = mine == CPA_OK ? fetch_lane(s, lane, step, phase, plan) : mine;
        s->lane_sums[n_sums + WANT_STOP] = is_last && cpa_stop_wanted();
        s->lane_sums[n_sums + FAILED] = is_last && mine != CPA_OK;
        CPA_TRY(cpa_tree_add(s->tree, lane, s->grad, s->lane_sums));
    }
    double since = cpa_seconds();
    CPA_TRY(s->on_device ? CPA_IN_RANGE("sum on devices", finish_on_device(s, mine)) : CPA_OK);
    CPA_TRY(CPA_IN_RANGE("sum over ranks", cpa_tree_finish(s->tree, s->grad, s->sums)));
    s->summing = cpa_seconds() - since;
    *stop = s->sums[n_sums + WANT_STOP] > 0;
    if (s->sums[n_sums + FAILED] > 0) {
        return cpa_comm_agree(s->p.comm, mine);
    }
    CPA_TRY(copy_ranges(s, cpa_model_params(s->p.model)->grad, 0, s->n_ranges, false));
cleanup:
    return st;
}

cpa_optimizer *cpa_stepper_optimizer(cpa_stepper *s)
{
    return &s->optimizer;
}

// The first sum that is not finite, -1: none.
static int find_bad(const cpa_stepper *s, const double *sums)
{
    int n = cpa_model_n_sums(s->p.model);
    for (int i = 0; i < n; i++) {
        if (!isfinite(sums[i])) {
            return i;
        }
    }
    return -1;
}

// Runs this rank's lanes once more, each by itself, to say of the first bad one what is wrong. Rank-local.
static cpa_status blame_lane(cpa_stepper *s, int64_t step, const cpa_phase *phase, const cpa_lane_plan *plan,
                             const char *what)
{
    cpa_status st = CPA_OK;
    cpa_text why = {0};
    for (int lane = s->first_lane; lane < s->end_lane; lane++) {
        CPA_TRY(run_lane(s, lane, step, plan, phase->mixup_alpha, s->lane_sums));
        if (find_bad(s, s->lane_sums) >= 0) {
            const lane_cells *cells = &s->cells[0];
            CPA_TRY(cpa_model_diagnose(s->p.model, phase->mixup_alpha > 0 ? cells->mixed : cells->read, plan, s->p.gene,
                                       &why));
            st = cpa_fail(CPA_NONFINITE, "%s: %s; a smaller learning rate (--lr) may help", what, cpa_text_str(&why));
            goto cleanup;
        }
    }
cleanup:
    cpa_text_fini(&why);
    return st;
}

// NONFINITE when a sum over the lanes is not finite, with the words of the first lane that is to blame. Collective then.
static cpa_status check_finite(cpa_stepper *s, int64_t epoch, int64_t step, const cpa_phase *phase,
                               const cpa_lane_plan *plan)
{
    cpa_status st = CPA_OK;
    char what[128];
    int bad = find_bad(s, s->sums);
    if (bad < 0) {
        return CPA_OK;
    }
    snprintf(what, sizeof what, "epoch %lld, step %lld: the %s is %g", (long long)epoch + 1, (long long)step + 1,
             bad == CPA_SUM_RECON ? "reconstruction loss" : "adversaries' loss, penalty or metric",
             isnan(s->sums[bad]) ? NAN : s->sums[bad]);
    CPA_TRY(cpa_comm_agree(s->p.comm, blame_lane(s, step, phase, plan, what)));
    st = cpa_fail(CPA_NONFINITE, "%s, though that of every lane is finite; a smaller learning rate (--lr) may help",
                  what);
cleanup:
    return st;
}

// What the options n_steps_* count.
static int64_t steps_so_far(const cpa_stepper *s, int64_t epoch, int64_t step)
{
    bool batches = strcmp(s->p.config->step_unit, "batch") == 0;
    return batches ? epoch * cpa_sampler_steps(s->p.sampler) + step : s->optimizer.steps;
}

cpa_status cpa_stepper_run(cpa_stepper *s, int64_t epoch, int64_t step, cpa_step_result *result)
{
    cpa_status st = CPA_OK;
    const cpa_train_config *c = s->p.config;
    cpa_phase phase = cpa_schedule(c, epoch, steps_so_far(s, epoch, step), step);
    bool metrics = phase.update_autoencoder && s->optimizer.taken[CPA_GROUP_AUTOENCODER] % c->train_metrics_every == 0;
    cpa_lane_plan plan = {.update_autoencoder = phase.update_autoencoder,
                          .update_adversary = phase.update_adversary,
                          .adversary_in_loss = phase.adversary_in_loss,
                          .want_metrics = metrics,
                          .adv_lambda = phase.adv_lambda,
                          .kl_weight = phase.kl_weight,
                          .mix_covariates = strcmp(c->adv_cov_mixup, "both") == 0,
                          .focal_gamma = strcmp(c->adv_loss, "focal") == 0 ? 2 : 0,
                          .pen_adv = c->pen_adv,
                          .epoch = (uint32_t)epoch,
                          .seed = s->p.seed};
    bool stop = false;
    int n_lanes = global_batch(s, step, &plan);
    CPA_TRY(CPA_IN_RANGE("cells", cpa_feed_step(s->p.feed, epoch, step)));
    CPA_TRY(CPA_IN_RANGE(phase.update_autoencoder ? "lanes, autoencoder" : "lanes, adversaries",
                         run_lanes(s, step, &phase, &plan, &stop)));
    CPA_TRY(check_finite(s, epoch, step, &phase, &plan));
    double since = cpa_seconds();
    CPA_TRY(
        CPA_IN_RANGE("update", cpa_optimizer_step(&s->optimizer, cpa_model_params(s->p.model), c, &phase, n_lanes)));
    *result = (cpa_step_result){.phase = phase,
                                .n_cells = plan.n_cells,
                                .adv_weight = plan.focal_gamma > 0 ? (double)plan.n_cells : plan.label_weight,
                                .has_metrics = metrics,
                                .has_recon = phase.update_autoencoder || metrics,
                                .summing = s->summing,
                                .updating = cpa_seconds() - since,
                                .n_parts = s->n_ranges,
                                .sums = s->sums,
                                .stop = stop};
cleanup:
    return st;
}
