// Owns: rank 0 working alone: it calls to the others now and then, as long as it gets on, and they sleep from call to call, each of which
// has the deadline of any other wait. Must never send from another thread than the one that works.
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "cpa/base/log.h"

#include "comm_impl.h"
#include "comm_watch_impl.h"

enum {
    TAG = 32767,        // of the calls
    CALLS = 20,         // in the time of a deadline
    LOOKS_NS = 5000000, // between two looks of a rank that sleeps
};

enum { GETS_ON, HAS_DONE }; // what a call says

// One per process, as there is one communicator.
static struct {
    cpa_flight *flight; // of calls; NULL: nobody is there
    char word;          // that is under way
    double last;        // when this rank called
    atomic_bool works;
    pthread_t thread;
} alone;

cpa_status cpa_alone_create(cpa_comm *comm)
{
    return comm->size > 1 ? cpa_flight_create(comm, comm->size, sizeof alone.word, &alone.flight) : CPA_OK;
}

void cpa_alone_destroy(void)
{
    cpa_flight_destroy(&alone.flight);
}

static cpa_status call(const cpa_comm *comm, char word)
{
    cpa_status st = CPA_OK;
    alone.word = word;
    alone.last = cpa_seconds();
    for (int r = 1; r < comm->size && st == CPA_OK; r++) {
        st = cpa_flight_send(alone.flight, r, TAG, &alone.word, sizeof alone.word);
    }
    return st;
}

bool cpa_comm_alone(cpa_comm *comm)
{
    if (comm->rank == 0 && alone.flight != NULL) {
        alone.last = 0; // the others may have waited for a while
        alone.thread = pthread_self();
        atomic_store(&alone.works, true);
    }
    return comm->rank == 0;
}

// A call that fails is made up for by what comes after: MPI that is broken says so at the end of the work.
void cpa_comm_get_on(void)
{
    bool over;
    if (atomic_load(&alone.works) && pthread_equal(pthread_self(), alone.thread) &&
        cpa_seconds() - alone.last > cpa_watch_timeout() / CALLS && cpa_flight_test(alone.flight, &over) == CPA_OK &&
        over) {
        call(alone.flight->comm, GETS_ON);
    }
}

static cpa_status end_work(const cpa_comm *comm)
{
    cpa_status st;
    atomic_store(&alone.works, false);
    CPA_TRY(cpa_flight_wait(alone.flight));
    CPA_TRY(call(comm, HAS_DONE));
    CPA_TRY(cpa_flight_wait(alone.flight));
cleanup:
    return st;
}

// Until the next call.
static cpa_status sleep_on(char *word)
{
    cpa_status st;
    bool over = false;
    cpa_watch_begin("at work alone", 0);
    CPA_TRY(cpa_flight_receive(alone.flight, 0, TAG, word, sizeof *word));
    CPA_TRY(cpa_flight_test(alone.flight, &over));
    while (!over) {
        nanosleep(&(struct timespec){.tv_nsec = LOOKS_NS}, NULL);
        CPA_TRY(cpa_flight_test(alone.flight, &over));
    }
cleanup:
    cpa_watch_end();
    return st;
}

cpa_status cpa_comm_agree_rested(cpa_comm *comm, cpa_status mine)
{
    cpa_status st = CPA_OK;
    if (alone.flight != NULL && comm->rank == 0) {
        CPA_TRY(end_work(comm));
    } else if (alone.flight != NULL) {
        for (char word = GETS_ON; word == GETS_ON;) {
            CPA_TRY(sleep_on(&word));
        }
    }
    CPA_TRY(cpa_comm_agree(comm, mine));
cleanup:
    return st;
}
