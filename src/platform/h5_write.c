// Owns: writing HDF5 files whose bytes depend on their content alone.
// Must never read, and must never report success for what is not on disk.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <hdf5.h>

#include "h5_impl.h"

enum { CHUNK_ELEMENTS = 1 << 16 }; // of compressed arrays

cpa_status cpa_h5_outcome(const cpa_h5 *f, bool good, const char *what)
{
    if (good && f->error == 0) {
        return CPA_OK;
    }
    return cpa_fail(CPA_IO, "%s: %s cannot be written: %s", f->path, what,
                    f->error != 0 ? strerror(f->error) : cpa_h5_why());
}

cpa_status cpa_h5_create(const char *path, cpa_h5 **out)
{
    cpa_h5 *f = NULL;
    hid_t access = -1, creation = -1;
    cpa_status st;
    cpa_h5_init();
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->id = -1;
    f->writing = true;
    CPA_TRY(cpa_strdup(path, &f->path));
    access = H5Pcreate(H5P_FILE_ACCESS);
    creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    cpa_h5_disk_use(access, f->path, &f->error);
    H5Pset_obj_track_times(creation, false);
    f->id = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    CPA_REQUIRE(f->id >= 0 && f->error == 0, CPA_IO, "%s: cannot be created: %s", path,
                f->error != 0 ? strerror(f->error) : cpa_h5_why());
    *out = f;
    f = NULL;
cleanup:
    cpa_h5_drop(creation);
    cpa_h5_drop(access);
    cpa_h5_close(&f);
    return st;
}

cpa_status cpa_h5_finish(cpa_h5 **f)
{
    cpa_status st;
    void *handle = NULL;
    int fd = -1; // outlives HDF5's own
    CPA_TRY(cpa_h5_outcome(*f, H5Fget_vfd_handle((*f)->id, H5P_DEFAULT, &handle) >= 0, "the file"));
    fd = dup(*(const int *)handle);
    hid_t id = (*f)->id;
    (*f)->id = -1;
    CPA_TRY(cpa_h5_outcome(*f, H5Fclose(id) >= 0, "the file"));
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) { // EINVAL: nothing that can be synced, such as a pipe
        st = cpa_fail(CPA_IO, "%s: the file cannot be written: %s", (*f)->path, strerror(errno));
    }
cleanup:
    if (fd >= 0) {
        close(fd);
    }
    cpa_h5_close(f);
    return st;
}

hid_t cpa_h5_link_plan(void)
{
    hid_t plan = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_char_encoding(plan, H5T_CSET_UTF8);
    return plan;
}

static cpa_status create_group(cpa_h5 *f, const char *path)
{
    hid_t links = cpa_h5_link_plan(), plan = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(plan, false);
    hid_t group = H5Gcreate2(f->id, path, links, plan, H5P_DEFAULT);
    cpa_status st = cpa_h5_outcome(f, group >= 0, path);
    cpa_h5_drop(group);
    cpa_h5_drop(plan);
    cpa_h5_drop(links);
    return st;
}

cpa_status cpa_h5_create_parents(cpa_h5 *f, const char *path)
{
    cpa_status st;
    char *copy = NULL;
    CPA_TRY(cpa_strdup(path, &copy));
    for (char *end = strchr(copy, '/'); end != NULL; end = strchr(end + 1, '/')) {
        *end = '\0';
        if (copy[0] != '\0' && cpa_h5_kind_of(f, copy) == CPA_H5_NOTHING) {
            CPA_TRY(create_group(f, copy));
        }
        *end = '/';
    }
cleanup:
    cpa_free(&copy);
    return st;
}

cpa_status cpa_h5_write_group(cpa_h5 *f, const char *path)
{
    cpa_status st = cpa_h5_create_parents(f, path);
    return st == CPA_OK ? create_group(f, path) : st;
}

// h5py's boolean.
static hid_t bool_type(void)
{
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    int8_t value = 0;
    H5Tenum_insert(type, "FALSE", &value);
    value = 1;
    H5Tenum_insert(type, "TRUE", &value);
    return type;
}

