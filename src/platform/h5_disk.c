// Owns: the HDF5 file driver. HDF5 1.10 crashes at the program's end after a write that failed, and takes what it cannot read for
// what is not there, or crashes too, so a failure is never shown to it: the first one is kept for those who call HDF5.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hdf5.h>

#include "cpa/base/leavings.h"
#include "cpa/platform/comm.h"

#include "h5_impl.h"

enum { PIECE = 1 << 30 }; // bytes of one system call

typedef struct disk {
    H5FD_t base;
    int fd;
    int *error;       // errno of the first failure to write, 0: none; belongs to the caller; NULL: the file is read
    const char *path; // of a file that is read; belongs to the caller
    haddr_t eoa, eof;
} disk;

// Where the next read of raw data is noted instead of being made, or NULL.
static cpa_h5_place *listener;

// The first failure to read any file.
static char failure[1024];

// What a property list carries to disk_open.
typedef struct disk_plan {
    int *error;
    const char *path;
} disk_plan;

static disk *disk_of(const H5FD_t *file)
{
    return (disk *)(uintptr_t)file;
}

// A failure to read, where `why` is 0 the file has become shorter meanwhile.
static void note_unread(const disk *d, int why)
{
    if (failure[0] == '\0') {
        snprintf(failure, sizeof failure, "%.900s: cannot be read: %s", d->path,
                 why != 0 ? strerror(why) : "the file is shorter than it was when it was opened");
    }
}

const char *cpa_h5_failure(void)
{
    return failure[0] != '\0' ? failure : NULL;
}

cpa_status cpa_h5_settle(cpa_status st)
{
    return failure[0] != '\0' ? cpa_fail(CPA_IO, "%s", failure) : st;
}

// A file to which a link leads would be opened under this plan too, and is another one.
static H5FD_t *open_to_read(disk *d, const char *name, const char *path)
{
    struct stat info;
    if (strcmp(name, path) != 0) {
        H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_CANTOPENFILE,
                 "links to other files are not followed");
        cpa_free(&d);
        return NULL;
    }
    d->path = path;
    d->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0 || fstat(d->fd, &info) != 0) {
        H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_CANTOPENFILE,
                 "unable to open file: error message = '%s'", strerror(errno));
        if (d->fd >= 0) {
            close(d->fd);
        }
        cpa_free(&d);
        return NULL;
    }
    d->eof = (haddr_t)info.st_size;
    return &d->base;
}

static H5FD_t *disk_open(const char *name, unsigned flags, hid_t access, haddr_t max)
{
    (void)max;
    const disk_plan *plan = H5Pget_driver_info(access);
    disk *d = NULL;
    if (plan == NULL || (plan->error != NULL && (flags & H5F_ACC_TRUNC) == 0)) {
        return NULL;
    }
    if (cpa_alloc(1, sizeof *d, &d) != CPA_OK) {
        H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_CANTALLOC, "out of memory");
        return NULL;
    }
    if (plan->error == NULL) {
        return open_to_read(d, name, plan->path);
    }
    d->error = plan->error;
    struct stat info;
    bool is_file = lstat(name, &info) != 0 || S_ISREG(info.st_mode);
    if (is_file) {
        unlink(name); // what was left there; and never a file that another process writes
    }
    d->fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | (is_file ? O_EXCL : O_TRUNC), 0666);
    if (d->fd < 0) {
        *d->error = errno;
        cpa_free(&d);
        return NULL;
    }
    cpa_leavings_made(name, d->fd);
    return &d->base;
}

static void note(disk *d)
{
    if (*d->error == 0) {
        *d->error = errno;
    }
}

static herr_t disk_close(H5FD_t *file)
{
    disk *d = disk_of(file);
    if (close(d->fd) != 0 && d->error != NULL) {
        note(d);
    }
    cpa_free(&d);
    return 0;
}

static herr_t disk_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_POSIX_COMPAT_HANDLE | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t disk_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return disk_of(file)->eoa;
}

static herr_t disk_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t addr)
{
    (void)type;
    disk_of(file)->eoa = addr;
    return 0;
}

static haddr_t disk_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return disk_of(file)->eof;
}

static herr_t disk_get_handle(H5FD_t *file, hid_t access, void **handle)
{
    (void)access;
    *handle = &disk_of(file)->fd;
    return 0;
}

