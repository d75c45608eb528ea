// Owns: the sum over lanes in one fixed binary tree, so that the result does not depend on the number of ranks.
// Must never let the order of an addition depend on the ranks, on arrival, or on threads.
#ifndef CPA_PLATFORM_TREE_H
#define CPA_PLATFORM_TREE_H

#include <stdint.h>

#include "cpa/base/status.h"
#include "cpa/base/types.h"
#include "cpa/platform/comm.h"

/** The lanes of rank `r` of `n_ranks`: *first <= lane < *end, that is ceil(r V/R) up to ceil((r+1) V/R).
 *
 *  Every rank has at least one lane when n_ranks <= n_lanes. */
void cpa_lane_range(int n_lanes, int n_ranks, int r, int *first, int *end);

// Elements offset .. offset + length - 1 of a vector.
typedef struct cpa_range {
    int64_t offset, length;
} cpa_range;

typedef struct cpa_tree cpa_tree;

/** Takes the memory for sums over `n_lanes` lanes (a power of two) of vectors of `n` reals and `m` doubles.
 *
 *  Math:    node(0, i) is lane i; node(l, i) = node(l-1, 2i) + node(l-1, 2i+1), left plus right; the result is the root.
 *  Ranks:   local; `comm` is only asked for rank and size.
 *  Owns:    *out, to be destroyed with cpa_tree_destroy. At most 2 log2(V) partial sums of n reals and m doubles, none for a
 *           rank with one lane; with several ranks one slice (n / ranks) of each rank's. Nothing is allocated afterwards.
 *  Errors:  USAGE when there are more ranks than lanes or n_lanes is no power of two; INTERNAL without memory. */
cpa_status cpa_tree_create(const cpa_comm *comm, int n_lanes, int64_t n, int m, cpa_tree **out);

/** Frees it and sets *tree to NULL; NULL-safe. */
void cpa_tree_destroy(cpa_tree **tree);

/** Starts a sum that covers only these ranges of the reals (they must not overlap) and all m doubles.
 *
 *  Ranks:   local, but every rank must give the same ranges.
 *  Owns:    `ranges` is borrowed until cpa_tree_finish.
 *  Errors:  INTERNAL when a range leaves the vector or all of them are longer than it. */
cpa_status cpa_tree_begin(cpa_tree *tree, const cpa_range *ranges, int n_ranges);

/** Adds a lane of this rank; lanes come in ascending order, each once. A lane without cells is added as zeros.
 *
 *  Shapes:  v [n], d [m]; only the ranges of v are read.
 *  Ranks:   local.
 *  Owns:    v and d are free for the next lane on return, but when this rank has one lane only they are borrowed until
 *           cpa_tree_finish.
 *  Errors:  INTERNAL when it is another lane's turn. */
cpa_status cpa_tree_add(cpa_tree *tree, int lane, const cpa_real *v, const double *d);

/** Completes the sum over all ranks and ends it: the ranges of out [n] and dout [m] are set, the rest of out stays.
 *
 *  Ranks:   collective over comm, which is the one that the tree was created with. Every rank adds up its own slice of the
 *           vector from all ranks' partial sums, and then all get all slices: a rank sends and receives 2 (R-1)/R of it.
 *  Repeat:  bitwise for every number of ranks. out may be the v of a borrowed lane; with
 *           a single lane nothing is then copied.
 *  Errors:  INTERNAL when a lane is missing; those of cpa_comm_exchange and _allgather. */
cpa_status cpa_tree_finish(cpa_tree *tree, cpa_comm *comm, cpa_real *out, double *dout);

#endif