hid_t cpa_h5_file_type(cpa_h5_type type)
{
    return type == CPA_H5_BOOL ? bool_type() : H5Tcopy(cpa_h5_native(type));
}

hid_t cpa_h5_text_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

// Chunks hold whole rows as far as that goes.
static void choose_chunk(int rank, const hsize_t *shape, hsize_t *chunk)
{
    hsize_t room = CHUNK_ELEMENTS;
    for (int i = rank - 1; i >= 0; i--) {
        chunk[i] = shape[i] < room ? shape[i] : room;
        room = room / chunk[i] > 0 ? room / chunk[i] : 1;
    }
}

// Creates a dataset and, when there is `data`, fills it.
static cpa_status write_dataset(cpa_h5 *f, const char *path, hid_t type, int rank, const int64_t *dims,
                                const void *data, int gzip)
{
    hsize_t shape[CPA_H5_MAX_RANK], chunk[CPA_H5_MAX_RANK];
    bool empty = false;
    cpa_status st = cpa_h5_create_parents(f, path);
    if (st != CPA_OK) {
        return st;
    }
    for (int i = 0; i < rank; i++) {
        shape[i] = (hsize_t)dims[i];
        empty = empty || dims[i] == 0;
    }
    hid_t space = rank > 0 ? H5Screate_simple(rank, shape, NULL) : H5Screate(H5S_SCALAR);
    hid_t links = cpa_h5_link_plan(), plan = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plan, false);
    bool packed = gzip > 0 && rank > 0 && !empty, checked = f->checked && data == NULL && rank > 0 && !empty;
    if (packed) {
        choose_chunk(rank, shape, chunk);
        H5Pset_chunk(plan, rank, chunk);
        H5Pset_shuffle(plan);
        H5Pset_deflate(plan, (unsigned)gzip);
    } else if (checked) { // one piece, which cpa_h5_image_place can point at
        H5Pset_chunk(plan, rank, shape);
        H5Pset_fletcher32(plan);
    }
    if (data == NULL && !empty) { // filled later, perhaps around HDF5: has its place in the file from the start
        H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
        H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER);
    }
    hid_t set = H5Dcreate2(f->id, path, type, space, links, plan, H5P_DEFAULT);
    bool good = set >= 0 && (data == NULL || empty || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    good = set >= 0 && H5Dclose(set) >= 0 && good; // compressed chunks are written now
    st = cpa_h5_outcome(f, good, path);
    cpa_h5_drop(plan);
    cpa_h5_drop(links);
    cpa_h5_drop(space);
    return st;
}

cpa_status cpa_h5_write(cpa_h5 *f, const char *path, cpa_h5_type type, int rank, const int64_t *shape, const void *data,
                        int gzip)
{
    if (rank < 0 || rank > CPA_H5_MAX_RANK) {
        return cpa_fail(CPA_INTERNAL, "%s: %s: %d dimensions, at most %d can be written", f->path, path, rank,
                        CPA_H5_MAX_RANK);
    }
    hid_t element = cpa_h5_file_type(type);
    cpa_status st = write_dataset(f, path, element, rank, shape, data, gzip);
    cpa_h5_drop(element);
    return st;
}

cpa_status cpa_h5_write_strings(cpa_h5 *f, const char *path, const cpa_strings *list)
{
    hid_t type = cpa_h5_text_type();
    cpa_status st = write_dataset(f, path, type, 1, &list->n, list->s, 0);
    cpa_h5_drop(type);
    return st;
}

cpa_status cpa_h5_write_string(cpa_h5 *f, const char *path, const char *s)
{
    hid_t type = cpa_h5_text_type();
    cpa_status st = write_dataset(f, path, type, 0, NULL, &s, 0);
    cpa_h5_drop(type);
    return st;
}

cpa_status cpa_h5_create_rows(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t n_rows, int64_t n_cols)
{
    return cpa_h5_write(f, path, type, 2, (const int64_t[]){n_rows, n_cols}, NULL, 0);
}

