// Owns: the inside of a sum over lanes: tree.c has this rank's lanes, tree_ranks.c what ranks send each other.
// Never included elsewhere.
#ifndef CPA_PLATFORM_TREE_IMPL_H
#define CPA_PLATFORM_TREE_IMPL_H

#include <stdbool.h>

#include "cpa/platform/tree.h"

enum { CPA_TREE_PARTIALS = 64 }; // of one rank: twice log2 of the lanes

// The sum of the lanes i 2^l .. (i+1) 2^l - 1.
typedef struct cpa_partial {
    int level, index;
    double *d;   // [m]
    cpa_real *v; // the reals of the ranges side by side, or a part of them
} cpa_partial;

typedef struct cpa_tree_ranks cpa_tree_ranks;

struct cpa_tree {
    cpa_comm *comm; // borrowed
    cpa_reduce how;
    int n_lanes, n_ranks, rank;
    int first, end; // lanes of this rank
    int next;       // whose turn it is; -1 between two sums
    int64_t n;
    int m;
    const cpa_range *ranges;
    int n_ranges, n_ready;           // n_ready: ranges of the last lane that have been added before it
    int64_t at[CPA_TREE_RANGES + 1]; // where the ranges begin when they stand side by side
    cpa_partial *stack; // [n_slots] in lane order; stack[0 .. depth-1] are live, every slot keeps its memory
    int depth, n_slots;
    const cpa_real *only_v; // the single lane of this rank, borrowed
    const double *only_d;
    cpa_tree_ranks *ranks; // NULL on one rank and with CPA_REDUCE_MPI
};

/** What the lanes first .. end-1 come to, in lane order: into p[], whose number is returned. *most: the largest number of sums that live at
 *  once on the way; a right leaf is added to its sibling at once and needs none. */
int cpa_tree_decompose(int first, int end, cpa_partial *p, int *most);

/** Whether the last two live sums are the two children of one node. */
bool cpa_tree_can_merge(const cpa_partial *p, int depth);

/** to = a + b, a being the left child; `to` may be either. */
void cpa_tree_add_reals(cpa_real *to, const cpa_real *a, const cpa_real *b, int64_t n);

/** a += b, a being the left child. */
void cpa_tree_add_doubles(double *restrict a, const double *restrict b, int m);

/** The part of this rank's k-th sum that is range i. */
const cpa_real *cpa_tree_own(const cpa_tree *tree, int k, int i);

/** Takes what it needs to complete sums over ranks, tree->ranks, and frees it. */
cpa_status cpa_tree_ranks_create(cpa_tree *tree);
void cpa_tree_ranks_destroy(cpa_tree_ranks **ranks);

/** Sends off the ranges before n_ready and moves on what is under way. Sums of ranges go to their places in out [n]. */
cpa_status cpa_tree_ranks_advance(cpa_tree *tree, cpa_real *out);

/** Completes all ranges into out [n] and the doubles into dout [m]. Collective. */
cpa_status cpa_tree_ranks_finish(cpa_tree *tree, cpa_real *out, double *dout);

#endif
