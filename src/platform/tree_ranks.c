// Owns: the completion of a sum over ranks, range by range: every rank adds up a slice of the range from all ranks' partial sums, in the order
// of the tree, and sends it to all. Must never let the order of an addition depend on arrival.
#include <string.h>

#include "cpa/base/mem.h"
#include "tree_impl.h"

// How far a range is.
typedef enum stage { COLLECTING, SPREADING, COMPLETE } stage;

struct cpa_tree_ranks {
    cpa_partial *all;                    // [n_all] what the lanes of all ranks come to, in lane order
    cpa_partial *work;                   // [n_all] scratch
    int *first_of;                       // [n_ranks+1] where those of a rank begin
    int n_all, most;                     // most: the largest number that a rank has
    double *mine;                        // [most, m] this rank's
    double *gathered;                    // [n_ranks, most, m]
    cpa_real *slices;                    // [n_all, slice_room]
    cpa_flight *flight[CPA_TREE_RANGES]; // of each range
    stage stage[CPA_TREE_RANGES];
    int n_started; // ranges that are under way or complete
};

// The slice of range i that rank r adds up.
static cpa_range slice_of(const cpa_tree *tree, int i, int r)
{
    int64_t length = tree->ranges[i].length, begin = length * r / tree->n_ranks;
    return (cpa_range){.offset = begin, .length = length * (r + 1) / tree->n_ranks - begin};
}

// Reals of one partial sum's slices of all ranges.
static int64_t slice_room(const cpa_tree *tree)
{
    return tree->n / tree->n_ranks + CPA_TREE_RANGES;
}

// Where this rank's slice of the q-th partial sum of range i arrives; one more for each range before, as slices are rounded up.
static cpa_real *slice_at(const cpa_tree *tree, int q, int i)
{
    return tree->ranks->slices + q * slice_room(tree) + tree->at[i] / tree->n_ranks + i;
}

static size_t bytes_of(cpa_range slice)
{
    return (size_t)slice.length * sizeof(cpa_real);
}

// The partial sums of every rank.
static cpa_status list_partials(const cpa_tree *tree, cpa_tree_ranks *ranks)
{
    cpa_status st = CPA_OK;
    cpa_partial p[CPA_TREE_PARTIALS];
    int first, end, ignored;
    CPA_TRY(cpa_alloc((size_t)tree->n_ranks + 1, sizeof *ranks->first_of, &ranks->first_of));
    for (int r = 0; r < tree->n_ranks; r++) {
        cpa_lane_range(tree->n_lanes, tree->n_ranks, r, &first, &end);
        int k = cpa_tree_decompose(first, end, p, &ignored);
        ranks->first_of[r + 1] = ranks->first_of[r] + k;
        ranks->most = k > ranks->most ? k : ranks->most;
    }
    ranks->n_all = ranks->first_of[tree->n_ranks];
    CPA_TRY(cpa_alloc((size_t)ranks->n_all, sizeof *ranks->all, &ranks->all));
    CPA_TRY(cpa_alloc((size_t)ranks->n_all, sizeof *ranks->work, &ranks->work));
    for (int r = 0; r < tree->n_ranks; r++) {
        cpa_lane_range(tree->n_lanes, tree->n_ranks, r, &first, &end);
        int k = cpa_tree_decompose(first, end, p, &ignored);
        memcpy(ranks->all + ranks->first_of[r], p, (size_t)k * sizeof *p);
    }
cleanup:
    return st;
}

cpa_status cpa_tree_ranks_create(cpa_tree *tree)
{
    cpa_status st = CPA_OK;
    cpa_tree_ranks *ranks = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *ranks, &ranks));
    tree->ranks = ranks; // freed with the tree
    CPA_TRY(list_partials(tree, ranks));
    size_t doubles = (size_t)ranks->most * (size_t)tree->m, slice = (size_t)(tree->n / tree->n_ranks + 1);
    CPA_TRY(cpa_alloc(doubles, sizeof *ranks->mine, &ranks->mine));
    CPA_TRY(cpa_alloc(doubles * (size_t)tree->n_ranks, sizeof *ranks->gathered, &ranks->gathered));
    CPA_TRY(cpa_alloc((size_t)ranks->n_all * (size_t)slice_room(tree), sizeof *ranks->slices, &ranks->slices));
    int64_t messages = ranks->n_all + (int64_t)tree->n_ranks * ranks->most; // two of every rank, where each has one sum
    for (int i = 0; i < CPA_TREE_RANGES; i++) {
        CPA_TRY(cpa_flight_create(tree->comm, messages, slice * sizeof(cpa_real), &ranks->flight[i]));
    }
