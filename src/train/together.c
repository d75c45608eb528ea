// Owns: the meetings of lanes. Must never leave a rank waiting for another that has failed or has nothing to do.
#include "cpa/train/together.h"

#include <string.h>

#include "cpa/base/mem.h"
#include "cpa/platform/tree.h"

// What every meeting carries in front of the sums: ranks that are not yet through with their lanes, and those that have failed. All
// meetings are alike, so that a rank need not know at which the others are.
enum { BUSY, FAILED, N_NEWS };

struct cpa_together {
    cpa_comm *comm; // borrowed
    cpa_model *model;
    cpa_tree *tree;
    cpa_meeting meeting; // its arrays are owned
    double *mine, *all;  // [N_NEWS + the most sums]
    int width;           // of those
    int first, end;      // lanes of this rank
    const int *lane;     // the n of them that have cells, during a step
    int n;
    bool over; // of the step: a meeting has failed, on all ranks
};

// One meeting: the lanes' n sums (0: none) to those of all lanes. Collective.
static cpa_status meet(cpa_together *g, int n, bool busy, cpa_status mine)
{
    cpa_status st = CPA_OK;
    int k = 0;
    CPA_TRY(cpa_tree_begin(g->tree, NULL, 0));
    for (int lane = g->first; lane < g->end; lane++) {
        bool last = lane + 1 == g->end;
        memset(g->mine, 0, (size_t)g->width * sizeof *g->mine);
        g->mine[BUSY] = last && busy;
        g->mine[FAILED] = last && mine != CPA_OK;
        if (n > 0 && k < g->n && g->lane[k] == lane) {
            memcpy(g->mine + N_NEWS, g->meeting.own + (size_t)k++ * (size_t)n, (size_t)n * sizeof *g->mine);
        }
        CPA_TRY(cpa_tree_add(g->tree, lane, NULL, g->mine));
    }
    CPA_TRY(cpa_tree_finish(g->tree, NULL, g->all));
    st = g->all[FAILED] > 0 ? cpa_comm_agree(g->comm, mine) : CPA_OK;
cleanup:
    g->over = st != CPA_OK;
    return st;
}

static cpa_status add_up(void *ctx, int n)
{
    return meet(ctx, n, true, CPA_OK);
}

cpa_status cpa_together_create(cpa_comm *comm, cpa_model *model, int n_lanes, cpa_together **out)
{
    cpa_status st = CPA_OK;
    cpa_together *g = NULL;
    int most = cpa_model_n_pooled(model);
    CPA_TRY(cpa_alloc(1, sizeof *g, &g));
    g->comm = comm;
    g->model = model;
    g->width = N_NEWS + most;
    cpa_lane_range(n_lanes, cpa_comm_size(comm), cpa_comm_rank(comm), &g->first, &g->end);
    CPA_TRY(cpa_tree_create(comm, CPA_REDUCE_TREE, n_lanes, 0, g->width, &g->tree));
    CPA_TRY(cpa_alloc((size_t)g->width, sizeof *g->mine, &g->mine));
    CPA_TRY(cpa_alloc((size_t)g->width, sizeof *g->all, &g->all));
    CPA_TRY(cpa_alloc((size_t)(g->end - g->first) * (size_t)most, sizeof *g->meeting.own, &g->meeting.own));
    g->meeting.all = g->all + N_NEWS;
    g->meeting.add_up = add_up;
    g->meeting.ctx = g;
    CPA_TRY(cpa_model_widen(model, g->end - g->first));
    *out = g;
    g = NULL;
cleanup:
    cpa_together_destroy(&g);
    return st;
}

void cpa_together_destroy(cpa_together **g)
{
    if (*g) {
        cpa_model_narrow((*g)->model);
        cpa_tree_destroy(&(*g)->tree);
        cpa_free(&(*g)->mine);
        cpa_free(&(*g)->all);
        cpa_free(&(*g)->meeting.own);
        cpa_free(g);
    }
}

cpa_status cpa_together_run(cpa_together *g, const cpa_batch *const *batch, const int *lane, int n,
                            const cpa_lane_plan *plan, cpa_status mine, double *sums)
{
    cpa_lane_plan side_by_side = *plan;
    g->lane = lane;
    g->n = n;
    g->over = false;
    g->meeting.rows = plan->n_cells;
    side_by_side.meeting = &g->meeting;
    if (mine == CPA_OK && n > 0) {
        mine = cpa_model_lanes(g->model, batch, n, &side_by_side, sums);
    }
    // A rank that is through, or has failed, or had nothing to do, attends until all are through.
    while (!g->over) {
        mine = meet(g, 0, false, mine);
        if (g->all[BUSY] == 0) {
            break;
        }
    }
    return mine;
}
