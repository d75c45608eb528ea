// Owns: the signal handler and the deadline. The handler sets a flag or ends the process, never anything else.
#include "cpa/base/signals.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MARGIN = 60 }; // seconds before the end of a job

static volatile sig_atomic_t caught; // number of the first signal
static time_t deadline;              // 0: none

static void take(int number)
{
    if (caught != 0) {
        _exit(128 + number);
    }
    caught = number;
}

void cpa_stop_listen(void)
{
    static const int numbers[] = {SIGUSR1, SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = take, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaction(numbers[i], &action, NULL);
    }
    const char *text = getenv("SLURM_JOB_END_TIME");
    long long end = text != NULL ? strtoll(text, NULL, 10) : 0, left = end - (long long)time(NULL);
    deadline = left > 0 ? (time_t)(end - (left < 2 * MARGIN ? left / 2 : MARGIN)) : 0;
}

bool cpa_stop_wanted(void)
{
    return caught != 0 || (deadline != 0 && time(NULL) >= deadline);
}

const char *cpa_stop_reason(void)
{
    switch (caught) {
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
