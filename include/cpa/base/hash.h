// Owns: the digest of bytes that files carry. Never a defence against intent, only against damage.
#ifndef CPA_BASE_HASH_H
#define CPA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

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

#endif
