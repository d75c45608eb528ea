// Owns: the deadline of every wait on other ranks: one thread that counts for how long the present wait has lasted, or another
// rank has been stopped, and ends the process with exit code 76 when that is too long. Must never call MPI before.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpa/base/log.h"
#include "cpa/base/mem.h"
#include "cpa/base/text.h"

#include "comm_impl.h"
#include "comm_watch_impl.h"

enum { LAST_WORDS_S = 2 }; // what the message and MPI_Abort may take together

// One per process, as there is one communicator. A wait costs its rank three stores and no look at a clock.
static struct {
    double timeout;
    _Atomic(const char *) phase, what; // what is NULL: this rank does not wait
    atomic_int peer;
    atomic_ulong turn; // number of the wait
    _Atomic(cpa_comm *) comm;
    _Atomic(void *) act_on;
    void (*_Atomic act)(void *ctx);
    cpa_whereabouts *rank; // [size], process 0: out of sight; NULL before they are known
    int next;              // rank that this one looks after, -1: none
    pthread_t thread;
    bool runs, ends; // `ends` under the lock
    pthread_mutex_t lock;
    pthread_cond_t wake;
} watch = {.timeout = CPA_COMM_TIMEOUT, .phase = "starting", .lock = PTHREAD_MUTEX_INITIALIZER};

void cpa_comm_timeout(double seconds)
{
    watch.timeout = seconds;
}

double cpa_watch_timeout(void)
{
    return watch.timeout;
}

void cpa_comm_phase(const char *phase)
{
    atomic_store_explicit(&watch.phase, phase, memory_order_relaxed);
}

void cpa_watch_begin(const char *what, int peer)
{
    atomic_fetch_add(&watch.turn, 1);
    atomic_store_explicit(&watch.peer, peer, memory_order_relaxed);
    atomic_store(&watch.what, what);
}

void cpa_watch_end(void)
{
    atomic_store(&watch.what, NULL);
}

// ---- Where ranks are

// State and start of a process, from /proc; false when it is not there.
static bool look_up(int64_t process, char *state, int64_t *started)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)process);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *rest = strrchr(text, ')'); // the name of the program before it may hold anything
    long long start = 0;
    // Fields 3 (state) and 22 (start); of those between them only the place counts.
    bool found = rest != NULL && sscanf(rest + 1,
                                        " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                                        "%lld",
                                        state, &start) == 2;
    *started = start;
    return found;
}

void cpa_whereabouts_find(cpa_whereabouts *out, int64_t process)
{
    char state;
    *out = (cpa_whereabouts){.process = process};
    look_up(out->process, &state, &out->started);
    gethostname(out->host, sizeof out->host - 1);
}

const char *cpa_whereabouts_trouble(const cpa_whereabouts *rank)
{
    char state;
    int64_t started;
    if (!look_up(rank->process, &state, &started) || started != rank->started || state == 'Z' || state == 'X') {
        return "has died";
    }
    return state == 'T' || state == 't' ? "is stopped" : NULL;
}

// The next rank on this machine in a circle, -1: there is none.
static int find_next(const cpa_comm *comm, const cpa_whereabouts *all)
{
    for (int i = 1; i < comm->size; i++) {
        int r = (comm->rank + i) % comm->size;
        if (all[r].process != 0) {
            return r;
        }
    }
    return -1;
}

void cpa_watch_ranks(cpa_comm *comm, cpa_whereabouts *all)
{
    for (int r = 0; r < comm->size; r++) {
        // Nothing can be said of processes elsewhere, or that containers hide from each other.
        if (strcmp(all[r].host, all[comm->rank].host) != 0 || cpa_whereabouts_trouble(&all[r]) != NULL) {
            all[r].process = 0;
        }
    }
    watch.rank = all;
    watch.next = find_next(comm, all);
    atomic_store(&watch.comm, comm);
}

void cpa_watch_last_act(void (*act)(void *ctx), void *ctx)
{
    atomic_store(&watch.act, NULL);
    atomic_store(&watch.act_on, ctx);
    atomic_store(&watch.act, act);
}

// ---- The end

static void leave(int signal)
{
    (void)signal;
    _exit((int)CPA_LOST_PEER);
}

// From here on this process ends with 76 whatever happens: a message that nobody reads and an MPI that is stuck or falls
// over, called while the main thread is inside it, only cost their two seconds.
static void be_brief(void)
{
    const int signals[] = {SIGALRM, SIGSEGV, SIGBUS, SIGABRT};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        sigaction(signals[i], &(struct sigaction){.sa_handler = leave}, NULL);
        sigaddset(&set, signals[i]);
    }
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(LAST_WORDS_S);
}

