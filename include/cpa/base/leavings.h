// Owns: the list of files and folders that are in the making, for a process that must end at once, without its own clean-up.
// Never removes anything in a process that ends as it should.
#ifndef CPA_BASE_LEAVINGS_H
#define CPA_BASE_LEAVINGS_H

#include <stdbool.h>

/** Remembers a path. Of more than a dozen the rest is forgotten. */
void cpa_leavings_add(const char *path);

/** The same of a file that others may write, too: what is there is not ours until it has been made. */
void cpa_leavings_expect(const char *path);

/** Forgets a path and what lies below it: it is complete, or is to stay. */
void cpa_leavings_drop(const char *path);

/** The file of a path has been made, and is open as `fd`, which may be closed. Nothing where the path is not remembered. */
void cpa_leavings_made(const char *path, int fd);

/** What was made at a path has been renamed to another one that is remembered. */
void cpa_leavings_moved(const char *from, const char *to);

/** Whether what is at a path is the file that was made, and not one that another process has put there; true of paths of which
 *  nothing is known. For signal handlers too. */
bool cpa_leavings_are_ours(const char *path);

/** Removes files, if they are ours, and empty folders, the last added first. For signal handlers too. */
void cpa_leavings_remove(void);

#endif
