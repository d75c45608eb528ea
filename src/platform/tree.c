// Owns: the fixed binary tree over lanes: partial sums of this rank, range by range, and the whole sum where there are no other ranks.
// Must never let the order of an addition depend on the ranks, on arrival, or on threads.
#include <string.h>

#include "cpa/base/mem.h"
#include "tree_impl.h"

enum { PARALLEL_FROM = 1 << 16 }; // elements; below, starting threads costs more than adding

cpa_status cpa_reduce_of(const char *name, cpa_reduce *out)
{
    static const char *const names[] = {"tree", "mpi", "nccl"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (cpa_reduce)i;
            return CPA_OK;
        }
    }
    return cpa_fail(CPA_USAGE, "reduce '%s' is none of tree, mpi, nccl", name);
}

void cpa_lane_range(int n_lanes, int n_ranks, int r, int *first, int *end)
{
    *first = (int)(((int64_t)r * n_lanes + n_ranks - 1) / n_ranks);
    *end = (int)(((int64_t)(r + 1) * n_lanes + n_ranks - 1) / n_ranks);
}

bool cpa_tree_can_merge(const cpa_partial *p, int depth)
{
    return depth >= 2 && p[depth - 1].level == p[depth - 2].level && p[depth - 1].index % 2 == 1 &&
           p[depth - 2].index == p[depth - 1].index - 1;
}

int cpa_tree_decompose(int first, int end, cpa_partial *p, int *most)
{
    int depth = 0;
    *most = 0;
    for (int lane = first; lane < end; lane++) {
        p[depth].level = 0;
        p[depth++].index = lane;
        *most = depth > *most && !cpa_tree_can_merge(p, depth) ? depth : *most;
        while (cpa_tree_can_merge(p, depth)) {
            depth--;
            p[depth - 1].level++;
            p[depth - 1].index /= 2;
        }
    }
    return depth;
}

static cpa_status take_stack(cpa_tree *tree)
{
    cpa_status st = CPA_OK;
    cpa_partial p[CPA_TREE_PARTIALS];
    if (tree->end - tree->first == 1) {
        return CPA_OK;
    }
    int n_slots;
    cpa_tree_decompose(tree->first, tree->end, p, &n_slots);
    CPA_TRY(cpa_alloc((size_t)n_slots, sizeof *tree->stack, &tree->stack));
    tree->n_slots = n_slots;
    for (int i = 0; i < n_slots; i++) {
        CPA_TRY(cpa_alloc((size_t)tree->m, sizeof *tree->stack->d, &tree->stack[i].d));
        CPA_TRY(cpa_alloc((size_t)tree->n, sizeof *tree->stack->v, &tree->stack[i].v));
    }
cleanup:
    return st;
}

cpa_status cpa_tree_create(cpa_comm *comm, cpa_reduce how, int n_lanes, int64_t n, int m, cpa_tree **out)
{
    cpa_status st = CPA_OK;
    cpa_tree *tree = NULL;
    int n_ranks = cpa_comm_size(comm);
    CPA_REQUIRE(n_lanes >= 1 && n_lanes <= 1 << 30 && (n_lanes & (n_lanes - 1)) == 0, CPA_USAGE,
                "the number of lanes must be a power of two, not %d", n_lanes);
    CPA_REQUIRE(n_ranks <= n_lanes, CPA_USAGE, "%d ranks cannot share %d lanes: use at most %d ranks", n_ranks, n_lanes,
                n_lanes);
    CPA_REQUIRE(n >= 0 && m >= 0, CPA_INTERNAL, "a sum of %lld reals and %d doubles", (long long)n, m);
    CPA_TRY(cpa_alloc(1, sizeof *tree, &tree));
    tree->comm = comm;
    tree->how = how;
    tree->n_lanes = n_lanes;
    tree->n_ranks = n_ranks;
    tree->rank = cpa_comm_rank(comm);
    tree->n = n;
    tree->m = m;
    cpa_lane_range(n_lanes, n_ranks, tree->rank, &tree->first, &tree->end);
    tree->next = -1;
    CPA_TRY(take_stack(tree));
    if (n_ranks > 1 && how == CPA_REDUCE_TREE) {
        CPA_TRY(cpa_tree_ranks_create(tree));
    }
    *out = tree;
    tree = NULL;
cleanup:
    cpa_tree_destroy(&tree);
    return st;
}

