// Owns: which outputs of hidden layers stay from forward to backward, and the order in which the others are computed again.
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
    int fifth = (int)(whole / 5 / width) - both - dropout;
    r->n_slots = at_least(fifth, 2) < depth ? at_least(fifth, 2) : depth;
    for (int i = 0; i < r->n_slots; i++) {
        r->slot[i] = cpa_mat_take(arena, used, max_cells, width);
        r->layer[i] = -1;
    }
    r->of = NULL;
    r->ready = -1;
    r->lhat = both ? cpa_mat_take(arena, used, max_cells, width) : CPA_NO_MAT;
    r->mask = dropout ? cpa_mat_take(arena, used, max_cells, width) : CPA_NO_MAT;
    r->mean = cpa_mat_take(arena, used, 1, width);
    r->var = cpa_mat_take(arena, used, 1, width);
    r->rstd = cpa_mat_take(arena, used, 1, width);
    r->lrstd = cpa_mat_take(arena, used, 1, max_cells);
}

// ---- Slots

// The slot of layer k's output, of a free one for k -1; -1: none.
static int slot_of(const cpa_recompute *r, int k)
{
    for (int i = 0; i < r->n_slots; i++) {
        if (r->layer[i] == k) {
            return i;
        }
    }
    return -1;
}

static bool is_there(const cpa_recompute *r, int k)
{
    return slot_of(r, k) >= 0;
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

// What is to be computed: everything between the last output that is there and that of layer `last`. The last two stay, for these the
// backward of `last` needs; and as many of the others, evenly spread, as there are slots for.
static void aim(cpa_recompute *r, int last)
{
    drop(r, last);
    r->base = -1;
    r->last = last;
    r->more = r->n_slots - 2;
    for (int i = 0; i < r->n_slots; i++) {
        r->base = at_least(r->layer[i], r->base);
        r->more -= r->layer[i] >= 0;
    }
}

// Whether the output of a layer that is being computed stays when the one behind it is there.
static bool stays(const cpa_recompute *r, int k)
{
    int from_base = k - r->base, all = r->last - 1 - r->base;
    return k >= r->last - 1 || from_base * (r->more + 1) / all > (from_base - 1) * (r->more + 1) / all;
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
    int i = is_there(r, k) ? slot_of(r, k) : slot_of(r, -1), cells = r->slot[0].rows;
    CPA_REQUIRE(i >= 0, CPA_INTERNAL, "no slot for the output of layer %d among %d", k, r->n_slots);
    r->layer[i] = k;
    cpa_mat a = cpa_sized(mlp->work[mlp->linear], cells, l->n_out); // a norm may leave its values where its input was
    l->y = cpa_sized(r->slot[i], cells, l->n_out);
    l->xhat = mlp->norms.batch ? a : CPA_NO_MAT;
    l->rstd = cpa_sized(r->rstd, 1, l->n_out);
    l->lhat = !mlp->norms.layer ? CPA_NO_MAT : mlp->norms.batch ? cpa_sized(r->lhat, cells, l->n_out) : a;
    l->lrstd = r->lrstd;
cleanup:
    return st;
}

void cpa_recompute_leave(cpa_mlp *mlp, int k)
{
    cpa_recompute *r = mlp->again;
    if (r && k - 1 > r->base && !stays(r, k - 1)) {
        r->layer[slot_of(r, k - 1)] = -1;
    }
}

// The batch norm's statistics of the forward stay what they are: they are told once.
static cpa_status compute_again(cpa_mlp *mlp, int k)
{
    cpa_status st = CPA_OK;
    cpa_recompute *r = mlp->again;
    int width = mlp->layer[k].n_out;
    CPA_TRY(cpa_recompute_enter(mlp, k));
    CPA_TRY(cpa_mlp_product(mlp, k));
    CPA_TRY(cpa_mlp_activate(mlp, k, cpa_sized(r->mean, 1, width), cpa_sized(r->var, 1, width)));
    cpa_recompute_leave(mlp, k);
cleanup:
    return st;
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
    bool has_norm = mlp->norms.batch || mlp->norms.layer, has_input = k == 0 || is_there(r, k - 1);
    if (r->ready == k || (has_input && is_there(r, k) && !has_norm)) {
        return CPA_OK;
    }
    aim(r, k);
    mlp->linear =
        (mlp->n_layers - k + 1) % 2; // where the gradient of its input will be, for that of its output is in the other
    for (int i = r->base + 1; i <= k; i++) {
        CPA_TRY(compute_again(mlp, i));
    }
    r->ready = k;
cleanup:
    mlp->linear = 0;
    return st;
}
