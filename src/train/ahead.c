// Owns: filling the next batch in time. Never goes beyond the epoch whose order the sampler knows.
#include "ahead_impl.h"

// Of the class weights of a batch's cells, in their order.
static double label_weight(const cpa_registry *r, const cpa_batch *batch)
{
    double sum = 0;
    for (int i = 0; i < batch->n_cells; i++) {
        sum += r->label_weight[batch->label[i]];
    }
    return sum;
}

void cpa_ahead_aim(cpa_ahead *a, int64_t epoch, int64_t step)
{
    a->is_ready = false;
    a->epoch = epoch;
    a->step = step + 1;
}

cpa_status cpa_ahead_fill(void *ahead)
{
    cpa_status st = CPA_OK;
    cpa_ahead *a = ahead;
    if (a->batch == NULL || a->step >= a->n_steps) {
        return CPA_OK;
    }
    CPA_TRY(cpa_feed_fill(a->feed, a->registry, 0, a->step, a->batch));
    a->label_weight = label_weight(a->registry, a->batch);
    a->is_ready = true;
cleanup:
    return st;
}

bool cpa_ahead_has(const cpa_ahead *a, int64_t epoch, int64_t step)
{
    return a->is_ready && a->epoch == epoch && a->step == step;
}

void cpa_ahead_swap(cpa_ahead *a, cpa_batch **batch)
{
    cpa_batch *filled = a->batch;
    a->batch = *batch;
    a->is_ready = false;
    *batch = filled;
}
