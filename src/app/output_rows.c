// Owns: writing rows of numbers into a file around HDF5, each rank its own, and going on with a file that was left half-made.
// Never trusts what it finds: a block counts only if its bytes are those that were written for the same inputs.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpa/app/rundir.h"
#include "cpa/base/hash.h"
#include "cpa/base/leavings.h"
#include "cpa/base/log.h"
#include "output_impl.h"

enum { PIECE = 1 << 16 }; // bytes of a skeleton that are compared at once

// The record is a list of numbers of 64 bits: the identity, then for each block its digest, or 0.
static off_t place_in_record(int64_t block)
{
    return (off_t)((1 + block) * (int64_t)sizeof(uint64_t));
}

static size_t block_bytes(const cpa_row_file *f, int64_t block)
{
    return (size_t)cpa_row_file_rows(f, block) * (size_t)f->plan.n_cols * sizeof *f->row;
}

static off_t block_place(const cpa_row_file *f, int matrix, int64_t block)
{
    return (off_t)(f->offset[matrix] + block * f->plan.block * f->plan.n_cols * (int64_t)sizeof *f->row);
}

int cpa_row_file_rows(const cpa_row_file *f, int64_t block)
{
    int64_t left = f->plan.n_rows - block * f->plan.block;
    return (int)(left < f->plan.block ? left : f->plan.block);
}

// ---- Bytes

static cpa_status write_all(int fd, const char *path, const void *from, size_t n, off_t at)
{
    cpa_status st = CPA_OK;
    for (const char *byte = from; n > 0;) {
        ssize_t wrote = pwrite(fd, byte, n, at);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        CPA_REQUIRE(wrote > 0, CPA_IO, "cannot write %zu bytes to '%s': %s", n, path,
                    wrote < 0 ? strerror(errno) : "no room");
        n -= (size_t)wrote;
        byte += wrote;
        at += wrote;
    }
cleanup:
    return st;
}

