// Owns: which messages a sum over devices is made of, when they leave, and what its failures mean. Never calls NCCL or MPI itself.
#include "cpa/platform/device_sum.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm_watch_impl.h"
#include "cpa/base/mem.h"
#include "device_sum_impl.h"

static const long NAP_NS = 20000; // between two looks at what is under way

int cpa_cut_messages(const cpa_range *ranges, int n_ranges, cpa_bucket message[CPA_MESSAGES])
{
    int n = 0;
    for (int i = 0; i < n_ranges; i++) {
        cpa_range left = ranges[i];
        cpa_bucket *before = n > 0 ? &message[n - 1] : NULL;
        if (before != NULL && before->length < CPA_MESSAGE_SHORT && before->offset + before->length == left.offset) {
            left = (cpa_range){before->offset, before->length + left.length};
            n--;
        }
        while (left.length > 0) {
            int64_t length = left.length < CPA_MESSAGE_LONG ? left.length : CPA_MESSAGE_LONG;
            if (n == CPA_MESSAGES) {
                return -1;
            }
            message[n++] = (cpa_bucket){.offset = left.offset, .length = length, .last = i};
            left = (cpa_range){left.offset + length, left.length - length};
        }
    }
    return n;
}

cpa_status cpa_device_sum_of(cpa_adder *adder, cpa_device_sum **out)
{
    cpa_device_sum *s = NULL;
    cpa_status st = cpa_alloc(1, sizeof *s, &s);
    if (st == CPA_OK) {
        s->adder = adder;
        *out = s;
    } else if (adder != NULL) {
        adder->ops->destroy(adder);
    }
    return st;
}

static cpa_status make_adder(cpa_comm *comm, cpa_backend *be, cpa_adder **out)
{
    const char *name = cpa_backend_name(be);
    if (strcmp(name, "check") == 0) {
        return cpa_adder_staged_create(comm, be, out);
    }
#ifdef CPA_CUDA
    if (strcmp(name, "cuda") == 0) {
        return cpa_adder_nccl_create(comm, be, out);
    }
#endif
    return cpa_fail(CPA_CONFIG, "sums over GPUs (--reduce nccl) need --backend cuda, not %s", name);
}

cpa_status cpa_device_sum_create(cpa_comm *comm, cpa_backend *be, cpa_device_sum **out)
{
    cpa_status st = CPA_OK;
    cpa_adder *adder = NULL;
    if (cpa_comm_size(comm) > 1) {
        CPA_TRY(cpa_comm_agree(comm, make_adder(comm, be, &adder)));
    }
    CPA_TRY(cpa_comm_agree(comm, cpa_device_sum_of(adder, out)));
cleanup:
    return st;
}

void cpa_device_sum_destroy(cpa_device_sum **s)
{
    if (*s != NULL) {
        if ((*s)->adder != NULL) {
            (*s)->adder->ops->destroy((*s)->adder);
        }
        cpa_free(s);
    }
}

cpa_status cpa_device_sum_begin(cpa_device_sum *s, cpa_dev_real *v, const cpa_range *ranges, int n_ranges)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(s->state == CPA_SUM_IDLE, CPA_INTERNAL, "a sum over GPUs begins while another one is %s",
                s->state == CPA_SUM_OPEN ? "under way" : "broken");
    s->v = v;
    s->n_started = 0;
    s->n_messages = cpa_cut_messages(ranges, n_ranges, s->message);
    CPA_REQUIRE(s->n_messages >= 0, CPA_INTERNAL, "a sum over GPUs of more than %d messages", CPA_MESSAGES);
    s->state = CPA_SUM_OPEN;
cleanup:
    return st;
}

// What fails here once has failed for good, and for all: nobody knows what the others have of the sum, nor can they be asked.
static cpa_status judged(cpa_device_sum *s, cpa_status st)
{
    char why[1024];
    if (st == CPA_OK) {
        return CPA_OK;
    }
    s->state = CPA_SUM_FAILED;
    s->adder->ops->abort(s->adder);
    snprintf(why, sizeof why, "%s", cpa_message());
    return cpa_fail(CPA_LOST_PEER, "the sum over GPUs: %s", why);
}

// Starts the messages whose ranges are all before n_ready.
static cpa_status start(cpa_device_sum *s, int n_ready)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(s->state == CPA_SUM_OPEN, s->state == CPA_SUM_FAILED ? CPA_LOST_PEER : CPA_INTERNAL,
                "a sum over GPUs goes on that %s", s->state == CPA_SUM_FAILED ? "has failed" : "has not begun");
    while (s->adder != NULL && s->n_started < s->n_messages && s->message[s->n_started].last < n_ready) {
        const cpa_bucket *m = &s->message[s->n_started++];
        CPA_TRY(judged(s, s->adder->ops->start(s->adder, cpa_real_at(s->v, m->offset), m->length)));
    }
cleanup:
    return st;
}

cpa_status cpa_device_sum_ahead(cpa_device_sum *s, int n_ready)
{
    return start(s, n_ready);
}

static cpa_status wait_for_all(cpa_device_sum *s)
{
    cpa_status st = CPA_OK;
    bool over = false;
    CPA_TRY(s->adder->ops->close(s->adder));
    CPA_TRY(s->adder->ops->poll(s->adder, &over));
    while (!over) {
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        CPA_TRY(s->adder->ops->poll(s->adder, &over));
    }
cleanup:
    return st;
}

cpa_status cpa_device_sum_finish(cpa_device_sum *s)
{
    cpa_status st;
    CPA_TRY(start(s, INT32_MAX));
    if (s->adder != NULL) {
        cpa_watch_begin("summing over GPUs", -1);
        st = judged(s, wait_for_all(s));
        cpa_watch_end();
    }
    s->state = st == CPA_OK ? CPA_SUM_IDLE : s->state;
cleanup:
    return st;
}
