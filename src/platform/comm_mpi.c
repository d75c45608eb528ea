// Owns: everything that calls MPI. An MPI error becomes a status with MPI's own words in the message.
// Must never be reached in a program that was not launched by mpirun or srun.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <mpi.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

#include "comm_impl.h"

enum {
    MESSAGE_BYTES = 64 * 1024, // longest message that cpa_comm_agree carries, longer ones are cut
    PIECE_BYTES = 1024 * 1024 * 1024,
};

// Memory of the node; a list, because a window has to be found by its address.
typedef struct window {
    void *base;
    size_t bytes;
    MPI_Win win;
    struct window *next;
} window;

typedef struct mpi_comm {
    cpa_comm base;
    MPI_Comm world, node;
    window *windows;
    char *message; // [MESSAGE_BYTES] taken at the start: an agreement must not fail for want of memory
} mpi_comm;

static mpi_comm *self_of(cpa_comm *comm)
{
    return (mpi_comm *)(void *)comm;
}

static cpa_status mpi_status(int rc, const char *call)
{
    if (rc == MPI_SUCCESS) {
        return CPA_OK;
    }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(rc, text, &length) != MPI_SUCCESS) {
        text[0] = '\0';
    }
    return cpa_fail(CPA_LOST_PEER, "%s failed with MPI error %d: %s", call, rc, text);
}

static cpa_status mpi_barrier(cpa_comm *comm)
{
    return mpi_status(MPI_Barrier(self_of(comm)->world), "MPI_Barrier");
}

// What was written into node memory before is seen by all ranks of the node after: hence the two syncs.
static cpa_status mpi_node_barrier(cpa_comm *comm)
{
    cpa_status st = CPA_OK;
    mpi_comm *self = self_of(comm);
    for (const window *w = self->windows; w != NULL; w = w->next) {
        CPA_TRY(mpi_status(MPI_Win_sync(w->win), "MPI_Win_sync"));
    }
    CPA_TRY(mpi_status(MPI_Barrier(self->node), "MPI_Barrier on the node"));
    for (const window *w = self->windows; w != NULL; w = w->next) {
        CPA_TRY(mpi_status(MPI_Win_sync(w->win), "MPI_Win_sync"));
    }
cleanup:
    return st;
}

static size_t piece_at(const cpa_comm *comm, size_t done, size_t bytes)
{
    return bytes - done < comm->piece ? bytes - done : comm->piece;
}

static cpa_status mpi_bcast(cpa_comm *comm, void *buf, size_t bytes, int root)
{
    cpa_status st = CPA_OK;
    for (size_t done = 0, n; done < bytes; done += n) {
        n = piece_at(comm, done, bytes);
        CPA_TRY(mpi_status(MPI_Bcast((char *)buf + done, (int)n, MPI_BYTE, root, self_of(comm)->world), "MPI_Bcast"));
    }
cleanup:
    return st;
}

static cpa_status mpi_sum_i64(cpa_comm *comm, int64_t *v, int n)
{
    return mpi_status(MPI_Allreduce(MPI_IN_PLACE, v, n, MPI_INT64_T, MPI_SUM, self_of(comm)->world), "MPI_Allreduce");
}

static cpa_status mpi_max_f64(cpa_comm *comm, double *v, int n)
{
    return mpi_status(MPI_Allreduce(MPI_IN_PLACE, v, n, MPI_DOUBLE, MPI_MAX, self_of(comm)->world), "MPI_Allreduce");
}

static cpa_status mpi_allgather(cpa_comm *comm, const void *mine, void *out, size_t bytes)
{
    cpa_status st = CPA_OK;
    if (bytes <= comm->piece / (size_t)comm->size) {
        return mpi_status(MPI_Allgather(mine, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE, self_of(comm)->world),
                          "MPI_Allgather");
    }
    memmove((char *)out + bytes * (size_t)comm->rank, mine, bytes);
    for (int r = 0; r < comm->size; r++) {
        CPA_TRY(mpi_bcast(comm, (char *)out + bytes * (size_t)r, bytes, r));
    }
cleanup:
    return st;
}

