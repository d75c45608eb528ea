// Owns: reading HDF5 datasets: their description, blocks of numbers, strings, one field of a compound.
// Must never change a file.
#include <stdio.h>
#include <string.h>

#include <hdf5.h>

#include "cpa/base/text.h"

#include "h5_impl.h"

enum { STRING_BYTES = 1 << 20 }; // read at once

static const struct {
    int id;
    const char *name;
} filter_names[] = {{H5Z_FILTER_DEFLATE, "gzip"},
                    {H5Z_FILTER_SHUFFLE, "shuffle"},
                    {H5Z_FILTER_FLETCHER32, "fletcher32"},
                    {H5Z_FILTER_SZIP, "szip"},
                    {32000, "lzf"},
                    {32001, "blosc"},
                    {32004, "lz4"},
                    {32008, "bitshuffle"},
                    {32015, "zstd"},
                    {32026, "blosc2"}};

static void name_filter(int id, char *out, size_t room)
{
    for (size_t i = 0; i < sizeof filter_names / sizeof *filter_names; i++) {
        if (filter_names[i].id == id) {
            snprintf(out, room, "%s", filter_names[i].name);
            return;
        }
    }
    snprintf(out, room, "filter%d", id);
}

static void name_type(hid_t type, cpa_h5_class class, char out[16])
{
    int bits = (int)(8 * H5Tget_size(type));
    switch (class) {
    case CPA_H5_CLASS_INT: {
        hid_t base = H5Tget_class(type) == H5T_ENUM ? H5Tget_super(type) : H5Tcopy(type);
        snprintf(out, 16, "%s%d", H5Tget_sign(base) == H5T_SGN_NONE ? "uint" : "int", bits);
        cpa_h5_drop(base);
        return;
    }
    case CPA_H5_CLASS_FLOAT:
        snprintf(out, 16, "float%d", bits);
        return;
    case CPA_H5_CLASS_BOOL:
        snprintf(out, 16, "bool");
        return;
    case CPA_H5_CLASS_STRING:
        snprintf(out, 16, "string");
        return;
    case CPA_H5_CLASS_COMPOUND:
        snprintf(out, 16, "compound");
        return;
    case CPA_H5_CLASS_OTHER:
        break;
    }
    snprintf(out, 16, "other");
}

// Chunks and filters into d->info; the bytes of a chunk in *chunk_bytes.
static cpa_status describe_storage(cpa_h5_data *d, hid_t created, size_t *chunk_bytes)
{
    cpa_h5_info *info = &d->info;
    *chunk_bytes = 0;
    if (H5Pget_layout(created) == H5D_CHUNKED) {
        hsize_t chunk[CPA_H5_MAX_RANK];
        info->chunked = true;
        H5Pget_chunk(created, info->rank, chunk);
        hid_t whole = H5Dget_type(d->set);
        *chunk_bytes = H5Tget_size(whole);
        cpa_h5_drop(whole);
        for (int i = 0; i < info->rank; i++) {
            info->chunk[i] = (int64_t)chunk[i];
            *chunk_bytes *= (size_t)chunk[i];
        }
    }
    int n = H5Pget_nfilters(created);
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        size_t no_values = 0;
        char name[32];
        int id = H5Pget_filter2(created, (unsigned)i, NULL, &no_values, NULL, 0, NULL, NULL);
        name_filter(id, name, sizeof name);
        if (H5Zfilter_avail(id) <= 0) {
            return cpa_fail(
                CPA_BAD_DATA,
                "%s: %s is compressed with %s (filter %d), which is not available here: save the file again "
                "with compression=\"gzip\"",
                d->file->path, d->path, name, id);
        }
        if (used < sizeof info->filters) {
            used += (size_t)snprintf(info->filters + used, sizeof info->filters - used, "%s%s", i > 0 ? "+" : "", name);
        }
    }
    if (n <= 0) {
        snprintf(info->filters, sizeof info->filters, "none");
    }
    return CPA_OK;
}

static cpa_status find_field(cpa_h5_data *d, const char *field)
{
    int at = H5Tget_class(d->type) == H5T_COMPOUND ? H5Tget_member_index(d->type, field) : -1;
    if (at < 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s has no field '%s'", d->file->path, d->path, field);
    }
    hid_t whole = d->type;
    d->type = H5Tget_member_type(whole, (unsigned)at);
    cpa_h5_drop(whole);
    return cpa_strdup(field, &d->field);
}