cpa_status cpa_h5_rows_offset(const cpa_h5 *f, const char *path, int64_t *offset)
{
    hid_t set = H5Dopen2(f->id, path, H5P_DEFAULT);
    haddr_t at = set >= 0 ? H5Dget_offset(set) : HADDR_UNDEF;
    cpa_h5_drop(set);
    *offset = (int64_t)at;
    return cpa_h5_outcome(f, at != HADDR_UNDEF, path);
}

cpa_status cpa_h5_write_rows(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t first, int64_t n, const void *data)
{
    cpa_status st = CPA_OK;
    hsize_t shape[2] = {0, 0};
    hid_t from = -1, to = -1, element = cpa_h5_file_type(type), set = H5Dopen2(f->id, path, H5P_DEFAULT);
    CPA_REQUIRE(set >= 0, CPA_IO, "%s: %s cannot be opened: %s", f->path, path, cpa_h5_why());
    to = H5Dget_space(set);
    CPA_REQUIRE(H5Sget_simple_extent_ndims(to) == 2 && H5Sget_simple_extent_dims(to, shape, NULL) == 2 && first >= 0 &&
                    n >= 0 && first <= (int64_t)shape[0] - n,
                CPA_INTERNAL, "%s: %s: rows %lld to %lld do not lie in a matrix of %lld rows", f->path, path,
                (long long)first, (long long)(first + n), (long long)shape[0]);
    if (n == 0 || shape[1] == 0) {
        goto cleanup;
    }
    hsize_t start[2] = {(hsize_t)first, 0}, count[2] = {(hsize_t)n, shape[1]};
    from = H5Screate_simple(2, count, NULL);
    H5Sselect_hyperslab(to, H5S_SELECT_SET, start, NULL, count, NULL);
    CPA_TRY(cpa_h5_outcome(f, H5Dwrite(set, element, from, to, H5P_DEFAULT, data) >= 0, path));
cleanup:
    cpa_h5_drop(from);
    cpa_h5_drop(to);
    cpa_h5_drop(element);
    cpa_h5_drop(set);
    return st;
}

static cpa_status write_attr(cpa_h5 *f, const char *object, const char *name, hid_t type, int n, const void *value)
{
    hsize_t length = (hsize_t)(n > 0 ? n : 0);
    hid_t space = n >= 0 ? H5Screate_simple(1, &length, NULL) : H5Screate(H5S_SCALAR);
    hid_t plan = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    H5Pset_char_encoding(plan, H5T_CSET_UTF8);
    if (H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) > 0) {
        H5Adelete_by_name(f->id, object, name, H5P_DEFAULT);
    }
    hid_t id = H5Acreate_by_name(f->id, object, name, type, space, plan, H5P_DEFAULT, H5P_DEFAULT);
    cpa_status st = cpa_h5_outcome(f, id >= 0 && (n == 0 || H5Awrite(id, type, value) >= 0), object);
    cpa_h5_drop(id);
    cpa_h5_drop(plan);
    cpa_h5_drop(space);
    return st;
}

cpa_status cpa_h5_write_attr_string(cpa_h5 *f, const char *object, const char *name, const char *value)
{
    hid_t type = cpa_h5_text_type();
    cpa_status st = write_attr(f, object, name, type, -1, &value);
    cpa_h5_drop(type);
    return st;
}

cpa_status cpa_h5_write_attr_strings(cpa_h5 *f, const char *object, const char *name, const cpa_strings *list)
{
    hid_t type = cpa_h5_text_type();
    cpa_status st = write_attr(f, object, name, type, (int)list->n, list->s);
    cpa_h5_drop(type);
    return st;
}

cpa_status cpa_h5_write_attr_numbers(cpa_h5 *f, const char *object, const char *name, cpa_h5_type type, int n,
                                     const void *value)
{
    hid_t element = cpa_h5_file_type(type);
    cpa_status st = write_attr(f, object, name, element, n, value);
    cpa_h5_drop(element);
    return st;
}
