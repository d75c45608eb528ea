// Owns: stored elements of any number type as numbers of this program. Never judges them.
#ifndef CPA_DATA_ELEMENTS_H
#define CPA_DATA_ELEMENTS_H

#include "cpa/platform/chunks.h"

enum { CPA_TILE = 1024 }; // elements converted at once, at most

/** `n` stored integers as gene numbers; what is negative or too large becomes UINT32_MAX. */
void cpa_elements_as_index(const cpa_chunks *c, const void *from, int64_t n, uint32_t *to);

/** `n` stored numbers as doubles. */
void cpa_elements_as_double(const cpa_chunks *c, const void *from, int64_t n, double *to);

/** Whether they are floats that can be used as they are. */
static inline bool cpa_elements_are_floats(const cpa_chunks *c)
{
    return c->element == CPA_ELEMENT_F32 && !c->swapped;
}

/** One stored integer. */
int64_t cpa_element_as_integer(const cpa_chunks *c, const void *from);

#endif
