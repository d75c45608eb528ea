// Owns: the fixed binary tree over lanes: partial sums of this rank, and their completion over the ranks, a slice of the vector by each.
// Must never let the order of an addition depend on the ranks, on arrival, or on threads.
#include <stdbool.h>
#include <string.h>

#include "cpa/base/mem.h"
#include "cpa/platform/tree.h"

enum {
    MAX_RANGES = 8,
    MAX_PARTIALS = 64,       // of one rank: twice log2 of the lanes
    PARALLEL_FROM = 1 << 16, // elements; below, starting threads costs more than adding
};

// The sum of the lanes i 2^l .. (i+1) 2^l - 1.
typedef struct partial {
    int level, index;
    double *d;   // [m]
    cpa_real *v; // the reals of the ranges side by side, or a slice of them
} partial;

struct cpa_tree {
    int n_lanes, n_ranks, rank;
    int first, end;   // lanes of this rank
    int next;         // whose turn it is; -1 between two sums
    int64_t n, width; // width: reals in all ranges together
    int m;
    const cpa_range *ranges;
    int n_ranges;
    partial *stack; // [n_slots] in lane order; stack[0 .. depth-1] are live, every slot keeps its memory
    int depth, n_slots;
    const cpa_real *only_v; // the single lane of this rank, borrowed
    const double *only_d;
    // With several ranks:
    partial *all;            // [n_all] what the lanes of all ranks come to, in lane order
    int *first_of;           // [n_ranks+1] where those of a rank begin
    int n_all, most;         // most: the largest number that a rank has
    double *mine;            // [most, m] this rank's
    double *gathered;        // [n_ranks, most, m]
    cpa_real *slices;        // [n_all, longest slice]
    cpa_parcel *send, *recv; // [most * MAX_RANGES]
};

void cpa_lane_range(int n_lanes, int n_ranks, int r, int *first, int *end)
{
    *first = (int)(((int64_t)r * n_lanes + n_ranks - 1) / n_ranks);
    *end = (int)(((int64_t)(r + 1) * n_lanes + n_ranks - 1) / n_ranks);
}

// Whether the last two live sums are the two children of one node.
static bool can_merge(const partial *stack, int depth)
{
    return depth >= 2 && stack[depth - 1].level == stack[depth - 2].level && stack[depth - 1].index % 2 == 1 &&
           stack[depth - 2].index == stack[depth - 1].index - 1;
}

// What the lanes first .. end-1 come to, in lane order: into p[], whose number is returned. *most: the largest number of sums that
// live at once on the way; a right leaf is added to its sibling at once and needs none.
static int decompose(int first, int end, partial *p, int *most)
{
    int depth = 0;
    *most = 0;
    for (int lane = first; lane < end; lane++) {
        p[depth].level = 0;
        p[depth++].index = lane;
        *most = depth > *most && !can_merge(p, depth) ? depth : *most;
        while (can_merge(p, depth)) {
            depth--;
            p[depth - 1].level++;
            p[depth - 1].index /= 2;
        }
    }
    return depth;
}

// The slice of the packed reals that rank r adds up.
static void slice_of(const cpa_tree *tree, int r, int64_t *begin, int64_t *end)
{
    *begin = tree->width * r / tree->n_ranks;
    *end = tree->width * (r + 1) / tree->n_ranks;
}

static int64_t longest_slice(const cpa_tree *tree)
{
    return tree->n / tree->n_ranks + 1;
}

static cpa_status take_stack(cpa_tree *tree)
{
    cpa_status st = CPA_OK;
    partial p[MAX_PARTIALS];
    if (tree->end - tree->first == 1) {
        return CPA_OK;
    }
    int n_slots;
    decompose(tree->first, tree->end, p, &n_slots);
    CPA_TRY(cpa_alloc((size_t)n_slots, sizeof *tree->stack, &tree->stack));
    tree->n_slots = n_slots;
    for (int i = 0; i < n_slots; i++) {
        CPA_TRY(cpa_alloc((size_t)tree->m, sizeof *tree->stack->d, &tree->stack[i].d));
        CPA_TRY(cpa_alloc((size_t)tree->n, sizeof *tree->stack->v, &tree->stack[i].v));
    }
cleanup:
    return st;
}

