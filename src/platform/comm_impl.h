// Owns: the table that the communicators implement, for comm.c, comm_self.c and comm_mpi.c alone.
// Must never be included by anything else but the tests of the communicator.
#ifndef CPA_PLATFORM_COMM_IMPL_H
#define CPA_PLATFORM_COMM_IMPL_H

#include <stdbool.h>

#include "cpa/platform/comm.h"

// Arguments are checked by comm.c before a slot is called; every slot is required, but where flight_create always fails.
typedef struct cpa_comm_ops {
    const char *name;
    void (*destroy)(cpa_comm *comm);
    cpa_status (*part)(cpa_comm *comm, int n, cpa_comm **out);
    cpa_status (*barrier)(cpa_comm *comm);
    cpa_status (*node_barrier)(cpa_comm *comm);
    cpa_status (*bcast)(cpa_comm *comm, void *buf, size_t bytes, int root);
    cpa_status (*sum_i64)(cpa_comm *comm, int64_t *v, int n);
    cpa_status (*max_f64)(cpa_comm *comm, double *v, int n);
    cpa_status (*allgather)(cpa_comm *comm, const void *mine, void *out, size_t bytes);
    cpa_status (*add_reals)(cpa_comm *comm, cpa_real *v, int64_t n);
    cpa_status (*add_f64)(cpa_comm *comm, double *v, int64_t n);
    cpa_status (*flight_create)(cpa_comm *comm, int room, cpa_flight **out);
    void (*flight_destroy)(cpa_flight *flight);
    cpa_status (*flight_start)(cpa_flight *flight, bool sends, int peer, int tag, void *buf, size_t bytes);
    cpa_status (*flight_test)(cpa_flight *flight, bool *over);
    cpa_status (*flight_wait)(cpa_flight *flight, int i);
    cpa_status (*agree)(cpa_comm *comm, cpa_status mine);
    cpa_status (*shared_alloc)(cpa_comm *comm, size_t bytes, void **out);
    void (*shared_free)(cpa_comm *comm, void *ptr);
    void (*abort)(cpa_comm *comm, cpa_status st);
} cpa_comm_ops;

// First member of every implementation's own struct.
struct cpa_comm {
    const cpa_comm_ops *ops;
    int rank, size, node_rank, node_size;
    bool is_part; // of another one
    size_t piece; // largest message in bytes; longer ones are cut, because MPI counts are ints
};

// First member of what an implementation has under way.
struct cpa_flight {
    cpa_comm *comm;
    int n, room; // messages, pieces of longer ones counting
    int *peer;   // [room] of each
};

/** Memory of a node where this rank is the only one: of its own, but counted as the node's. */
cpa_status cpa_comm_alone_alloc(size_t bytes, void **out);
void cpa_comm_alone_free(void *ptr);

/** Makes cpa_comm_agree_rested ready, and ends it. Rank-local. */
cpa_status cpa_alone_create(cpa_comm *comm);
void cpa_alone_destroy(void);

/** One process without MPI. */
cpa_status cpa_comm_self_create(cpa_comm **out);

/** The ranks of MPI_COMM_WORLD. `expected` is the number of ranks the launcher announced, 0 when it did not say. */
cpa_status cpa_comm_mpi_create(int *argc, char ***argv, int expected, cpa_comm **out);

#endif
