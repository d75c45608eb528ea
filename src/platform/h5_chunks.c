// Owns: tables of chunks, and reading chunks through a file descriptor of their own. HDF5 is asked only while opening.
// Never trusts the table against the file: what lies outside it is a short read, which is a failure with words.
#include "cpa/platform/chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>

#include "cpa/platform/source.h"
#include "h5_impl.h"

enum {
    PIECE = 1 << 16,       // elements of what counts as a chunk of contiguous storage
    MAX_READ = 1 << 30,    // bytes of one system call
    MAX_CHUNK = INT32_MAX, // bytes
    AT_BITS = 40,          // of a short place, for where the chunk begins; the others say how long it is
};

struct cpa_chunk_store {
    char *file, *path; // of the file, of the dataset in it
    cpa_source *source;
    struct stat was;     // the file when it was opened
    uint64_t *brief;     // [n] short places of chunked storage, or NULL and
    cpa_h5_place *place; // [n] places, where one of them cannot be short, or NULL and
    uint64_t at;         // where contiguous storage begins (0: it was never written)
    cpa_packing packing;
};

struct cpa_chunk_reader {
    int error;       // of the system, when the last failure was its; else 0
    uint8_t *stored; // bytes as they are in the file
    cpa_unpacker *unpacker;
};

// ---- Opening

static const struct {
    cpa_element element;
    size_t bytes;
    H5T_class_t class;
    H5T_sign_t sign;
} elements[] = {
    {CPA_ELEMENT_I8, 1, H5T_INTEGER, H5T_SGN_2},    {CPA_ELEMENT_U8, 1, H5T_INTEGER, H5T_SGN_NONE},
    {CPA_ELEMENT_I16, 2, H5T_INTEGER, H5T_SGN_2},   {CPA_ELEMENT_U16, 2, H5T_INTEGER, H5T_SGN_NONE},
    {CPA_ELEMENT_I32, 4, H5T_INTEGER, H5T_SGN_2},   {CPA_ELEMENT_U32, 4, H5T_INTEGER, H5T_SGN_NONE},
    {CPA_ELEMENT_I64, 8, H5T_INTEGER, H5T_SGN_2},   {CPA_ELEMENT_U64, 8, H5T_INTEGER, H5T_SGN_NONE},
    {CPA_ELEMENT_F16, 2, H5T_FLOAT, H5T_SGN_ERROR}, {CPA_ELEMENT_F32, 4, H5T_FLOAT, H5T_SGN_ERROR},
    {CPA_ELEMENT_F64, 8, H5T_FLOAT, H5T_SGN_ERROR},
};