static cpa_status take_slices(cpa_tree *tree)
{
    cpa_status st = CPA_OK;
    partial p[MAX_PARTIALS];
    CPA_TRY(cpa_alloc((size_t)tree->n_ranks + 1, sizeof *tree->first_of, &tree->first_of));
    for (int r = 0; r < tree->n_ranks; r++) {
        int first, end, ignored;
        cpa_lane_range(tree->n_lanes, tree->n_ranks, r, &first, &end);
        int k = decompose(first, end, p, &ignored);
        tree->first_of[r + 1] = tree->first_of[r] + k;
        tree->most = k > tree->most ? k : tree->most;
    }
    tree->n_all = tree->first_of[tree->n_ranks];
    size_t messages = (size_t)tree->most * MAX_RANGES, doubles = (size_t)tree->most * (size_t)tree->m;
    CPA_TRY(cpa_alloc((size_t)tree->n_all, sizeof *tree->all, &tree->all));
    CPA_TRY(cpa_alloc(doubles, sizeof *tree->mine, &tree->mine));
    CPA_TRY(cpa_alloc(doubles * (size_t)tree->n_ranks, sizeof *tree->gathered, &tree->gathered));
    CPA_TRY(cpa_alloc((size_t)tree->n_all * (size_t)longest_slice(tree), sizeof *tree->slices, &tree->slices));
    CPA_TRY(cpa_alloc(messages, sizeof *tree->send, &tree->send));
    CPA_TRY(cpa_alloc(messages, sizeof *tree->recv, &tree->recv));
cleanup:
    return st;
}

cpa_status cpa_tree_create(const cpa_comm *comm, int n_lanes, int64_t n, int m, cpa_tree **out)
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
    tree->n_lanes = n_lanes;
    tree->n_ranks = n_ranks;
    tree->rank = cpa_comm_rank(comm);
    tree->n = n;
    tree->m = m;
    cpa_lane_range(n_lanes, n_ranks, tree->rank, &tree->first, &tree->end);
    tree->next = -1;
    CPA_TRY(take_stack(tree));
    if (n_ranks > 1) {
        CPA_TRY(take_slices(tree));
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
    cpa_free(&t->all);
    cpa_free(&t->first_of);
    cpa_free(&t->mine);
    cpa_free(&t->gathered);
    cpa_free(&t->slices);
    cpa_free(&t->send);
    cpa_free(&t->recv);
    cpa_free(tree);
}

cpa_status cpa_tree_begin(cpa_tree *tree, const cpa_range *ranges, int n_ranges)
{
    cpa_status st = CPA_OK;
    int64_t width = 0;
    CPA_REQUIRE(n_ranges <= MAX_RANGES, CPA_INTERNAL, "a sum of %d ranges, of which there can be %d", n_ranges,
                MAX_RANGES);
    for (int i = 0; i < n_ranges; i++) {
        CPA_REQUIRE(ranges[i].offset >= 0 && ranges[i].length >= 0 && ranges[i].offset <= tree->n - ranges[i].length,
                    CPA_INTERNAL, "range %d (%lld, length %lld) leaves the vector of %lld reals", i,
                    (long long)ranges[i].offset, (long long)ranges[i].length, (long long)tree->n);
        width += ranges[i].length;
        CPA_REQUIRE(width <= tree->n, CPA_INTERNAL, "the ranges up to %d overlap: %lld reals of a vector of %lld", i,
                    (long long)width, (long long)tree->n);
    }
    tree->ranges = ranges;
    tree->n_ranges = n_ranges;
    tree->width = width;
    tree->next = tree->first;
    tree->depth = 0;
cleanup:
    return st;
}

// a += b, a being the left child.
static void add_reals(cpa_real *restrict a, const cpa_real *restrict b, int64_t n)
{
#pragma omp parallel for simd schedule(static) if (n >= PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        a[i] = a[i] + b[i];
    }
}

static void add_doubles(double *restrict a, const double *restrict b, int m)
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

