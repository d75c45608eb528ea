// Owns: undoing HDF5's filters on bytes in memory: gzip, shuffle, fletcher32, LZF, Zstandard, Blosc. Knows nothing of files.
// Never calls HDF5, so any thread may unpack while another one uses HDF5.
#ifndef CPA_PLATFORM_UNPACK_H
#define CPA_PLATFORM_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpa/base/status.h"

enum { CPA_MAX_FILTERS = 8 };

// HDF5's numbers of the filters.
enum {
    CPA_FILTER_GZIP = 1,
    CPA_FILTER_SHUFFLE = 2,
    CPA_FILTER_FLETCHER32 = 3,
    CPA_FILTER_LZF = 32000,
    CPA_FILTER_BLOSC = 32001,
    CPA_FILTER_ZSTD = 32015,
};

// How the chunks of a dataset were packed: filters in the order of writing.
typedef struct cpa_packing {
    int n;
    int filter[CPA_MAX_FILTERS];
    size_t element; // bytes of an element, what shuffle goes by
    size_t bytes;   // of a chunk before packing
} cpa_packing;

/** Whether the filter can be undone here. */
bool cpa_unpack_knows(int filter);

typedef struct cpa_unpacker cpa_unpacker; // memory and contexts of one thread

/** Room for chunks of up to `bytes`. */
cpa_status cpa_unpacker_create(size_t bytes, cpa_unpacker **out);

/** Frees it and sets *u to NULL; NULL-safe. */
void cpa_unpacker_destroy(cpa_unpacker **u);

/** Unpacks the `n` bytes of a chunk into p->bytes bytes at *out: in the unpacker, or `in` itself when nothing was packed.
 *  Filter i was left out in writing when bit i of `mask` is set. Returns NULL, or what is wrong with the bytes (a static
 *  string). Allocates nothing but what the libraries take for themselves. */
const char *cpa_unpack(cpa_unpacker *u, const cpa_packing *p, uint32_t mask, const void *in, size_t n,
                       const void **out);

#endif