cleanup:
    return st;
}

void cpa_tree_ranks_destroy(cpa_tree_ranks **out)
{
    cpa_tree_ranks *ranks = *out;
    if (ranks == NULL) {
        return;
    }
    for (int i = 0; i < CPA_TREE_RANGES; i++) {
        cpa_flight_destroy(&ranks->flight[i]);
    }
    cpa_free(&ranks->all);
    cpa_free(&ranks->work);
    cpa_free(&ranks->first_of);
    cpa_free(&ranks->mine);
    cpa_free(&ranks->gathered);
    cpa_free(&ranks->slices);
    cpa_free(out);
}

// Ranks in the order in which this one sends to them, and receives from them: no two send to the same at a time.
static int to_rank(const cpa_tree *tree, int distance)
{
    return (tree->rank + distance) % tree->n_ranks;
}

static int from_rank(const cpa_tree *tree, int distance)
{
    return (tree->rank - distance + tree->n_ranks) % tree->n_ranks;
}

// Every rank gets its slice of all ranks' partial sums.
static cpa_status collect(cpa_tree *tree, int i)
{
    cpa_status st = CPA_OK;
    const cpa_tree_ranks *ranks = tree->ranks;
    cpa_flight *flight = ranks->flight[i];
    int own = ranks->first_of[tree->rank + 1] - ranks->first_of[tree->rank];
    size_t mine = bytes_of(slice_of(tree, i, tree->rank));
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        int from = from_rank(tree, distance);
        for (int q = ranks->first_of[from]; q < ranks->first_of[from + 1]; q++) {
            CPA_TRY(cpa_flight_receive(flight, from, 2 * i, slice_at(tree, q, i), mine));
        }
    }
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        int to = to_rank(tree, distance);
        cpa_range slice = slice_of(tree, i, to);
        for (int k = 0; k < own; k++) {
            CPA_TRY(cpa_flight_send(flight, to, 2 * i, cpa_tree_own(tree, k, i) + slice.offset, bytes_of(slice)));
        }
    }
cleanup:
    return st;
}

// Adds up this rank's slice of range i, into `to`. A left child takes the sum, but when it is the lane's own vector, or the last.
static void add_slice(const cpa_tree *tree, int i, cpa_real *to)
{
    const cpa_tree_ranks *ranks = tree->ranks;
    cpa_partial *p = ranks->work;
    int depth = 0, own = ranks->first_of[tree->rank], end = ranks->first_of[tree->rank + 1];
    bool single = tree->end - tree->first == 1;
    cpa_range slice = slice_of(tree, i, tree->rank);
    for (int q = 0; q < ranks->n_all; q++) {
        bool is_own = q >= own && q < end;
        p[depth] = ranks->all[q];
        p[depth++].v =
            is_own ? (cpa_real *)(uintptr_t)cpa_tree_own(tree, q - own, i) + slice.offset : slice_at(tree, q, i);
        while (cpa_tree_can_merge(p, depth)) {
            cpa_partial *left = &p[depth - 2];
            bool is_lane = single && left->level == 0 && left->index == tree->first;
            bool is_root = (int64_t)2 << left->level == tree->n_lanes;
            cpa_real *sum = is_lane || is_root ? to : left->v;
            cpa_tree_add_reals(sum, left->v, left[1].v, slice.length);
            left->v = sum;
            left->level++;
            left->index /= 2;
            depth--;
        }
    }
}

