// Owns: copying objects from one HDF5 file into another, so that any HDF5 from 1.8 on can read them: storage and filters are not
// copied, what was packed is packed with gzip. Must never change a value.
#include <string.h>

#include <hdf5.h>

#include "h5_impl.h"

enum {
    PIECE_BYTES = 1 << 20, // of a dataset, read and written at once
    GZIP = 4,
    MAX_DEPTH = 32, // of groups in groups; deeper ones contain each other
};

// References would lead to places in the old file and are left out.
static cpa_status copy_attr(hid_t from, cpa_h5 *to, const char *path, const char *name)
{
    cpa_status st = CPA_OK;
    char *value = NULL;
    hid_t out = -1, old = H5Aopen(from, name, H5P_DEFAULT), type = H5Aget_type(old), space = H5Aget_space(old);
    hssize_t n = H5Sget_simple_extent_type(space) == H5S_NULL ? 0 : H5Sget_simple_extent_npoints(space);
    hid_t plan = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    if (H5Tdetect_class(type, H5T_REFERENCE) > 0) {
        goto cleanup;
    }
    H5Pset_char_encoding(plan, H5T_CSET_UTF8);
    CPA_TRY(cpa_alloc((size_t)n, H5Tget_size(type), &value));
    CPA_REQUIRE(n == 0 || H5Aread(old, type, value) >= 0, CPA_BAD_DATA, "%s: attribute '%s' cannot be read: %s", path,
                name, cpa_h5_why());
    out = H5Acreate_by_name(to->id, path, name, type, space, plan, H5P_DEFAULT, H5P_DEFAULT);
    st = cpa_h5_outcome(to, out >= 0 && (n == 0 || H5Awrite(out, type, value) >= 0), path);
    if (n > 0) {
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, value);
    }
cleanup:
    cpa_h5_drop(out);
    cpa_h5_drop(plan);
    cpa_h5_drop(space);
    cpa_h5_drop(type);
    cpa_h5_drop(old);
    cpa_free(&value);
    return st;
}

static cpa_status copy_attrs(const cpa_h5 *from, const char *path, cpa_h5 *to, const char *to_path)
{
    CPA_H5_GUARD(from->path);
    cpa_status st;
    cpa_strings names = {0};
    hid_t object = H5Oopen(from->id, path, H5P_DEFAULT);
    CPA_TRY(cpa_h5_attrs(from, path, &names));
    for (int64_t i = 0; i < names.n; i++) {
        CPA_TRY(copy_attr(object, to, to_path, names.s[i]));
    }
cleanup:
    cpa_h5_drop(object);
    cpa_strings_fini(&names);
    return st;
}

// A dataset in the making, a piece of whole rows at a time. A scalar is one row.
typedef struct copying {
    const cpa_h5 *from;
    cpa_h5 *to;
    const char *path, *to_path;
    hid_t old, new, space;
    hid_t stored, memory; // types of elements as stored and as read
    int rank;
    hsize_t shape[CPA_H5_MAX_RANK];
    hsize_t rows; // of a piece
    size_t row;   // bytes
    bool packed;
} copying;

static void open_old(copying *c, const char *field)
{
    CPA_H5_GUARD(c->from->path);
    c->old = H5Dopen2(c->from->id, c->path, H5P_DEFAULT);
    c->space = H5Dget_space(c->old);
    hid_t whole = H5Dget_type(c->old), plan = H5Dget_create_plist(c->old);
    if (field != NULL) {
        c->stored = H5Tget_member_type(whole, (unsigned)H5Tget_member_index(whole, field));
        c->memory = H5Tcreate(H5T_COMPOUND, H5Tget_size(c->stored));
        H5Tinsert(c->memory, field, 0, c->stored);
    } else {
        c->stored = H5Tcopy(whole);
        c->memory = H5Tcopy(whole);
    }
    c->packed = H5Pget_nfilters(plan) > 0;
    c->rank = H5Sget_simple_extent_ndims(c->space);
    c->shape[0] = H5Sget_simple_extent_type(c->space) == H5S_NULL ? 0 : 1;
    H5Sget_simple_extent_dims(c->space, c->shape, NULL);
    c->row = H5Tget_size(c->stored);
    for (int i = 1; i < c->rank; i++) {
        c->row *= c->shape[i];
    }
    c->rows = c->row > 0 && c->row < PIECE_BYTES ? PIECE_BYTES / c->row : 1;
    c->rows = c->rows < c->shape[0] ? c->rows : c->shape[0];
    cpa_h5_drop(plan);
    cpa_h5_drop(whole);
}

