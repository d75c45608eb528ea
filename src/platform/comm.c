// Owns: the choice between the communicators, and what holds for all of them: checks, and a deadline for every wait.
// Must never call MPI: a program that was not launched by mpirun or srun does not touch it.
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

#include "comm_impl.h"
#include "comm_watch_impl.h"

static volatile sig_atomic_t hydra; // where MPICH's own launcher listens, 0: it is another one

static int env_count(const char *name)
{
    const char *s = getenv(name);
    return s == NULL ? 0 : atoi(s);
}

// Number of ranks that the launcher announced: 0 when it started us without saying, -1 when there was no launcher.
static int launched_ranks(void)
{
    const char *const counts[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (env_count(counts[i]) > 0) {
            return env_count(counts[i]);
        }
    }
    // Only srun sets this one; the batch script itself, which is a single process, does not have it.
    int tasks = env_count("SLURM_STEP_NUM_TASKS");
    if (getenv("PMIX_RANK") != NULL || getenv("PMI_RANK") != NULL) {
        return tasks;
    }
    return tasks > 1 ? tasks : -1;
}

// Ends a wait that began with cpa_watch_begin.
static cpa_status waited(cpa_status st)
{
    cpa_watch_end();
    return st;
}

// Tells the watch who the ranks are and where, and makes them ready to call to each other.
static cpa_status introduce(cpa_comm *comm)
{
    cpa_status st;
    cpa_whereabouts mine, *all = NULL;
    cpa_whereabouts_find(&mine, getpid());
    CPA_TRY(cpa_comm_agree(comm, cpa_alloc((size_t)comm->size, sizeof *all, &all)));
    CPA_TRY(cpa_comm_allgather(comm, &mine, all, sizeof mine));
    cpa_watch_ranks(comm, all);
    all = NULL;
    CPA_TRY(cpa_comm_agree(comm, cpa_alone_create(comm)));
cleanup:
    cpa_free(&all);
    return st;
}

cpa_status cpa_comm_create(int *argc, char ***argv, cpa_comm **out)
{
    cpa_status st;
    int ranks = launched_ranks();
    *out = NULL;
    if (ranks < 0) {
        return cpa_comm_self_create(out);
    }
    CPA_TRY(cpa_watch_start());
    cpa_watch_begin("MPI_Init", -1);
    CPA_TRY(waited(cpa_comm_mpi_create(argc, argv, ranks, out)));
    // srun speaks PMI too, but kills all ranks at once on the word and then ends with their code.
    hydra = getenv("MPI_LOCALNRANKS") != NULL ? env_count("PMI_FD") : 0;
    CPA_TRY(introduce(*out));
cleanup:
    if (st != CPA_OK) {
        cpa_comm_destroy(out);
        cpa_watch_stop();
    }
    return st;
}

void cpa_comm_destroy(cpa_comm **comm)
{
    if (*comm != NULL) {
        bool is_part = (*comm)->is_part;
        if (!is_part) {
            cpa_alone_destroy();
            hydra = 0;
        }
        cpa_watch_begin(is_part ? "ending a part" : "MPI_Finalize", -1);
        (*comm)->ops->destroy(*comm);
        cpa_watch_end();
        if (!is_part) {
            cpa_watch_stop();
        }
        *comm = NULL;
    }
}

cpa_status cpa_comm_part(cpa_comm *comm, int n, cpa_comm **out)
{
    *out = NULL;
    if (n < 1 || n > comm->size) {
        return cpa_fail(CPA_INTERNAL, "a part of %d ranks, but there are %d", n, comm->size);
    }
    cpa_watch_begin("making a part", -1);
    return waited(comm->ops->part(comm, n, out));
}

int cpa_comm_rank(const cpa_comm *comm)
{
    return comm->rank;
}

int cpa_comm_size(const cpa_comm *comm)
{
    return comm->size;
}

int cpa_comm_node_rank(const cpa_comm *comm)
{
    return comm->node_rank;
}

int cpa_comm_node_size(const cpa_comm *comm)
{
    return comm->node_size;
}

const char *cpa_comm_name(const cpa_comm *comm)
{
    return comm->ops->name;
}

cpa_status cpa_comm_barrier(cpa_comm *comm)
{
    cpa_watch_begin("barrier", -1);
    return waited(comm->ops->barrier(comm));
}

cpa_status cpa_comm_node_barrier(cpa_comm *comm)
{
    cpa_watch_begin("barrier of the node", -1);
    return waited(comm->ops->node_barrier(comm));
}

cpa_status cpa_comm_bcast(cpa_comm *comm, void *buf, size_t bytes, int root)
{
    if (root < 0 || root >= comm->size) {
        return cpa_fail(CPA_INTERNAL, "broadcast from rank %d, but there are only %d ranks", root, comm->size);
    }
    cpa_watch_begin("broadcast", -1);
    return waited(comm->ops->bcast(comm, buf, bytes, root));
}

cpa_status cpa_comm_sum_i64(cpa_comm *comm, int64_t *v, int n)
{
    if (n < 0) {
        return cpa_fail(CPA_INTERNAL, "sum over ranks of %d numbers", n);
    }
    cpa_watch_begin("sum", -1);
    return waited(comm->ops->sum_i64(comm, v, n));
}