void cpa_tree_destroy(cpa_tree **tree)
{
    cpa_tree *t = *tree;
    if (t == NULL) {
        return;
    }
    for (int i = 0; i < t->n_slots; i++) {
        cpa_free(&t->stack[i].d);
        cpa_free(&t->stack[i].v);
    }
    cpa_free(&t->stack);
    cpa_tree_ranks_destroy(&t->ranks);
    cpa_free(tree);
}

cpa_status cpa_tree_begin(cpa_tree *tree, const cpa_range *ranges, int n_ranges)
{
    cpa_status st = CPA_OK;
    int64_t width = 0;
    CPA_REQUIRE(n_ranges <= CPA_TREE_RANGES, CPA_INTERNAL, "a sum of %d ranges, of which there can be %d", n_ranges,
                CPA_TREE_RANGES);
    for (int i = 0; i < n_ranges; i++) {
        CPA_REQUIRE(ranges[i].offset >= 0 && ranges[i].length >= 0 && ranges[i].offset <= tree->n - ranges[i].length,
                    CPA_INTERNAL, "range %d (%lld, length %lld) leaves the vector of %lld reals", i,
                    (long long)ranges[i].offset, (long long)ranges[i].length, (long long)tree->n);
        width += ranges[i].length;
        CPA_REQUIRE(width <= tree->n, CPA_INTERNAL, "the ranges up to %d overlap: %lld reals of a vector of %lld", i,
                    (long long)width, (long long)tree->n);
        tree->at[i + 1] = width;
    }
    tree->ranges = ranges;
    tree->n_ranges = n_ranges;
    tree->n_ready = 0;
    tree->next = tree->first;
    tree->depth = 0;
cleanup:
    return st;
}

void cpa_tree_add_reals(cpa_real *to, const cpa_real *a, const cpa_real *b, int64_t n)
{
#pragma omp parallel for simd schedule(static) if (n >= PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        to[i] = a[i] + b[i];
    }
}

void cpa_tree_add_doubles(double *restrict a, const double *restrict b, int m)
{
    for (int i = 0; i < m; i++) {
        a[i] = a[i] + b[i];
    }
}

static void copy_reals(cpa_real *to, const cpa_real *from, int64_t n)
{
    if (n > 0 && to != from) {
        memcpy(to, from, (size_t)n * sizeof *to);
    }
}

static void copy_doubles(double *to, const double *from, int m)
{
    if (m > 0 && to != from) {
        memcpy(to, from, (size_t)m * sizeof *to);
    }
}

// Adds n reals and m doubles of a lane to the sums p[0 .. depth-1], and children up to their parents as long as the last two are siblings;
// returns how many are left. p[depth] has memory where the lane is no right leaf.
static int push(cpa_partial *p, int depth, int lane, const cpa_real *v, int64_t n, const double *d, int m)
{
    if (lane % 2 == 1 && depth > 0 && p[depth - 1].level == 0) {
        cpa_tree_add_reals(p[depth - 1].v, p[depth - 1].v, v, n);
        cpa_tree_add_doubles(p[depth - 1].d, d, m);
        p[depth - 1].level = 1;
        p[depth - 1].index = lane / 2;
    } else {
        copy_reals(p[depth].v, v, n);
        copy_doubles(p[depth].d, d, m);
        p[depth].level = 0;
        p[depth++].index = lane;
    }
    while (cpa_tree_can_merge(p, depth)) {
        cpa_partial *left = &p[depth - 2], *right = &p[depth - 1];
        cpa_tree_add_reals(left->v, left->v, right->v, n);
        cpa_tree_add_doubles(left->d, right->d, m);
        left->level++;
        left->index /= 2;
        depth--;
    }
    return depth;
}

