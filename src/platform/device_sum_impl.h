// Owns: the inside of a sum over devices: the messages, and what carries them. Only src/platform/device_sum*.c, comm_nccl.c and their
// tests include it.
#ifndef CPA_PLATFORM_DEVICE_SUM_IMPL_H
#define CPA_PLATFORM_DEVICE_SUM_IMPL_H

#include <stdbool.h>

#include "cpa/platform/device_sum.h"

// What adds one message up over the ranks. First member of every implementation's own struct.
typedef struct cpa_adder cpa_adder;

typedef struct cpa_adder_ops {
    cpa_status (*start)(cpa_adder *a, cpa_dev_real *v, int64_t n); // behind what the backend was asked for; in place
    cpa_status (*close)(cpa_adder *a);                             // the last one of a sum has been started
    cpa_status (*poll)(cpa_adder *a, bool *over);                  // whether all that was started is over; never waits
    void (*abort)(cpa_adder *a);                                   // after a failure; the others' waits end, too
    void (*destroy)(cpa_adder *a);
} cpa_adder_ops;

struct cpa_adder {
    const cpa_adder_ops *ops;
};

// Reals of a message: a shorter one is put together with what follows it in the array, a longer one is cut.
enum { CPA_MESSAGE_SHORT = 1 << 16, CPA_MESSAGE_LONG = 1 << 22, CPA_MESSAGES = 1024 };

typedef struct cpa_bucket {
    int64_t offset, length;
    int last; // range that it ends in: it is final when that one is
} cpa_bucket;

typedef enum cpa_sum_state { CPA_SUM_IDLE, CPA_SUM_OPEN, CPA_SUM_FAILED } cpa_sum_state;

struct cpa_device_sum {
    cpa_adder *adder; // owned; NULL: there are no other ranks
    cpa_sum_state state;
    cpa_dev_real *v;
    cpa_bucket message[CPA_MESSAGES];
    int n_messages, n_started;
};

/** Cuts ranges into messages; their number, -1 when they would be more than CPA_MESSAGES. */
int cpa_cut_messages(const cpa_range *ranges, int n_ranges, cpa_bucket message[CPA_MESSAGES]);

/** A sum carried by this adder, which it owns from then on, also on failure. Rank-local. */
cpa_status cpa_device_sum_of(cpa_adder *adder, cpa_device_sum **out);

/** NCCL, of builds with CUDA. CONFIG, LOST_PEER; the same on all ranks. Collective. */
cpa_status cpa_adder_nccl_create(cpa_comm *comm, cpa_backend *be, cpa_adder **out);

/** Copies to the host, MPI's sum, and back: for backends whose device is none. Rank-local. */
cpa_status cpa_adder_staged_create(cpa_comm *comm, cpa_backend *be, cpa_adder **out);

#endif
