// Owns: writing HDF5 arrays piece by piece: chunks are packed by all threads and put into the file as they are.
// Must never hold more than a few megabytes, and must never let the number of threads change a byte.
#include <stdlib.h>
#include <string.h>

#include <hdf5.h>
#include <libdeflate.h>
#include <omp.h>

#include "h5_impl.h"

enum {
    BATCH_BYTES = 1 << 20, // held before they are packed, but
    MIN_BATCH = 8,         // chunks at least, to share among threads
    MAX_BATCH = 256,
    SKIP_DEFLATE = 1 << 1, // in the filter mask of a chunk: the second filter was left out
};

struct cpa_h5_append {
    cpa_h5 *f; // borrowed
    char *path;
    hid_t set;
    int64_t width, chunk, batch; // rows of a chunk, chunks of a batch
    size_t element, row;         // bytes
    int64_t done, held;          // rows in the file, rows in `raw`
    int gzip;
    char *raw;    // [batch, chunk] rows
    char *packed; // [batch, room] bytes
    char *spare;  // [threads, chunk] rows: shuffled
    size_t room;
    size_t *size;   // [batch] of the packed chunks
    uint32_t *mask; // [batch]
    int n_threads;
    struct libdeflate_compressor **packer; // [threads]
};

static size_t chunk_bytes(const cpa_h5_append *a)
{
    return (size_t)a->chunk * a->row;
}

static cpa_status create_set(cpa_h5_append *a, cpa_h5_type type)
{
    cpa_status st = cpa_h5_create_parents(a->f, a->path);
    if (st != CPA_OK) {
        return st;
    }
    int rank = a->width > 0 ? 2 : 1;
    hsize_t shape[2] = {0, (hsize_t)a->width}, limit[2] = {H5S_UNLIMITED, (hsize_t)a->width};
    hsize_t chunk[2] = {(hsize_t)a->chunk, (hsize_t)a->width};
    hid_t space = H5Screate_simple(rank, shape, limit), element = cpa_h5_file_type(type);
    hid_t links = cpa_h5_link_plan(), plan = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plan, false);
    H5Pset_chunk(plan, rank, chunk);
    if (a->gzip > 0) {
        H5Pset_shuffle(plan);
        H5Pset_deflate(plan, (unsigned)a->gzip);
    }
    a->element = H5Tget_size(element);
    a->row = a->element * (size_t)(a->width > 0 ? a->width : 1);
    a->set = H5Dcreate2(a->f->id, a->path, element, space, links, plan, H5P_DEFAULT);
    st = cpa_h5_outcome(a->f, a->set >= 0, a->path);
    cpa_h5_drop(plan);
    cpa_h5_drop(links);
    cpa_h5_drop(element);
    cpa_h5_drop(space);
    return st;
}

static cpa_status take_memory(cpa_h5_append *a)
{
    cpa_status st;
    int64_t fits = (int64_t)(BATCH_BYTES / chunk_bytes(a));
    a->batch = fits < MIN_BATCH ? MIN_BATCH : fits < MAX_BATCH ? fits : MAX_BATCH;
    CPA_TRY(cpa_alloc((size_t)a->batch, chunk_bytes(a), &a->raw));
    if (a->gzip == 0) {
        goto cleanup;
    }
    a->n_threads = omp_get_max_threads();
    CPA_TRY(cpa_alloc((size_t)a->n_threads, sizeof *a->packer, &a->packer));
    for (int t = 0; t < a->n_threads; t++) {
        a->packer[t] = libdeflate_alloc_compressor(a->gzip);
        CPA_REQUIRE(a->packer[t] != NULL, CPA_INTERNAL, "no memory for compressing");
    }
    a->room = libdeflate_zlib_compress_bound(a->packer[0], chunk_bytes(a));
    CPA_TRY(cpa_alloc((size_t)a->batch, a->room, &a->packed));
    CPA_TRY(cpa_alloc((size_t)a->n_threads, chunk_bytes(a), &a->spare));
    CPA_TRY(cpa_alloc((size_t)a->batch, sizeof *a->size, &a->size));
    CPA_TRY(cpa_alloc((size_t)a->batch, sizeof *a->mask, &a->mask));
cleanup:
    return st;
}

cpa_status cpa_h5_append_open(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t width, int64_t chunk, int gzip,
                              cpa_h5_append **out)
{
    cpa_status st;
    cpa_h5_append *a = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *a, &a));
    *a = (cpa_h5_append){.f = f, .set = -1, .width = width, .chunk = chunk, .gzip = gzip};
    CPA_REQUIRE(chunk > 0 && width >= 0, CPA_INTERNAL, "%s: chunks of %lld x %lld", path, (long long)chunk,
                (long long)width);
    CPA_TRY(cpa_strdup(path, &a->path));
    CPA_TRY(create_set(a, type));
    CPA_TRY(take_memory(a));
    *out = a;
    a = NULL;
cleanup:
    cpa_h5_append_close(&a);
    return st;
}

// HDF5's shuffle: the first bytes of all elements, then the second ones, ...
static void shuffle(const char *from, size_t n, size_t element, char *to)
{
    for (size_t b = 0; b < element; b++) {
        for (size_t i = 0; i < n; i++) {
            to[b * n + i] = from[i * element + b];
        }
    }
}

