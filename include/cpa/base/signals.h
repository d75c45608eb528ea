// Owns: the wish to stop: signals and the end of a SLURM job. Never stops anything itself but on the second signal.
#ifndef CPA_BASE_SIGNALS_H
#define CPA_BASE_SIGNALS_H

#include <stdbool.h>

/** From now on SIGUSR1, SIGTERM and SIGINT only note that a stop is wanted; a second one ends the process at once with
 *  128 + its number. SLURM_JOB_END_TIME (seconds since 1970), where it is set and still to come, wants a stop one minute
 *  before, or half of the time that is left where that is less than two. To be called once, before any thread is made
 *  that computes. */
void cpa_stop_listen(void);

/** SIGUSR1 waits from now on until cpa_stop_listen. To be called before any thread is made. */
void cpa_stop_hold(void);

/** From now on the signals do nothing: the exit code is known, and the process about to end with it. */
void cpa_stop_ignore(void);

/** Whether this process has been asked to stop. Cheap; false without cpa_stop_listen. */
bool cpa_stop_wanted(void);

/** By what: "SIGUSR1", "the end of the job", or "another rank" when it was not this process. Static. */
const char *cpa_stop_reason(void);

#endif
