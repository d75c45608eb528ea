// Owns: stored elements of any number type as numbers of this program. Never judges them.
#ifndef CPA_DATA_ELEMENTS_H
#define CPA_DATA_ELEMENTS_H

#include "cpa/platform/chunks.h"

enum { CPA_TILE = 1024 }; // elements converted at once, at most

/** `n` stored integers as gene numbers, where they are or in `room` [n]; what is negative or too large is INT32_MAX + 1 or more. */
const uint32_t *cpa_elements_as_index(const cpa_chunks *c, const void *from, int64_t n, uint32_t *room);

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
