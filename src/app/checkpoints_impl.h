// Owns: what the files of the folder RUN/checkpoints share: names, and the thread that writes. Never included elsewhere.
#ifndef CPA_APP_CHECKPOINTS_IMPL_H
#define CPA_APP_CHECKPOINTS_IMPL_H

#include "cpa/train/checkpoint.h"

enum { CPA_CHECKPOINT_NAME = 80 };

/** The name of a checkpoint: "epoch-000012-step-00000034.h5" when 12 epochs are done and 34 steps of the next. */
void cpa_checkpoint_name(int64_t epoch, int64_t step, char name[CPA_CHECKPOINT_NAME]);

/** Reads such a name back; false when it is none. */
bool cpa_checkpoint_parse(const char *name, int64_t *epoch, int64_t *step);

/** Makes last.h5 of an open folder another name of the file `name`: a hard link, or where there are none a symbolic one.
 *  false: see errno. */
bool cpa_checkpoint_link_last(int folder, const char *name);

// Something to be written. The checkpoint is borrowed and must be left alone until it is; the model's bytes are owned.
typedef struct cpa_write_job {
    cpa_checkpoint *file;
    char name[CPA_CHECKPOINT_NAME];
    int64_t epoch, step;
    void *best; // becomes best.h5; NULL: the one that is there stays
    size_t n_best;
    double longest, paused; // seconds that training stood still for it, at most at a time and in all
} cpa_write_job;

// What became of it.
typedef struct cpa_write_result {
    cpa_write_job job; // its `best` is freed
    size_t n;          // bytes of the checkpoint
    double seconds;
    char error[512]; // "" when all is on disk
} cpa_write_result;

typedef struct cpa_writer cpa_writer;

/** Starts the thread that writes into `folder` and keeps the newest `keep` checkpoints. It calls POSIX only. */
cpa_status cpa_writer_start(const char *folder, int keep, cpa_writer **out);

/** Whether it has nothing to do and its last result was taken. */
bool cpa_writer_is_idle(cpa_writer *w);

/** Hands over a job; it must be idle. */
void cpa_writer_submit(cpa_writer *w, const cpa_write_job *job);

/** Takes the result of the last job if there is one, waiting for it with `wait`. */
bool cpa_writer_take(cpa_writer *w, bool wait, cpa_write_result *result);

/** Lets it finish, ends it and sets *w to NULL; NULL-safe. */
void cpa_writer_stop(cpa_writer **w);

#endif
