// Owns: MPI in the place of NCCL, for backends whose device is none: the same messages at the same times. Never used for speed.
#include "cpa/base/mem.h"
#include "device_sum_impl.h"

typedef struct staged {
    cpa_adder base;
    cpa_comm *comm; // borrowed
    cpa_backend *be;
    cpa_real *host; // [room]
    int64_t room;
} staged;

static cpa_status start(cpa_adder *a, cpa_dev_real *v, int64_t n)
{
    cpa_status st = CPA_OK;
    staged *s = (staged *)(void *)a;
    size_t bytes = (size_t)n * sizeof *s->host;
    if (n > s->room) {
        CPA_TRY(cpa_realloc((size_t)n, sizeof *s->host, &s->host));
        s->room = n;
    }
    CPA_TRY(cpa_op_download(s->be, s->host, v, bytes));
    CPA_TRY(cpa_comm_add_reals(s->comm, s->host, n));
    CPA_TRY(cpa_op_upload(s->be, v, s->host, bytes));
cleanup:
    return st;
}

static cpa_status close_sum(cpa_adder *a)
{
    (void)a;
    return CPA_OK;
}

static cpa_status poll(cpa_adder *a, bool *over)
{
    (void)a;
    *over = true;
    return CPA_OK;
}

static void abort_sum(cpa_adder *a)
{
    (void)a;
}

static void destroy(cpa_adder *a)
{
    staged *s = (staged *)(void *)a;
    cpa_free(&s->host);
    cpa_free(&s);
}

static const cpa_adder_ops ops = {start, close_sum, poll, abort_sum, destroy};

cpa_status cpa_adder_staged_create(cpa_comm *comm, cpa_backend *be, cpa_adder **out)
{
    staged *s = NULL;
    cpa_status st = cpa_alloc(1, sizeof *s, &s);
    if (st == CPA_OK) {
        *s = (staged){.base = {&ops}, .comm = comm, .be = be};
        *out = &s->base;
    }
    return st;
}
