// Owns: run folders and output files while they are made: written beside and renamed, removed on failure.
// Never touches a file that it did not make.
#ifndef CPA_APP_RUNDIR_H
#define CPA_APP_RUNDIR_H

#include <stdbool.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

typedef struct cpa_rundir cpa_rundir;

/** Makes the folder RUN and RUN/checkpoints; with `resume` takes those that are there. CONFIG when RUN is there already,
 *  or with `resume` is something else than a run; NO_INPUT when its parent is not; IO. The same on all ranks. Collective. */
cpa_status cpa_rundir_create(cpa_comm *comm, const char *path, bool resume, cpa_rundir **out);

/** The folder. Borrowed. */
const char *cpa_rundir_path(const cpa_rundir *dir);

/** The path of a file in it, such as "model.h5" or "checkpoints/last.h5", which is thereby one of those that are
 *  removed when the run is not kept. Borrowed until cpa_rundir_close. Rank-local. */
cpa_status cpa_rundir_file(cpa_rundir *dir, const char *name, const char **path);

/** Whether the folder was made by cpa_rundir_create. On rank 0. */
bool cpa_rundir_is_new(const cpa_rundir *dir);

/** The files named so far, and the folders, stay whatever happens: there is something to go on from. On rank 0. */
void cpa_rundir_settle(cpa_rundir *dir);

/** Ends its making and sets *dir to NULL; NULL-safe. Unless `keep`, rank 0 removes the files named by cpa_rundir_file
 *  since cpa_rundir_settle and what was being written to them, and folders that it made if nothing was settled and that
 *  leaves them empty. */
void cpa_rundir_close(cpa_rundir **dir, bool keep);

/** The path of a run's model (cpa_free): model.h5, or while it is trained checkpoints/best.h5, if there is one. */
cpa_status cpa_rundir_model(const char *run, char **path);

/** The same where the model is needed: NO_INPUT of a run whose training has none yet. What else is not there is left to who opens it. */
cpa_status cpa_rundir_trained(const char *run, char **path);

/** Makes a folder for results. CONFIG when `path` is there already; NO_INPUT when its parent is not; IO. Rank-local. */
cpa_status cpa_output_folder(const char *path);

/** Whether a result could be put there: NO_INPUT when there is no such folder; IO when `path` is one, or anything else that is not a file.
 *  Rank-local. */
cpa_status cpa_output_check(const char *path);

/** Names the file to write in place of `path` until it is complete: beside it, so that it can be renamed. The caller
 *  frees it with cpa_free. Fails as cpa_output_check. */
cpa_status cpa_output_begin(const char *path, char **temporary);

/** The same, and CONFIG when `path` is there already. */
cpa_status cpa_output_begin_new(const char *path, char **temporary);

/** Puts the complete file in its place: fsync, rename, fsync of the folder. IO, also when another process has put its own in the place of
 *  the temporary file, which the caller then discards. */
cpa_status cpa_output_commit(const char *temporary, const char *path);

/** Removes the temporary file, if it is there and has been made here. NULL-safe. */
void cpa_output_discard(const char *temporary);

/** Writes a whole file this way. */
cpa_status cpa_output_write(const char *path, const void *bytes, size_t n);

#endif
