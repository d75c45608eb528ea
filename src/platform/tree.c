// Owns: the fixed binary tree over lanes: partial sums of this rank, and their completion over the ranks.
// Must never let the order of an addition depend on the ranks, on arrival, or on threads.
#include <stdbool.h>
#include <string.h>

#include "cpa/base/mem.h"
#include "cpa/platform/tree.h"

enum {
    TREE_TAG = 7001,         // no other message between two ranks uses it
    PARALLEL_FROM = 1 << 16, // elements; below, starting threads costs more than adding
};

// The sum of the lanes i 2^l .. (i+1) 2^l - 1.
typedef struct node {
    int level, index;
    char *sum; // m doubles, then the reals of the ranges side by side; one piece, so that it is one message
} node;

struct cpa_tree {
    int n_lanes, n_ranks, rank;
    int first, end;   // lanes of this rank
    int next;         // whose turn it is; -1 between two sums
    int64_t n, width; // width: reals in all ranges together
    int m;
    const cpa_range *ranges;
    int n_ranges;
    node *stack; // [n_slots] in lane order; stack[0 .. depth-1] are live, every slot keeps its memory
    int depth, n_slots;
    char *arriving;         // a right child from another rank; NULL on one rank
    const cpa_real *only_v; // the single lane
    const double *only_d;
};

void cpa_lane_range(int n_lanes, int n_ranks, int r, int *first, int *end)
{
    *first = (int)(((int64_t)r * n_lanes + n_ranks - 1) / n_ranks);
    *end = (int)(((int64_t)(r + 1) * n_lanes + n_ranks - 1) / n_ranks);
}

// The rank that computes a node: the one that has its first lane.
static int owner_of(const cpa_tree *tree, int level, int index)
{
    int64_t lane = (int64_t)index << level;
    return (int)(lane * tree->n_ranks / tree->n_lanes);
}

// Whether the last two live nodes are the two children of one node.
static bool can_merge(const node *stack, int depth)
{
    return depth >= 2 && stack[depth - 1].level == stack[depth - 2].level && stack[depth - 1].index % 2 == 1 &&
           stack[depth - 2].index == stack[depth - 1].index - 1;
}

// Most partial sums that are live at once while lanes first .. end-1 are added: one more than log2 of their number when
// they are aligned, up to twice that when not. A right leaf is added to its sibling at once and needs none.
static int count_slots(int first, int end)
{
    node stack[64];
    int depth = 0, most = 0;
    for (int lane = first; lane < end; lane++) {
        stack[depth++] = (node){.level = 0, .index = lane};
        most = depth > most && !can_merge(stack, depth) ? depth : most;
        while (can_merge(stack, depth)) {
            depth--;
            stack[depth - 1].level++;
            stack[depth - 1].index /= 2;
        }
    }
    return most;
}

static size_t sum_bytes(int m, int64_t n)
{
    return (size_t)m * sizeof(double) + (size_t)n * sizeof(cpa_real);
}

static double *doubles(char *sum)
{
    return (double *)(void *)sum;
}

static cpa_real *reals(const cpa_tree *tree, char *sum)
{
    return (cpa_real *)(void *)(sum + (size_t)tree->m * sizeof(double));
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
    if (n_lanes > 1) {
        int n_slots = count_slots(tree->first, tree->end);
        CPA_TRY(cpa_alloc((size_t)n_slots, sizeof *tree->stack, &tree->stack));
        tree->n_slots = n_slots;
        for (int i = 0; i < n_slots; i++) {
            CPA_TRY(cpa_alloc(sum_bytes(m, n), 1, &tree->stack[i].sum));
        }
    }
    if (n_ranks > 1) {
        CPA_TRY(cpa_alloc(sum_bytes(m, n), 1, &tree->arriving));
    }
    *out = tree;
    tree = NULL;
cleanup:
    cpa_tree_destroy(&tree);
    return st;
}

void cpa_tree_destroy(cpa_tree **tree)
{
    if (*tree == NULL) {
        return;
    }
    for (int i = 0; i < (*tree)->n_slots; i++) {
        cpa_free(&(*tree)->stack[i].sum);
    }
    cpa_free(&(*tree)->stack);
    cpa_free(&(*tree)->arriving);
    cpa_free(tree);
}

cpa_status cpa_tree_begin(cpa_tree *tree, const cpa_range *ranges, int n_ranges)
{
    cpa_status st = CPA_OK;
    int64_t width = 0;
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
    if (n > 0) {
        memcpy(to, from, (size_t)n * sizeof *to);
    }
}

static void copy_doubles(double *to, const double *from, int m)
{
    if (m > 0) {
        memcpy(to, from, (size_t)m * sizeof *to);
    }
}

static void add_sum(const cpa_tree *tree, char *left, char *right)
{
    add_doubles(doubles(left), doubles(right), tree->m);
    add_reals(reals(tree, left), reals(tree, right), tree->width);
}

static void set_leaf(const cpa_tree *tree, char *sum, const cpa_real *v, const double *d)
{
    cpa_real *to = reals(tree, sum);
    copy_doubles(doubles(sum), d, tree->m);
    for (int i = 0; i < tree->n_ranges; i++) {
        copy_reals(to, v + tree->ranges[i].offset, tree->ranges[i].length);
        to += tree->ranges[i].length;
    }
}

static void add_leaf(const cpa_tree *tree, char *sum, const cpa_real *v, const double *d)
{
    cpa_real *to = reals(tree, sum);
    add_doubles(doubles(sum), d, tree->m);
    for (int i = 0; i < tree->n_ranges; i++) {
        add_reals(to, v + tree->ranges[i].offset, tree->ranges[i].length);
        to += tree->ranges[i].length;
    }
}

