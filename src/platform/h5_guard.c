// Owns: what happens when HDF5 falls over or never returns. HDF5 1.10 believes the metadata of a file: damage in a few bytes of it can
// end in a crash, an assertion of the heap or an endless loop. There is no cheap way to check metadata beforehand (it would be a
// second HDF5), and none to go on afterwards (its state and the heap may be broken). So, while a file is read through HDF5, the
// signals of a crash and of a clock that counts computing, not waiting, end the process with one message and exit code 65.
// Never acts outside of HDF5: there a signal goes to whoever had it before (the default, MPI, a sanitizer).
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <hdf5.h>

#include "cpa/base/leavings.h"
#include "cpa/base/log.h"
#include "cpa/platform/comm.h"

#include "h5_impl.h"

enum {
    STACK_BYTES = 1 << 16,
    CLOCK_SIGNAL = SIGVTALRM,
};

static const int FALLS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
enum { N_FALLS = sizeof FALLS / sizeof *FALLS };

// The thread that opened the first file is the one that is guarded: no other calls HDF5.
static struct {
    double patience; // seconds of computing, 0: for ever
    bool ready, has_clock;
    pthread_t thread;
    timer_t clock;
    volatile sig_atomic_t depth; // 0: not in HDF5
    const char *volatile path;   // what is read
    struct sigaction before[N_FALLS];
} guard;

void cpa_h5_patience(double seconds)
{
    guard.patience = seconds;
}

// Only async-signal-safe functions from here on: the heap may be locked or broken.
static void end(const char *how)
{
    const char *piece[] = {guard.path, ": the HDF5 library ", how,
                           " while it was read: the file is damaged, copy or write it again"};
    cpa_last_words(piece, sizeof piece / sizeof *piece);
    cpa_leavings_remove();
    cpa_comm_last_code(CPA_BAD_DATA);
    _exit((int)CPA_BAD_DATA);
}

static bool is_inside(void)
{
    return guard.depth > 0 && pthread_equal(pthread_self(), guard.thread);
}

static void fall(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (is_inside()) {
        end("fell over");
    }
    for (int i = 0; i < N_FALLS; i++) {
        if (FALLS[i] == number) {
            sigaction(number, &guard.before[i], NULL);
        }
    }
    if (info->si_code <= 0) { // sent; what an instruction raised comes again by itself
        raise(number);
    }
}

static void run_out(int number)
{
    (void)number;
    if (is_inside()) {
        end("did not come to an end");
    }
}

// A stack that has run over holds no handler, so there is another one.
static void set_stack(void)
{
    static char room[STACK_BYTES];
    stack_t now;
    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0) {
        sigaltstack(&(stack_t){.ss_sp = room, .ss_size = sizeof room}, NULL);
    }
}

static void set_clock(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = CLOCK_SIGNAL};
    struct sigaction action = {.sa_handler = run_out, .sa_flags = SA_ONSTACK | SA_RESTART};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid); // its proper name is not in every C library
    sigaction(CLOCK_SIGNAL, &action, NULL);
    guard.has_clock = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &guard.clock) == 0;
}

void cpa_h5_guard_init(void)
{
    if (guard.ready) {
        return;
    }
    guard.ready = true;
    guard.thread = pthread_self();
    set_stack();
    set_clock();
    for (int i = 0; i < N_FALLS; i++) {
        struct sigaction action = {.sa_sigaction = fall, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
        sigaction(FALLS[i], &action, &guard.before[i]);
    }
}

static void wind_clock(double seconds)
{
    struct itimerspec left = {
        .it_value = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))}};
    if (guard.has_clock && guard.patience > 0) {
        timer_settime(guard.clock, 0, &left, NULL);
    }
}

bool cpa_h5_enter(const char *path)
{
    if (!guard.ready || !pthread_equal(pthread_self(), guard.thread)) {
        return false;
    }
    if (guard.depth == 0) {
        guard.path = path;
        wind_clock(guard.patience);
    }
    guard.depth++;
    return true;
}

void cpa_h5_leave(const bool *entered)
{
    if (*entered && --guard.depth == 0) {
        wind_clock(0);
    }
}