// Adds n numbers in place, in pieces whose counts MPI can take.
static cpa_status add(cpa_comm *comm, void *v, int64_t n, MPI_Datatype type, size_t size)
{
    cpa_status st = CPA_OK;
    int64_t most = (int64_t)(comm->piece / size);
    for (int64_t done = 0, k; done < n; done += k) {
        k = n - done < most ? n - done : most;
        CPA_TRY(mpi_status(
            MPI_Allreduce(MPI_IN_PLACE, (char *)v + (size_t)done * size, (int)k, type, MPI_SUM, self_of(comm)->world),
            "MPI_Allreduce"));
    }
cleanup:
    return st;
}

static cpa_status mpi_add_reals(cpa_comm *comm, cpa_real *v, int64_t n)
{
    return add(comm, v, n, sizeof *v == sizeof(float) ? MPI_FLOAT : MPI_DOUBLE, sizeof *v);
}

static cpa_status mpi_add_f64(cpa_comm *comm, double *v, int64_t n)
{
    return add(comm, v, n, MPI_DOUBLE, sizeof *v);
}

typedef struct mpi_flight {
    cpa_flight base;
    MPI_Request *request; // [room]
    MPI_Status *status;   // [room]
    size_t *bytes;        // [room] that are received, SENT: none
} mpi_flight;

static const size_t SENT = SIZE_MAX;

static mpi_flight *under_way(cpa_flight *flight)
{
    return (mpi_flight *)(void *)flight;
}

static void mpi_flight_destroy(cpa_flight *flight)
{
    mpi_flight *f = under_way(flight);
    cpa_free(&f->base.peer);
    cpa_free(&f->request);
    cpa_free(&f->status);
    cpa_free(&f->bytes);
    cpa_free(&f);
}

static cpa_status mpi_flight_create(cpa_comm *comm, int room, cpa_flight **out)
{
    cpa_status st = CPA_OK;
    mpi_flight *f = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->base = (cpa_flight){.comm = comm, .room = room};
    CPA_TRY(cpa_alloc((size_t)room, sizeof *f->base.peer, &f->base.peer));
    CPA_TRY(cpa_alloc((size_t)room, sizeof *f->request, &f->request));
    CPA_TRY(cpa_alloc((size_t)room, sizeof *f->status, &f->status));
    CPA_TRY(cpa_alloc((size_t)room, sizeof *f->bytes, &f->bytes));
    *out = &f->base;
    f = NULL;
cleanup:
    if (f != NULL) {
        mpi_flight_destroy(&f->base);
    }
    return st;
}

static cpa_status mpi_flight_start(cpa_flight *flight, bool sends, int peer, int tag, void *buf, size_t bytes)
{
    mpi_flight *f = under_way(flight);
    MPI_Comm world = self_of(flight->comm)->world;
    MPI_Request *request = &f->request[flight->n];
    f->bytes[flight->n] = sends ? SENT : bytes;
    return sends ? mpi_status(MPI_Isend(buf, (int)bytes, MPI_BYTE, peer, tag, world, request), "MPI_Isend")
                 : mpi_status(MPI_Irecv(buf, (int)bytes, MPI_BYTE, peer, tag, world, request), "MPI_Irecv");
}

// Whether as much has arrived as was expected.
static cpa_status check_length(const mpi_flight *f, int i, const MPI_Status *done)
{
    cpa_status st = CPA_OK;
    int count = 0;
    if (f->bytes[i] == SENT) {
        return CPA_OK;
    }
    CPA_TRY(mpi_status(MPI_Get_count(done, MPI_BYTE, &count), "MPI_Get_count"));
    CPA_REQUIRE((size_t)count == f->bytes[i], CPA_INTERNAL, "rank %d expected %zu bytes from rank %d and got %d",
                f->base.comm->rank, f->bytes[i], f->base.peer[i], count);
cleanup:
    return st;
}

static cpa_status mpi_flight_test(cpa_flight *flight, bool *over)
{
    cpa_status st = CPA_OK;
    mpi_flight *f = under_way(flight);
    int all = 0, rc = MPI_Testall(flight->n, f->request, &all, f->status);
    for (int i = 0; rc == MPI_ERR_IN_STATUS && i < flight->n; i++) {
        int own = f->status[i].MPI_ERROR;
        rc = own != MPI_SUCCESS && own != MPI_ERR_PENDING ? own : rc;
    }
    CPA_TRY(mpi_status(rc, "MPI_Testall"));
    for (int i = 0; all && i < flight->n; i++) {
        CPA_TRY(check_length(f, i, &f->status[i]));
    }
    *over = all != 0;
cleanup:
    return st;
}

