// Owns: HDF5 files: opening, describing, reading and writing arrays, strings and attributes, each failure with the
// file, the object and HDF5's own reason. Knows nothing of AnnData. HDF5 is not thread-safe: one thread of a process
// calls this at a time.
#ifndef CPA_PLATFORM_H5_H
#define CPA_PLATFORM_H5_H

#include <stdbool.h>
#include <stdint.h>

#include "cpa/base/mem.h"

typedef struct cpa_h5 cpa_h5;           // an open file
typedef struct cpa_h5_data cpa_h5_data; // an open dataset, for reading piece by piece

enum { CPA_H5_MAX_RANK = 4 };

typedef enum cpa_h5_kind { CPA_H5_NOTHING, CPA_H5_GROUP, CPA_H5_DATASET } cpa_h5_kind;

// What the elements of a dataset or attribute are.
typedef enum cpa_h5_class {
    CPA_H5_CLASS_INT,
    CPA_H5_CLASS_FLOAT,
    CPA_H5_CLASS_BOOL, // h5py's enumeration {FALSE, TRUE}
    CPA_H5_CLASS_STRING,
    CPA_H5_CLASS_COMPOUND,
    CPA_H5_CLASS_OTHER
} cpa_h5_class;

// Types of elements in memory. Reading knows F32, F64 and I64; writing all. BOOL is uint8_t in memory, h5py's
// enumeration in the file.
typedef enum cpa_h5_type {
    CPA_H5_F32,
    CPA_H5_F64,
    CPA_H5_I8,
    CPA_H5_I16,
    CPA_H5_I32,
    CPA_H5_I64,
    CPA_H5_U8,
    CPA_H5_BOOL
} cpa_h5_type;

#ifdef CPA_DOUBLE
enum { CPA_H5_REAL = CPA_H5_F64 }; // a cpa_real
#else
enum { CPA_H5_REAL = CPA_H5_F32 };
#endif

// What a dataset looks like on disk. A scalar has rank 0 and one element, a NULL dataspace rank 1 and none.
typedef struct cpa_h5_info {
    cpa_h5_class class;
    int rank;
    int64_t shape[CPA_H5_MAX_RANK];
    int64_t n; // elements
    bool chunked;
    int64_t chunk[CPA_H5_MAX_RANK]; // when chunked
    char dtype[16];                 // "float32", "uint16", "bool", "string", "compound", ...
    char filters[64];               // "gzip", "shuffle+gzip", "none", in the order of writing
} cpa_h5_info;

// ---- Reading files. HDF5 trusts the metadata of a file: where they are damaged it may crash or loop, and then the process ends with
// a message that names the file, and exit code 65.

/** For how many seconds one such call may compute (waiting for the disk does not count) before it is taken for a loop; for ever unless
 *  this was called. */
void cpa_h5_patience(double seconds);

/** Why some read of this process failed, NULL: none did. A look-up says then that a thing is not there, which need not be so. */
const char *cpa_h5_failure(void);

/** Opens a file for reading, with the plain POSIX driver. NO_INPUT: no such path. BAD_DATA: a directory, empty, not
 *  HDF5, truncated, a Git LFS pointer. IO: not permitted, locked. */
cpa_status cpa_h5_open(const char *path, cpa_h5 **out);

/** Closes a file opened for reading, or gives up one being written without saving it properly; sets *f to NULL;
 *  NULL-safe. */
void cpa_h5_close(cpa_h5 **f);

const char *cpa_h5_path(const cpa_h5 *f);

/** What is at `path` ("a/b/c" from the root; "/" or "" is the root). A link that leads nowhere, or into another file, is NOTHING. */
cpa_h5_kind cpa_h5_kind_of(const cpa_h5 *f, const char *path);

/** Whether an existing group has a member of that name, be it a link that leads nowhere. */
bool cpa_h5_is_listed(const cpa_h5 *f, const char *path);

/** Names of the members of a group, in ascending order of bytes. */
cpa_status cpa_h5_list(const cpa_h5 *f, const char *group, cpa_strings *out);

/** Describes a dataset. */
cpa_status cpa_h5_describe(const cpa_h5 *f, const char *path, cpa_h5_info *out);

/** Names of the fields of a compound dataset, in their order. */
cpa_status cpa_h5_fields(const cpa_h5 *f, const char *path, cpa_strings *out);

// ---- Reading arrays

/** Opens a dataset, or one field of a compound one (`field` NULL: the whole element). BAD_DATA: missing, a filter that
 *  is not available (named, with what to do), more than four dimensions. */