cpa_status cpa_comm_max_f64(cpa_comm *comm, double *v, int n)
{
    if (n < 0) {
        return cpa_fail(CPA_INTERNAL, "maximum over ranks of %d numbers", n);
    }
    cpa_watch_begin("maximum", -1);
    return waited(comm->ops->max_f64(comm, v, n));
}

cpa_status cpa_comm_allgather(cpa_comm *comm, const void *mine, void *out, size_t bytes)
{
    cpa_watch_begin("gathering", -1);
    return waited(comm->ops->allgather(comm, mine, out, bytes));
}

cpa_status cpa_comm_add_reals(cpa_comm *comm, cpa_real *v, int64_t n)
{
    cpa_watch_begin("sum", -1);
    return waited(comm->ops->add_reals(comm, v, n));
}

cpa_status cpa_comm_add_f64(cpa_comm *comm, double *v, int64_t n)
{
    cpa_watch_begin("sum", -1);
    return waited(comm->ops->add_f64(comm, v, n));
}

static cpa_status check_peer(const cpa_comm *comm, const char *act, int peer)
{
    if (peer < 0 || peer >= comm->size || peer == comm->rank) {
        return cpa_fail(CPA_INTERNAL, "rank %d cannot %s rank %d: there are %d ranks", comm->rank, act, peer,
                        comm->size);
    }
    return CPA_OK;
}

cpa_status cpa_flight_create(cpa_comm *comm, int64_t n_messages, size_t bytes, cpa_flight **out)
{
    cpa_status st = CPA_OK;
    int64_t room = n_messages * (int64_t)(1 + bytes / comm->piece);
    CPA_REQUIRE(room >= 0 && room <= INT_MAX, CPA_INTERNAL, "%lld messages under way at once", (long long)room);
    CPA_TRY(comm->ops->flight_create(comm, (int)room, out));
cleanup:
    return st;
}

void cpa_flight_destroy(cpa_flight **flight)
{
    if (*flight != NULL) {
        (*flight)->comm->ops->flight_destroy(*flight);
        *flight = NULL;
    }
}

// Starts the pieces of a message.
static cpa_status start(cpa_flight *f, bool sends, int peer, int tag, void *buf, size_t bytes)
{
    cpa_status st;
    const cpa_comm *comm = f->comm;
    CPA_TRY(check_peer(comm, sends ? "send to" : "receive from", peer));
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done < comm->piece ? bytes - done : comm->piece;
        CPA_REQUIRE(f->n < f->room, CPA_INTERNAL, "rank %d has room for %d messages at once, not for more", comm->rank,
                    f->room);
        CPA_TRY(comm->ops->flight_start(f, sends, peer, tag, (char *)buf + done, n));
        f->peer[f->n++] = peer;
    }
cleanup:
    return st;
}

cpa_status cpa_flight_send(cpa_flight *flight, int peer, int tag, const void *buf, size_t bytes)
{
    return start(flight, true, peer, tag, (void *)(uintptr_t)buf, bytes);
}

cpa_status cpa_flight_receive(cpa_flight *flight, int peer, int tag, void *buf, size_t bytes)
{
    return start(flight, false, peer, tag, buf, bytes);
}

cpa_status cpa_flight_test(cpa_flight *flight, bool *over)
{
    cpa_status st = CPA_OK;
    *over = flight->n == 0;
    if (!*over) {
        st = flight->comm->ops->flight_test(flight, over);
        flight->n = *over ? 0 : flight->n;
    }
    return st;
}

cpa_status cpa_flight_wait(cpa_flight *flight)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < flight->n && st == CPA_OK; i++) {
        cpa_watch_begin("exchanging", flight->peer[i]);
        st = waited(flight->comm->ops->flight_wait(flight, i));
    }
    flight->n = 0;
    return st;
}

cpa_status cpa_comm_agree(cpa_comm *comm, cpa_status mine)
{
    cpa_watch_begin("agreement", -1);
    return waited(comm->ops->agree(comm, mine));
}

cpa_status cpa_comm_shared_alloc(cpa_comm *comm, size_t bytes, void **out)
{
    cpa_watch_begin("taking node memory", -1);
    return waited(comm->ops->shared_alloc(comm, bytes, out));
}

void cpa_comm_shared_free(cpa_comm *comm, void **ptr)
{
    if (*ptr != NULL) {
        cpa_watch_begin("giving node memory back", -1);
        comm->ops->shared_free(comm, *ptr);
        cpa_watch_end();
        *ptr = NULL;
    }
}

void cpa_comm_abort(cpa_comm *comm, cpa_status st)
{
    comm->ops->abort(comm, st);
}

// MPI_Abort would allocate and print; this is the line that it sends.
void cpa_comm_last_code(cpa_status st)
{
    char line[] = "cmd=abort exitcode=00\n";
    char *digits = strchr(line, '0');
    digits[0] = (char)('0' + (int)st / 10);
    digits[1] = (char)('0' + (int)st % 10);
    if (hydra > 0 && write(hydra, line, sizeof line - 1) < 0) {
        return; // the launcher is gone, or finds out by itself
    }
}