static cpa_status describe_shape(cpa_h5_data *d)
{
    cpa_h5_info *info = &d->info;
    hsize_t shape[H5S_MAX_RANK];
    info->rank = H5Sget_simple_extent_ndims(d->space);
    if (info->rank > CPA_H5_MAX_RANK) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s has %d dimensions, at most %d can be read", d->file->path, d->path,
                        info->rank, CPA_H5_MAX_RANK);
    }
    if (H5Sget_simple_extent_type(d->space) == H5S_NULL) {
        info->rank = 1;
        return CPA_OK;
    }
    H5Sget_simple_extent_dims(d->space, shape, NULL);
    info->n = 1;
    for (int i = 0; i < info->rank; i++) {
        info->shape[i] = (int64_t)shape[i];
        if (info->shape[i] < 0 || __builtin_mul_overflow(info->n, info->shape[i], &info->n)) {
            return cpa_fail(CPA_BAD_DATA, "%s: %s is too large to be true; the file is damaged", d->file->path,
                            d->path);
        }
    }
    return CPA_OK;
}

// A damaged shape must not be believed, or memory for it would be asked for; nor a type that has no bytes.
static cpa_status check_stored_size(const cpa_h5_data *d, hid_t created)
{
    hid_t whole = H5Dget_type(d->set);
    hsize_t stored = H5Dget_storage_size(d->set), size = H5Tget_size(whole);
    cpa_h5_drop(whole);
    if (size == 0 || H5Tget_size(d->type) == 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s has elements of 0 bytes; the file is damaged", d->file->path, d->path);
    }
    bool here = H5Pget_layout(created) == H5D_CONTIGUOUS;
    if (here && stored > 0 && stored / size < (hsize_t)d->info.n) { // what was never written has no size
        return cpa_fail(CPA_BAD_DATA,
                        "%s: %s should have %lld elements, but the file holds %llu bytes of it; it is damaged",
                        d->file->path, d->path, (long long)d->info.n, (unsigned long long)stored);
    }
    return CPA_OK;
}

// HDF5 unpacks a chunk that its cache cannot hold anew for every block read from it.
static cpa_status enlarge_cache(cpa_h5_data *d, size_t chunk_bytes)
{
    if (chunk_bytes <= (size_t)1 << 20) {
        return CPA_OK;
    }
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(access, H5D_CHUNK_CACHE_NSLOTS_DEFAULT, chunk_bytes, 1.0);
    cpa_h5_drop(d->set);
    d->set = H5Dopen2(d->file->id, d->path, access);
    cpa_status st =
        d->set >= 0 ? CPA_OK
                    : cpa_fail(CPA_BAD_DATA, "%s: %s cannot be opened again: %s", d->file->path, d->path, cpa_h5_why());
    cpa_h5_drop(access);
    return st;
}

cpa_status cpa_h5_data_open(const cpa_h5 *f, const char *path, const char *field, cpa_h5_data **out)
{
    CPA_H5_GUARD(f->path);
    cpa_status st;
    cpa_h5_data *d = NULL;
    hid_t created = -1;
    CPA_TRY(cpa_alloc(1, sizeof *d, &d));
    d->file = f;
    d->set = d->space = d->type = -1;
    CPA_TRY(cpa_strdup(path, &d->path));
    if (cpa_h5_kind_of(f, path) != CPA_H5_DATASET) {
        bool listed = cpa_h5_kind_of(f, path) == CPA_H5_NOTHING && cpa_h5_is_listed(f, path);
        st = cpa_fail(CPA_BAD_DATA,
                      listed ? "%s: %s is listed but cannot be opened; the file is damaged, copy or write it again"
                             : "%s: there is no dataset '%s'",
                      f->path, path);
        goto cleanup;
    }
    d->set = H5Dopen2(f->id, path, H5P_DEFAULT);
    CPA_REQUIRE(d->set >= 0, CPA_BAD_DATA, "%s: %s cannot be opened: %s", f->path, path, cpa_h5_why());
    d->type = H5Dget_type(d->set);
    d->space = H5Dget_space(d->set);
    created = H5Dget_create_plist(d->set);
    CPA_REQUIRE(d->type >= 0 && d->space >= 0 && created >= 0, CPA_BAD_DATA, "%s: %s cannot be described: %s", f->path,
                path, cpa_h5_why());
    CPA_REQUIRE(H5Pget_layout(created) != H5D_VIRTUAL, CPA_BAD_DATA,
                "%s: %s is virtual: its values are in other files, which are not read; save the file again as a whole",
                f->path, path); // HDF5 would say that they are 0
    CPA_REQUIRE(
        H5Pget_external_count(created) <= 0, CPA_BAD_DATA,
        "%s: %s is stored externally: its values are in other files, which are not read; save the file again as "
        "a whole",
        f->path, path); // HDF5 would read any file that the header names
    CPA_TRY(describe_shape(d));
    if (field != NULL) {
        CPA_TRY(find_field(d, field));
    }
    CPA_TRY(check_stored_size(d, created));
    d->info.class = cpa_h5_class_of(d->type);
    name_type(d->type, d->info.class, d->info.dtype);
    size_t chunk_bytes;
    CPA_TRY(describe_storage(d, created, &chunk_bytes));
    CPA_TRY(enlarge_cache(d, chunk_bytes));
    CPA_TRY(cpa_h5_settle(CPA_OK));
    *out = d;
    d = NULL;
cleanup:
    cpa_h5_drop(created);
    cpa_h5_data_close(&d);
    return cpa_h5_settle(st);
}

