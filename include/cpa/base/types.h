// Owns: the number types that have a meaning in this project.
// Never depends on another header of the project.
#ifndef CPA_BASE_TYPES_H
#define CPA_BASE_TYPES_H

#include <stdint.h>

// What the backends compute in: float, or double in the build made for sharp comparisons (CPA_DOUBLE).
#ifdef CPA_DOUBLE
typedef double cpa_real;
#else
typedef float cpa_real;
#endif

typedef int64_t cpa_gidx; // a cell of the whole file (row number)

// A list of strings. The list owns the strings and the array.
typedef struct cpa_strings {
    int64_t n;
    char **s;
} cpa_strings;

#endif