// Adds children up to their parents as long as the last two of p[0 .. depth-1] are siblings; returns how many are left.
static int merge(partial *p, int depth, int m, int64_t n)
{
    while (can_merge(p, depth)) {
        partial *left = &p[depth - 2], *right = &p[depth - 1];
        add_doubles(left->d, right->d, m);
        add_reals(left->v, right->v, n);
        left->level++;
        left->index /= 2;
        depth--;
    }
    return depth;
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
    bool right = lane % 2 == 1 && tree->depth > 0 && tree->stack[tree->depth - 1].level == 0;
    partial *leaf = right ? &tree->stack[tree->depth - 1] : &tree->stack[tree->depth++];
    int64_t at = 0;
    for (int i = 0; i < tree->n_ranges; i++) {
        const cpa_real *from = v + tree->ranges[i].offset;
        if (right) {
            add_reals(leaf->v + at, from, tree->ranges[i].length);
        } else {
            copy_reals(leaf->v + at, from, tree->ranges[i].length);
        }
        at += tree->ranges[i].length;
    }
    if (right) {
        add_doubles(leaf->d, d, tree->m);
        leaf->level = 1;
        leaf->index = lane / 2;
    } else {
        copy_doubles(leaf->d, d, tree->m);
        leaf->level = 0;
        leaf->index = lane;
    }
    tree->depth = merge(tree->stack, tree->depth, tree->m, tree->width);
    return CPA_OK;
}

// The packed reals begin .. end-1, cut where ranges end, so that both sides of a message cut alike: in `vector`, which has the
// layout of the whole vector, or else in `packed`, where element `begin` is the first. Returns the number of messages.
static int cut(const cpa_tree *tree, int64_t begin, int64_t end, const cpa_real *vector, const cpa_real *packed,
               cpa_parcel *out)
{
    int n = 0;
    int64_t at = 0; // packed position where the range begins
    for (int i = 0; i < tree->n_ranges; i++) {
        int64_t from = begin > at ? begin : at, range_end = at + tree->ranges[i].length,
                to = end < range_end ? end : range_end;
        if (from < to) {
            const cpa_real *p =
                vector != NULL ? vector + tree->ranges[i].offset + (from - at) : packed + (from - begin);
            out[n++] = (cpa_parcel){.buf = (void *)(uintptr_t)p, .bytes = (size_t)(to - from) * sizeof *p};
        }
        at = range_end;
    }
    return n;
}

// The k-th sum of this rank: in the lane's own vector (*vector), or packed (*packed).
static void own_sum(const cpa_tree *tree, int k, const cpa_real **vector, const cpa_real **packed)
{
    bool single = tree->end - tree->first == 1;
    *vector = single ? tree->only_v : NULL;
    *packed = single ? NULL : tree->stack[k].v;
}

// Every rank gets its slice of all ranks' sums, in tree->all[].v.
static cpa_status scatter_slices(cpa_tree *tree, cpa_comm *comm)
{
    cpa_status st = CPA_OK;
    int64_t begin, end, to_begin, to_end;
    const cpa_real *vector, *packed;
    slice_of(tree, tree->rank, &begin, &end);
    for (int k = 0; k < tree->first_of[tree->rank + 1] - tree->first_of[tree->rank]; k++) {
        cpa_real *to = tree->all[tree->first_of[tree->rank] + k].v;
        own_sum(tree, k, &vector, &packed);
        int pieces = cut(tree, begin, end, vector, packed != NULL ? packed + begin : NULL, tree->send);
        for (int i = 0; i < pieces; i++) {
            memcpy(to, tree->send[i].buf, tree->send[i].bytes);
            to += tree->send[i].bytes / sizeof *to;
        }
    }
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        int to = (tree->rank + distance) % tree->n_ranks,
            from = (tree->rank - distance + tree->n_ranks) % tree->n_ranks;
        int n_send = 0, n_recv = 0;
        slice_of(tree, to, &to_begin, &to_end);
        for (int k = 0; k < tree->first_of[tree->rank + 1] - tree->first_of[tree->rank]; k++) {
            own_sum(tree, k, &vector, &packed);
            n_send +=
                cut(tree, to_begin, to_end, vector, packed != NULL ? packed + to_begin : NULL, tree->send + n_send);
        }
        for (int k = tree->first_of[from]; k < tree->first_of[from + 1]; k++) {
            n_recv += cut(tree, begin, end, NULL, tree->all[k].v, tree->recv + n_recv);
        }
        CPA_TRY(cpa_comm_exchange(comm, to, tree->send, n_send, from, tree->recv, n_recv));
    }
