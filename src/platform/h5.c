// Owns: HDF5 files and what hangs in them: opening, closing, errors, filters, links, attributes that are read.
// Must never read a dataset (h5_read.c) or write anything (h5_write.c).
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>
#include <lzf.h>

#include "h5_impl.h"

enum {
    CACHE_BYTES = 1 << 20, // of structures of a file being read
    LZF_FILTER = 32000,    // registered by h5py
    WHY_BYTES = 512,
    PATH_BYTES = 1 << 16, // a longer path leads nowhere: no name may have more
};

// HDF5 frees filter buffers with free(). cd[2] is the size of an unpacked chunk in bytes.
static size_t lzf_filter(unsigned flags, size_t n_cd, const unsigned cd[], size_t n_bytes, size_t *room, void **buf)
{
    if ((flags & H5Z_FLAG_REVERSE) == 0) {
        return 0; // files are written with gzip only
    }
    size_t size = n_cd >= 3 && cd[2] > 0 ? cd[2] : *room;
    for (;;) {
        void *out = malloc(size > 0 ? size : 1);
        if (out == NULL) {
            return 0;
        }
        errno = 0;
        unsigned n = lzf_decompress(*buf, (unsigned)n_bytes, out, (unsigned)size);
        if (n > 0) {
            free(*buf);
            *buf = out;
            *room = size;
            return n;
        }
        free(out);
        if (errno != E2BIG || size > UINT32_MAX / 2) {
            return 0;
        }
        size *= 2;
    }
}

void cpa_h5_init(void)
{
    static bool done;
    if (done) {
        return;
    }
    done = true;
    static const H5Z_class2_t lzf = {
        .version = H5Z_CLASS_T_VERS,
        .id = LZF_FILTER,
        .encoder_present = 0,
        .decoder_present = 1,
        .name = "lzf",
        .filter = lzf_filter,
    };
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Zregister(&lzf);
    cpa_h5_filters_register();
}

// Of a failed system call HDF5 tells the time, the file and more; what counts is "file write failed" and the system's
// own words.
static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text)
{
    if (n > 0 || error->desc == NULL) {
        return 0;
    }
    static const char mark[] = "error message = '";
    const char *words = strstr(error->desc, mark);
    if (words == NULL) {
        snprintf(text, WHY_BYTES, "%s", error->desc);
        return 0;
    }
    words += sizeof mark - 1;
    snprintf(text, WHY_BYTES, "%.*s: %.*s", (int)strcspn(error->desc, ":"), error->desc, (int)strcspn(words, "'"),
             words);
    return 0;
}

