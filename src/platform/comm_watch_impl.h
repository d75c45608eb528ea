// Owns: the deadline of waits on other ranks, for comm*.c and device_sum.c alone.
// Must never be included by anything else but the tests of the communicator.
#ifndef CPA_PLATFORM_COMM_WATCH_IMPL_H
#define CPA_PLATFORM_COMM_WATCH_IMPL_H

#include <stdint.h>

#include "cpa/platform/comm.h"

// Where a rank runs, so that another one on the same machine can look whether it still does.
typedef struct cpa_whereabouts {
    int64_t process, started; // its number, and when it began, which tells it from a later process of that number
    char host[64];
} cpa_whereabouts;

/** Starts the thread that looks after waits. INTERNAL when there can be none. */
cpa_status cpa_watch_start(void);

/** Says what to abort, and where all ranks are ([size], taken over and freed by cpa_watch_stop). */
void cpa_watch_ranks(cpa_comm *comm, cpa_whereabouts *all);

/** What else to do, in two seconds at most, before a rank that waited in vain ends; NULL: nothing. */
void cpa_watch_last_act(void (*act)(void *ctx), void *ctx);

/** Ends the thread; nothing is watched any more. */
void cpa_watch_stop(void);

/** How long a wait may last, in seconds. */
double cpa_watch_timeout(void);

/** This rank waits from here to cpa_watch_end; `what` is a static string, `peer` the one rank it waits for or -1. */
void cpa_watch_begin(const char *what, int peer);
void cpa_watch_end(void);

/** Describes a process of this machine. */
void cpa_whereabouts_find(cpa_whereabouts *out, int64_t process);

/** What the system says of a process on this machine: "is stopped", "has died", or NULL: it runs. */
const char *cpa_whereabouts_trouble(const cpa_whereabouts *rank);

#endif