// What compression does not make smaller is stored shuffled only, as HDF5 does.
static void pack_chunk(cpa_h5_append *a, int64_t k, int thread)
{
    size_t bytes = chunk_bytes(a);
    char *shuffled = a->spare + (size_t)thread * bytes, *to = a->packed + (size_t)k * a->room;
    shuffle(a->raw + (size_t)k * bytes, bytes / a->element, a->element, shuffled);
    a->size[k] = libdeflate_zlib_compress(a->packer[thread], shuffled, bytes, to, a->room);
    a->mask[k] = 0;
    if (a->size[k] == 0 || a->size[k] >= bytes) {
        memcpy(to, shuffled, bytes);
        a->size[k] = bytes;
        a->mask[k] = SKIP_DEFLATE;
    }
}

// Writes the rows held; all chunks but the file's last one are full.
static cpa_status flush(cpa_h5_append *a)
{
    cpa_status st = CPA_OK;
    int64_t n = (a->held + a->chunk - 1) / a->chunk;
    hsize_t shape[2] = {(hsize_t)(a->done + a->held), (hsize_t)a->width};
    if (n == 0) {
        goto cleanup;
    }
    memset(a->raw + (size_t)a->held * a->row, 0, (size_t)(n * a->chunk - a->held) * a->row);
    if (a->gzip > 0) {
#pragma omp parallel for schedule(dynamic) num_threads(a->n_threads)
        for (int64_t k = 0; k < n; k++) {
            pack_chunk(a, k, omp_get_thread_num());
        }
    }
    CPA_TRY(cpa_h5_outcome(a->f, H5Dset_extent(a->set, shape) >= 0, a->path));
    for (int64_t k = 0; k < n; k++) {
        hsize_t at[2] = {(hsize_t)(a->done + k * a->chunk), 0};
        size_t bytes = chunk_bytes(a);
        bool good = a->gzip > 0 ? H5Dwrite_chunk(a->set, H5P_DEFAULT, a->mask[k], at, a->size[k],
                                                 a->packed + (size_t)k * a->room) >= 0
                                : H5Dwrite_chunk(a->set, H5P_DEFAULT, 0, at, bytes, a->raw + (size_t)k * bytes) >= 0;
        CPA_TRY(cpa_h5_outcome(a->f, good, a->path));
    }
    a->done += a->held;
    a->held = 0;
cleanup:
    return st;
}

cpa_status cpa_h5_append_rows(cpa_h5_append *a, int64_t n, const void *rows)
{
    cpa_status st = CPA_OK;
    const char *from = rows;
    while (n > 0) {
        int64_t free_rows = a->batch * a->chunk - a->held, take = n < free_rows ? n : free_rows;
        memcpy(a->raw + (size_t)a->held * a->row, from, (size_t)take * a->row);
        a->held += take;
        from += (size_t)take * a->row;
        n -= take;
        if (take == free_rows) {
            CPA_TRY(flush(a));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_h5_append_finish(cpa_h5_append **a)
{
    cpa_status st = flush(*a);
    cpa_h5_append_close(a);
    return st;
}

void cpa_h5_append_close(cpa_h5_append **out)
{
    cpa_h5_append *a = *out;
    if (a == NULL) {
        return;
    }
    for (int t = 0; a->packer != NULL && t < a->n_threads; t++) {
        libdeflate_free_compressor(a->packer[t]);
    }
    cpa_h5_drop(a->set);
    cpa_free(&a->packer);
    cpa_free(&a->path);
    cpa_free(&a->raw);
    cpa_free(&a->packed);
    cpa_free(&a->spare);
    cpa_free(&a->size);
    cpa_free(&a->mask);
    cpa_free(out);
}

// ---- Strings

cpa_status cpa_h5_create_strings(cpa_h5 *f, const char *path, int64_t n)
{
    hsize_t length = (hsize_t)n;
    cpa_status st = cpa_h5_create_parents(f, path);
    if (st != CPA_OK) {
        return st;
    }
    hid_t type = cpa_h5_text_type(), space = H5Screate_simple(1, &length, NULL);
    hid_t links = cpa_h5_link_plan(), plan = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plan, false);
    hid_t set = H5Dcreate2(f->id, path, type, space, links, plan, H5P_DEFAULT);
    st = cpa_h5_outcome(f, set >= 0, path);
    cpa_h5_drop(set);
    cpa_h5_drop(plan);
    cpa_h5_drop(links);
    cpa_h5_drop(space);
    cpa_h5_drop(type);
    return st;
}

cpa_status cpa_h5_fill_strings(cpa_h5 *f, const char *path, int64_t first, const cpa_strings *list)
{
    hsize_t start = (hsize_t)first, count = (hsize_t)list->n;
    if (list->n == 0) {
        return CPA_OK;
    }
    hid_t type = cpa_h5_text_type(), from = H5Screate_simple(1, &count, NULL);
    hid_t set = H5Dopen2(f->id, path, H5P_DEFAULT), to = set >= 0 ? H5Dget_space(set) : -1;
    bool good = set >= 0 && H5Sselect_hyperslab(to, H5S_SELECT_SET, &start, NULL, &count, NULL) >= 0 &&
                H5Dwrite(set, type, from, to, H5P_DEFAULT, list->s) >= 0;
    cpa_status st = cpa_h5_outcome(f, good, path);
    cpa_h5_drop(to);
    cpa_h5_drop(from);
    cpa_h5_drop(set);
    cpa_h5_drop(type);
    return st;
}
