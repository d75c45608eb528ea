// Owns: the bytes of a chunk on their way back through the filters, and one decoder of each kind. Never reads a file,
// never trusts a length that the bytes themselves state.
#include "cpa/platform/unpack.h"

#include <blosc.h>
#include <libdeflate.h>
#include <lzf.h>
#include <string.h>
#include <zstd.h>

#include "cpa/base/mem.h"

enum { CHECKSUM = 4 }; // bytes that fletcher32 appends

struct cpa_unpacker {
    uint8_t *room[2]; // filters write into them in turn
    size_t bytes;     // of each
    struct libdeflate_decompressor *gzip;
    ZSTD_DCtx *zstd;
};

bool cpa_unpack_knows(int filter)
{
    return filter == CPA_FILTER_GZIP || filter == CPA_FILTER_SHUFFLE || filter == CPA_FILTER_FLETCHER32 ||
           filter == CPA_FILTER_LZF || filter == CPA_FILTER_BLOSC || filter == CPA_FILTER_ZSTD;
}

cpa_status cpa_unpacker_create(size_t bytes, cpa_unpacker **out)
{
    cpa_status st;
    cpa_unpacker *u = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *u, &u));
    u->bytes = bytes + (size_t)CPA_MAX_FILTERS * CHECKSUM;
    CPA_TRY(cpa_alloc(u->bytes, 1, &u->room[0]));
    CPA_TRY(cpa_alloc(u->bytes, 1, &u->room[1]));
    u->gzip = libdeflate_alloc_decompressor();
    u->zstd = ZSTD_createDCtx();
    CPA_REQUIRE(u->gzip != NULL && u->zstd != NULL, CPA_INTERNAL, "out of memory for unpacking chunks");
    *out = u;
    u = NULL;
cleanup:
    cpa_unpacker_destroy(&u);
    return st;
}

void cpa_unpacker_destroy(cpa_unpacker **u)
{
    if (*u == NULL) {
        return;
    }
    if ((*u)->gzip != NULL) {
        libdeflate_free_decompressor((*u)->gzip);
    }
    ZSTD_freeDCtx((*u)->zstd);
    cpa_free(&(*u)->room[0]);
    cpa_free(&(*u)->room[1]);
    cpa_free(u);
}

// HDF5's fletcher32: big-endian 16-bit words, a last odd byte is a high one.
static uint32_t fletcher32(const uint8_t *in, size_t n)
{
    uint32_t low = 0, high = 0;
    for (size_t words = n / 2, k; words > 0; words -= k) {
        k = words < 360 ? words : 360; // no overflow up to here
        for (size_t i = 0; i < k; i++, in += 2) {
            low += (uint32_t)in[0] << 8 | in[1];
            high += low;
        }
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    if (n % 2 > 0) {
        low += (uint32_t)in[0] << 8;
        high += low;
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    low = (low & 0xffff) + (low >> 16);
    high = (high & 0xffff) + (high >> 16);
    return high << 16 | low;
}

// Releases of HDF5 before 1.6.3 wrote the two bytes of each half the other way round.
static bool is_checksum(const uint8_t *in, size_t n)
{
    uint32_t sum = fletcher32(in, n), swapped = (sum & 0x00ff00ff) << 8 | (sum >> 8 & 0x00ff00ff);
    const uint8_t *s = in + n;
    uint32_t stored = s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
    return stored == sum || stored == swapped;
}

// Byte b of element i lies at b * elements + i; bytes that fill no element follow as they are.
static void unshuffle(const uint8_t *restrict in, size_t n, size_t element, uint8_t *restrict out)
{
    size_t elements = n / element;
    if (element == 4) {
        for (size_t i = 0; i < elements; i++) {
            out[4 * i] = in[i];
            out[4 * i + 1] = in[elements + i];
            out[4 * i + 2] = in[2 * elements + i];
            out[4 * i + 3] = in[3 * elements + i];
        }
    } else {
        for (size_t b = 0; b < element; b++) {
            for (size_t i = 0; i < elements; i++) {
                out[element * i + b] = in[b * elements + i];
            }
        }
    }
    memcpy(out + elements * element, in + elements * element, n - elements * element);
}

static const char *undo_blosc(const void *in, size_t n, void *out, size_t room, size_t *size)
{
    size_t stated;
    if (blosc_cbuffer_validate(in, n, &stated) != 0 || stated > room) {
        return "its Blosc frame is damaged";
    }
    int got = blosc_decompress_ctx(in, out, room, 1);
    *size = stated;
    return got < 0 || (size_t)got != stated ? "Blosc cannot unpack it" : NULL;
}

// Undoes one filter that changes the bytes; *size: bytes in `out`.
static const char *undo(cpa_unpacker *u, int filter, size_t element, const void *in, size_t n, void *out, size_t *size)
{
    switch (filter) {
    case CPA_FILTER_GZIP:
        return libdeflate_zlib_decompress(u->gzip, in, n, out, u->bytes, size) == LIBDEFLATE_SUCCESS
                   ? NULL
                   : "its gzip data cannot be inflated";
    case CPA_FILTER_LZF:
        *size = lzf_decompress(in, (unsigned)n, out, (unsigned)u->bytes);
        return *size > 0 ? NULL : "its LZF data are damaged";
    case CPA_FILTER_ZSTD:
        *size = ZSTD_decompressDCtx(u->zstd, out, u->bytes, in, n);
        return ZSTD_isError(*size) ? "its Zstandard data are damaged" : NULL;
    case CPA_FILTER_BLOSC:
        return undo_blosc(in, n, out, u->bytes, size);
    case CPA_FILTER_SHUFFLE:
        if (n > u->bytes) {
            return "it is larger than a chunk can be";
        }
        unshuffle(in, n, element, out);
        *size = n;
        return NULL;
    default:
        return "it was packed by an unknown filter";
    }
}

const char *cpa_unpack(cpa_unpacker *u, const cpa_packing *p, uint32_t mask, const void *in, size_t n, const void **out)
{
    int turn = 0;
    for (int i = p->n - 1; i >= 0; i--) {
        if ((mask >> i & 1) != 0) {
            continue;
        }
        if (p->filter[i] == CPA_FILTER_FLETCHER32) {
            if (n < CHECKSUM || !is_checksum(in, n - CHECKSUM)) {
                return "its checksum is wrong";
            }
            n -= CHECKSUM;
            continue;
        }
        if (p->filter[i] == CPA_FILTER_SHUFFLE && p->element <= 1) {
            continue;
        }
        size_t size;
        const char *fault = undo(u, p->filter[i], p->element, in, n, u->room[turn], &size);
        if (fault != NULL) {
            return fault;
        }
        in = u->room[turn];
        n = size;
        turn = 1 - turn;
    }
    *out = in;
    return n == p->bytes ? NULL : "it does not unpack to the size of a chunk";
}
