// Owns: the sum over ranks of an array that a backend has on its device, left there: in messages that leave as the array becomes final.
// Must never let what it sends depend on when: the messages are the same on all ranks, in the same order.
#ifndef CPA_PLATFORM_DEVICE_SUM_H
#define CPA_PLATFORM_DEVICE_SUM_H

#include "cpa/platform/backend.h"
#include "cpa/platform/comm.h"

typedef struct cpa_device_sum cpa_device_sum;

/** Connects the devices of the ranks: with backend `cuda` by NCCL, a GPU for each rank; with `check`, where no device is, MPI stands in
 *  for it. CONFIG: another backend, or ranks that share a GPU; LOST_PEER: they cannot be connected. The same on all ranks. Collective.
 *
 *  Owns:    *out, to be destroyed before `comm` and `be`. */
cpa_status cpa_device_sum_create(cpa_comm *comm, cpa_backend *be, cpa_device_sum **out);

/** Ends it and sets *s to NULL; NULL-safe. Collective, unless the sum has failed. */
void cpa_device_sum_destroy(cpa_device_sum **s);

/** Starts a sum that covers these ranges of v (they must not overlap), in the order in which they will become final. Rank-local, but
 *  every rank must give the same ranges. `ranges` is borrowed until cpa_device_sum_finish, whose result stands in v. INTERNAL: a sum is
 *  under way. */
cpa_status cpa_device_sum_begin(cpa_device_sum *s, cpa_dev_real *v, const cpa_range *ranges, int n_ranges);

/** The operations that the backend has been asked for so far make the first n_ready ranges final: they leave behind these, while others
 *  follow. A rank need not call it, nor for the same ranges as others. LOST_PEER. */
cpa_status cpa_device_sum_ahead(cpa_device_sum *s, int n_ready);

/** Sends the rest and waits for all: what the backend is asked for next finds the sums of all ranks in v, added in an order that depends
 *  on the number of ranks. LOST_PEER: a rank or the way to it has failed; the sum is of no use from then on. Collective. */
cpa_status cpa_device_sum_finish(cpa_device_sum *s);

#endif
