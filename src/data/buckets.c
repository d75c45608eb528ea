// Owns: the buckets: one growing file of pieces, each a part of one bucket. Must never leave the file behind, nor hold more than
// the pieces in hand.
#include "buckets_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum {
    MEMORY = 32 << 20, // of all buckets together
    MAX_BUCKETS = 1 << 14,
};

typedef struct bucket {
    int64_t held;             // entries in memory
    int64_t n;                // entries altogether
    int64_t n_pieces, *piece; // numbers of its pieces in the file, every one full
} bucket;

struct cpa_buckets {
    char *path;
    int fd;
    int64_t n_cells, width; // cells of a bucket
    int64_t n, room;        // buckets; entries of a piece
    int64_t n_pieces;       // in the file
    bucket *of;
    cpa_entry *held; // [n, room]
    cpa_entry *read; // [room]
};

static cpa_status failed(const cpa_buckets *b, const char *what)
{
    return cpa_fail(CPA_IO, "%s: %s a file for sorting beside it: %s", b->path, what, strerror(errno));
}

static cpa_status open_file(cpa_buckets *b)
{
    cpa_status st;
    char *name = NULL;
    CPA_TRY(cpa_sprintf(&name, "%s.sort", b->path));
    b->fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (b->fd < 0) {
        st = failed(b, "cannot create");
        goto cleanup;
    }
    unlink(name);
cleanup:
    cpa_free(&name);
    return st;
}

cpa_status cpa_buckets_create(const char *path, int64_t n_cells, int64_t n_entries, int64_t size, cpa_buckets **out)
{
    cpa_status st;
    cpa_buckets *b = NULL;
    int64_t n = (n_entries + size - 1) / size;
    CPA_TRY(cpa_alloc(1, sizeof *b, &b));
    b->fd = -1;
    n = n < 1 ? 1 : n < MAX_BUCKETS ? n : MAX_BUCKETS;
    b->n_cells = n_cells;
    b->width = (n_cells + n - 1) / n;
    b->n = (n_cells + b->width - 1) / b->width;
    b->room = MEMORY / (int64_t)sizeof *b->held / b->n;
    CPA_TRY(cpa_strdup(path, &b->path));
    CPA_TRY(open_file(b));
    CPA_TRY(cpa_alloc((size_t)b->n, sizeof *b->of, &b->of));
    CPA_TRY(cpa_alloc((size_t)(b->n * b->room), sizeof *b->held, &b->held));
    CPA_TRY(cpa_alloc((size_t)b->room, sizeof *b->read, &b->read));
    *out = b;
    b = NULL;
cleanup:
    cpa_buckets_destroy(&b);
    return st;
}

void cpa_buckets_destroy(cpa_buckets **out)
{
    cpa_buckets *b = *out;
    if (b == NULL) {
        return;
    }
    for (int64_t k = 0; b->of != NULL && k < b->n; k++) {
        cpa_free(&b->of[k].piece);
    }
    if (b->fd >= 0) {
        close(b->fd);
    }
    cpa_free(&b->of);
    cpa_free(&b->held);
    cpa_free(&b->read);
    cpa_free(&b->path);
    cpa_free(out);
}

// Puts a full bucket's entries into the file.
static cpa_status put_piece(cpa_buckets *b, int64_t k)
{
    cpa_status st = CPA_OK;
    bucket *of = &b->of[k];
    const char *from = (const char *)(b->held + k * b->room);
    size_t left = (size_t)b->room * sizeof *b->held;
    off_t at = (off_t)left * b->n_pieces;
    while (left > 0) {
        ssize_t n = pwrite(b->fd, from, left, at);
        if (n < 0 && errno != EINTR) {
            return failed(b, "cannot write to");
        }
        size_t done = n > 0 ? (size_t)n : 0;
        from += done;
        at += (off_t)done;
        left -= done;
    }
    if ((of->n_pieces & (of->n_pieces - 1)) == 0) { // full at powers of two
        CPA_TRY(cpa_realloc(of->n_pieces > 0 ? 2 * (size_t)of->n_pieces : 1, sizeof *of->piece, &of->piece));
    }
    of->piece[of->n_pieces++] = b->n_pieces++;
    of->held = 0;
cleanup:
    return st;
}

cpa_status cpa_buckets_add(cpa_buckets *b, int64_t n, const int64_t *cell, const int64_t *gene, const double *value)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = cell[i] / b->width;
        bucket *of = &b->of[k];
        b->held[k * b->room + of->held++] = (cpa_entry){(uint32_t)cell[i], (uint32_t)gene[i], value[i]};
        of->n++;
        if (of->held == b->room) {
            CPA_TRY(put_piece(b, k));
        }
    }
cleanup:
    return st;
}

int64_t cpa_buckets_count(const cpa_buckets *b)
{
    return b->n;
}

void cpa_buckets_range(const cpa_buckets *b, int64_t k, int64_t *first, int64_t *last, int64_t *n)
{
    *first = k * b->width;
    *last = (k + 1) * b->width < b->n_cells ? (k + 1) * b->width : b->n_cells;
    *n = b->of[k].n;
}

static cpa_status get_piece(cpa_buckets *b, int64_t piece)
{
    char *to = (char *)b->read;
    size_t left = (size_t)b->room * sizeof *b->read;
    off_t at = (off_t)left * piece;
    while (left > 0) {
        ssize_t n = pread(b->fd, to, left, at);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return failed(b, "cannot read");
        }
        size_t done = n > 0 ? (size_t)n : 0;
        to += done;
        at += (off_t)done;
        left -= done;
    }
    return CPA_OK;
}

cpa_status cpa_buckets_read(cpa_buckets *b, int64_t k, cpa_status (*use)(void *ctx, int64_t n, const cpa_entry *entry),
                            void *ctx)
{
    cpa_status st = CPA_OK;
    const bucket *of = &b->of[k];
    for (int64_t i = 0; i < of->n_pieces; i++) {
        CPA_TRY(get_piece(b, of->piece[i]));
        CPA_TRY(use(ctx, b->room, b->read));
    }
    CPA_TRY(use(ctx, of->held, b->held + k * b->room));
cleanup:
    return st;
}
