// Owns: what lanes compute in that run side by side, and how they are linked. Never computes.
#include <string.h>

#include "model_impl.h"

// Calls f for every stack of a lane beside that of another (or NULL).
static void each_stack(cpa_model *m, cpa_model *other, void (*f)(cpa_mlp *mlp, cpa_mlp *beside, const void *arg),
                       const void *arg)
{
    f(&m->encoder, other ? &other->encoder : NULL, arg);
    f(&m->decoder, other ? &other->decoder : NULL, arg);
    for (int i = 0; i < m->n_adversaries; i++) {
        f(&m->adversary[i].mlp, other ? &other->adversary[i].mlp : NULL, arg);
    }
}

// A stack that was copied owns nothing yet.
static void detach(cpa_mlp *mlp, cpa_mlp *none, const void *params)
{
    (void)none;
    mlp->t = (cpa_params *)(uintptr_t)params;
    mlp->own = mlp->all = NULL;
}

// A copy of the model that shares its values and owns nothing yet but its list of adversaries.
static cpa_status copy_shared(const cpa_model *m, cpa_model *lane)
{
    cpa_status st = CPA_OK;
    cpa_adversary *adversary;
    CPA_TRY(cpa_alloc((size_t)m->shape.n_covs + 1, sizeof *adversary, &adversary));
    for (int i = 0; i < m->n_adversaries; i++) {
        adversary[i] = m->adversary[i];
    }
    *lane = *m;
    lane->more = NULL;
    lane->n_more = 0;
    lane->adversary = adversary;
    lane->t.grad = NULL;
    lane->batch = (cpa_device_batch){0};
    lane->memory = NULL;
    lane->number = NULL;
    lane->numbers = NULL;
    memset(lane->repeat, 0, sizeof lane->repeat);
    lane->sums = lane->r2 = NULL;
    lane->order = lane->offsets = lane->mask = lane->best = NULL;
    lane->host_order = lane->host_offsets = lane->host_mask = lane->host_best = lane->host_cov = NULL;
    lane->host_weight = NULL;
    lane->host_r2 = NULL;
    lane->host_hits = NULL;
    each_stack(lane, NULL, detach, &lane->t);
cleanup:
    return st;
}

static cpa_status place_sums(cpa_model *m)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_mlp_place_sums(&m->encoder));
    CPA_TRY(cpa_mlp_place_sums(&m->decoder));
    for (int i = 0; i < m->n_adversaries; i++) {
        CPA_TRY(cpa_mlp_place_sums(&m->adversary[i].mlp));
    }
cleanup:
    return st;
}

static cpa_status add_lane(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_model *lane = NULL;
    size_t bytes = (size_t)m->t.n_grad * sizeof(cpa_real);
    CPA_TRY(cpa_alloc(1, sizeof *lane, &lane));
    CPA_TRY(copy_shared(m, lane));
    m->more[m->n_more++] = lane; // cpa_model_narrow frees it from here on
    CPA_TRY(cpa_model_place(lane));
    CPA_TRY(place_sums(lane));
    CPA_TRY(cpa_op_alloc(m->be, bytes, (void **)&lane->t.grad));
    CPA_TRY(cpa_op_zero(m->be, lane->t.grad, bytes));
    return CPA_OK;
cleanup:
    if (m->n_more == 0 || m->more[m->n_more - 1] != lane) {
        cpa_free(&lane);
    }
    return st;
}

cpa_status cpa_model_widen(cpa_model *m, int n)
{
    cpa_status st = CPA_OK;
    CPA_TRY(place_sums(m));
    CPA_TRY(cpa_alloc((size_t)n, sizeof(cpa_model *), &m->more));
    for (int i = 1; i < n; i++) {
        CPA_TRY(add_lane(m));
    }
cleanup:
    return st;
}

static void drop_sums(cpa_mlp *mlp, cpa_mlp *none, const void *arg)
{
    (void)none;
    (void)arg;
    cpa_mlp_fini_sums(mlp);
}

void cpa_model_narrow(cpa_model *m)
{
    each_stack(m, NULL, drop_sums, NULL);
    for (int i = 0; i < m->n_more; i++) {
        cpa_model *lane = m->more[i];
        each_stack(lane, NULL, drop_sums, NULL);
        cpa_model_unplace(lane);
        if (lane->t.grad) {
            cpa_op_release(m->be, lane->t.grad);
        }
        cpa_free(&lane->adversary);
        cpa_free(&lane);
    }
    cpa_free(&m->more);
    m->n_more = 0;
}

int cpa_model_n_pooled(const cpa_model *m)
{
    int e = cpa_mlp_n_pooled(&m->encoder), d = cpa_mlp_n_pooled(&m->decoder), most = e > d ? e : d;
    for (int i = 0; i < m->n_adversaries; i++) {
        int a = cpa_mlp_n_pooled(&m->adversary[i].mlp);
        most = a > most ? a : most;
    }
    return most;
}

static void link_stack(cpa_mlp *mlp, cpa_mlp *next, const void *meeting)
{
    mlp->next = next;
    mlp->meeting = meeting;
}

cpa_status cpa_model_join(cpa_model *m, int n, const cpa_meeting *meeting)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(n >= 1 && n <= 1 + m->n_more, CPA_INTERNAL, "%d lanes in a model with room for %d", n, 1 + m->n_more);
    for (int i = 0; i < n; i++) {
        cpa_model *lane = i > 0 ? m->more[i - 1] : m;
        lane->next = i + 1 < n ? m->more[i] : NULL;
        each_stack(lane, lane->next, link_stack, meeting);
    }
cleanup:
    return st;
}

cpa_dev_real *cpa_model_lane_grad(cpa_model *m, int i)
{
    return i > 0 ? m->more[i - 1]->t.grad : m->t.grad;
}
