// Owns: the list of files and folders that are in the making, for a process that must end at once, without its own clean-up.
// Never removes anything in a process that ends as it should.
#ifndef CPA_BASE_LEAVINGS_H
#define CPA_BASE_LEAVINGS_H

/** Remembers a path. Of more than a dozen the rest is forgotten. */
void cpa_leavings_add(const char *path);

/** Forgets a path and what lies below it: it is complete, or is to stay. */
void cpa_leavings_drop(const char *path);

/** Removes files and empty folders, the last added first. For signal handlers too. */
void cpa_leavings_remove(void);

#endif
