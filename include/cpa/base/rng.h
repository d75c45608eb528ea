// Owns: counter-based random numbers (Philox 4x32-10, Salmon et al. 2011). A draw is a function of its key and counter
// alone, so never of ranks, threads or batches. Keeps no state.
#ifndef CPA_BASE_RNG_H
#define CPA_BASE_RNG_H

#include <stdint.h>

#include "cpa/base/inline.h"

// What a draw is for; part of the key, so that two purposes never share a stream.
typedef enum cpa_stream {
    CPA_STREAM_INIT = 1,      // initial parameters; counter: tensor number, element
    CPA_STREAM_SPLIT = 2,     // random train/validation split
    CPA_STREAM_DEAL = 3,      // blocks to lanes
    CPA_STREAM_SHUFFLE = 4,   // order within a lane; counter: epoch, lane
    CPA_STREAM_DROPOUT = 5,   // dropout masks; counter: cell, epoch, layer, column
    CPA_STREAM_VALID = 6,     // order of validation cells
    CPA_STREAM_NOISE = 7,     // reparametrisation noise; counter: cell, epoch, layer, column
    CPA_STREAM_MIXUP = 8,     // weight and partners of mixup; counter: draw, epoch, lane, step
    CPA_STREAM_SIMULATE = 32, // synthetic atlases; counter: cell or row of the truth (two words), gene, what for
} cpa_stream;

/** Four 32-bit words for (seed, stream) and a 128-bit counter. */
CPA_INLINE void cpa_philox(uint64_t seed, cpa_stream stream, const uint32_t ctr[4], uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32) ^ ((uint32_t)stream * 0x9E3779B1u);
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/** Uniform in [0, 1) with 24 bits: exact in float. */
CPA_INLINE float cpa_unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/** Uniform integer in [0, n), n < 2^63, from two words (bias below 2^-32 for n < 2^32). */
static inline uint64_t cpa_below(uint32_t hi, uint32_t lo, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)(((uint64_t)hi << 32) | lo) * n) >> 64);
}

/** Fisher-Yates shuffle of `a[n]`; the draws are (seed, stream, counter {i, i >> 32, a1, a2}). */
void cpa_shuffle(uint64_t seed, cpa_stream stream, uint32_t a1, uint32_t a2, int64_t *a, int64_t n);

#endif
