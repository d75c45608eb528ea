// Owns: what of hidden layers stays from forward to backward, and the order in which the rest is computed again.
// Never changes a bit of what is computed: the same operations on the same values, and statistics aside from those of the forward.
#include "mlp_impl.h"

static int at_least(int a, int b)
{
    return a > b ? a : b;
}

void cpa_recompute_lay_out(cpa_recompute *r, const cpa_mlp *const *stack, int n, int max_cells,
                           const cpa_dev_real *arena, int64_t *used)
{
    bool both = false, dropout = false;
    int width = 0, depth = 0;
    int64_t whole = 0; // columns of all outputs and of what norms leave
    for (int i = 0; i < n; i++) {
        const cpa_mlp *s = stack[i];
        both = both || (s->norms.batch && s->norms.layer);
        dropout = dropout || s->rate > 0;
        width = at_least(s->n_hidden, width);
        depth = at_least(s->n_layers, depth);
        whole += (int64_t)s->n_layers * s->n_hidden * (1 + s->norms.batch + s->norms.layer);
    }
    int fifth = at_least((int)(whole / 5 / width) - 1 - both - dropout, 1); // without the output that is always there
    r->n_slots = fifth < depth ? fifth : depth;
    for (int i = 0; i < r->n_slots; i++) {
        r->slot[i] = cpa_mat_take(arena, used, max_cells, width);
        r->layer[i] = -1;
    }
    r->of = NULL;
    r->ready = -1;
    r->y = cpa_mat_take(arena, used, max_cells, width);
    r->lhat = both ? cpa_mat_take(arena, used, max_cells, width) : CPA_NO_MAT;
    r->mask = dropout ? cpa_mat_take(arena, used, max_cells, width) : CPA_NO_MAT;
    r->mean = cpa_mat_take(arena, used, 1, width);
    r->var = cpa_mat_take(arena, used, 1, width);
    r->rstd = cpa_mat_take(arena, used, 1, width);
    r->lrstd = cpa_mat_take(arena, used, 1, max_cells);
}

// ---- Slots

// The slot of layer k's A, of a free one for k -1; -1: none.
static int slot_of(const cpa_recompute *r, int k)
{
    for (int i = 0; i < r->n_slots; i++) {
        if (r->layer[i] == k) {
            return i;
        }
    }
    return -1;
}

// Gives the slots back of layers from `first` on.
static void drop(cpa_recompute *r, int first)
{
    for (int i = 0; i < r->n_slots; i++) {
        r->layer[i] = r->layer[i] >= first ? -1 : r->layer[i];
    }
}

void cpa_recompute_forget(cpa_mlp *mlp)
{
    mlp->again->of = mlp;
    mlp->again->ready = -1;
    drop(mlp->again, 0);
}

// What is to be computed: everything between the last A that is there and that of layer `last`, which stays, and of the others as many,
// evenly spread, as there are slots for.
static void aim(cpa_recompute *r, int last)
{
    drop(r, last + 1);
    r->base = -1;
    r->last = last;
    r->more = r->n_slots - 1;
    for (int i = 0; i < r->n_slots; i++) {
        r->base = at_least(r->layer[i], r->base);
        r->more -= r->layer[i] >= 0;
    }
}

static bool stays(const cpa_recompute *r, int k)
{
    int from_base = k - r->base, all = r->last - r->base;
    return from_base * (r->more + 1) / all > (from_base - 1) * (r->more + 1) / all;
}

// Where the activation of layer k leaves what it normalised: in the place of A for whoever goes back through it at once, else in the
// scratch, for others need its A later.
static void choose_place(cpa_mlp *mlp, int k)
{
    const cpa_recompute *r = mlp->again;
    cpa_layer *l = &mlp->layer[k];
    int cells = r->y.rows;
    cpa_mat to = k == r->last ? l->a : cpa_sized(mlp->work[mlp->linear], cells, l->n_out);
    l->xhat = mlp->norms.batch ? to : CPA_NO_MAT;
    l->rstd = cpa_sized(r->rstd, 1, l->n_out);
    l->lhat = !mlp->norms.layer ? CPA_NO_MAT : mlp->norms.batch ? cpa_sized(r->lhat, cells, l->n_out) : to;
    l->lrstd = r->lrstd;
    l->y = cpa_sized(r->y, cells, l->n_out);
}

// ---- The forward, and parts of it again

void cpa_recompute_begin(cpa_mlp *mlp)
{
    if (mlp->again) {
        cpa_recompute_forget(mlp);
        aim(mlp->again, mlp->n_layers - 1);
    }
}

cpa_status cpa_recompute_enter(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    cpa_recompute *r = mlp->again;
    cpa_layer *l = &mlp->layer[k];
    if (!r) {
        return CPA_OK;
    }
    l->a = cpa_sized(mlp->work[mlp->linear], r->y.rows, l->n_out);
    if (stays(r, k)) {
        int i = slot_of(r, -1);
        CPA_REQUIRE(i >= 0, CPA_INTERNAL, "no slot for layer %d among %d", k, r->n_slots);
        r->layer[i] = k;
        l->a = cpa_sized(r->slot[i], r->y.rows, l->n_out);
    }
    choose_place(mlp, k);
cleanup:
    return st;
}

void cpa_recompute_end(cpa_mlp *mlp)
{
    if (mlp->again) {
        mlp->again->ready = mlp->n_layers - 1;
    }
}

// The batch norm's statistics of the forward stay what they are: they are told once.
static cpa_status activate_again(cpa_mlp *mlp, int k)
{
    cpa_recompute *r = mlp->again;
    int width = mlp->layer[k].n_out;
    choose_place(mlp, k);
    return cpa_mlp_activate(mlp, k, cpa_sized(r->mean, 1, width), cpa_sized(r->var, 1, width));
}

// The scratch that holds no gradient when layer k is asked for: before its own backward, or that of the layer behind it.
static int free_scratch(const cpa_mlp *mlp, int k)
{
    return k == mlp->n_layers - 1 ? 0 : (mlp->n_layers - k) % 2;
}

cpa_status cpa_recompute_layer(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    cpa_recompute *r = mlp->again;
    if (!r) {
        return CPA_OK;
    }
    if (r->of != mlp) {
        cpa_recompute_forget(mlp);
    }
    if (r->ready == k) {
        return CPA_OK;
    }
    aim(r, k);
    mlp->linear = free_scratch(mlp, k);
    CPA_TRY(r->base >= 0 ? activate_again(mlp, r->base) : CPA_OK);
    for (int i = r->base + 1; i <= k; i++) {
        CPA_TRY(cpa_recompute_enter(mlp, i));
        CPA_TRY(cpa_mlp_product(mlp, i));
        CPA_TRY(activate_again(mlp, i));
    }
    r->ready = k;
cleanup:
    mlp->linear = 0;
    return st;
}
