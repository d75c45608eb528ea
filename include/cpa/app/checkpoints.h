// Owns: the folder RUN/checkpoints of a training run: when a checkpoint is due, what is kept, which one to go on from.
// Never holds up training for longer than a copy of its state takes, but to stop.
#ifndef CPA_APP_CHECKPOINTS_H
#define CPA_APP_CHECKPOINTS_H

#include "cpa/app/rundir.h"
#include "cpa/app/runlog.h"
#include "cpa/train/checkpoint.h"
#include "cpa/train/modelfile.h"

// A checkpoint as it was found.
typedef struct cpa_found {
    char *path;
    void *bytes; // NULL: none
    size_t n;
    int64_t n_damaged; // newer ones that cannot be used
} cpa_found;

/** Finds the newest checkpoint of a run that is whole: rank 0 looks and gives the bytes to all. One that is not whole is
 *  a warning, and the next older is taken. None is no failure. Collective. */
cpa_status cpa_checkpoints_find(cpa_comm *comm, const char *run, cpa_found *out);

/** Frees it. */
void cpa_found_fini(cpa_found *found);

/** Once the run goes on from what was found: renames newer ones that are damaged to *.damaged, so that they do not count
 *  among those kept, removes what was being written, and points last.h5 at it. On rank 0. */
cpa_status cpa_checkpoints_tidy(const char *run, const cpa_found *found);

// When to write, and what beside the state. All borrowed.
typedef struct cpa_checkpoints_plan {
    cpa_comm *comm;
    cpa_rundir *dir;
    cpa_runlog *log;
    const cpa_checkpoint_facts *facts;
    const cpa_model_meta *meta; // of best.h5
    int64_t every_steps;        // 0: not by steps
    double every_seconds;       // 0: not by time
    int keep;
} cpa_checkpoints_plan;

typedef struct cpa_checkpoints cpa_checkpoints;

/** Starts the writing thread, on rank 0. Time counts from here. Rank-local. */
cpa_status cpa_checkpoints_open(const cpa_checkpoints_plan *plan, const cpa_train_state *state, cpa_checkpoints **out);

/** Between two steps: writes a checkpoint if one is due and the one before is written. That one cannot be written is a
 *  warning. With `stop`: writes one, waits until it is on disk, and returns AGAIN, saying how to go on, or IO. Collective
 *  with `stop`. */
cpa_status cpa_checkpoints_pause(cpa_checkpoints *c, const cpa_train_state *state, bool stop);

/** Waits for what is being written and sets *c to NULL; NULL-safe. */
void cpa_checkpoints_close(cpa_checkpoints **c);

#endif