// Reads zeros where nothing was written yet, or nothing can be read.
void cpa_h5_disk_listen(cpa_h5_place *place)
{
    listener = place;
}

static herr_t disk_read(H5FD_t *file, H5FD_mem_t type, hid_t plan, haddr_t addr, size_t size, void *buffer)
{
    (void)plan;
    char *to = buffer;
    disk *d = disk_of(file);
    if (listener != NULL && type == H5FD_MEM_DRAW) {
        listener->at = addr;
        listener->bytes = (uint32_t)size;
        return 0;
    }
    while (size > 0) {
        ssize_t n = pread(d->fd, to, size < PIECE ? size : PIECE, (off_t)addr);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        // Beyond the end that a file had from the start there is nothing to miss: HDF5 looks for its signature there, too.
        if (d->error == NULL && (n < 0 || (n == 0 && addr < d->eof))) {
            note_unread(d, n < 0 ? errno : 0);
        } else if (n < 0) {
            note(d);
        }
        if (n <= 0) {
            memset(to, 0, size);
            // In a heap of zeros HDF5 would look for its object for ever. It calls heaps data, and there a failure does no harm.
            return d->error == NULL && type == H5FD_MEM_DRAW ? -1 : 0;
        }
        to += n;
        addr += (haddr_t)n;
        size -= (size_t)n;
        cpa_comm_get_on();
    }
    return 0;
}

static herr_t disk_write(H5FD_t *file, H5FD_mem_t type, hid_t plan, haddr_t addr, size_t size, const void *buffer)
{
    (void)type;
    (void)plan;
    disk *d = disk_of(file);
    const char *from = buffer;
    d->eof = addr + size > d->eof ? addr + size : d->eof;
    while (size > 0 && *d->error == 0) {
        ssize_t n = pwrite(d->fd, from, size < PIECE ? size : PIECE, (off_t)addr);
        if (n < 0 && errno != EINTR) {
            note(d);
        } else if (n > 0) {
            from += n;
            addr += (haddr_t)n;
            size -= (size_t)n;
            cpa_comm_get_on();
        }
    }
    return 0;
}

static herr_t disk_truncate(H5FD_t *file, hid_t plan, hbool_t closing)
{
    (void)plan;
    (void)closing;
    disk *d = disk_of(file);
    if (d->eoa != d->eof && *d->error == 0 && ftruncate(d->fd, (off_t)d->eoa) != 0) {
        note(d);
    }
    d->eof = d->eoa;
    return 0;
}

// As HDF5's own driver, of files that are read; where a file system knows no locks, there are none.
static herr_t disk_lock(H5FD_t *file, hbool_t to_write)
{
    (void)to_write;
    if (flock(disk_of(file)->fd, LOCK_SH | LOCK_NB) == 0 || errno == ENOSYS) {
        return 0;
    }
    H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_BADFILE,
             "unable to lock file: error message = '%s'", strerror(errno));
    return -1;
}

static herr_t disk_unlock(H5FD_t *file)
{
    return flock(disk_of(file)->fd, LOCK_UN) == 0 || errno == ENOSYS ? 0 : -1;
}

void cpa_h5_disk_use(hid_t access, const char *path, int *error)
{
    static const H5FD_class_t driver = {
#ifdef H5FD_CLASS_VERSION // since HDF5 1.14
        .version = H5FD_CLASS_VERSION,
        .value = H5_VFD_RESERVED, // the first of those that any program may take
#endif
        .name = "cpa_disk",
        .maxaddr = INT64_MAX,
        .fc_degree = H5F_CLOSE_STRONG,
        .fapl_size = sizeof(disk_plan),
        .open = disk_open,
        .close = disk_close,
        .query = disk_query,
        .get_eoa = disk_get_eoa,
        .set_eoa = disk_set_eoa,
        .get_eof = disk_get_eof,
        .get_handle = disk_get_handle,
        .read = disk_read,
        .write = disk_write,
        .truncate = disk_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    static hid_t ids[2] = {-1, -1}; // to write, to read
    hid_t *id = &ids[error == NULL];
    if (*id < 0) {
        H5FD_class_t class = driver;
        class.lock = error == NULL ? disk_lock : NULL; // with it, HDF5 would write before there is anything to write
        class.unlock = error == NULL ? disk_unlock : NULL;
        *id = H5FDregister(&class);
    }
    H5Pset_driver(access, *id, &(disk_plan){error, path});
}
