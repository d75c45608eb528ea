// Owns: files that threads read at any position. Of all of them a bounded number has a descriptor at a time.
// Never reads: it lends the descriptor.
#ifndef CPA_PLATFORM_SOURCE_H
#define CPA_PLATFORM_SOURCE_H

#include <sys/stat.h>

#include "cpa/base/status.h"

typedef struct cpa_source cpa_source;

/** Opens a file for reading; *was describes it. IO: it cannot be opened. Any thread. */
cpa_status cpa_source_open(const char *path, cpa_source **out, struct stat *was);

/** Closes it and sets *s to NULL; NULL-safe. Nobody may hold it. */
void cpa_source_close(cpa_source **s);

/** A descriptor of the file, until cpa_source_let_go; -1, with errno: it cannot be opened any more; ESTALE: its path means
 *  another file now. Any thread. */
int cpa_source_hold(cpa_source *s);

/** Gives it back; once for each descriptor held. Any thread. */
void cpa_source_let_go(cpa_source *s);

/** Descriptors open now. */
int cpa_source_n_open(void);

#endif