static cpa_status create_new(copying *c)
{
    cpa_status st = cpa_h5_create_parents(c->to, c->to_path);
    if (st != CPA_OK) {
        return st;
    }
    hsize_t chunk[CPA_H5_MAX_RANK];
    hid_t links = cpa_h5_link_plan(), plan = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = c->rank > 0 ? H5Screate_simple(c->rank, c->shape, NULL) : H5Scopy(c->space);
    H5Pset_obj_track_times(plan, false);
    bool pointers = H5Tdetect_class(c->stored, H5T_VLEN) > 0 || H5Tis_variable_str(c->stored) > 0;
    if (c->packed && !pointers && c->rank > 0 && c->row > 0 && c->rows > 0) {
        memcpy(chunk, c->shape, sizeof chunk);
        chunk[0] = c->rows;
        H5Pset_chunk(plan, c->rank, chunk);
        H5Pset_shuffle(plan);
        H5Pset_deflate(plan, GZIP);
    }
    c->new = H5Dcreate2(c->to->id, c->to_path, c->stored, space, links, plan, H5P_DEFAULT);
    st = cpa_h5_outcome(c->to, c->new >= 0, c->to_path);
    cpa_h5_drop(space);
    cpa_h5_drop(plan);
    cpa_h5_drop(links);
    return st;
}

static cpa_status copy_piece(const copying *c, hsize_t first, void *room)
{
    CPA_H5_GUARD(c->from->path);
    cpa_status st = CPA_OK;
    hsize_t start[CPA_H5_MAX_RANK] = {first}, count[CPA_H5_MAX_RANK];
    memcpy(count, c->shape, sizeof count);
    count[0] = c->shape[0] - first < c->rows ? c->shape[0] - first : c->rows;
    hid_t here = c->rank > 0 ? H5Screate_simple(c->rank, count, NULL) : H5Scopy(c->space), there = H5Scopy(c->space);
    if (c->rank > 0) {
        H5Sselect_hyperslab(there, H5S_SELECT_SET, start, NULL, count, NULL);
    }
    CPA_REQUIRE(H5Dread(c->old, c->memory, here, there, H5P_DEFAULT, room) >= 0, CPA_BAD_DATA,
                "%s: %s cannot be read: %s; the file is damaged, copy or write it again", c->from->path, c->path,
                cpa_h5_why());
    st = cpa_h5_outcome(c->to, H5Dwrite(c->new, c->stored, here, there, H5P_DEFAULT, room) >= 0, c->to_path);
    H5Dvlen_reclaim(c->stored, here, H5P_DEFAULT, room);
cleanup:
    cpa_h5_drop(there);
    cpa_h5_drop(here);
    return st;
}

// `field` NULL: whole elements.
static cpa_status copy_values(const cpa_h5 *from, const char *path, const char *field, cpa_h5 *to, const char *to_path)
{
    cpa_status st;
    cpa_h5_info info;
    char *room = NULL;
    copying c = {.from = from,
                 .to = to,
                 .path = path,
                 .to_path = to_path,
                 .old = -1,
                 .new = -1,
                 .space = -1,
                 .stored = -1,
                 .memory = -1};
    CPA_TRY(cpa_h5_describe(from, path, &info)); // names a filter that is not available
    open_old(&c, field);
    CPA_TRY(create_new(&c));
    CPA_TRY(cpa_alloc(c.rows, c.row, &room));
    for (hsize_t at = 0; c.row > 0 && at < c.shape[0]; at += c.rows) {
        CPA_TRY(copy_piece(&c, at, room));
    }
    CPA_TRY(cpa_h5_outcome(to, H5Dflush(c.new) >= 0, to_path));
cleanup:
    cpa_free(&room);
    cpa_h5_drop(c.new);
    cpa_h5_drop(c.memory);
    cpa_h5_drop(c.stored);
    cpa_h5_drop(c.space);
    cpa_h5_drop(c.old);
    return st;
}

static cpa_status copy_group(const cpa_h5 *from, const char *path, cpa_h5 *to, const char *to_path)
{
    cpa_status st;
    cpa_strings members = {0};
    char *member = NULL, *to_member = NULL;
    CPA_TRY(cpa_h5_write_group(to, to_path));
    CPA_TRY(copy_attrs(from, path, to, to_path));
    CPA_TRY(cpa_h5_list(from, path, &members));
    for (int64_t i = 0; i < members.n; i++) {
        CPA_TRY(cpa_sprintf(&member, "%s/%s", path, members.s[i]));
        CPA_TRY(cpa_sprintf(&to_member, "%s/%s", to_path, members.s[i]));
        CPA_TRY(cpa_h5_copy(from, member, to, to_member));
        cpa_free(&member);
        cpa_free(&to_member);
    }
cleanup:
    cpa_free(&member);
    cpa_free(&to_member);
    cpa_strings_fini(&members);
    return st;
}

cpa_status cpa_h5_copy(const cpa_h5 *from, const char *path, cpa_h5 *to, const char *to_path)
{
    cpa_status st;
    int depth = 0;
    for (const char *s = path; (s = strchr(s, '/')) != NULL; s++) {
        depth++;
    }
    CPA_REQUIRE(depth <= MAX_DEPTH, CPA_BAD_DATA, "%s: %.60s...: groups contain each other", from->path, path);
    if (cpa_h5_kind_of(from, path) == CPA_H5_GROUP) {
        return copy_group(from, path, to, to_path);
    }
    CPA_TRY(copy_values(from, path, NULL, to, to_path));
    CPA_TRY(copy_attrs(from, path, to, to_path));
cleanup:
    return st;
}

cpa_status cpa_h5_copy_field(const cpa_h5 *from, const char *path, const char *field, cpa_h5 *to, const char *to_path)
{
    return copy_values(from, path, field, to, to_path);
}