void cpa_h5_data_close(cpa_h5_data **d)
{
    if (*d != NULL) {
        CPA_H5_GUARD((*d)->file->path);
        cpa_h5_drop((*d)->type);
        cpa_h5_drop((*d)->space);
        cpa_h5_drop((*d)->set);
        cpa_free(&(*d)->path);
        cpa_free(&(*d)->field);
        cpa_free(d);
    }
}

const cpa_h5_info *cpa_h5_data_info(const cpa_h5_data *d)
{
    return &d->info;
}

cpa_status cpa_h5_describe(const cpa_h5 *f, const char *path, cpa_h5_info *out)
{
    cpa_h5_data *d = NULL;
    cpa_status st = cpa_h5_data_open(f, path, NULL, &d);
    if (st == CPA_OK) {
        *out = d->info;
    }
    cpa_h5_data_close(&d);
    return st;
}

cpa_status cpa_h5_fields(const cpa_h5 *f, const char *path, cpa_strings *out)
{
    CPA_H5_GUARD(f->path);
    cpa_h5_data *d = NULL;
    cpa_status st = cpa_h5_data_open(f, path, NULL, &d);
    if (st == CPA_OK && d->info.class != CPA_H5_CLASS_COMPOUND) {
        st = cpa_fail(CPA_BAD_DATA, "%s: %s is not a table of fields", f->path, path);
    }
    int n = st == CPA_OK ? H5Tget_nmembers(d->type) : 0;
    for (int i = 0; i < n && st == CPA_OK; i++) {
        char *name = H5Tget_member_name(d->type, (unsigned)i);
        st = cpa_strings_add(out, name != NULL ? name : "");
        H5free_memory(name);
    }
    cpa_h5_data_close(&d);
    return st;
}

// "path" or "path, field 'x'", for messages.
static const char *name_of(const cpa_h5_data *d, cpa_text *text)
{
    if (d->field == NULL || cpa_text_add(text, "%s, field '%s'", d->path, d->field) != CPA_OK) {
        return d->path;
    }
    return cpa_text_str(text);
}

// Whether the element `at` can be read; `room` holds one.
static bool element_readable(const cpa_h5_data *d, hid_t memory, const int64_t *at, void *room)
{
    hsize_t start[CPA_H5_MAX_RANK], one[CPA_H5_MAX_RANK];
    for (int i = 0; i < d->info.rank; i++) {
        start[i] = (hsize_t)at[i];
        one[i] = 1;
    }
    hid_t from = H5Scopy(d->space), to = H5Screate_simple(d->info.rank, one, NULL);
    H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, one, NULL);
    bool good = H5Dread(d->set, memory, to, from, H5P_DEFAULT, room) >= 0;
    cpa_h5_drop(from);
    cpa_h5_drop(to);
    return good;
}

// The next chunk of the block in file order; false behind the last.
static bool next_chunk(const cpa_h5_data *d, const int64_t *first, const int64_t *count, int64_t *at)
{
    for (int i = d->info.rank - 1; i >= 0; i--) {
        at[i] = (at[i] / d->info.chunk[i] + 1) * d->info.chunk[i];
        if (at[i] < first[i] + count[i]) {
            return true;
        }
        at[i] = first[i];
    }
    return false;
}