// Whether a type of floating-point numbers is the IEEE one of its size.
static bool is_ieee(hid_t type)
{
    static const size_t exponents[] = {[2] = 5, [4] = 8, [8] = 11};
    size_t size = H5Tget_size(type), sign, e_at, e_bits, m_at, m_bits;
    if ((size != 2 && size != 4 && size != 8) || H5Tget_fields(type, &sign, &e_at, &e_bits, &m_at, &m_bits) < 0) {
        return false;
    }
    size_t exponent = exponents[size], mantissa = 8 * size - 1 - exponent;
    return sign == 8 * size - 1 && e_bits == exponent && m_bits == mantissa && m_at == 0 && e_at == mantissa &&
           H5Tget_ebias(type) == ((size_t)1 << (exponent - 1)) - 1 && H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

// The type of the elements; false for one that HDF5 must convert.
static bool find_element(hid_t type, cpa_chunks *c)
{
    hid_t base = H5Tget_class(type) == H5T_ENUM ? H5Tget_super(type) : H5Tcopy(type);
    H5T_class_t class = H5Tget_class(base);
    bool found = false;
    bool whole = class == H5T_INTEGER ? H5Tget_precision(base) == 8 * H5Tget_size(base) && H5Tget_offset(base) == 0
                                      : class == H5T_FLOAT && is_ieee(base);
    for (size_t i = 0; whole && !found && i < sizeof elements / sizeof *elements; i++) {
        found = class == elements[i].class && H5Tget_size(base) == elements[i].bytes &&
                (class == H5T_FLOAT || H5Tget_sign(base) == elements[i].sign);
        c->element = elements[i].element;
        c->element_bytes = elements[i].bytes;
    }
    c->swapped = c->element_bytes > 1 && H5Tget_order(base) != H5Tget_order(H5T_NATIVE_INT);
    found =
        found && (H5Tget_order(base) == H5T_ORDER_LE || H5Tget_order(base) == H5T_ORDER_BE || c->element_bytes == 1);
    cpa_h5_drop(base);
    return found;
}

// Filters in the order of writing; NULL or why they cannot be undone here.
static const char *find_packing(hid_t created, cpa_chunks *c)
{
    cpa_packing *p = &c->store->packing;
    p->element = c->element_bytes;
    p->bytes = c->chunk_bytes;
    p->n = H5Pget_nfilters(created);
    if (p->n > CPA_MAX_FILTERS) {
        return "it has too many filters";
    }
    for (int i = 0; i < p->n; i++) {
        size_t none = 0;
        p->filter[i] = H5Pget_filter2(created, (unsigned)i, NULL, &none, NULL, 0, NULL, NULL);
        if (!cpa_unpack_knows(p->filter[i])) {
            return "it is packed by a filter that only HDF5 can undo";
        }
    }
    c->packed = p->n > 0;
    return NULL;
}

static bool fills_with_zeros(hid_t created)
{
    H5D_fill_value_t kind;
    double value = 0;
    return H5Pfill_value_defined(created, &kind) >= 0 &&
           (kind != H5D_FILL_VALUE_USER_DEFINED ||
            (H5Pget_fill_value(created, H5T_NATIVE_DOUBLE, &value) >= 0 && value <= 0 && value >= 0));
}

static const char *set_grid(cpa_chunks *c, const cpa_h5_info *info)
{
    c->n = 1;
    for (int i = 0; i < 2; i++) {
        c->shape[i] = i < info->rank ? info->shape[i] : 1;
        c->chunk[i] = info->chunked && i < info->rank ? info->chunk[i] : c->shape[i];
    }
    if (!info->chunked) {
        int64_t rows = c->shape[1] > 0 && c->shape[1] < PIECE ? PIECE / c->shape[1] : 1;
        c->chunk[0] = rows < c->shape[0] ? rows : c->shape[0];
    }
    for (int i = 0; i < 2; i++) {
        c->chunk[i] = c->chunk[i] > 0 ? c->chunk[i] : 1;
        c->grid[i] = (c->shape[i] + c->chunk[i] - 1) / c->chunk[i];
        c->n *= c->grid[i];
    }
    if (c->chunk[0] > MAX_CHUNK / (int64_t)c->element_bytes / c->chunk[1]) {
        return "its chunks are larger than 2 GiB";
    }
    c->chunk_bytes = (size_t)(c->chunk[0] * c->chunk[1]) * c->element_bytes;
    c->most_stored = info->chunked ? 0 : c->chunk_bytes;
    return NULL;
}

// Where the chunk lies that begins with this element. H5Dget_chunk_info of HDF5 1.10 goes through all chunks at every call, so the
// file driver listens instead: told to read a chunk, HDF5 looks its address up and hands it to the driver.
static bool find_chunk(hid_t set, const hsize_t *first, cpa_h5_place *place)
{
    hsize_t stored = 0;
    *place = (cpa_h5_place){0};
    if (H5Dget_chunk_storage_size(set, first, &stored) < 0 || stored > UINT32_MAX) {
        return false;
    }
    if (stored == 0) {
        return true; // never written
    }
    char nothing; // no byte arrives here
    cpa_h5_disk_listen(place);
    herr_t rc = H5Dread_chunk(set, H5P_DEFAULT, first, &place->mask, &nothing);
    cpa_h5_disk_listen(NULL);
    return rc >= 0 && place->bytes == stored;
}

static cpa_h5_place unfold(uint64_t brief)
{
    return (cpa_h5_place){.at = brief & (((uint64_t)1 << AT_BITS) - 1), .bytes = (uint32_t)(brief >> AT_BITS)};
}

// Keeps the place of chunk i, after those before it. Almost all files need but short ones: up to 1 TiB, chunks below 16 MiB, all with
// all filters.
static cpa_status keep_place(struct cpa_chunk_store *s, int64_t n, int64_t i, const cpa_h5_place *place)
{
    cpa_status st = CPA_OK;
    bool is_short = place->at >> AT_BITS == 0 && place->bytes >> (64 - AT_BITS) == 0 && place->mask == 0;
    if (s->place == NULL && !is_short) {
        CPA_TRY(cpa_alloc((size_t)n, sizeof *s->place, &s->place));
        for (int64_t k = 0; k < i; k++) {
            s->place[k] = unfold(s->brief[k]);
        }
        cpa_free(&s->brief);
    }
    if (s->place != NULL) {
        s->place[i] = *place;
    } else {
        s->brief[i] = place->at | (uint64_t)place->bytes << AT_BITS;
    }
cleanup:
    return st;
}

// Asks for every chunk of the dataset.
static cpa_status find_chunks(const cpa_h5_data *d, cpa_chunks *c)
{
    cpa_status st;
    cpa_h5_place place;
    struct cpa_chunk_store *s = c->store;
    CPA_TRY(cpa_alloc((size_t)c->n, sizeof *s->brief, &s->brief));
    for (int64_t i = 0; i < c->n; i++) {
        hsize_t first[2] = {(hsize_t)(i / c->grid[1] * c->chunk[0]), (hsize_t)(i % c->grid[1] * c->chunk[1])};
        bool found = find_chunk(d->set, first, &place);
        CPA_TRY(cpa_h5_settle(CPA_OK));
        CPA_REQUIRE(found, CPA_BAD_DATA,
                    "%s: %s: the chunk that begins with element %lld cannot be found: %s; the file is damaged, copy or "
                    "write it again",
                    s->file, s->path, (long long)first[0], cpa_h5_why());
        c->most_stored = place.bytes > c->most_stored ? place.bytes : c->most_stored;
        CPA_TRY(keep_place(s, c->n, i, &place));
    }
cleanup:
    return st;
}

// NULL, or why only HDF5 can read it.
static const char *look_at(const cpa_h5_data *d, hid_t created, cpa_chunks *c)
{
    const cpa_h5_info *info = &d->info;
    if (info->rank < 1 || info->rank > 2 || !find_element(d->type, c)) {
        return "its elements are of a type that only HDF5 can convert";
    }
    if (!info->chunked && H5Pget_layout(created) != H5D_CONTIGUOUS) {
        return "it is stored in the header (compact)";
    }
    if (!fills_with_zeros(created)) {
        return "what was never written means something other than 0";
    }
    const char *why = set_grid(c, info);
    return why != NULL ? why : find_packing(created, c);
}

cpa_status cpa_chunks_open(const cpa_h5_data *d, cpa_chunks **out, const char **why)
{
    CPA_H5_GUARD(d->file->path);
    cpa_status st;
    cpa_chunks *c = NULL;
    hid_t created = H5Dget_create_plist(d->set);
    *out = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    CPA_TRY(cpa_alloc(1, sizeof *c->store, &c->store));
    CPA_TRY(cpa_strdup(d->file->path, &c->store->file));
    CPA_TRY(cpa_strdup(d->path, &c->store->path));
    *why = look_at(d, created, c);
    if (*why != NULL) {
        goto cleanup;
    }
    CPA_TRY(cpa_source_open(c->store->file, &c->store->source, &c->store->was));
    if (d->info.chunked) {
        CPA_TRY(find_chunks(d, c));
    } else {
        haddr_t at = H5Dget_offset(d->set);
        c->store->at = at != HADDR_UNDEF ? (uint64_t)at : 0;
    }
    *out = c;
    c = NULL;
cleanup:
    cpa_h5_drop(created);
    cpa_chunks_close(&c);
    return st;
}

void cpa_chunks_close(cpa_chunks **c)
{
    if (*c == NULL) {
        return;
    }
    struct cpa_chunk_store *s = (*c)->store;
    if (s != NULL) {
        cpa_source_close(&s->source);
        cpa_free(&s->file);
        cpa_free(&s->path);
        cpa_free(&s->brief);
        cpa_free(&s->place);
        cpa_free(&(*c)->store);
    }
    cpa_free(c);
}

// ---- Reading, by any thread

void cpa_chunk_room_add(cpa_chunk_room *room, const cpa_chunks *c)
{
    size_t stored = c->most_stored > c->chunk_bytes ? c->most_stored : c->chunk_bytes;
    room->stored = stored > room->stored ? stored : room->stored;
    room->unpacked = c->packed && c->chunk_bytes > room->unpacked ? c->chunk_bytes : room->unpacked;
}

size_t cpa_chunk_reader_bytes(const cpa_chunk_room *room)
{
    return room->stored + 2 * room->unpacked;
}

cpa_status cpa_chunk_reader_create(const cpa_chunk_room *room, cpa_chunk_reader **out)
{
    cpa_status st;
    cpa_chunk_reader *r = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *r, &r));
    CPA_TRY(cpa_alloc(room->stored, 1, &r->stored));
    CPA_TRY(cpa_unpacker_create(room->unpacked, &r->unpacker));
    *out = r;
    r = NULL;
