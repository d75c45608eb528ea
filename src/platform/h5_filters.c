// Owns: the filters Zstandard and Blosc for what HDF5 itself reads: columns of obs, layouts without a faster way.
// Never packs: files are written with gzip or plain.
#include <stdlib.h>

#include <blosc.h>
#include <hdf5.h>
#include <zstd.h>

#include "cpa/platform/unpack.h"
#include "h5_impl.h"

// The size of what the bytes unpack to, as they state it; 0 when they do not.
static size_t stated_size(int filter, const void *in, size_t n)
{
    size_t size = 0;
    if (filter == CPA_FILTER_BLOSC) {
        return blosc_cbuffer_validate(in, n, &size) == 0 ? size : 0;
    }
    unsigned long long stated = ZSTD_getFrameContentSize(in, n);
    return stated < ZSTD_CONTENTSIZE_ERROR && stated <= UINT32_MAX ? (size_t)stated : 0;
}

// HDF5 frees filter buffers with free().
static size_t unpack_whole(int filter, unsigned flags, size_t n, size_t *room, void **buffer)
{
    size_t size = (flags & H5Z_FLAG_REVERSE) != 0 ? stated_size(filter, *buffer, n) : 0;
    void *out = size > 0 ? malloc(size) : NULL;
    if (out == NULL) {
        return 0;
    }
    bool good = filter == CPA_FILTER_BLOSC ? blosc_decompress_ctx(*buffer, out, size, 1) == (int)size
                                           : ZSTD_decompress(out, size, *buffer, n) == size;
    if (!good) {
        free(out);
        return 0;
    }
    free(*buffer);
    *buffer = out;
    *room = size;
    return size;
}

static size_t zstd_filter(unsigned flags, size_t n_cd, const unsigned cd[], size_t n, size_t *room, void **buffer)
{
    (void)n_cd;
    (void)cd;
    return unpack_whole(CPA_FILTER_ZSTD, flags, n, room, buffer);
}

static size_t blosc_filter(unsigned flags, size_t n_cd, const unsigned cd[], size_t n, size_t *room, void **buffer)
{
    (void)n_cd;
    (void)cd;
    return unpack_whole(CPA_FILTER_BLOSC, flags, n, room, buffer);
}

void cpa_h5_filters_register(void)
{
    static const H5Z_class2_t classes[] = {
        {.version = H5Z_CLASS_T_VERS,
         .id = CPA_FILTER_ZSTD,
         .decoder_present = 1,
         .name = "zstd",
         .filter = zstd_filter},
        {.version = H5Z_CLASS_T_VERS,
         .id = CPA_FILTER_BLOSC,
         .decoder_present = 1,
         .name = "blosc",
         .filter = blosc_filter},
    };
    H5Zregister(&classes[0]);
    H5Zregister(&classes[1]);
}
