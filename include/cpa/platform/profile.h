// Owns: how long each operation of a backend takes. Never changes what they compute.
#ifndef CPA_PLATFORM_PROFILE_H
#define CPA_PLATFORM_PROFILE_H

#include "cpa/platform/backend.h"

typedef struct cpa_profile cpa_profile;

// What an operation took so far: how often, how long, and the bytes of its matrices and cells, each counted once.
typedef struct cpa_profile_row {
    const char *op;
    int64_t calls;
    double seconds, bytes;
} cpa_profile_row;

/** Begins to time every operation of the backend, on its device where it has one. Ends by cpa_profile_end. Rank-local. */
cpa_status cpa_profile_begin(cpa_backend *be, cpa_profile **out);

/** Ends timing, and gives the rows [*n] of all operations, always in the same order; owned by the profile. */
cpa_status cpa_profile_end(cpa_profile *p, const cpa_profile_row **rows, int *n);

/** Frees it, ending it if need be, and sets *p to NULL; NULL-safe. */
void cpa_profile_destroy(cpa_profile **p);

#endif