static cpa_status mpi_flight_wait(cpa_flight *flight, int i)
{
    cpa_status st = CPA_OK;
    mpi_flight *f = under_way(flight);
    CPA_TRY(mpi_status(MPI_Wait(&f->request[i], &f->status[i]), "MPI_Wait"));
    CPA_TRY(check_length(f, i, &f->status[i]));
cleanup:
    return st;
}

static cpa_status mpi_agree(cpa_comm *comm, cpa_status mine)
{
    cpa_status st = CPA_OK;
    mpi_comm *self = self_of(comm);
    struct {
        int status, rank;
    } worst = {.status = (int)mine, .rank = comm->rank};
    // MPI_MAXLOC gives the lowest rank among equals.
    CPA_TRY(mpi_status(MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_2INT, MPI_MAXLOC, self->world), "MPI_Allreduce"));
    if (worst.status == (int)CPA_OK) {
        return CPA_OK;
    }
    int length = 0;
    if (worst.rank == comm->rank) {
        size_t n = strnlen(cpa_message(), MESSAGE_BYTES - 1);
        memcpy(self->message, cpa_message(), n);
        length = (int)n;
    }
    CPA_TRY(mpi_bcast(comm, &length, sizeof length, worst.rank));
    CPA_TRY(mpi_bcast(comm, self->message, (size_t)length, worst.rank));
    self->message[length] = '\0';
    st = cpa_fail((cpa_status)worst.status, "%s", self->message);
cleanup:
    return st;
}

// Open MPI takes node memory from /dev/shm and hangs when that is full, so the room is looked at before.
static cpa_status check_room(const cpa_comm *comm, size_t bytes)
{
    struct statvfs fs;
    if (comm->node_rank != 0 || access("/dev/shm", W_OK) != 0 || statvfs("/dev/shm", &fs) != 0) {
        return CPA_OK;
    }
    double room = (double)fs.f_bavail * (double)fs.f_frsize;
    if ((double)bytes <= room) {
        return CPA_OK;
    }
    return cpa_fail(CPA_IO,
                    "the %d ranks of this node need %.1f MiB of shared memory, but /dev/shm has only %.1f MiB left: "
                    "enlarge it (mount -o remount,size=..., or the container's --shm-size), or run one rank per node",
                    comm->node_size, (double)bytes / 1048576.0, room / 1048576.0);
}

// The worst status over the ranks of the node; the message stays with the rank that has it.
static cpa_status node_agree(cpa_comm *comm, cpa_status mine)
{
    int worst = (int)mine;
    cpa_status st = mpi_status(MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_INT, MPI_MAX, self_of(comm)->node),
                               "MPI_Allreduce on the node");
    if (st != CPA_OK || mine != CPA_OK || worst == (int)CPA_OK) {
        return st != CPA_OK ? st : mine;
    }
    return cpa_fail((cpa_status)worst, "another rank of this node could not take its shared memory");
}

// Opens the window and points *base at the part of the node's first rank, which is all of it.
static cpa_status open_window(cpa_comm *comm, size_t bytes, MPI_Win *win, void **base)
{
    cpa_status st = CPA_OK;
    void *mine = NULL;
    MPI_Aint size = comm->node_rank == 0 ? (MPI_Aint)bytes : 0;
    int unit = 1;
    CPA_TRY(mpi_status(MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, self_of(comm)->node, &mine, win),
                       "MPI_Win_allocate_shared"));
    CPA_TRY(mpi_status(MPI_Win_set_errhandler(*win, MPI_ERRORS_RETURN), "MPI_Win_set_errhandler"));
    CPA_TRY(mpi_status(MPI_Win_shared_query(*win, 0, &size, &unit, base), "MPI_Win_shared_query"));
    CPA_TRY(mpi_status(MPI_Win_lock_all(MPI_MODE_NOCHECK, *win), "MPI_Win_lock_all"));
cleanup:
    return st;
}

