// Owns: what the HDF5 wrappers h5*.c share. To be included after <hdf5.h>.
// Must never be included by anything else.
#ifndef CPA_PLATFORM_H5_IMPL_H
#define CPA_PLATFORM_H5_IMPL_H

#include "cpa/platform/h5.h"

struct cpa_h5 {
    hid_t id;
    char *path;
    bool writing;
    bool checked; // arrays to be filled later have a Fletcher-32 checksum
    int error;    // errno of the first failure to write
};

struct cpa_h5_data {
    const cpa_h5 *file;
    char *path;
    char *field;            // of a compound, or NULL
    hid_t set, space, type; // type: of the field, if any
    cpa_h5_info info;
};

// Where a chunk lies in the file.
typedef struct cpa_h5_place {
    uint64_t at;
    uint32_t bytes; // 0: it was never written
    uint32_t mask;  // filters left out
} cpa_h5_place;

/** Prepares the library once: silences its own error printing, registers the LZF filter. */
void cpa_h5_init(void);

/** Prepares the guard below once, for this thread, which is to be the only one that calls HDF5. */
void cpa_h5_guard_init(void);

/** Until cpa_h5_leave, which takes what this returned, a crash or an endless computation is HDF5's, over the file `path` (borrowed until
 *  then), and ends the process with exit code 65. Calls may nest; the outermost counts. */
bool cpa_h5_enter(const char *path);
void cpa_h5_leave(const bool *entered);

// The rest of this block reads the file `path` through HDF5.
#define CPA_H5_GUARD(path) __attribute__((cleanup(cpa_h5_leave), unused)) const bool guarded = cpa_h5_enter(path)

/** HDF5's innermost reason for the call that failed last, one line. Static; ask before the next HDF5 call. */
const char *cpa_h5_why(void);

/** Closes any HDF5 identifier; nothing for a negative one. */
void cpa_h5_drop(hid_t id);

/** Makes the file `path` (borrowed while it is open) go through our own driver, opened with this property list. It keeps the first failure to write in *error; NULL: the
 *  file is read, and the first failure is that of cpa_h5_settle. */
void cpa_h5_disk_use(hid_t access, const char *path, int *error);

/** `st`; but IO with the reason when some read has failed, which HDF5 never learns: what it then said is not so. */
cpa_status cpa_h5_settle(cpa_status st);

/** From now on the driver notes in *place where raw data would be read, and reads none; NULL ends that. */
void cpa_h5_disk_listen(cpa_h5_place *place);

/** Registers the filters Zstandard and Blosc, for reading. */
void cpa_h5_filters_register(void);

/** The class of a datatype. */
cpa_h5_class cpa_h5_class_of(hid_t type);

/** Memory type of F32, F64, ... */
hid_t cpa_h5_native(cpa_h5_type type);

/** What became of a step of writing: the driver knows of a full disk, HDF5 of the rest. IO naming `what`. */
cpa_status cpa_h5_outcome(const cpa_h5 *f, bool good, const char *what);

/** Makes the groups on the way to a path that are not there yet; HDF5 itself would stamp those with the time. */
cpa_status cpa_h5_create_parents(cpa_h5 *f, const char *path);

/** Properties of links with UTF-8 names. To be dropped. */
hid_t cpa_h5_link_plan(void);

/** The type of elements in the file, which is also right for those in memory. To be dropped. */
hid_t cpa_h5_file_type(cpa_h5_type type);

/** UTF-8 text of variable length. To be dropped. */
hid_t cpa_h5_text_type(void);

/** Appends `n` strings that lie in `buf` as elements of the string type `type`. BAD_DATA, of the file and the object `name`, when one
 *  goes on behind a NUL. */
cpa_status cpa_h5_take_strings(const cpa_h5 *f, const char *name, hid_t type, int64_t n, const char *buf,
                               cpa_strings *out);

#endif
