// Owns: the sum over lanes in one fixed binary tree, so that the result does not depend on the number of ranks.
// Must never let the order of an addition depend on the ranks, on arrival, or on threads.
#ifndef CPA_PLATFORM_TREE_H
#define CPA_PLATFORM_TREE_H

#include <stdint.h>

#include "cpa/base/status.h"
#include "cpa/base/types.h"
#include "cpa/platform/comm.h"
#include "cpa/platform/tensor.h"

/** The lanes of rank `r` of `n_ranks`: *first <= lane < *end, that is ceil(r V/R) up to ceil((r+1) V/R).
 *
 *  Every rank has at least one lane when n_ranks <= n_lanes. */
void cpa_lane_range(int n_lanes, int n_ranks, int r, int *first, int *end);

// How sums are completed over ranks.
typedef enum cpa_reduce {
    CPA_REDUCE_TREE, // in the order of the tree: in every bit the same for every number of ranks
    CPA_REDUCE_MPI,  // in the order of MPI's own sum, which depends on it
    CPA_REDUCE_NCCL, // on the ranks' GPUs (platform/device_sum.h), in an order that depends on it; not a way of cpa_tree
} cpa_reduce;

/** The way of this name, "tree", "mpi" or "nccl"; USAGE for another. */
cpa_status cpa_reduce_of(const char *name, cpa_reduce *out);

typedef struct cpa_tree cpa_tree;

/** Takes the memory for sums over `n_lanes` lanes (a power of two) of vectors of `n` reals and `m` doubles.
 *
 *  Math:    node(0, i) is lane i; node(l, i) = node(l-1, 2i) + node(l-1, 2i+1), left plus right; the result is the root. With
 *           CPA_REDUCE_MPI only the lanes of a rank are added so.
 *  Ranks:   local; every rank gives the same arguments.
 *  Owns:    *out, to be destroyed with cpa_tree_destroy; `comm` is borrowed. At most 2 log2(V) partial sums of n reals and m
 *           doubles, none for a rank with one lane; with several ranks one slice (n / ranks) of each rank's. Nothing is allocated
 *           afterwards.
 *  Errors:  USAGE when there are more ranks than lanes or n_lanes is no power of two; INTERNAL without memory. */
cpa_status cpa_tree_create(cpa_comm *comm, cpa_reduce how, int n_lanes, int64_t n, int m, cpa_tree **out);

/** Frees it and sets *tree to NULL; NULL-safe. */
void cpa_tree_destroy(cpa_tree **tree);

// Ranges that a sum may have.
enum { CPA_TREE_RANGES = 16 };

/** Starts a sum that covers only these ranges of the reals (they must not overlap) and all m doubles. Their order is that in which they
 *  travel, how they are cut has no part in the result.
 *
 *  Ranks:   local, but every rank must give the same ranges.
 *  Owns:    `ranges` is borrowed until cpa_tree_finish.
 *  Errors:  INTERNAL when a range leaves the vector or all of them are longer than it. */
cpa_status cpa_tree_begin(cpa_tree *tree, const cpa_range *ranges, int n_ranges);

/** Of this rank's last lane, which is being computed in v [n] and will be added from there, the first `n_ready` ranges are final. They
 *  leave for the other ranks, and what these have sent is added, while the lane goes on: the more often this is called, also
 *  without anything new, the sooner. It never waits.
 *
 *  Ranks:   local; a rank need not call it, nor for the same ranges as others.
 *  Owns:    v is borrowed until cpa_tree_finish, whose `out` it must be; the ranges that are final belong to the tree, which puts sums
 *           there.
 *  Errors:  INTERNAL when another lane's turn is before; those of cpa_flight_send, _receive and _test. */
cpa_status cpa_tree_ahead(cpa_tree *tree, cpa_real *v, int n_ready);

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
 *  Ranks:   collective. Every rank adds up its own slice of each range from all ranks' partial sums, and then all get all slices: a
 *           rank sends and receives 2 (R-1)/R of it.
 *  Repeat:  bitwise for every number of ranks, but with CPA_REDUCE_MPI. out may be the v of a borrowed lane; with
 *           a single lane nothing is then copied.
 *  Errors:  INTERNAL when a lane is missing; those of the communicator. */
cpa_status cpa_tree_finish(cpa_tree *tree, cpa_real *out, double *dout);

#endif