static cpa_status mpi_shared_alloc(cpa_comm *comm, size_t bytes, void **out)
{
    cpa_status st = CPA_OK;
    mpi_comm *self = self_of(comm);
    window *w = NULL;
    if (comm->node_size == 1) {
        return cpa_comm_alone_alloc(bytes, out);
    }
    bytes = bytes > 0 ? bytes : 1;
    st = cpa_alloc(1, sizeof *w, &w);
    CPA_TRY(node_agree(comm, st != CPA_OK ? st : check_room(comm, bytes)));
    CPA_TRY(open_window(comm, bytes, &w->win, &w->base));
    w->bytes = bytes;
    cpa_memory_note(CPA_MEMORY_NODE, (long)bytes);
    w->next = self->windows;
    self->windows = w;
    if (comm->node_rank == 0) {
        memset(w->base, 0, bytes);
    }
    *out = w->base;
    w = NULL;
    CPA_TRY(mpi_node_barrier(comm));
cleanup:
    cpa_free(&w);
    return st;
}

static void free_window(window **at)
{
    window *w = *at;
    *at = w->next;
    cpa_memory_note(CPA_MEMORY_NODE, -(long)w->bytes);
    MPI_Win_unlock_all(w->win);
    MPI_Win_free(&w->win);
    cpa_free(&w);
}

static void mpi_shared_free(cpa_comm *comm, void *ptr)
{
    if (comm->node_size == 1) {
        cpa_comm_alone_free(ptr);
        return;
    }
    for (window **at = &self_of(comm)->windows; *at != NULL; at = &(*at)->next) {
        if ((*at)->base == ptr) {
            free_window(at);
            return;
        }
    }
}

static void mpi_abort(cpa_comm *comm, cpa_status st)
{
    MPI_Abort(self_of(comm)->world, (int)st);
    _exit((int)st);
}

static void mpi_destroy(cpa_comm *comm)
{
    mpi_comm *self = self_of(comm);
    while (self->windows != NULL) {
        free_window(&self->windows);
    }
    if (self->node != MPI_COMM_NULL) {
        MPI_Comm_free(&self->node);
    }
    if (!comm->is_part) {
        MPI_Finalize();
    } else if (self->world != MPI_COMM_NULL) {
        MPI_Comm_free(&self->world);
    }
    cpa_free(&self->message);
    cpa_free(&self);
}

static cpa_status mpi_part(cpa_comm *comm, int n, cpa_comm **out);

static const cpa_comm_ops mpi_ops = {
    .name = "mpi",
    .destroy = mpi_destroy,
    .part = mpi_part,
    .barrier = mpi_barrier,
    .node_barrier = mpi_node_barrier,
    .bcast = mpi_bcast,
    .sum_i64 = mpi_sum_i64,
    .max_f64 = mpi_max_f64,
    .allgather = mpi_allgather,
    .add_reals = mpi_add_reals,
    .add_f64 = mpi_add_f64,
    .flight_create = mpi_flight_create,
    .flight_destroy = mpi_flight_destroy,
    .flight_start = mpi_flight_start,
    .flight_test = mpi_flight_test,
    .flight_wait = mpi_flight_wait,
    .agree = mpi_agree,
    .shared_alloc = mpi_shared_alloc,
    .shared_free = mpi_shared_free,
    .abort = mpi_abort,
};

// ---- A rank that there is not

static void imagined_destroy(cpa_comm *comm)
{
    mpi_comm *self = self_of(comm);
    cpa_free(&self);
}

static cpa_status imagined_max_f64(cpa_comm *comm, double *v, int n)
{
    (void)comm, (void)v, (void)n;
    return CPA_OK;
}

static cpa_status imagined_agree(cpa_comm *comm, cpa_status mine)
{
    (void)comm;
    return mine;
}

// What takes memory is the real thing, what would talk to others is left out: nobody is there.
static const cpa_comm_ops imagined_ops = {
    .name = "imagined",
    .destroy = imagined_destroy,
    .max_f64 = imagined_max_f64,
    .flight_create = mpi_flight_create,
    .flight_destroy = mpi_flight_destroy,
    .agree = imagined_agree,
};