// Every rank gets the finished slices of all ranks.
static cpa_status spread(cpa_tree *tree, int i, cpa_real *out)
{
    cpa_status st = CPA_OK;
    cpa_flight *flight = tree->ranks->flight[i];
    cpa_range mine = slice_of(tree, i, tree->rank);
    out += tree->ranges[i].offset;
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        int from = from_rank(tree, distance);
        cpa_range slice = slice_of(tree, i, from);
        CPA_TRY(cpa_flight_receive(flight, from, 2 * i + 1, out + slice.offset, bytes_of(slice)));
    }
    for (int distance = 1; distance < tree->n_ranks; distance++) {
        CPA_TRY(cpa_flight_send(flight, to_rank(tree, distance), 2 * i + 1, out + mine.offset, bytes_of(mine)));
    }
cleanup:
    return st;
}

// The stage of range i is over.
static cpa_status go_on(cpa_tree *tree, int i, cpa_real *out)
{
    cpa_status st = CPA_OK;
    cpa_tree_ranks *ranks = tree->ranks;
    if (ranks->stage[i] == COLLECTING) {
        add_slice(tree, i, out + tree->ranges[i].offset + slice_of(tree, i, tree->rank).offset);
        CPA_TRY(spread(tree, i, out));
    }
    ranks->stage[i]++;
cleanup:
    return st;
}

cpa_status cpa_tree_ranks_advance(cpa_tree *tree, cpa_real *out)
{
    cpa_status st = CPA_OK;
    cpa_tree_ranks *ranks = tree->ranks;
    for (; ranks->n_started < tree->n_ready; ranks->n_started++) {
        ranks->stage[ranks->n_started] = COLLECTING;
        CPA_TRY(collect(tree, ranks->n_started));
    }
    for (int i = 0; i < ranks->n_started; i++) {
        bool over = ranks->stage[i] != COMPLETE;
        while (over && ranks->stage[i] != COMPLETE) {
            CPA_TRY(cpa_flight_test(ranks->flight[i], &over));
            CPA_TRY(over ? go_on(tree, i, out) : CPA_OK);
        }
    }
cleanup:
    return st;
}

// Doubles are few: every rank gets all of them and adds them all up.
static cpa_status finish_doubles(cpa_tree *tree, double *dout)
{
    cpa_status st = CPA_OK;
    const cpa_tree_ranks *ranks = tree->ranks;
    cpa_partial *p = ranks->work;
    size_t m = (size_t)tree->m, most = (size_t)ranks->most;
    int own = ranks->first_of[tree->rank + 1] - ranks->first_of[tree->rank], depth = 0;
    for (int k = 0; k < own && m > 0; k++) {
        const double *from = tree->end - tree->first == 1 ? tree->only_d : tree->stack[k].d;
        memcpy(ranks->mine + (size_t)k * m, from, m * sizeof *from);
    }
    CPA_TRY(cpa_comm_allgather(tree->comm, ranks->mine, ranks->gathered, most * m * sizeof *ranks->mine));
    for (int r = 0, q = 0; r < tree->n_ranks; r++) {
        for (int k = 0; q < ranks->first_of[r + 1]; k++, q++) {
            p[depth] = ranks->all[q];
            p[depth++].d = ranks->gathered + ((size_t)r * most + (size_t)k) * m;
            for (; cpa_tree_can_merge(p, depth); depth--) {
                cpa_tree_add_doubles(p[depth - 2].d, p[depth - 1].d, tree->m);
                p[depth - 2].level++;
                p[depth - 2].index /= 2;
            }
        }
    }
    if (m > 0) {
        memcpy(dout, p[0].d, m * sizeof *dout);
    }
cleanup:
    return st;
}

cpa_status cpa_tree_ranks_finish(cpa_tree *tree, cpa_real *out, double *dout)
{
    cpa_status st = CPA_OK;
    cpa_tree_ranks *ranks = tree->ranks;
    tree->n_ready = tree->n_ranges;
    CPA_TRY(cpa_tree_ranks_advance(tree, out));
    CPA_TRY(finish_doubles(tree, dout));
    for (stage s = COLLECTING; s < COMPLETE; s++) {
        for (int i = 0; i < tree->n_ranges; i++) {
            if (ranks->stage[i] == s) {
                CPA_TRY(cpa_flight_wait(ranks->flight[i]));
                CPA_TRY(go_on(tree, i, out));
            }
        }
    }
    ranks->n_started = 0;
cleanup:
    return st;
}