const char *cpa_h5_why(void)
{
    static char text[WHY_BYTES];
    snprintf(text, sizeof text, "HDF5 gives no reason");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

void cpa_h5_drop(hid_t id)
{
    if (id >= 0) {
        H5Idec_ref(id);
    }
}

// Looks at a path without HDF5, whose own words for these cases help nobody.
static cpa_status look_at(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return errno == ENOENT || errno == ENOTDIR ? cpa_fail(CPA_NO_INPUT, "%s: no such file", path)
                                                   : cpa_fail(CPA_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        return cpa_fail(CPA_BAD_DATA, "%s: this is a directory, an HDF5 file is needed", path);
    }
    if (info.st_size == 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: the file is empty", path);
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return cpa_fail(CPA_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    static const char lfs[] = "version https://git-lfs", signature[] = "\211HDF\r\n\032\n";
    char head[48] = ""; // no HDF5 file is shorter
    size_t n = fread(head, 1, sizeof head, file);
    fclose(file);
    if (memcmp(head, lfs, sizeof lfs - 1) == 0) {
        return cpa_fail(CPA_BAD_DATA,
                        "%s: this is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'", path);
    }
    // HDF5 would take what is missing for zeros.
    if (n < sizeof head && memcmp(head, signature, sizeof signature - 1) == 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: only the first %zu bytes of an HDF5 file; copy or download it again", path,
                        n);
    }
    return CPA_OK;
}

static cpa_status open_failed(const char *path)
{
    const char *why = cpa_h5_why();
    if (strstr(why, "signature not found") != NULL) {
        return cpa_fail(CPA_BAD_DATA, "%s: not an HDF5 file", path);
    }
    if (strstr(why, "out of memory") != NULL) {
        return cpa_fail(CPA_INTERNAL, "%s: out of memory", path);
    }
    bool locked = strstr(why, "unable to lock") != NULL || strstr(why, "open for write") != NULL;
    const char *advice = strstr(why, "truncated") != NULL ? "; the file is incomplete, copy or download it again"
                         : locked                         ? "; another program may be writing it"
                                                          : "";
    bool closed = strstr(why, "unable to open") != NULL; // the system's word, not HDF5's
    return cpa_fail(locked || closed ? CPA_IO : CPA_BAD_DATA, "%s: cannot be opened: %s%s", path, why, advice);
}

// HDF5 would keep up to 32 MB of a file's structures, among them where all chunks are, though each is asked for but once.
static void bound_cache(hid_t access)
{
    H5AC_cache_config_t config = {.version = H5AC__CURR_CACHE_CONFIG_VERSION};
    if (H5Pget_mdc_config(access, &config) >= 0) {
        config.set_initial_size = true;
        config.initial_size = config.min_size = config.max_size = CACHE_BYTES;
        H5Pset_mdc_config(access, &config);
    }
}

cpa_status cpa_h5_open(const char *path, cpa_h5 **out)
{
    cpa_h5_guard_init();
    CPA_H5_GUARD(path);
    cpa_h5 *f = NULL;
    hid_t access = -1;
    cpa_status st;
    CPA_TRY(look_at(path));
    cpa_h5_init();
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->id = -1;
    CPA_TRY(cpa_strdup(path, &f->path));
    access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, true, true); // some parallel file systems know no locks
    cpa_h5_disk_use(access, f->path, NULL);
    bound_cache(access);
    f->id = H5Fopen(path, H5F_ACC_RDONLY, access);
    CPA_TRY(cpa_h5_settle(f->id < 0 ? open_failed(path) : CPA_OK));
    *out = f;
    f = NULL;
cleanup:
    cpa_h5_drop(access);
    cpa_h5_close(&f);
    return st;
}

void cpa_h5_close(cpa_h5 **f)
{
    if (*f != NULL) {
        CPA_H5_GUARD((*f)->path);
        if ((*f)->writing && (*f)->error == 0) {
            (*f)->error = ECANCELED; // nothing more is written
        }
        cpa_h5_drop((*f)->id);
        cpa_free(&(*f)->path);
        cpa_free(f);
    }
}

const char *cpa_h5_path(const cpa_h5 *f)
{
    return f->path;
}

// Whether every link on the way is there and leads somewhere; HDF5 takes a missing link on the way for an error.
static bool reachable(const cpa_h5 *f, const char *path)
{
    char copy[PATH_BYTES];
    bool there = strlen(path) < sizeof copy;
    if (there) {
        strcpy(copy, path);
    }
    for (char *end = copy; there && end != NULL;) {
        end = strchr(end, '/');
        if (end != NULL) {
            *end = '\0';
        }
        if (copy[0] != '\0' && (end == NULL || end[1] != '\0')) {
            there = H5Lexists(f->id, copy, H5P_DEFAULT) > 0 && H5Oexists_by_name(f->id, copy, H5P_DEFAULT) > 0;
        }
        if (end != NULL) {
            *end++ = '/';
        }
    }
    return there;
}

cpa_h5_kind cpa_h5_kind_of(const cpa_h5 *f, const char *path)
{
    CPA_H5_GUARD(f->path);
    H5O_info_t info;
    if (path[strspn(path, "/")] == '\0') {
        return CPA_H5_GROUP;
    }
    if (!reachable(f, path) || H5Oget_info_by_name2(f->id, path, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
        return CPA_H5_NOTHING;
    }
    return info.type == H5O_TYPE_GROUP ? CPA_H5_GROUP : info.type == H5O_TYPE_DATASET ? CPA_H5_DATASET : CPA_H5_NOTHING;
}

bool cpa_h5_is_listed(const cpa_h5 *f, const char *path)
{
    CPA_H5_GUARD(f->path);
    return path[strspn(path, "/")] != '\0' && H5Lexists(f->id, path, H5P_DEFAULT) > 0;
}

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *list)
{
    (void)group;
    (void)info;
    return cpa_strings_add(list, name) == CPA_OK ? 0 : 1; // 1: no more of them
}

cpa_status cpa_h5_list(const cpa_h5 *f, const char *group, cpa_strings *out)
{
    CPA_H5_GUARD(f->path);
    hsize_t at = 0;
    if (cpa_h5_kind_of(f, group) != CPA_H5_GROUP) {
        return cpa_fail(CPA_BAD_DATA, "%s: there is no group '%s'", f->path, group);
    }
    herr_t ended = H5Literate_by_name(f->id, group[0] != '\0' ? group : "/", H5_INDEX_NAME, H5_ITER_INC, &at, add_name,
                                      out, H5P_DEFAULT);
    if (ended < 0) {
        return cpa_h5_settle(
            cpa_fail(CPA_BAD_DATA, "%s: %s: the members cannot be listed: %s", f->path, group, cpa_h5_why()));
    }
    return ended > 0 ? CPA_INTERNAL : cpa_h5_settle(CPA_OK); // with the message of the addition that failed
}

cpa_h5_class cpa_h5_class_of(hid_t type)
{
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        return CPA_H5_CLASS_INT;
    case H5T_FLOAT:
        return CPA_H5_CLASS_FLOAT;
    case H5T_STRING:
        return CPA_H5_CLASS_STRING;
    case H5T_COMPOUND:
        return CPA_H5_CLASS_COMPOUND;
    case H5T_ENUM: {
        char *name = H5Tget_nmembers(type) == 2 ? H5Tget_member_name(type, 0) : NULL;
        bool truth = name != NULL && (strcmp(name, "FALSE") == 0 || strcmp(name, "TRUE") == 0);
        H5free_memory(name);
        return truth ? CPA_H5_CLASS_BOOL : CPA_H5_CLASS_INT;
    }
    default:
        return CPA_H5_CLASS_OTHER;
    }
}