cleanup:
    cpa_chunk_reader_destroy(&r);
    return st;
}

void cpa_chunk_reader_destroy(cpa_chunk_reader **r)
{
    if (*r != NULL) {
        cpa_free(&(*r)->stored);
        cpa_unpacker_destroy(&(*r)->unpacker);
        cpa_free(r);
    }
}

// Reads exactly `n` bytes; NULL or what went wrong.
static const char *read_from(cpa_chunk_reader *r, int fd, uint64_t at, size_t n)
{
    for (uint8_t *to = r->stored; n > 0;) {
        ssize_t got = pread(fd, to, n < MAX_READ ? n : MAX_READ, (off_t)at);
        if (got == 0) {
            return "the file ends before it";
        }
        if (got < 0 && errno != EINTR) {
            r->error = errno;
            return "the system cannot read it";
        }
        if (got > 0) {
            to += got;
            at += (uint64_t)got;
            n -= (size_t)got;
        }
    }
    return NULL;
}

// The same, with a descriptor for the time being.
static const char *read_bytes(cpa_chunk_reader *r, cpa_source *source, uint64_t at, size_t n)
{
    int fd = cpa_source_hold(source);
    if (fd < 0) {
        r->error = errno == ESTALE ? 0 : errno;
        return errno == ESTALE ? "the file was replaced" : "the system cannot read it";
    }
    const char *fault = read_from(r, fd, at, n);
    cpa_source_let_go(source);
    return fault;
}

