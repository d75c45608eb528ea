// Owns: ranks and what they say to each other. Two implementations: `self` (one process, no MPI) and `mpi`.
// Sums of floating-point numbers belong to platform/tree.h, whose order does not depend on the ranks; cpa_comm_add_* alone do not keep to that.
#ifndef CPA_PLATFORM_COMM_H
#define CPA_PLATFORM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpa/base/status.h"
#include "cpa/base/types.h"

typedef struct cpa_comm cpa_comm;

// What cpa_comm_timeout is unless told, in seconds.
#define CPA_COMM_TIMEOUT 600.0

/** How long a rank may wait for others at any place, starting and ending MPI included. One that waited longer says where and for
 *  whom, and ends with exit code 76, which ends all. Call it before cpa_comm_create; alone it means nothing. */
void cpa_comm_timeout(double seconds);

/** What this rank is at, for that message: a static string such as "reading the data". Rank-local and free. */
void cpa_comm_phase(const char *phase);

/** Starts the communicator: `mpi` when launched by mpirun or srun (their environment says so), else `self`. Collective. */
cpa_status cpa_comm_create(int *argc, char ***argv, cpa_comm **out);

/** The first `n` ranks as a communicator of their own, in which they keep their numbers: for measurements on fewer ranks. *out is
 *  NULL on the others. It ends, with cpa_comm_destroy, before `comm` does. Collective over comm. */
cpa_status cpa_comm_part(cpa_comm *comm, int n, cpa_comm **out);

/** A communicator of ranks that do not exist, seen from one of them, for planning: what a rank takes memory for can be built with it. It
 *  has cpa_comm_agree, cpa_comm_max_f64 (both: this rank's own) and flights that are never started, and nothing else. Rank-local. */
cpa_status cpa_comm_imagine(int rank, int size, int node_size, cpa_comm **out);

/** Ends it (finalizes MPI unless it is a part) and sets *comm to NULL; NULL-safe. Collective. */
void cpa_comm_destroy(cpa_comm **comm);

int cpa_comm_rank(const cpa_comm *comm); // 0 <= rank < size
int cpa_comm_size(const cpa_comm *comm);
int cpa_comm_node_rank(const cpa_comm *comm); // rank among those that share this node's memory
int cpa_comm_node_size(const cpa_comm *comm);
const char *cpa_comm_name(const cpa_comm *comm); // "self" or "mpi"

/** Waits for all ranks. Collective. */
cpa_status cpa_comm_barrier(cpa_comm *comm);

/** Whether this rank, rank 0, is the one that works from here to cpa_comm_agree_rested, which all call next. The work may take longer than
 *  a deadline, as long as it gets on. Not for a part. Rank-local. */
bool cpa_comm_alone(cpa_comm *comm);

/** To be called wherever work that may be rank 0's alone gets on; HDF5 files do so at each piece that is read or written. Between
 *  cpa_comm_alone and cpa_comm_agree_rested, and on that thread, it begins the deadline of the ranks that wait again, with a message now and
 *  then; else it does nothing. Rank-local and free; never waits or fails. */
void cpa_comm_get_on(void);

/** cpa_comm_agree where rank 0 works alone. The others wait for it asleep, looking a few hundred times a second, and take no core from
 *  it; those that work too, as a part, come when they are done. Not for a part. Collective. */
cpa_status cpa_comm_agree_rested(cpa_comm *comm, cpa_status mine);

/** Waits for the ranks of this node. Collective over the node. */
cpa_status cpa_comm_node_barrier(cpa_comm *comm);

/** Copies `bytes` from rank `root` to all. Any size (cut into pieces below 2 GiB). Collective. */
cpa_status cpa_comm_bcast(cpa_comm *comm, void *buf, size_t bytes, int root);

/** Elementwise sum (exact: 64-bit integers) or maximum over ranks, in place. Collective. */
cpa_status cpa_comm_sum_i64(cpa_comm *comm, int64_t *v, int n);
cpa_status cpa_comm_max_f64(cpa_comm *comm, double *v, int n);

/** Gathers `bytes` of every rank to all, in rank order (out holds size * bytes). Collective. */
cpa_status cpa_comm_allgather(cpa_comm *comm, const void *mine, void *out, size_t bytes);

/** Adds reals, or doubles, over ranks in place, in an order that the MPI library chooses: it depends on their number. The result is the
 *  same on all ranks. Collective. */
cpa_status cpa_comm_add_reals(cpa_comm *comm, cpa_real *v, int64_t n);
cpa_status cpa_comm_add_f64(cpa_comm *comm, double *v, int64_t n);

// Messages between this rank and others that travel while it computes.
typedef struct cpa_flight cpa_flight;

/** Takes room for so many messages at once, of up to so many bytes each. Rank-local; INTERNAL for a single process.
 *
 *  Owns:    *out, to be destroyed before `comm` and when nothing is under way. Nothing is allocated afterwards. */
cpa_status cpa_flight_create(cpa_comm *comm, int64_t n_messages, size_t bytes, cpa_flight **out);

/** Frees it and sets *flight to NULL; NULL-safe. */
void cpa_flight_destroy(cpa_flight **flight);

/** Starts a message to, or from, rank `peer`, which does the opposite with the same tag (0 .. 32767) and length; those of one tag arrive
 *  in the order in which they were started. The buffer is the message's until the flight is over. Returns at once. */
cpa_status cpa_flight_send(cpa_flight *flight, int peer, int tag, const void *buf, size_t bytes);
cpa_status cpa_flight_receive(cpa_flight *flight, int peer, int tag, void *buf, size_t bytes);

/** Moves on what is under way; *over: nothing is left. Never waits. */
cpa_status cpa_flight_test(cpa_flight *flight, bool *over);

/** Waits until nothing is left. */
cpa_status cpa_flight_wait(cpa_flight *flight);

/** The worst status over ranks (the highest code), the same everywhere; the message of the lowest rank that has it becomes
 *  everyone's cpa_message(). A rank-local failure is agreed on before the next collective. Collective. */
cpa_status cpa_comm_agree(cpa_comm *comm, cpa_status mine);

/** Memory shared by the ranks of a node (one copy, zeroed), the same length argument on all; freed with
 *  cpa_comm_shared_free. Collective over the node. */
cpa_status cpa_comm_shared_alloc(cpa_comm *comm, size_t bytes, void **out);
void cpa_comm_shared_free(cpa_comm *comm, void **ptr);

/** Ends all ranks at once with this exit code; for when no agreement is possible. Does not return. */
void cpa_comm_abort(cpa_comm *comm, cpa_status st);

/** Tells the launcher with which code this rank is about to end by itself, where it must be told: MPICH's mpirun then kills
 *  the others, and may end as they did. For signal handlers too. */
void cpa_comm_last_code(cpa_status st);

#endif