hid_t cpa_h5_native(cpa_h5_type type)
{
    switch (type) {
    case CPA_H5_F32:
        return H5T_NATIVE_FLOAT;
    case CPA_H5_F64:
        return H5T_NATIVE_DOUBLE;
    case CPA_H5_I8:
        return H5T_NATIVE_INT8;
    case CPA_H5_I16:
        return H5T_NATIVE_INT16;
    case CPA_H5_I32:
        return H5T_NATIVE_INT32;
    case CPA_H5_I64:
        return H5T_NATIVE_INT64;
    case CPA_H5_U8:
    case CPA_H5_BOOL:
        break;
    }
    return H5T_NATIVE_UINT8;
}

// Number of NUL characters that `s` begins with, at most n.
static size_t leading_zeros(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i] == '\0') {
        i++;
    }
    return i;
}

cpa_status cpa_h5_take_strings(const cpa_h5 *f, const char *name, hid_t type, int64_t n, const char *buf,
                               cpa_strings *out)
{
    cpa_status st = CPA_OK;
    size_t size = H5Tget_size(type);
    char *copy = NULL;
    if (H5Tis_variable_str(type) > 0) {
        for (int64_t i = 0; i < n; i++) {
            const char *s;
            memcpy(&s, buf + (size_t)i * size, sizeof s);
            CPA_TRY(cpa_strings_add(out, s != NULL ? s : ""));
        }
        return CPA_OK;
    }
    bool blanks = H5Tget_strpad(type) == H5T_STR_SPACEPAD, padded = H5Tget_strpad(type) == H5T_STR_NULLPAD;
    CPA_TRY(cpa_alloc(size + 1, 1, &copy));
    for (int64_t i = 0; i < n; i++) {
        memcpy(copy, buf + (size_t)i * size, size);
        size_t length = strlen(copy);
        CPA_REQUIRE(!padded || leading_zeros(copy + length, size - length) == size - length, CPA_BAD_DATA,
                    "%s: %s: a text has a NUL character after '%s'", f->path, name, copy);
        while (blanks && length > 0 && copy[length - 1] == ' ') {
            copy[--length] = '\0';
        }
        CPA_TRY(cpa_strings_add(out, copy));
    }
cleanup:
    cpa_free(&copy);
    return st;
}

// ---- Attributes

typedef struct attr {
    hid_t id, type, space;
    int64_t n; // elements
} attr;

static void close_attr(attr *a)
{
    cpa_h5_drop(a->space);
    cpa_h5_drop(a->type);
    cpa_h5_drop(a->id);
}

static cpa_status open_attr(const cpa_h5 *f, const char *object, const char *name, attr *a)
{
    *a = (attr){-1, -1, -1, 0};
    if (!cpa_h5_has_attr(f, object, name)) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s has no attribute '%s'", f->path, object, name);
    }
    a->id = H5Aopen_by_name(f->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (a->id < 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s: attribute '%s' cannot be opened: %s", f->path, object, name,
                        cpa_h5_why());
    }
    a->type = H5Aget_type(a->id);
    a->space = H5Aget_space(a->id);
    a->n = H5Sget_simple_extent_type(a->space) == H5S_NULL ? 0 : H5Sget_simple_extent_npoints(a->space);
    return CPA_OK;
}