// Where the chunk lies; bytes 0: never written. Contiguous chunks follow each other.
static cpa_h5_place place_of(const cpa_chunks *c, int64_t chunk)
{
    const struct cpa_chunk_store *s = c->store;
    if (s->brief != NULL) {
        return unfold(s->brief[chunk]);
    }
    if (s->place != NULL) {
        return s->place[chunk];
    }
    return (cpa_h5_place){.at = s->at + (uint64_t)chunk * c->chunk_bytes,
                          .bytes = s->at > 0 ? (uint32_t)c->chunk_bytes : 0};
}

size_t cpa_chunks_bytes(const cpa_chunks *c)
{
    const struct cpa_chunk_store *s = c->store;
    return (size_t)c->n * (s->brief != NULL ? sizeof *s->brief : s->place != NULL ? sizeof *s->place : 0);
}

const char *cpa_chunk_read(cpa_chunk_reader *r, const cpa_chunks *c, int64_t chunk, int64_t first, int64_t last,
                           const void **out, int64_t *n_read)
{
    cpa_h5_place place = place_of(c, chunk);
    size_t begin = (size_t)first * c->element_bytes, n = (size_t)(last - first) * c->element_bytes;
    const void *whole;
    r->error = 0;
    *out = r->stored;
    if (place.bytes == 0) {
        memset(r->stored, 0, n);
        return NULL;
    }
    if (!c->packed) {
        *n_read += (int64_t)n;
        return begin + n <= place.bytes ? read_bytes(r, c->store->source, place.at + begin, n)
                                        : "it is shorter than a chunk";
    }
    *n_read += (int64_t)place.bytes;
    const char *fault = read_bytes(r, c->store->source, place.at, place.bytes);
    if (fault == NULL) {
        fault = cpa_unpack(r->unpacker, &c->store->packing, place.mask, r->stored, place.bytes, &whole);
    }
    if (fault == NULL) {
        *out = (const uint8_t *)whole + begin;
    }
    return fault;
}

void cpa_chunk_announce(const cpa_chunks *c, int64_t chunk)
{
    cpa_h5_place place = place_of(c, chunk);
    int fd = cpa_source_hold(c->store->source);
    if (fd >= 0) {
        posix_fadvise(fd, (off_t)place.at, (off_t)place.bytes, POSIX_FADV_WILLNEED);
        cpa_source_let_go(c->store->source);
    }
}

cpa_status cpa_chunks_same(const cpa_chunks *c)
{
    const struct cpa_chunk_store *s = c->store;
    struct stat now;
    static const char advice[] = "copy the file back, or start again with the new one";
    if (stat(s->file, &now) != 0) {
        return cpa_fail(CPA_IO, "%s: the file was there and is gone (%s) while it is read; %s", s->file,
                        strerror(errno), advice);
    }
    if (now.st_size != s->was.st_size) {
        return cpa_fail(CPA_IO, "%s: the file had %lld bytes and has %lld now, while it is read; %s", s->file,
                        (long long)s->was.st_size, (long long)now.st_size, advice);
    }
    if (now.st_ino != s->was.st_ino || now.st_dev != s->was.st_dev || now.st_mtim.tv_sec != s->was.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != s->was.st_mtim.tv_nsec) {
        return cpa_fail(CPA_IO, "%s: the file was replaced or written to while it is read; %s", s->file, advice);
    }
    return CPA_OK;
}

int cpa_chunk_error(const cpa_chunk_reader *r)
{
    return r->error;
}

cpa_status cpa_chunks_unreadable(const cpa_chunks *c, int64_t chunk, const char *reason, int error)
{
    cpa_status st =
        error != 0 ? cpa_fail(CPA_IO, "%s: cannot be read: %s", c->store->file, strerror(error)) : cpa_chunks_same(c);
    if (st != CPA_OK) {
        return st;
    }
    char column[32] = "";
    if (c->shape[1] > 1) {
        snprintf(column, sizeof column, ", %lld", (long long)(chunk % c->grid[1] * c->chunk[1]));
    }
    return cpa_fail(
        CPA_BAD_DATA,
        "%s: %s: the chunk that begins with element %lld%s cannot be read: %s; the file is damaged, copy or "
        "write it again",
        c->store->file, c->store->path, (long long)(chunk / c->grid[1] * c->chunk[0]), column, reason);
}
