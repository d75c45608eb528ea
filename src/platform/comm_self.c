// Owns: the communicator of a single process.
// Must never include or call MPI.
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

#include "comm_impl.h"

static void self_destroy(cpa_comm *comm)
{
    cpa_free(&comm);
}

// Its first rank is all of it.
static cpa_status self_part(cpa_comm *comm, int n, cpa_comm **out)
{
    (void)comm, (void)n;
    cpa_status st = cpa_comm_self_create(out);
    if (st == CPA_OK) {
        (*out)->is_part = true;
    }
    return st;
}

static cpa_status self_barrier(cpa_comm *comm)
{
    (void)comm;
    return CPA_OK;
}

static cpa_status self_bcast(cpa_comm *comm, void *buf, size_t bytes, int root)
{
    (void)comm, (void)buf, (void)bytes, (void)root;
    return CPA_OK;
}

static cpa_status self_sum_i64(cpa_comm *comm, int64_t *v, int n)
{
    (void)comm, (void)v, (void)n;
    return CPA_OK;
}

static cpa_status self_max_f64(cpa_comm *comm, double *v, int n)
{
    (void)comm, (void)v, (void)n;
    return CPA_OK;
}

static cpa_status self_allgather(cpa_comm *comm, const void *mine, void *out, size_t bytes)
{
    (void)comm;
    if (bytes > 0 && mine != out) {
        memcpy(out, mine, bytes);
    }
    return CPA_OK;
}

static cpa_status self_add_reals(cpa_comm *comm, cpa_real *v, int64_t n)
{
    (void)comm, (void)v, (void)n;
    return CPA_OK;
}

static cpa_status self_add_f64(cpa_comm *comm, double *v, int64_t n)
{
    (void)comm, (void)v, (void)n;
    return CPA_OK;
}

static cpa_status self_flight_create(cpa_comm *comm, int room, cpa_flight **out)
{
    (void)comm, (void)out;
    return cpa_fail(CPA_INTERNAL, "a single process has nobody to exchange %d messages with", room);
}

static cpa_status self_agree(cpa_comm *comm, cpa_status mine)
{
    (void)comm;
    return mine;
}

// Moves bytes from one account to the other.
static void count_as_node(long bytes)
{
    cpa_memory_note(CPA_MEMORY_HOST, -bytes);
    cpa_memory_note(CPA_MEMORY_NODE, bytes);
}

cpa_status cpa_comm_alone_alloc(size_t bytes, void **out)
{
    cpa_status st = cpa_alloc(bytes, 1, out);
    if (st == CPA_OK) {
        count_as_node((long)malloc_usable_size(*out));
    }
    return st;
}

void cpa_comm_alone_free(void *ptr)
{
    count_as_node(-(long)malloc_usable_size(ptr));
    cpa_free(&ptr);
}

static cpa_status self_shared_alloc(cpa_comm *comm, size_t bytes, void **out)
{
    (void)comm;
    return cpa_comm_alone_alloc(bytes, out);
}

static void self_shared_free(cpa_comm *comm, void *ptr)
{
    (void)comm;
    cpa_comm_alone_free(ptr);
}

static void self_abort(cpa_comm *comm, cpa_status st)
{
    (void)comm;
    _exit((int)st);
}

static const cpa_comm_ops self_ops = {
    .name = "self",
    .destroy = self_destroy,
    .part = self_part,
    .barrier = self_barrier,
    .node_barrier = self_barrier,
    .bcast = self_bcast,
    .sum_i64 = self_sum_i64,
    .max_f64 = self_max_f64,
    .allgather = self_allgather,
    .add_reals = self_add_reals,
    .add_f64 = self_add_f64,
    .flight_create = self_flight_create,
    .agree = self_agree,
    .shared_alloc = self_shared_alloc,
    .shared_free = self_shared_free,
    .abort = self_abort,
};

cpa_status cpa_comm_self_create(cpa_comm **out)
{
    cpa_status st = CPA_OK;
    cpa_comm *comm = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *comm, &comm));
    *comm = (cpa_comm){.ops = &self_ops, .rank = 0, .size = 1, .node_rank = 0, .node_size = 1, .piece = SIZE_MAX};
    *out = comm;
cleanup:
    return st;
}
