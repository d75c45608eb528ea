// Owns: writing rows of numbers into a file around HDF5, each rank its own. Never makes, renames or removes the file.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "output_impl.h"

cpa_status cpa_row_file_open(cpa_row_file *f, int64_t room)
{
    cpa_status st = CPA_OK;
    f->room = room;
    CPA_TRY(cpa_alloc((size_t)room, sizeof *f->row, &f->row));
    f->fd = open(f->temporary, O_WRONLY | O_CLOEXEC);
    CPA_REQUIRE(f->fd >= 0, CPA_IO, "cannot write '%s': %s", f->temporary, strerror(errno));
cleanup:
    return st;
}

cpa_status cpa_row_file_write(const cpa_row_file *f, int64_t offset, int64_t first, int64_t n, int64_t n_cols,
                              const cpa_real *value)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(n * n_cols <= f->room, CPA_INTERNAL, "%lld values in room for %lld of '%s'", (long long)(n * n_cols),
                (long long)f->room, f->temporary);
    size_t left = (size_t)(n * n_cols) * sizeof *f->row;
    const char *from = (const char *)f->row;
    off_t at = (off_t)(offset + first * n_cols * (int64_t)sizeof *f->row);
    for (int64_t i = 0; i < n * n_cols; i++) {
        f->row[i] = (float)value[i];
    }
    while (left > 0) {
        ssize_t wrote = pwrite(f->fd, from, left, at);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        CPA_REQUIRE(wrote > 0, CPA_IO, "cannot write %zu bytes to '%s': %s", left, f->temporary,
                    wrote < 0 ? strerror(errno) : "no room");
        left -= (size_t)wrote;
        from += wrote;
        at += wrote;
    }
cleanup:
    return st;
}

cpa_status cpa_row_file_close(cpa_row_file *f)
{
    int bad = f->fd >= 0 && fsync(f->fd) != 0 && errno != EINVAL, why = errno;
    bad |= f->fd >= 0 && close(f->fd) != 0;
    f->fd = -1;
    return bad ? cpa_fail(CPA_IO, "cannot write '%s' to disk: %s", f->temporary, strerror(why)) : CPA_OK;
}

void cpa_row_file_fini(cpa_row_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
    cpa_free(&f->row);
    cpa_free(&f->temporary);
}
