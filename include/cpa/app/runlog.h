// Owns: RUN/log.jsonl: what happened when, and the memory of every rank by stage, a JSON object a line.
// Never holds anything that a result depends on.
#ifndef CPA_APP_RUNLOG_H
#define CPA_APP_RUNLOG_H

#include "cpa/app/rundir.h"
#include "cpa/train/ledger.h"

typedef struct cpa_runlog cpa_runlog;

// A member of a line: a text if it is not NULL, else the number (null where it is not finite).
typedef struct cpa_runlog_field {
    const char *name;
    double number;
    const char *text;
} cpa_runlog_field;

/** Opens log.jsonl in the run folder, on rank 0. Times count from here. IO. The same on all ranks. Collective. */
cpa_status cpa_runlog_open(cpa_comm *comm, cpa_rundir *dir, cpa_runlog **out);

/** Closes it and sets *log to NULL; NULL-safe. */
void cpa_runlog_close(cpa_runlog **log);

/** Writes {"event":event,...,"t":seconds} on rank 0; elsewhere does nothing. IO on rank 0 alone: agree on it. */
cpa_status cpa_runlog_event(cpa_runlog *log, const char *event, const cpa_runlog_field *fields, int n);

/** The same, but a failure is only a warning, the first time: for what happens while training, which a full disk does not
 *  end. */
void cpa_runlog_note(cpa_runlog *log, const char *event, const cpa_runlog_field *fields, int n);

// What a rank has done in a stage.
typedef struct cpa_runlog_work {
    double read;    // bytes of cells read from the file
    double cells;   // put into batches or memory
    double seconds; // that the stage took, and of them
    double waited;  // those that it stood still for cells
} cpa_runlog_work;

/** Writes {"event":"memory","stage":stage,"rank":r,"rss":bytes,"high":bytes,"bytes_read":n,"cells_per_s":x,"waiting":share,"t":seconds}
 *  for every rank, and {"event":"ranks","stage":stage,"rss_min":n,"rss_mean":x,"rss_max":n,...} over all. IO, agreed. Collective. */
cpa_status cpa_runlog_stage(cpa_runlog *log, cpa_comm *comm, const char *stage, const cpa_runlog_work *work);
/** Writes {"event":"items","rank":r,"cells":bytes,...,"t":seconds} for every rank: what training took, item by item. Collective. */
cpa_status cpa_runlog_items(cpa_runlog *log, cpa_comm *comm, const cpa_ledger *ledger);

#endif