// Says why, and for how long that has been so, and ends.
static void give_up(const char *reason, double waited)
{
    cpa_comm *comm = atomic_load(&watch.comm);
    cpa_text text = {0};
    be_brief();
    cpa_text_add(&text, comm != NULL ? "rank %d" : "process %d", comm != NULL ? comm->rank : (int)getpid());
    cpa_text_add(&text, ", %s: %s for %.1f s (--timeout %g)", atomic_load(&watch.phase), reason, waited, watch.timeout);
    for (int r = 0; comm != NULL && r < comm->size; r++) {
        const cpa_whereabouts *w = &watch.rank[r];
        const char *trouble = w->process != 0 ? cpa_whereabouts_trouble(w) : NULL;
        if (trouble != NULL) {
            cpa_text_add(&text, "; rank %d (process %lld on %s) %s", r, (long long)w->process, w->host, trouble);
        }
    }
    cpa_error(cpa_text_str(&text));
    void (*act)(void *ctx) = atomic_load(&watch.act);
    if (act != NULL) {
        act(atomic_load(&watch.act_on));
    }
    if (comm != NULL) {
        cpa_comm_abort(comm, CPA_LOST_PEER);
    }
    _exit((int)CPA_LOST_PEER);
}

static void give_up_waiting(const char *what, double waited)
{
    char reason[128];
    int peer = atomic_load(&watch.peer);
    if (peer < 0) {
        snprintf(reason, sizeof reason, "no answer from the other ranks (%s)", what);
    } else {
        snprintf(reason, sizeof reason, "no answer from rank %d (%s)", peer, what);
    }
    give_up(reason, waited);
}

// ---- The thread

// Waits until `seconds` have passed or the watch ends; says whether it ends.
static bool nap(double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long ns = until.tv_nsec + (long)(1e9 * (seconds - (double)(time_t)seconds));
    until.tv_sec += (time_t)seconds + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&watch.lock);
    int rc = 0;
    while (!watch.ends && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&watch.wake, &watch.lock, &until);
    }
    bool ends = watch.ends;
    pthread_mutex_unlock(&watch.lock);
    return ends;
}

// Whether the next rank of this machine is stopped or dead. A rank that computes waits for nobody and would not notice; in a
// circle everyone is looked at, and by one only.
static bool next_is_away(void)
{
    return atomic_load(&watch.comm) != NULL && watch.next >= 0 &&
           cpa_whereabouts_trouble(&watch.rank[watch.next]) != NULL;
}

// Adds up looks at the clock, each counting for little: a job that was suspended as a whole has not waited meanwhile.
static void *look_after(void *unused)
{
    double look = watch.timeout / 50, waited = 0, away = 0, then = cpa_seconds();
    unsigned long turn = 0;
    look = look < 0.01 ? 0.01 : look > 1 ? 1 : look;
    while (!nap(look)) {
        double now = cpa_seconds(), passed = now - then < look + 1 ? now - then : look + 1;
        unsigned long present = atomic_load(&watch.turn);
        const char *what = atomic_load(&watch.what);
        waited = what != NULL && present == turn ? waited + passed : 0;
        away = next_is_away() ? away + passed : 0;
        if (waited > watch.timeout) {
            give_up_waiting(what, waited);
        }
        if (away > watch.timeout) {
            give_up("another rank is away", away);
        }
        turn = present;
        then = now;
    }
    return unused;
}

cpa_status cpa_watch_start(void)
{
    pthread_condattr_t clock;
    sigset_t all, before;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&watch.wake, &clock);
    pthread_condattr_destroy(&clock);
    watch.ends = false;
    sigfillset(&all); // signals are for the main thread
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&watch.thread, NULL, look_after, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    watch.runs = rc == 0;
    return rc == 0 ? CPA_OK : cpa_fail(CPA_INTERNAL, "cannot start the thread that limits waits: %s", strerror(rc));
}

void cpa_watch_stop(void)
{
    if (watch.runs) {
        pthread_mutex_lock(&watch.lock);
        watch.ends = true;
        pthread_cond_signal(&watch.wake);
        pthread_mutex_unlock(&watch.lock);
        pthread_join(watch.thread, NULL);
        pthread_cond_destroy(&watch.wake);
        watch.runs = false;
    }
    atomic_store(&watch.comm, NULL);
    cpa_free(&watch.rank);
}