cpa_status cpa_h5_data_open(const cpa_h5 *f, const char *path, const char *field, cpa_h5_data **out);

/** Closes it and sets *d to NULL; NULL-safe. To be called before the file is closed. */
void cpa_h5_data_close(cpa_h5_data **d);

const cpa_h5_info *cpa_h5_data_info(const cpa_h5_data *d);

/** Reads the block first[rank], count[rank] of numbers into `out`, row-major, as F32, F64 or I64. BAD_DATA: not
 *  numbers, floats or 2^63 and more asked for as integers, outside the array, unreadable (corrupt chunk, cut file). */
cpa_status cpa_h5_data_read(const cpa_h5_data *d, cpa_h5_type type, const int64_t *first, const int64_t *count,
                            void *out);

/** Appends the strings [first, first + n) of a dataset of rank 0 or 1, of fixed or variable length, without padding. */
cpa_status cpa_h5_data_strings(const cpa_h5_data *d, int64_t first, int64_t n, cpa_strings *out);

/** Reads a whole dataset of numbers of any type into a fresh array (cpa_free) of F32, F64 or I64 and describes it in
 *  *info (may be NULL). */
cpa_status cpa_h5_read(const cpa_h5 *f, const char *path, cpa_h5_type type, void *out, cpa_h5_info *info);

/** Reads a whole dataset of numbers that must have exactly `n` elements into `out[n]`. */
cpa_status cpa_h5_read_into(const cpa_h5 *f, const char *path, cpa_h5_type type, int64_t n, void *out);

/** Reads all strings of a dataset (a scalar gives one). `out` must be empty. */
cpa_status cpa_h5_read_strings(const cpa_h5 *f, const char *path, cpa_strings *out);

// ---- Reading attributes; `object` is the path of a group or dataset, "/" the root

/** Names of the attributes of an object, in ascending order of bytes. `out` must be empty. */
cpa_status cpa_h5_attrs(const cpa_h5 *f, const char *object, cpa_strings *out);

bool cpa_h5_has_attr(const cpa_h5 *f, const char *object, const char *name);

/** A string attribute into a fresh string (cpa_free). BAD_DATA when missing or not one string. */
cpa_status cpa_h5_attr_string(const cpa_h5 *f, const char *object, const char *name, char **out);

/** An attribute of any number of strings; no elements of whatever type are an empty list. `out` must be empty. */
cpa_status cpa_h5_attr_strings(const cpa_h5 *f, const char *object, const char *name, cpa_strings *out);

/** An attribute of at most `max` numbers as I64 or F64 into out[max]; *n elements. */
cpa_status cpa_h5_attr_numbers(const cpa_h5 *f, const char *object, const char *name, cpa_h5_type type, int max,
                               void *out, int *n);

/** The path of the object that a reference attribute points to, in a fresh string; *out NULL when it is no reference or
 *  leads nowhere. */
cpa_status cpa_h5_attr_target(const cpa_h5 *f, const char *object, const char *name, char **out);

// ---- Writing. Files open in HDF5 1.8 and later; nothing in them depends on the time, so equal content gives equal
// bytes. Groups on the way to a path are made as needed. Every failure (a full disk too) is IO.

/** Creates a file, replacing one that is there. */
cpa_status cpa_h5_create(const char *path, cpa_h5 **out);

/** Flushes, syncs to disk and closes a file being written; *f becomes NULL also on failure. Only CPA_OK means that it
 *  is on disk. */
cpa_status cpa_h5_finish(cpa_h5 **f);

cpa_status cpa_h5_write_group(cpa_h5 *f, const char *path);

/** Writes an array, row-major; rank 0 is a scalar (shape may be NULL). `gzip` 0: plain, 1 to 9: shuffled and
 *  compressed. */
cpa_status cpa_h5_write(cpa_h5 *f, const char *path, cpa_h5_type type, int rank, const int64_t *shape, const void *data,
                        int gzip);

/** Writes a list of UTF-8 strings of variable length, rank 1. */
cpa_status cpa_h5_write_strings(cpa_h5 *f, const char *path, const cpa_strings *list);

/** Writes one UTF-8 string, rank 0. */
cpa_status cpa_h5_write_string(cpa_h5 *f, const char *path, const char *s);

/** Creates a contiguous matrix [n_rows, n_cols] to be filled with cpa_h5_write_rows, or by plain writes at its
 *  offset. */
cpa_status cpa_h5_create_rows(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t n_rows, int64_t n_cols);

/** Where in the file the first byte of such a matrix lies, so that ranks can fill it once the file is finished. IO for
 *  an empty one. */