// Adds the ranges n_ready .. end-1 of a lane; which sums are live is left as it was.
static void add_ranges(cpa_tree *tree, int lane, const cpa_real *v, int end)
{
    cpa_partial p[CPA_TREE_PARTIALS];
    for (int i = tree->n_ready; i < end; i++) {
        for (int k = 0; k < tree->n_slots; k++) {
            p[k] = tree->stack[k];
            p[k].v += tree->at[i];
        }
        push(p, tree->depth, lane, v + tree->ranges[i].offset, tree->ranges[i].length, NULL, 0);
    }
}

cpa_status cpa_tree_ahead(cpa_tree *tree, cpa_real *v, int n_ready)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(tree->next == tree->end - 1 && n_ready <= tree->n_ranges, CPA_INTERNAL,
                "%d ranges of lane %d are final, but rank %d expects lane %d and has %d ranges", n_ready, tree->end - 1,
                tree->rank, tree->next, tree->n_ranges);
    if (tree->ranks == NULL) {
        return CPA_OK;
    }
    if (tree->end - tree->first == 1) {
        tree->only_v = v;
    } else {
        add_ranges(tree, tree->next, v, n_ready);
    }
    tree->n_ready = n_ready > tree->n_ready ? n_ready : tree->n_ready;
    CPA_TRY(cpa_tree_ranks_advance(tree, v));
cleanup:
    return st;
}

cpa_status cpa_tree_add(cpa_tree *tree, int lane, const cpa_real *v, const double *d)
{
    if (lane < 0 || lane != tree->next || lane >= tree->end) {
        return cpa_fail(CPA_INTERNAL, "lane %d is added, but rank %d has lanes %d to %d and expects lane %d", lane,
                        tree->rank, tree->first, tree->end - 1, tree->next);
    }
    tree->next++;
    if (tree->end - tree->first == 1) {
        tree->only_v = v;
        tree->only_d = d;
        return CPA_OK;
    }
    add_ranges(tree, lane, v, tree->n_ranges);
    tree->depth = push(tree->stack, tree->depth, lane, NULL, 0, d, tree->m);
    return CPA_OK;
}

const cpa_real *cpa_tree_own(const cpa_tree *tree, int k, int i)
{
    bool single = tree->end - tree->first == 1;
    return single ? tree->only_v + tree->ranges[i].offset : tree->stack[k].v + tree->at[i];
}

// What this rank's lanes come to; where they are several sums, these are added from left to right.
static void take_own(const cpa_tree *tree, cpa_real *out, double *dout)
{
    int depth = tree->end - tree->first == 1 ? 1 : tree->depth;
    copy_doubles(dout, depth == tree->depth ? tree->stack[0].d : tree->only_d, tree->m);
    for (int i = 0; i < tree->n_ranges; i++) {
        copy_reals(out + tree->ranges[i].offset, cpa_tree_own(tree, 0, i), tree->ranges[i].length);
    }
    for (int k = 1; k < depth; k++) {
        cpa_tree_add_doubles(dout, tree->stack[k].d, tree->m);
        for (int i = 0; i < tree->n_ranges; i++) {
            cpa_real *to = out + tree->ranges[i].offset;
            cpa_tree_add_reals(to, to, cpa_tree_own(tree, k, i), tree->ranges[i].length);
        }
    }
}

// All ranks' sums in an order of MPI's own.
static cpa_status add_over_ranks(const cpa_tree *tree, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_comm_add_f64(tree->comm, dout, tree->m));
    for (int i = 0; i < tree->n_ranges; i++) {
        CPA_TRY(cpa_comm_add_reals(tree->comm, out + tree->ranges[i].offset, tree->ranges[i].length));
    }
cleanup:
    return st;
}

cpa_status cpa_tree_finish(cpa_tree *tree, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(tree->next == tree->end, CPA_INTERNAL, "the sum is finished, but rank %d still waits for lane %d",
                tree->rank, tree->next);
    if (tree->ranks != NULL) {
        CPA_TRY(cpa_tree_ranks_finish(tree, out, dout));
    } else {
        take_own(tree, out, dout);
    }
    if (tree->n_ranks > 1 && tree->how == CPA_REDUCE_MPI) {
        CPA_TRY(add_over_ranks(tree, out, dout));
    }
    tree->next = -1;
cleanup:
    return st;
}
