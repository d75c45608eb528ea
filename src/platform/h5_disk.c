// Owns: the HDF5 file driver for files being written. HDF5 1.10 crashes at the program's end after a write that failed,
// so a failure is never shown to it: the first one is kept for the caller, and nothing more is written.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <hdf5.h>

#include "h5_impl.h"

enum { PIECE = 1 << 30 }; // bytes of one system call

typedef struct disk {
    H5FD_t base;
    int fd;
    int *error; // errno of the first failure, 0: none; belongs to the caller
    haddr_t eoa, eof;
} disk;

// What a property list carries to disk_open.
typedef struct disk_plan {
    int *error;
} disk_plan;

static H5FD_t *disk_open(const char *name, unsigned flags, hid_t access, haddr_t max)
{
    (void)max;
    const disk_plan *plan = H5Pget_driver_info(access);
    disk *d = NULL;
    if (plan == NULL || (flags & H5F_ACC_TRUNC) == 0 || cpa_alloc(1, sizeof *d, &d) != CPA_OK) {
        return NULL;
    }
    d->error = plan->error;
    d->fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (d->fd < 0) {
        *d->error = errno;
        cpa_free(&d);
        return NULL;
    }
    return &d->base;
}

static disk *disk_of(const H5FD_t *file)
{
    return (disk *)(uintptr_t)file;
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
    if (close(d->fd) != 0) {
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

// Reads zeros where nothing was written yet.
static herr_t disk_read(H5FD_t *file, H5FD_mem_t type, hid_t plan, haddr_t addr, size_t size, void *buffer)
{
    (void)type;
    (void)plan;
    char *to = buffer;
    while (size > 0) {
        ssize_t n = pread(disk_of(file)->fd, to, size < PIECE ? size : PIECE, (off_t)addr);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            note(disk_of(file));
        }
        if (n <= 0) {
            memset(to, 0, size);
            return 0;
        }
        to += n;
        addr += (haddr_t)n;
        size -= (size_t)n;
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

void cpa_h5_disk_use(hid_t access, int *error)
{
    static const H5FD_class_t driver = {
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
    static hid_t id = -1;
    if (id < 0) {
        id = H5FDregister(&driver);
    }
    H5Pset_driver(access, id, &(disk_plan){error});
}