// The live node at `at` becomes its parent; the node after it, its right sibling, if that is here, leaves the stack.
static void rise(cpa_tree *tree, int at, bool takes_sibling)
{
    tree->stack[at].level++;
    tree->stack[at].index /= 2;
    if (!takes_sibling) {
        return;
    }
    // The slot that falls free goes to the end with its memory.
    node freed = tree->stack[at + 1];
    for (int i = at + 1; i + 1 < tree->depth; i++) {
        tree->stack[i] = tree->stack[i + 1];
    }
    tree->stack[--tree->depth] = freed;
}

cpa_status cpa_tree_add(cpa_tree *tree, int lane, const cpa_real *v, const double *d)
{
    if (lane < 0 || lane != tree->next || lane >= tree->end) {
        return cpa_fail(CPA_INTERNAL, "lane %d is added, but rank %d has lanes %d to %d and expects lane %d", lane,
                        tree->rank, tree->first, tree->end - 1, tree->next);
    }
    tree->next++;
    if (tree->n_lanes == 1) {
        tree->only_v = v;
        tree->only_d = d;
        return CPA_OK;
    }
    int top = tree->depth - 1;
    if (lane % 2 == 1 && top >= 0 && tree->stack[top].level == 0) {
        add_leaf(tree, tree->stack[top].sum, v, d);
        rise(tree, top, false);
    } else {
        top = tree->depth++;
        tree->stack[top].level = 0;
        tree->stack[top].index = lane;
        set_leaf(tree, tree->stack[top].sum, v, d);
    }
    while (can_merge(tree->stack, tree->depth)) {
        top = tree->depth - 2;
        add_sum(tree, tree->stack[top].sum, tree->stack[top + 1].sum);
        rise(tree, top, true);
    }
    return CPA_OK;
}

static int find_node(const cpa_tree *tree, int level, int index)
{
    for (int i = 0; i < tree->depth; i++) {
        if (tree->stack[i].level == level && tree->stack[i].index == index) {
            return i;
        }
    }
    return -1;
}

// This rank's part in node (level, index), whose lanes lie on several ranks.
static cpa_status join(cpa_tree *tree, cpa_comm *comm, int level, int index)
{
    cpa_status st = CPA_OK;
    int left_owner = owner_of(tree, level - 1, 2 * index), right_owner = owner_of(tree, level - 1, 2 * index + 1);
    int left = find_node(tree, level - 1, 2 * index), right = find_node(tree, level - 1, 2 * index + 1);
    size_t bytes = sum_bytes(tree->m, tree->width);
    if (tree->rank == left_owner && tree->rank == right_owner) {
        add_sum(tree, tree->stack[left].sum, tree->stack[right].sum);
        rise(tree, left, true);
    } else if (tree->rank == left_owner) {
        CPA_TRY(cpa_comm_recv(comm, tree->arriving, bytes, right_owner, TREE_TAG));
        add_sum(tree, tree->stack[left].sum, tree->arriving);
        rise(tree, left, false);
    } else if (tree->rank == right_owner) {
        // Every node to the right of this one has gone to its own left neighbour or will, so it need not be the last.
        CPA_TRY(cpa_comm_send(comm, tree->stack[right].sum, bytes, left_owner, TREE_TAG));
        tree->stack[right].index = -1;
    }
cleanup:
    return st;
}

// A node belongs to several ranks when a cut between two ranks lies within it. A rank meets at most two such nodes on a
// level: the one with its first cut and the one with its last. All sends go to lower ranks, so nobody waits in a circle.
static cpa_status join_level(cpa_tree *tree, cpa_comm *comm, int level)
{
    cpa_status st = CPA_OK;
    int at_first = tree->first >> level, at_end = (tree->end - 1) >> level;
    for (int index = at_first; index <= at_end; index += at_end > at_first ? at_end - at_first : 1) {
        int64_t begin = (int64_t)index << level, end = (int64_t)(index + 1) << level;
        if (begin < tree->first || end > tree->end) {
            CPA_TRY(join(tree, comm, level, index));
        }
    }
cleanup:
    return st;
}

static void set_result(const cpa_tree *tree, char *sum, cpa_real *out, double *dout)
{
    const cpa_real *from = reals(tree, sum);
    copy_doubles(dout, doubles(sum), tree->m);
    for (int i = 0; i < tree->n_ranges; i++) {
        copy_reals(out + tree->ranges[i].offset, from, tree->ranges[i].length);
        from += tree->ranges[i].length;
    }
}

static void set_single(const cpa_tree *tree, cpa_real *out, double *dout)
{
    if (dout != tree->only_d) {
        copy_doubles(dout, tree->only_d, tree->m);
    }
    for (int i = 0; i < tree->n_ranges && out != tree->only_v; i++) {
        copy_reals(out + tree->ranges[i].offset, tree->only_v + tree->ranges[i].offset, tree->ranges[i].length);
    }
}

cpa_status cpa_tree_finish(cpa_tree *tree, cpa_comm *comm, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(tree->next == tree->end, CPA_INTERNAL, "the sum is finished, but rank %d still waits for lane %d",
                tree->rank, tree->next);
    if (tree->n_lanes == 1) {
        set_single(tree, out, dout);
    } else {
        for (int level = 1; tree->n_ranks > 1 && tree->n_lanes >> level > 0; level++) {
            CPA_TRY(join_level(tree, comm, level));
        }
        CPA_TRY(cpa_comm_bcast(comm, tree->stack[0].sum, sum_bytes(tree->m, tree->width), 0));
        set_result(tree, tree->stack[0].sum, out, dout);
    }
    tree->next = -1;
cleanup:
    return st;
}
