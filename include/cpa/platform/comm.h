// Owns: ranks and what they say to each other. Two implementations: `self` (one process, no MPI) and `mpi`.
// Never adds floating-point numbers over ranks: that is platform/tree.h, whose order does not depend on them.
#ifndef CPA_PLATFORM_COMM_H
#define CPA_PLATFORM_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "cpa/base/status.h"

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

/** Ends it (finalizes MPI unless it is a part) and sets *comm to NULL; NULL-safe. Collective. */
void cpa_comm_destroy(cpa_comm **comm);

int cpa_comm_rank(const cpa_comm *comm); // 0 <= rank < size
int cpa_comm_size(const cpa_comm *comm);
int cpa_comm_node_rank(const cpa_comm *comm); // rank among those that share this node's memory
int cpa_comm_node_size(const cpa_comm *comm);
const char *cpa_comm_name(const cpa_comm *comm); // "self" or "mpi"

/** Waits for all ranks. Collective. */
cpa_status cpa_comm_barrier(cpa_comm *comm);

/** Waits for all ranks asleep, looking a few hundred times a second: ranks that have nothing to do take no core from those that
 *  have. It has no deadline of its own: those who work have theirs. Collective. */
cpa_status cpa_comm_rest(cpa_comm *comm);

/** Waits for the ranks of this node. Collective over the node. */
cpa_status cpa_comm_node_barrier(cpa_comm *comm);

/** Copies `bytes` from rank `root` to all. Any size (cut into pieces below 2 GiB). Collective. */
cpa_status cpa_comm_bcast(cpa_comm *comm, void *buf, size_t bytes, int root);

/** Elementwise sum (exact: 64-bit integers) or maximum over ranks, in place. Collective. */
cpa_status cpa_comm_sum_i64(cpa_comm *comm, int64_t *v, int n);
cpa_status cpa_comm_max_f64(cpa_comm *comm, double *v, int n);

/** Gathers `bytes` of every rank to all, in rank order (out holds size * bytes). Collective. */
cpa_status cpa_comm_allgather(cpa_comm *comm, const void *mine, void *out, size_t bytes);

// `bytes` at `buf`.
typedef struct cpa_parcel {
    void *buf;
    size_t bytes;
} cpa_parcel;

/** Sends messages to rank `to` and receives others from rank `from` at the same time, both in order; all ranks call it with partners
 *  that fit. Up to 1,024 messages, any size. */
cpa_status cpa_comm_exchange(cpa_comm *comm, int to, const cpa_parcel *send, int n_send, int from,
                             const cpa_parcel *recv, int n_recv);

/** The worst status over ranks (the highest code), the same everywhere; the message of the lowest rank that has it becomes
 *  everyone's cpa_message(). A rank-local failure is agreed on before the next collective. Collective. */
cpa_status cpa_comm_agree(cpa_comm *comm, cpa_status mine);

/** Memory shared by the ranks of a node (one copy, zeroed), the same length argument on all; freed with
 *  cpa_comm_shared_free. Collective over the node. */
cpa_status cpa_comm_shared_alloc(cpa_comm *comm, size_t bytes, void **out);
void cpa_comm_shared_free(cpa_comm *comm, void **ptr);

/** Ends all ranks at once with this exit code; for when no agreement is possible. Does not return. */
void cpa_comm_abort(cpa_comm *comm, cpa_status st);

#endif
