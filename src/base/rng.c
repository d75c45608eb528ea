// Owns: the seeded shuffle. Keeps no state: the order is a function of seed, stream and counter alone.
#include "cpa/base/rng.h"

void cpa_shuffle(uint64_t seed, cpa_stream stream, uint32_t a1, uint32_t a2, int64_t *a, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t word[4];
        cpa_philox(seed, stream, (const uint32_t[4]){(uint32_t)i, (uint32_t)((uint64_t)i >> 32), a1, a2}, word);
        int64_t j = (int64_t)cpa_below(word[0], word[1], (uint64_t)i + 1);
        int64_t t = a[i];
        a[i] = a[j];
        a[j] = t;
    }
}
