// Owns: conversion of stored elements, a loop per type. Never looks at more than CPA_TILE elements at once.
#include "cpa/data/elements.h"

#include <math.h>
#include <string.h>

// Integers and what they are in memory: X(element, type).
#define INTEGERS(X)                                                                                                    \
    X(CPA_ELEMENT_I8, int8_t)                                                                                          \
    X(CPA_ELEMENT_U8, uint8_t)                                                                                         \
    X(CPA_ELEMENT_I16, int16_t)                                                                                        \
    X(CPA_ELEMENT_U16, uint16_t)                                                                                       \
    X(CPA_ELEMENT_I32, int32_t)                                                                                        \
    X(CPA_ELEMENT_U32, uint32_t)                                                                                       \
    X(CPA_ELEMENT_I64, int64_t)                                                                                        \
    X(CPA_ELEMENT_U64, uint64_t)

// The elements in this machine's order of bytes: `from` itself, or copies in `room`.
static const void *in_order(const cpa_chunks *c, const void *from, int64_t n, uint64_t room[CPA_TILE])
{
    if (!c->swapped) {
        return from;
    }
    const uint8_t *in = from;
    uint8_t *out = (uint8_t *)room;
    for (int64_t i = 0; i < n; i++) {
        for (size_t b = 0; b < c->element_bytes; b++) {
            out[(size_t)i * c->element_bytes + b] = in[((size_t)i + 1) * c->element_bytes - 1 - b];
        }
    }
    return room;
}

static double half_as_double(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double value = exponent == 31  ? (mantissa == 0 ? (double)INFINITY : (double)NAN)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(mantissa + 1024, exponent - 25);
    return (half & 0x8000) != 0 ? -value : value;
}

const uint32_t *cpa_elements_as_index(const cpa_chunks *c, const void *from, int64_t n, uint32_t *room)
{
    uint64_t swapped[CPA_TILE];
    if (!c->swapped && (c->element == CPA_ELEMENT_I32 || c->element == CPA_ELEMENT_U32)) {
        return from;
    }
    const void *in = in_order(c, from, n, swapped);
    switch (c->element) {
#define X(element, type)                                                                                               \
    case element:                                                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            uint64_t v = (uint64_t)(int64_t)((const type *)in)[i]; /* negative ones are huge */                        \
            room[i] = v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;                                                       \
        }                                                                                                              \
        break;
        INTEGERS(X)
#undef X
    default:
        memset(room, 0xff, (size_t)n * sizeof *room);
    }
    return room;
}

void cpa_elements_as_double(const cpa_chunks *c, const void *from, int64_t n, double *to)
{
    uint64_t room[CPA_TILE];
    const void *in = in_order(c, from, n, room);
    switch (c->element) {
#define X(element, type)                                                                                               \
    case element:                                                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            to[i] = (double)((const type *)in)[i];                                                                     \
        }                                                                                                              \
        break;
        INTEGERS(X)
        X(CPA_ELEMENT_F32, float)
        X(CPA_ELEMENT_F64, double)
#undef X
    case CPA_ELEMENT_F16:
        for (int64_t i = 0; i < n; i++) {
            to[i] = half_as_double(((const uint16_t *)in)[i]);
        }
        break;
    }
}

int64_t cpa_element_as_integer(const cpa_chunks *c, const void *from)
{
    uint64_t room[CPA_TILE];
    const void *in = in_order(c, from, 1, room);
    switch (c->element) {
#define X(element, type)                                                                                               \
    case element:                                                                                                      \
        return (int64_t) * (const type *)in;
        INTEGERS(X)
#undef X
    default:
        return -1;
    }
}
