// Owns: the list of files and folders that are in the making, for a process that must end at once, without its own clean-up.
// Never removes anything in a process that ends as it should.
#ifndef CPA_BASE_LEAVINGS_H
#define CPA_BASE_LEAVINGS_H

#include <stdbool.h>

/** Remembers a path. Of more than a dozen the rest is forgotten. */
void cpa_leavings_add(const char *path);

/** Forgets a path and what lies below it: it is complete, or is to stay. */
void cpa_leavings_drop(const char *path);

/** The file of a path has been made, and is open as `fd`. Nothing where the path is not remembered. */
void cpa_leavings_made(const char *path, int fd);

/** Whether what is at a path is the file that was made, and not one that another process has put there; true of paths of which
 *  nothing is known. For signal handlers too. */
bool cpa_leavings_are_ours(const char *path);

/** Removes files, if they are ours, and empty folders, the last added first. For signal handlers too. */
void cpa_leavings_remove(void);

#endif