cleanup:
    return st;
}

// Every rank gets the finished slices of all ranks; its own is in `mine`.
static cpa_status gather_slices(cpa_tree *tree, cpa_comm *comm, const cpa_real *mine, cpa_real *out)
{
    cpa_status st = CPA_OK;
    int64_t begin, end, from_begin, from_end;
    slice_of(tree, tree->rank, &begin, &end);
    int n_send = cut(tree, begin, end, out, NULL, tree->send);
    for (int i = 0; i < n_send; i++) {
        memcpy(tree->send[i].buf, mine, tree->send[i].bytes);
        mine += tree->send[i].bytes / sizeof *mine;
    }
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        int to = (tree->rank + distance) % tree->n_ranks,
            from = (tree->rank - distance + tree->n_ranks) % tree->n_ranks;
        slice_of(tree, from, &from_begin, &from_end);
        int n_recv = cut(tree, from_begin, from_end, out, NULL, tree->recv);
        CPA_TRY(cpa_comm_exchange(comm, to, tree->send, n_send, from, tree->recv, n_recv));
    }
cleanup:
    return st;
}

// Doubles are few: every rank gets all of them and adds them all up.
static cpa_status gather_doubles(cpa_tree *tree, cpa_comm *comm)
{
    cpa_status st = CPA_OK;
    size_t m = (size_t)tree->m, most = (size_t)tree->most;
    int own = tree->first_of[tree->rank + 1] - tree->first_of[tree->rank];
    for (int k = 0; k < own; k++) {
        copy_doubles(tree->mine + (size_t)k * m, tree->end - tree->first == 1 ? tree->only_d : tree->stack[k].d,
                     tree->m);
    }
    CPA_TRY(cpa_comm_allgather(comm, tree->mine, tree->gathered, most * m * sizeof *tree->mine));
    for (int r = 0; r < tree->n_ranks; r++) {
        int first, end, ignored;
        partial *p = tree->all + tree->first_of[r];
        partial scratch[MAX_PARTIALS];
        cpa_lane_range(tree->n_lanes, tree->n_ranks, r, &first, &end);
        int n = decompose(first, end, scratch, &ignored);
        for (int k = 0; k < n; k++) {
            p[k] = scratch[k];
            p[k].d = tree->gathered + ((size_t)r * most + (size_t)k) * m;
            p[k].v = tree->slices + (int64_t)(tree->first_of[r] + k) * longest_slice(tree);
        }
    }
cleanup:
    return st;
}

static cpa_status finish_over_ranks(cpa_tree *tree, cpa_comm *comm, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    int64_t begin, end;
    slice_of(tree, tree->rank, &begin, &end);
    CPA_TRY(gather_doubles(tree, comm));
    CPA_TRY(scatter_slices(tree, comm));
    int depth = 0;
    for (int i = 0; i < tree->n_all; i++) {
        tree->all[depth++] = tree->all[i];
        depth = merge(tree->all, depth, tree->m, end - begin);
    }
    copy_doubles(dout, tree->all[0].d, tree->m);
    CPA_TRY(gather_slices(tree, comm, tree->all[0].v, out));
cleanup:
    return st;
}

cpa_status cpa_tree_finish(cpa_tree *tree, cpa_comm *comm, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(tree->next == tree->end, CPA_INTERNAL, "the sum is finished, but rank %d still waits for lane %d",
                tree->rank, tree->next);
    if (tree->n_ranks > 1) {
        CPA_TRY(finish_over_ranks(tree, comm, out, dout));
    } else {
        const double *d = tree->n_lanes == 1 ? tree->only_d : tree->stack[0].d;
        const cpa_real *packed = tree->n_lanes == 1 ? NULL : tree->stack[0].v;
        copy_doubles(dout, d, tree->m);
        for (int i = 0; i < tree->n_ranges; i++) {
            int64_t offset = tree->ranges[i].offset, length = tree->ranges[i].length;
            copy_reals(out + offset, packed != NULL ? packed : tree->only_v + offset, length);
            packed = packed != NULL ? packed + length : NULL;
        }
    }
    tree->next = -1;
cleanup:
    return st;
}