// The failure of a read. It names the chunk at fault, not the block asked for, which depends on the number of ranks. `room` holds one
// element, `memory` has no pointers.
static cpa_status unreadable(const cpa_h5_data *d, hid_t memory, const int64_t *first, const int64_t *count, void *room)
{
    cpa_status st = CPA_OK;
    cpa_text name = {0}, place = {0};
    int64_t at[CPA_H5_MAX_RANK];
    const char *why = cpa_h5_why(); // before HDF5 is called again and forgets it
    bool looking = d->info.chunked && H5Tdetect_class(memory, H5T_STRING) <= 0;
    memcpy(at, first, (size_t)d->info.rank * sizeof *at);
    while (looking && element_readable(d, memory, at, room)) {
        looking = next_chunk(d, first, count, at);
    }
    for (int i = 0; looking && i < d->info.rank; i++) {
        CPA_TRY(cpa_text_add(&place, "%s%lld", i > 0 ? ", " : ": the chunk that begins with element ",
                             (long long)(at[i] / d->info.chunk[i] * d->info.chunk[i])));
    }
    st = cpa_fail(CPA_BAD_DATA, "%s: %s%s cannot be read: %s; the file is damaged, copy or write it again",
                  d->file->path, name_of(d, &name), cpa_text_str(&place), why);
cleanup:
    cpa_text_fini(&name);
    cpa_text_fini(&place);
    return st;
}

// Reads a block as elements of the memory type `element`, which is wrapped into a compound for a field.
static cpa_status read_block(const cpa_h5_data *d, hid_t element, const int64_t *first, const int64_t *count, void *out)
{
    CPA_H5_GUARD(d->file->path);
    cpa_status st = CPA_OK;
    hid_t memory = -1, from = -1, to = -1;
    cpa_text name = {0};
    hsize_t start[CPA_H5_MAX_RANK], size[CPA_H5_MAX_RANK];
    for (int i = 0; i < d->info.rank; i++) {
        CPA_REQUIRE(first[i] >= 0 && count[i] >= 0 && first[i] <= d->info.shape[i] - count[i], CPA_BAD_DATA,
                    "%s: %s: elements %lld to %lld of dimension %d were asked for, there are %lld", d->file->path,
                    name_of(d, &name), (long long)first[i], (long long)(first[i] + count[i]), i,
                    (long long)d->info.shape[i]);
        if (count[i] == 0) {
            goto cleanup;
        }
        start[i] = (hsize_t)first[i];
        size[i] = (hsize_t)count[i];
    }
    from = H5Scopy(d->space);
    to = d->info.rank > 0 ? H5Screate_simple(d->info.rank, size, NULL) : H5Screate(H5S_SCALAR);
    if (d->info.rank > 0) {
        H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, size, NULL);
    }
    if (d->field != NULL) {
        memory = H5Tcreate(H5T_COMPOUND, H5Tget_size(element));
        H5Tinsert(memory, d->field, 0, element);
    } else {
        memory = H5Tcopy(element);
    }
    if (H5Dread(d->set, memory, to, from, H5P_DEFAULT, out) < 0) {
        st = unreadable(d, memory, first, count, out);
    }
    st = cpa_h5_settle(st);
cleanup:
    cpa_text_fini(&name);
    cpa_h5_drop(memory);
    cpa_h5_drop(from);
    cpa_h5_drop(to);
    return st;
}

// As they are, since HDF5 clips what is too large for an int64_t.
static cpa_status read_unsigned(const cpa_h5_data *d, const int64_t *first, const int64_t *count, uint64_t *out)
{
    cpa_status st;
    cpa_text name = {0};
    int64_t n = 1;
    CPA_TRY(read_block(d, H5T_NATIVE_UINT64, first, count, out));
    for (int i = 0; i < d->info.rank; i++) {
        n *= count[i];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t row = d->info.rank > 0 ? first[0] + i / (n / count[0]) : 0;
        CPA_REQUIRE(out[i] <= INT64_MAX, CPA_BAD_DATA,
                    "%s: %s: row %lld holds the integer %llu, but only those below 2^63 can be read", d->file->path,
                    name_of(d, &name), (long long)row, (unsigned long long)out[i]);
    }
cleanup:
    cpa_text_fini(&name);
    return st;
}