cpa_status cpa_h5_rows_offset(const cpa_h5 *f, const char *path, int64_t *offset);

/** Writes the rows [first, first + n) of a matrix; `type` is that of `data`, converted as needed. */
cpa_status cpa_h5_write_rows(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t first, int64_t n, const void *data);

// ---- Writing arrays piece by piece, whose length need not be known

typedef struct cpa_h5_append cpa_h5_append; // such an array while it grows

/** Creates an array [n] (width 0) or [n, width] that grows by appending, in chunks of `chunk` rows. `gzip` 0: plain, 1 to
 *  9: shuffled and compressed, by all threads. `type` is that of the file and of what is appended. Holds a few MB. The
 *  file must stay open until it is finished or closed. */
cpa_status cpa_h5_append_open(cpa_h5 *f, const char *path, cpa_h5_type type, int64_t width, int64_t chunk, int gzip,
                              cpa_h5_append **out);

/** Appends `n` rows. */
cpa_status cpa_h5_append_rows(cpa_h5_append *a, int64_t n, const void *rows);

/** Writes what is still held and closes it; *a becomes NULL also on failure. */
cpa_status cpa_h5_append_finish(cpa_h5_append **a);

/** Gives it up and sets *a to NULL; NULL-safe. To be called before the file is closed. */
void cpa_h5_append_close(cpa_h5_append **a);

/** Creates a list of `n` UTF-8 strings of variable length, to be filled with cpa_h5_fill_strings. */
cpa_status cpa_h5_create_strings(cpa_h5 *f, const char *path, int64_t n);

/** Writes the strings [first, first + list->n) of such a list. */
cpa_status cpa_h5_fill_strings(cpa_h5 *f, const char *path, int64_t first, const cpa_strings *list);

// ---- Copying from a file opened for reading

/** Copies a dataset or a group with all that is in it (BAD_DATA: groups that contain each other), under a path that is not there yet. What is compressed is compressed
 *  with gzip; attributes that are references are left out. Holds a few MB. BAD_DATA: unreadable. */
cpa_status cpa_h5_copy(const cpa_h5 *from, const char *path, cpa_h5 *to, const char *to_path);

/** Copies one field of a compound dataset as a dataset of its own, without attributes. */
cpa_status cpa_h5_copy_field(const cpa_h5 *from, const char *path, const char *field, cpa_h5 *to, const char *to_path);

/** Attributes of an existing object; one that is there already is replaced. */
cpa_status cpa_h5_write_attr_string(cpa_h5 *f, const char *object, const char *name, const char *value);
cpa_status cpa_h5_write_attr_strings(cpa_h5 *f, const char *object, const char *name, const cpa_strings *list);

/** n numbers; n < 0: one as a scalar. */
cpa_status cpa_h5_write_attr_numbers(cpa_h5 *f, const char *object, const char *name, cpa_h5_type type, int n,
                                     const void *value);

// ---- Files in memory

/** A file in memory, to be filled by the functions above and finished with cpa_h5_image_finish. `name` is what messages
 *  call it. `checked`: arrays that are written without data carry Fletcher-32 checksums, and can be filled by
 *  cpa_h5_image_place. INTERNAL without memory. */
cpa_status cpa_h5_image_create(const char *name, bool checked, cpa_h5 **out);

/** Where in the file the first byte of a checked array lies; the array was written without data. The elements follow in
 *  row-major order, then room for cpa_h5_image_check. Aligned for doubles. INTERNAL. */
cpa_status cpa_h5_image_place(const cpa_h5 *f, const char *path, size_t *at);

/** Takes the bytes of a file in memory and ends it; *f becomes NULL also on failure. *(void **)bytes gets n bytes and
 *  `extra` zeros behind them, to be freed with cpa_free. INTERNAL. */
cpa_status cpa_h5_image_finish(cpa_h5 **f, size_t extra, void *bytes, size_t *n);

/** The same in two parts, for who wants the memory ready before: the bytes of the file as it is now, and taking them into `room` [n]. */
cpa_status cpa_h5_image_size(const cpa_h5 *f, size_t *n);
cpa_status cpa_h5_image_take(cpa_h5 **f, void *room, size_t n);

/** Sets the checksum of the checked array of `n` bytes at `at`, once it is filled. Does not call HDF5: any thread. */
void cpa_h5_image_check(void *bytes, size_t at, size_t n);

/** Opens bytes as a file for reading; they may go when it is closed. BAD_DATA: not HDF5, incomplete. */
cpa_status cpa_h5_image_open(const char *name, const void *bytes, size_t n, cpa_h5 **out);

#endif