bool cpa_h5_has_attr(const cpa_h5 *f, const char *object, const char *name)
{
    CPA_H5_GUARD(f->path);
    return cpa_h5_kind_of(f, object) != CPA_H5_NOTHING && H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) > 0;
}

cpa_status cpa_h5_attr_strings(const cpa_h5 *f, const char *object, const char *name, cpa_strings *out)
{
    CPA_H5_GUARD(f->path);
    attr a;
    char *buf = NULL;
    hid_t memory = -1;
    cpa_status st = open_attr(f, object, name, &a);
    if (st != CPA_OK || a.n == 0) {
        goto cleanup;
    }
    CPA_REQUIRE(H5Tget_class(a.type) == H5T_STRING, CPA_BAD_DATA, "%s: %s: attribute '%s' should be text", f->path,
                object, name);
    memory = H5Tcopy(a.type);
    CPA_TRY(cpa_alloc((size_t)a.n, H5Tget_size(memory), &buf));
    CPA_REQUIRE(H5Aread(a.id, memory, buf) >= 0, CPA_BAD_DATA, "%s: %s: attribute '%s' cannot be read: %s", f->path,
                object, name, cpa_h5_why());
    st = cpa_h5_take_strings(f, name, memory, a.n, buf, out);
    if (H5Tis_variable_str(memory) > 0) {
        H5Dvlen_reclaim(memory, a.space, H5P_DEFAULT, buf);
    }
cleanup:
    cpa_h5_drop(memory);
    cpa_free(&buf);
    close_attr(&a);
    return cpa_h5_settle(st);
}

cpa_status cpa_h5_attr_string(const cpa_h5 *f, const char *object, const char *name, char **out)
{
    cpa_strings list = {0};
    cpa_status st = cpa_h5_attr_strings(f, object, name, &list);
    if (st == CPA_OK && list.n != 1) {
        st = cpa_fail(CPA_BAD_DATA, "%s: %s: attribute '%s' should be one string", f->path, object, name);
    }
    if (st == CPA_OK) {
        *out = list.s[0];
        list.s[0] = NULL;
    }
    cpa_strings_fini(&list);
    return st;
}

cpa_status cpa_h5_attr_numbers(const cpa_h5 *f, const char *object, const char *name, cpa_h5_type type, int max,
                               void *out, int *n)
{
    CPA_H5_GUARD(f->path);
    attr a;
    cpa_status st = open_attr(f, object, name, &a);
    if (st != CPA_OK) {
        goto cleanup;
    }
    cpa_h5_class class = cpa_h5_class_of(a.type);
    CPA_REQUIRE(class == CPA_H5_CLASS_INT || class == CPA_H5_CLASS_BOOL ||
                    (class == CPA_H5_CLASS_FLOAT && type != CPA_H5_I64),
                CPA_BAD_DATA, "%s: %s: attribute '%s' should be %s", f->path, object, name,
                type == CPA_H5_I64 ? "integers" : "numbers");
    CPA_REQUIRE(a.n <= max, CPA_BAD_DATA, "%s: %s: attribute '%s' has %lld elements, at most %d are expected", f->path,
                object, name, (long long)a.n, max);
    CPA_REQUIRE(a.n == 0 || H5Aread(a.id, cpa_h5_native(type), out) >= 0, CPA_BAD_DATA,
                "%s: %s: attribute '%s' cannot be read: %s", f->path, object, name, cpa_h5_why());
    *n = (int)a.n;
cleanup:
    close_attr(&a);
    return cpa_h5_settle(st);
}

cpa_status cpa_h5_attr_target(const cpa_h5 *f, const char *object, const char *name, char **out)
{
    CPA_H5_GUARD(f->path);
    attr a;
    hid_t target = -1;
    hobj_ref_t reference;
    *out = NULL;
    cpa_status st = open_attr(f, object, name, &a);
    if (st != CPA_OK || a.n != 1 || H5Tequal(a.type, H5T_STD_REF_OBJ) <= 0 ||
        H5Aread(a.id, H5T_STD_REF_OBJ, &reference) < 0) {
        goto cleanup;
    }
    target = H5Rdereference2(f->id, H5P_DEFAULT, H5R_OBJECT, &reference);
    ssize_t length = target >= 0 ? H5Iget_name(target, NULL, 0) : 0;
    if (length > 0) {
        CPA_TRY(cpa_alloc((size_t)length + 1, 1, out));
        H5Iget_name(target, *out, (size_t)length + 1);
    }
cleanup:
    cpa_h5_drop(target);
    close_attr(&a);
    return st;
}
