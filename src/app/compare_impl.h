// Owns: what the files of compare share: the rows of its result. Never included outside src/app/*compare*.c.
#ifndef CPA_APP_COMPARE_IMPL_H
#define CPA_APP_COMPARE_IMPL_H

#include "cpa/app/options.h"
#include "cpa/platform/comm.h"

// One metric: of A and of B alone, and of the two against each other; NaN where it has no meaning.
typedef struct cpa_comparison {
    const char *metric; // static
    double a, b, between;
} cpa_comparison;

enum { CPA_MOST_COMPARISONS = 8 };

/** Compares two runs on the cells of --data. Collective. */
cpa_status cpa_compare_runs(cpa_comm *comm, const cpa_options *o, cpa_comparison *out, int *n);

/** Compares two files that predict wrote. BAD_DATA: not such files, or of other rows or genes. Rank-local. */
cpa_status cpa_compare_files(const cpa_options *o, cpa_comparison *out, int *n);

#endif