// Whether there were so many bytes to read.
static bool read_all(int fd, void *to, size_t n, off_t at)
{
    for (char *byte = to; n > 0;) {
        ssize_t got = pread(fd, byte, n, at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        n -= (size_t)got;
        byte += got;
        at += got;
    }
    return true;
}

static cpa_status open_file(const char *path, int flags, int *fd)
{
    *fd = open(path, flags | O_CLOEXEC, 0666);
    return *fd >= 0 ? CPA_OK : cpa_fail(CPA_IO, "cannot write '%s': %s", path, strerror(errno));
}

// Syncs and closes it.
static cpa_status close_file(const char *path, int *fd)
{
    int bad = *fd >= 0 && fsync(*fd) != 0 && errno != EINVAL, why = errno;
    bad |= *fd >= 0 && close(*fd) != 0;
    *fd = -1;
    return bad ? cpa_fail(CPA_IO, "cannot write '%s' to disk: %s", path, strerror(why)) : CPA_OK;
}

// ---- What is there already

// The end of the stretch from `at` on that lies in a matrix, or else in none.
static int64_t stretch(const cpa_row_file *f, int64_t at, int64_t size, bool *in_matrix)
{
    int64_t end = size, bytes = f->plan.n_rows * f->plan.n_cols * (int64_t)sizeof *f->row;
    *in_matrix = false;
    for (int m = 0; m < f->plan.n_matrices && bytes > 0; m++) {
        int64_t first = f->offset[m], last = first + bytes;
        if (at >= first && at < last) {
            *in_matrix = true;
            return last;
        }
        end = first > at && first < end ? first : end;
    }
    return end;
}

// Whether two files differ at most in what their matrices hold.
static bool same_skeleton(const cpa_row_file *f, int old, int fresh)
{
    char a[PIECE], b[PIECE];
    struct stat of_old, of_fresh;
    bool same = fstat(old, &of_old) == 0 && fstat(fresh, &of_fresh) == 0 && of_old.st_size == of_fresh.st_size,
         skip = false;
    for (int64_t at = 0, end, size = of_fresh.st_size; same && at < size; at = end) {
        end = stretch(f, at, size, &skip);
        if (!skip) {
            end = end - at > PIECE ? at + PIECE : end;
            size_t n = (size_t)(end - at);
            same = read_all(old, a, n, (off_t)at) && read_all(fresh, b, n, (off_t)at) && memcmp(a, b, n) == 0;
        }
    }
    return same;
}

static bool same_record(const cpa_row_file *f, int record)
{
    uint64_t found;
    struct stat info;
    return fstat(record, &info) == 0 && info.st_size == place_in_record(f->n_blocks) &&
           read_all(record, &found, sizeof found, 0) && found == f->identity;
}

// Whether a killed command has left this very file.
static bool is_left(const cpa_row_file *f)
{
    int old = open(f->temporary, O_RDONLY | O_CLOEXEC), fresh = open(f->fresh, O_RDONLY | O_CLOEXEC);
    int record = open(f->record, O_RDONLY | O_CLOEXEC), fd[] = {old, fresh, record};
    bool left = old >= 0 && fresh >= 0 && record >= 0 && same_record(f, record) && same_skeleton(f, old, fresh);
    if (old >= 0 && !left) {
        cpa_info("'%s' is damaged, or of other data, another model or other options, and is begun anew", f->temporary);
    }
    for (int i = 0; i < 3; i++) {
        if (fd[i] >= 0) {
            close(fd[i]);
        }
    }
    return left;
}

// The digest of a block that is in the file: another one if it cannot be read.
static bool is_whole(const cpa_row_file *f, int64_t block)
{
    uint64_t found = 0, digest = cpa_hash(f->identity, &block, sizeof block);
    size_t n = block_bytes(f, block);
    bool good = read_all(f->record_fd, &found, sizeof found, place_in_record(block)) && found != 0;
    for (int m = 0; good && m < f->plan.n_matrices; m++) {
        good = read_all(f->fd, f->row, n, block_place(f, m, block));
        digest = cpa_hash_long(digest, f->row, n);
    }
    return good && found == digest;
}

// Looks at all blocks, each rank at its share. Collective.
static cpa_status find_blocks(cpa_row_file *f)
{
    cpa_status st;
    int64_t ranks = cpa_comm_size(f->plan.comm), rank = cpa_comm_rank(f->plan.comm), n_rows = 0;
    for (int64_t b = f->n_blocks * rank / ranks; b < f->n_blocks * (rank + 1) / ranks; b++) {
        f->there[b] = is_whole(f, b);
    }
    for (int64_t b = 0; b < f->n_blocks; b += INT32_MAX) {
        int64_t left = f->n_blocks - b;
        CPA_TRY(cpa_comm_sum_i64(f->plan.comm, f->there + b, left < INT32_MAX ? (int)left : INT32_MAX));
    }
    for (int64_t b = 0; b < f->n_blocks; b++) {
        n_rows += f->there[b] ? cpa_row_file_rows(f, b) : 0;
    }
    cpa_info("going on with '%s', which a command that was ended has left: %lld of %lld rows are there", f->temporary,
             (long long)n_rows, (long long)f->plan.n_rows);
cleanup:
    return st;
}

// ---- Opening

static uint64_t identity_of(const cpa_row_file *f)
{
    const cpa_row_plan *p = &f->plan;
    const int64_t shape[] = {p->n_rows, p->n_cols, p->block, p->n_matrices};
    uint64_t hash = cpa_hash(CPA_HASH_START, &p->inputs, sizeof p->inputs);
    hash = cpa_hash(hash, shape, sizeof shape);
    return cpa_hash(hash, f->offset, sizeof f->offset);
}

// Puts a new skeleton in place, with an empty record.
static cpa_status begin_anew(cpa_row_file *f)
{
    cpa_status st = CPA_OK;
    int fd = -1;
    CPA_REQUIRE(cpa_leavings_are_ours(f->fresh), CPA_IO, "another command writes '%s', too", f->plan.out);
    unlink(f->record);
    CPA_REQUIRE(rename(f->fresh, f->temporary) == 0, CPA_IO, "cannot rename '%s' to '%s': %s", f->fresh, f->temporary,
                strerror(errno));
    f->begun = true;
    cpa_leavings_moved(f->fresh, f->temporary);
    CPA_TRY(open_file(f->record, O_WRONLY | O_CREAT | O_TRUNC, &fd));
    CPA_REQUIRE(ftruncate(fd, place_in_record(f->n_blocks)) == 0, CPA_IO, "cannot write '%s': %s", f->record,
                strerror(errno));
    CPA_TRY(write_all(fd, f->record, &f->identity, sizeof f->identity, 0));
cleanup:
    if (fd >= 0) {
        close(fd);
    }
    return st;
}

// Rank 0's work. The skeleton is always made: only so is it known what should be there.
static cpa_status prepare(cpa_row_file *f, bool *left)
{
    cpa_status st;
    CPA_TRY(f->plan.write_skeleton(f->plan.ctx, f->fresh, f->offset));
    f->identity = identity_of(f);
    *left = is_left(f);
    if (*left) {
        f->begun = true;
        cpa_output_discard(f->fresh);
    } else {
        CPA_TRY(begin_anew(f));
    }
cleanup:
    return st;
}

static cpa_status name_files(cpa_row_file *f)
{
    cpa_status st;
    CPA_TRY(cpa_output_begin(f->plan.out, &f->temporary));
    CPA_TRY(cpa_sprintf(&f->fresh, "%s.new", f->temporary));
    cpa_leavings_expect(f->fresh);
    CPA_TRY(cpa_sprintf(&f->record, "%s.rows", f->temporary));
cleanup:
    return st;
}

static cpa_status open_files(cpa_row_file *f, bool left)
{
    cpa_status st;
    size_t row = (size_t)f->plan.n_cols, blocks = (size_t)f->n_blocks;
    f->identity = identity_of(f);
    CPA_TRY(cpa_alloc((size_t)f->plan.block * row, sizeof *f->row, &f->row));
    CPA_TRY(cpa_alloc(blocks, sizeof *f->there, &f->there));
    CPA_TRY(cpa_alloc(blocks, sizeof *f->mine, &f->mine));
    CPA_TRY(open_file(f->temporary, O_RDWR, &f->fd));
    if (left) {
        cpa_leavings_made(f->temporary, f->fd);
    }
    CPA_TRY(open_file(f->record, O_RDWR, &f->record_fd));
cleanup:
    return st;
}

// This rank's share of the blocks that are not there.
static void share(cpa_row_file *f)
{
    int64_t ranks = cpa_comm_size(f->plan.comm), rank = cpa_comm_rank(f->plan.comm), n = 0;
    for (int64_t b = 0; b < f->n_blocks; b++) {
        if (!f->there[b]) {
            f->mine[n++] = b;
        }
    }
    int64_t begin = n * rank / ranks, end = n * (rank + 1) / ranks;
    f->n_mine = end - begin;
    memmove(f->mine, f->mine + begin, (size_t)f->n_mine * sizeof *f->mine);
}

cpa_status cpa_row_file_open(const cpa_row_plan *plan, cpa_row_file *f)
{
    cpa_status st;
    bool left = false;
    *f = (cpa_row_file){.plan = *plan, .fd = -1, .record_fd = -1};
    f->n_blocks = (plan->n_rows + plan->block - 1) / plan->block;
    CPA_TRY(cpa_comm_agree(plan->comm, name_files(f)));
    CPA_TRY(cpa_comm_agree(plan->comm, cpa_comm_rank(plan->comm) == 0 ? prepare(f, &left) : CPA_OK));
    CPA_TRY(cpa_comm_bcast(plan->comm, &left, sizeof left, 0));
    CPA_TRY(cpa_comm_bcast(plan->comm, f->offset, sizeof f->offset, 0));
    CPA_TRY(cpa_comm_agree(plan->comm, open_files(f, left)));
    if (left) {
        CPA_TRY(find_blocks(f));
    }
    share(f);
cleanup:
    return st;
}

// ---- Writing

cpa_status cpa_row_file_write(cpa_row_file *f, int matrix, int64_t block, const cpa_real *value)
{
    cpa_status st = CPA_OK;
    int64_t n = cpa_row_file_rows(f, block) * f->plan.n_cols;
    size_t bytes = block_bytes(f, block);
    for (int64_t i = 0; i < n; i++) {
        f->row[i] = (float)value[i];
    }
    CPA_TRY(write_all(f->fd, f->temporary, f->row, bytes, block_place(f, matrix, block)));
    f->digest = matrix == 0 ? cpa_hash(f->identity, &block, sizeof block) : f->digest;
    f->digest = cpa_hash_long(f->digest, f->row, bytes);
    if (matrix == f->plan.n_matrices - 1) {
        CPA_TRY(write_all(f->record_fd, f->record, &f->digest, sizeof f->digest, place_in_record(block)));
    }
cleanup:
    return st;
}

cpa_status cpa_row_file_commit(cpa_row_file *f)
{
    cpa_status st;
    bool writer = cpa_comm_rank(f->plan.comm) == 0;
    CPA_TRY(cpa_comm_agree(f->plan.comm, close_file(f->temporary, &f->fd)));
    CPA_TRY(cpa_comm_agree(f->plan.comm, writer ? cpa_output_commit(f->temporary, f->plan.out) : CPA_OK));
    f->committed = true;
    if (writer) {
        unlink(f->record);
    }
cleanup:
    return st;
}

void cpa_row_file_fini(cpa_row_file *f)
{
    int *fd[] = {&f->fd, &f->record_fd};
    for (int i = 0; f->temporary != NULL && i < 2; i++) {
        if (*fd[i] >= 0) {
            close(*fd[i]);
            *fd[i] = -1;
        }
    }
    if (f->begun && !f->committed && cpa_leavings_are_ours(f->temporary)) {
        unlink(f->record);
        cpa_output_discard(f->temporary);
    }
    if (f->fresh != NULL && !f->begun && cpa_comm_rank(f->plan.comm) == 0) {
        cpa_output_discard(f->fresh);
    }
    cpa_free(&f->row);
    cpa_free(&f->there);
    cpa_free(&f->mine);
    cpa_free(&f->temporary);
    cpa_free(&f->fresh);
    cpa_free(&f->record);
}
