// Owns: HDF5 files in memory: built as bytes, filled in place, read from bytes. Must never touch a disk.
#include <string.h>

#include <hdf5.h>

#include "h5_impl.h"

enum { GROW_BYTES = 16 << 20 };

// HDF5 wants a name, and none that could be a file's.
static const char NAME[] = "/dev/null/memory";

// A property list for a file in memory.
static hid_t memory_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18);
    H5Pset_fapl_core(access, GROW_BYTES, false);
    H5Pset_alignment(access, 1, sizeof(double)); // so that arrays can be filled in place
    return access;
}

cpa_status cpa_h5_image_create(const char *name, bool checked, cpa_h5 **out)
{
    cpa_h5 *f = NULL;
    hid_t access = -1, creation = -1;
    cpa_status st;
    cpa_h5_init();
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->id = -1;
    f->writing = true;
    f->checked = checked;
    CPA_TRY(cpa_strdup(name, &f->path));
    access = memory_access();
    creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    f->id = H5Fcreate(NAME, H5F_ACC_TRUNC, creation, access);
    CPA_REQUIRE(f->id >= 0, CPA_INTERNAL, "%s: cannot be built in memory: %s", name, cpa_h5_why());
    *out = f;
    f = NULL;
cleanup:
    cpa_h5_drop(creation);
    cpa_h5_drop(access);
    cpa_h5_close(&f);
    return st;
}

cpa_status cpa_h5_image_size(const cpa_h5 *f, size_t *n)
{
    cpa_status st = CPA_OK;
    ssize_t size = H5Fflush(f->id, H5F_SCOPE_LOCAL) >= 0 ? H5Fget_file_image(f->id, NULL, 0) : -1;
    CPA_REQUIRE(size > 0, CPA_INTERNAL, "%s: cannot be built in memory: %s", f->path, cpa_h5_why());
    *n = (size_t)size;
cleanup:
    return st;
}

cpa_status cpa_h5_image_take(cpa_h5 **f, void *room, size_t n)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(H5Fget_file_image((*f)->id, room, n) == (ssize_t)n, CPA_INTERNAL, "%s: cannot be built in memory: %s",
                (*f)->path, cpa_h5_why());
cleanup:
    cpa_h5_close(f);
    return st;
}

cpa_status cpa_h5_image_finish(cpa_h5 **f, size_t extra, void *bytes, size_t *n)
{
    cpa_status st;
    void *copy = NULL;
    CPA_TRY(cpa_h5_image_size(*f, n));
    CPA_TRY(cpa_alloc(*n + extra, 1, &copy));
    CPA_TRY(cpa_h5_image_take(f, copy, *n));
    memcpy(bytes, &copy, sizeof copy);
    copy = NULL;
cleanup:
    cpa_free(&copy);
    cpa_h5_close(f);
    return st;
}

cpa_status cpa_h5_image_place(const cpa_h5 *f, const char *path, size_t *at)
{
    cpa_status st = CPA_OK;
    hsize_t first[CPA_H5_MAX_RANK];
    unsigned mask = 0;
    haddr_t where = HADDR_UNDEF;
    hsize_t bytes = 0;
    hid_t set = H5Dopen2(f->id, path, H5P_DEFAULT), space = set >= 0 ? H5Dget_space(set) : -1;
    bool good = space >= 0 && H5Dget_chunk_info(set, space, 0, first, &mask, &where, &bytes) >= 0;
    CPA_REQUIRE(good && where != HADDR_UNDEF && where % sizeof(double) == 0, CPA_INTERNAL,
                "%s: %s has no place in memory: %s", f->path, path, cpa_h5_why());
    *at = (size_t)where;
cleanup:
    cpa_h5_drop(space);
    cpa_h5_drop(set);
    return st;
}

// HDF5's Fletcher-32: big-endian words of 16 bits, sums modulo 65,535 folded often enough not to overflow.
static uint32_t fletcher32(const unsigned char *b, size_t n)
{
    uint32_t sum1 = 0, sum2 = 0;
    for (size_t words = n / 2; words > 0;) {
        size_t run = words < 360 ? words : 360;
        words -= run;
        for (; run > 0; run--, b += 2) {
            sum1 += (uint32_t)b[0] << 8 | b[1];
            sum2 += sum1;
        }
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    if (n % 2 != 0) {
        sum1 += (uint32_t)b[0] << 8;
        sum2 += sum1;
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    sum1 = (sum1 & 0xffff) + (sum1 >> 16);
    sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    return sum2 << 16 | sum1;
}

void cpa_h5_image_check(void *bytes, size_t at, size_t n)
{
    unsigned char *b = (unsigned char *)bytes + at;
    uint32_t sum = fletcher32(b, n);
    for (int k = 0; k < 4; k++) {
        b[n + (size_t)k] = (unsigned char)(sum >> (8 * k));
    }
}

cpa_status cpa_h5_image_open(const char *name, const void *bytes, size_t n, cpa_h5 **out)
{
    cpa_h5 *f = NULL;
    hid_t access = -1;
    cpa_status st;
    cpa_h5_init();
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->id = -1;
    CPA_TRY(cpa_strdup(name, &f->path));
    access = memory_access();
    // HDF5 copies the bytes and only reads them.
    bool good = H5Pset_file_image(access, (void *)(uintptr_t)bytes, n) >= 0;
    f->id = good ? H5Fopen(NAME, H5F_ACC_RDONLY, access) : -1;
    CPA_REQUIRE(f->id >= 0, CPA_BAD_DATA, "%s: cannot be opened: %s", name, cpa_h5_why());
    *out = f;
    f = NULL;
cleanup:
    cpa_h5_drop(access);
    cpa_h5_close(&f);
    return st;
}
