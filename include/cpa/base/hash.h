// Owns: the digest of bytes that files carry. Never a defence against intent, only against damage.
#ifndef CPA_BASE_HASH_H
#define CPA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CPA_HASH_START 0xcbf29ce484222325u

/** Folds `n` bytes into a digest that began as CPA_HASH_START. Of two inputs that differ in one byte the digests always
 *  differ. Source: FNV-1a, 64 bits. */
static inline uint64_t cpa_hash(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ b[i]) * 0x100000001b3u;
    }
    return hash;
}

/** Folds `n` bytes into a digest several times as fast: for many. Not the digest of cpa_hash.
 *  Source: four accumulators of XXH64 (Collet 2012), folded by FNV-1a. */
static inline uint64_t cpa_hash_long(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    uint64_t sum[4] = {hash, hash + 1, hash + 2, hash + 3}, word[4];
    for (; n >= sizeof word; n -= sizeof word, b += sizeof word) {
        memcpy(word, b, sizeof word);
        for (int k = 0; k < 4; k++) {
            uint64_t x = sum[k] + word[k] * 0xc2b2ae3d27d4eb4fu;
            sum[k] = (x << 31 | x >> 33) * 0x9e3779b185ebca87u;
        }
    }
    return cpa_hash(cpa_hash(hash, sum, sizeof sum), b, n);
}

#endif