cpa_status cpa_comm_imagine(int rank, int size, int node_size, cpa_comm **out)
{
    cpa_status st;
    mpi_comm *self = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *self, &self));
    self->base = (cpa_comm){.ops = &imagined_ops,
                            .rank = rank,
                            .size = size,
                            .node_rank = rank % node_size,
                            .node_size = node_size,
                            .is_part = true,
                            .piece = PIECE_BYTES};
    *out = &self->base;
cleanup:
    return st;
}

static cpa_status find_ranks(mpi_comm *self, int expected)
{
    cpa_status st = CPA_OK;
    cpa_comm *base = &self->base;
    CPA_TRY(mpi_status(MPI_Comm_set_errhandler(self->world, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    CPA_TRY(mpi_status(MPI_Comm_rank(self->world, &base->rank), "MPI_Comm_rank"));
    CPA_TRY(mpi_status(MPI_Comm_size(self->world, &base->size), "MPI_Comm_size"));
    // Otherwise every task would take itself for the only one and all would write the same files.
    CPA_REQUIRE(expected <= 0 || expected == base->size, CPA_CONFIG,
                "the launcher started %d tasks, but MPI sees %d: use the launcher of the MPI library that cpa-hpc was "
                "built with (its mpirun; srun --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH)",
                expected, base->size);
    CPA_TRY(mpi_status(MPI_Comm_split_type(self->world, MPI_COMM_TYPE_SHARED, base->rank, MPI_INFO_NULL, &self->node),
                       "MPI_Comm_split_type"));
    CPA_TRY(mpi_status(MPI_Comm_set_errhandler(self->node, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    CPA_TRY(mpi_status(MPI_Comm_rank(self->node, &base->node_rank), "MPI_Comm_rank"));
    CPA_TRY(mpi_status(MPI_Comm_size(self->node, &base->node_size), "MPI_Comm_size"));
cleanup:
    return st;
}

// A communicator that is not yet of any ranks.
static cpa_status make(bool is_part, mpi_comm **out)
{
    cpa_status st;
    mpi_comm *self = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *self, &self));
    self->base = (cpa_comm){.ops = &mpi_ops, .is_part = is_part, .piece = PIECE_BYTES};
    self->world = MPI_COMM_NULL;
    self->node = MPI_COMM_NULL;
    CPA_TRY(cpa_alloc(MESSAGE_BYTES, 1, &self->message));
    *out = self;
    self = NULL;
cleanup:
    cpa_free(&self);
    return st;
}

static cpa_status mpi_part(cpa_comm *comm, int n, cpa_comm **out)
{
    cpa_status st = CPA_OK;
    mpi_comm *self = NULL;
    bool is_in = comm->rank < n;
    CPA_TRY(mpi_agree(comm, is_in ? make(true, &self) : CPA_OK));
    MPI_Comm ranks = MPI_COMM_NULL;
    CPA_TRY(mpi_status(MPI_Comm_split(self_of(comm)->world, is_in ? 0 : MPI_UNDEFINED, comm->rank, &ranks),
                       "MPI_Comm_split"));
    if (is_in) {
        self->world = ranks;
        CPA_TRY(find_ranks(self, n));
        *out = &self->base;
        self = NULL;
    }
cleanup:
    if (self != NULL) {
        mpi_destroy(&self->base);
    }
    return st;
}

cpa_status cpa_comm_mpi_create(int *argc, char ***argv, int expected, cpa_comm **out)
{
    cpa_status st = CPA_OK;
    mpi_comm *self = NULL;
    int level = MPI_THREAD_SINGLE;
    CPA_TRY(make(false, &self));
    self->world = MPI_COMM_WORLD;
    CPA_TRY(mpi_status(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread"));
    st = find_ranks(self, expected);
    if (st == CPA_OK && level < MPI_THREAD_SERIALIZED) {
        st = cpa_fail(CPA_CONFIG, "this MPI library supports thread level %d, but %d (MPI_THREAD_SERIALIZED) is needed",
                      level, MPI_THREAD_SERIALIZED);
    }
    if (st != CPA_OK) {
        mpi_destroy(&self->base);
        return st;
    }
    *out = &self->base;
    self = NULL;
cleanup:
    if (self != NULL) {
        cpa_free(&self->message);
        cpa_free(&self);
    }
    return st;
}
