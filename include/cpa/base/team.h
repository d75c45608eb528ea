// Owns: a few threads that work through numbered items while the caller does something else.
// Never knows what the items are. The threads take no signals and must not call cpa_fail, whose message is the process's.
#ifndef CPA_BASE_TEAM_H
#define CPA_BASE_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "cpa/base/status.h"

enum { CPA_TEAM_PHASES = 3 };

// Work in phases: items are begun in ascending order, and those of a phase when all of the phase before have ended.
typedef struct cpa_work {
    void *ctx;
    int64_t n_items[CPA_TEAM_PHASES];
    bool (*run)(void *ctx, int phase, int64_t item, int thread); // false: no further item is begun
} cpa_work;

typedef struct cpa_team cpa_team;

/** Starts `n` threads, which sleep until there is work. */
cpa_status cpa_team_create(int n, cpa_team **out);

/** Ends the threads (unfinished work is given up after the items in hand) and sets *team to NULL; NULL-safe. */
void cpa_team_destroy(cpa_team **team);

/** Number of threads; 0 <= thread < size. */
int cpa_team_size(const cpa_team *team);

/** Hands over the work (copied) and returns at once. The work before must have ended. */
void cpa_team_start(cpa_team *team, const cpa_work *work);

/** Whether there is work that has not ended. */
bool cpa_team_is_busy(cpa_team *team);

/** Waits until the work has ended. What the threads wrote is then visible. */
void cpa_team_wait(cpa_team *team);

#endif
