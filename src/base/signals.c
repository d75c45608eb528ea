// Owns: the wish to stop: a thread that waits for the signals, and the deadline. It sets a flag or ends the process, never
// anything else.
#include "cpa/base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MARGIN = 60 }; // seconds before the end of a job

static atomic_int caught; // number of the first signal
static atomic_bool ending;
static time_t deadline; // 0: none
static const int NUMBERS[] = {SIGUSR1, SIGTERM, SIGINT};

static void take(int number)
{
    int none = 0;
    if (atomic_load(&ending)) {
        return;
    }
    if (!atomic_compare_exchange_strong(&caught, &none, number)) {
        _exit(128 + number);
    }
}

static void *wait_for_signals(void *set)
{
    for (int number; sigwait(set, &number) == 0;) {
        take(number);
    }
    return NULL;
}

// No handler may run in a thread that computes: where the inner dimension is large, oneDNN's products use memory from
// malloc as their stack, and the frame of a handler overwrites what lies before it. So those threads, which descend from
// this one, block the signals, and a thread of its own waits for them. A handler serves the threads that were there before.
void cpa_stop_listen(void)
{
    static sigset_t set;
    struct sigaction action = {.sa_handler = take, .sa_flags = SA_RESTART};
    pthread_t thread;
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        sigaddset(&set, NUMBERS[i]);
        sigaction(NUMBERS[i], &action, NULL);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_signals, &set) == 0) {
        pthread_detach(thread);
    }
    const char *text = getenv("SLURM_JOB_END_TIME");
    long long end = text != NULL ? strtoll(text, NULL, 10) : 0, left = end - (long long)time(NULL);
    deadline = left > 0 ? (time_t)(end - (left < 2 * MARGIN ? left / 2 : MARGIN)) : 0;
}

// A signal that is held is there for the thread that waits, later.
void cpa_stop_hold(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void cpa_stop_ignore(void)
{
    atomic_store(&ending, true);
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        signal(NUMBERS[i], SIG_IGN);
    }
}

bool cpa_stop_wanted(void)
{
    return atomic_load(&caught) != 0 || (deadline != 0 && time(NULL) >= deadline);
}

const char *cpa_stop_reason(void)
{
    switch (atomic_load(&caught)) {
    case SIGUSR1:
        return "SIGUSR1";
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    default:
        return cpa_stop_wanted() ? "the end of the job" : "another rank";
    }
}