cpa_status cpa_h5_data_read(const cpa_h5_data *d, cpa_h5_type type, const int64_t *first, const int64_t *count,
                            void *out)
{
    cpa_status st = CPA_OK;
    cpa_text name = {0};
    cpa_h5_class class = d->info.class;
    CPA_REQUIRE(type == CPA_H5_F32 || type == CPA_H5_F64 || type == CPA_H5_I64, CPA_INTERNAL,
                "arrays are read as float, double or int64_t");
    CPA_REQUIRE(class == CPA_H5_CLASS_INT || class == CPA_H5_CLASS_BOOL ||
                    (class == CPA_H5_CLASS_FLOAT && type != CPA_H5_I64),
                CPA_BAD_DATA, "%s: %s should hold %s, but its type is %s", d->file->path, name_of(d, &name),
                type == CPA_H5_I64 ? "integers" : "numbers", d->info.dtype);
    if (type == CPA_H5_I64 && strcmp(d->info.dtype, "uint64") == 0) {
        CPA_TRY(read_unsigned(d, first, count, out));
    } else {
        CPA_TRY(read_block(d, cpa_h5_native(type), first, count, out));
    }
cleanup:
    cpa_text_fini(&name);
    return st;
}

cpa_status cpa_h5_data_strings(const cpa_h5_data *d, int64_t first, int64_t n, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    char *buf = NULL;
    cpa_text name = {0};
    hid_t element = -1, space = -1;
    CPA_REQUIRE(d->info.class == CPA_H5_CLASS_STRING && d->info.rank <= 1, CPA_BAD_DATA,
                "%s: %s should be a list of strings, but its type is %s in %d dimensions", d->file->path,
                name_of(d, &name), d->info.dtype, d->info.rank);
    element = H5Tcopy(d->type);
    size_t size = H5Tget_size(element);
    int64_t piece = (int64_t)(STRING_BYTES / size) > 0 ? (int64_t)(STRING_BYTES / size) : 1;
    piece = piece < n ? piece : n;
    CPA_TRY(cpa_alloc((size_t)piece, size, &buf));
    for (int64_t at = 0; at < n; at += piece) {
        int64_t from = first + at, count = piece < n - at ? piece : n - at;
        CPA_TRY(read_block(d, element, &from, &count, buf));
        st = cpa_h5_take_strings(d->file, d->path, element, count, buf, out);
        if (H5Tis_variable_str(element) > 0) {
            hsize_t length = (hsize_t)count;
            space = H5Screate_simple(1, &length, NULL);
            H5Dvlen_reclaim(element, space, H5P_DEFAULT, buf);
            cpa_h5_drop(space);
        }
        CPA_TRY(st);
    }
cleanup:
    cpa_text_fini(&name);
    cpa_h5_drop(element);
    cpa_free(&buf);
    return st;
}

static size_t size_of(cpa_h5_type type)
{
    return H5Tget_size(cpa_h5_native(type));
}

cpa_status cpa_h5_read(const cpa_h5 *f, const char *path, cpa_h5_type type, void *out, cpa_h5_info *info)
{
    static const int64_t origin[CPA_H5_MAX_RANK];
    cpa_h5_data *d = NULL;
    void *values = NULL;
    cpa_status st = cpa_h5_data_open(f, path, NULL, &d);
    if (st != CPA_OK) {
        return st;
    }
    CPA_TRY(cpa_alloc((size_t)d->info.n, size_of(type), &values));
    CPA_TRY(cpa_h5_data_read(d, type, origin, d->info.shape, values));
    if (info != NULL) {
        *info = d->info;
    }
    memcpy(out, &values, sizeof values);
    values = NULL;
cleanup:
    cpa_free(&values);
    cpa_h5_data_close(&d);
    return st;
}

cpa_status cpa_h5_read_into(const cpa_h5 *f, const char *path, cpa_h5_type type, int64_t n, void *out)
{
    static const int64_t origin[CPA_H5_MAX_RANK];
    cpa_h5_data *d = NULL;
    cpa_status st = cpa_h5_data_open(f, path, NULL, &d);
    if (st != CPA_OK) {
        return st;
    }
    CPA_REQUIRE(d->info.n == n, CPA_BAD_DATA, "%s: %s has %lld elements, %lld are expected", f->path, path,
                (long long)d->info.n, (long long)n);
    CPA_TRY(cpa_h5_data_read(d, type, origin, d->info.shape, out));
cleanup:
    cpa_h5_data_close(&d);
    return st;
}

cpa_status cpa_h5_read_strings(const cpa_h5 *f, const char *path, cpa_strings *out)
{
    cpa_h5_data *d = NULL;
    cpa_status st = cpa_h5_data_open(f, path, NULL, &d);
    if (st == CPA_OK) {
        st = cpa_h5_data_strings(d, 0, d->info.n, out);
    }
    if (st != CPA_OK) {
        cpa_strings_fini(out);
    }
    cpa_h5_data_close(&d);
    return st;
}
