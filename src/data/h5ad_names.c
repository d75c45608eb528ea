// Owns: the names of the cells, a stretch at a time, and which of them come more than once. Must never hold all names: there may be
// hundreds of millions of cells.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/hash.h"
#include "cpa/base/log.h"
#include "cpa/platform/comm.h"
#include "h5ad_impl.h"

enum {
    STRETCH = 1 << 14, // names at a time
    SOME_NAMES = 3,    // that a message gives
    BINS = 256,        // by the first byte of a digest
};

// ---- Names, a stretch at a time

static cpa_status scan_array(const cpa_h5_data *d, cpa_use_texts use, void *ctx)
{
    cpa_status st = CPA_OK;
    cpa_strings some = {0};
    int64_t n = cpa_h5_data_info(d)->n;
    for (int64_t at = 0; at < n; at += STRETCH) {
        CPA_TRY(cpa_h5_data_strings(d, at, n - at < STRETCH ? n - at : STRETCH, &some));
        CPA_TRY(use(ctx, &some));
        cpa_strings_fini(&some);
    }
cleanup:
    cpa_strings_fini(&some);
    return st;
}

cpa_status cpa_h5ad_scan_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_use_texts use, void *ctx)
{
    cpa_status st = CPA_OK;
    cpa_h5_data *d = NULL;
    cpa_strings all = {0};
    if (cpa_h5_kind_of(h5, path) == CPA_H5_DATASET) {
        CPA_TRY(cpa_h5_data_open(h5, path, field, &d));
    }
    if (d != NULL && cpa_h5_data_info(d)->class == CPA_H5_CLASS_STRING) {
        CPA_TRY(scan_array(d, use, ctx));
    } else { // numbers, categories and the like
        CPA_TRY(cpa_h5ad_texts(h5, path, field, &all));
        CPA_TRY(use(ctx, &all));
    }
cleanup:
    cpa_h5_data_close(&d);
    cpa_strings_fini(&all);
    return st;
}

cpa_status cpa_part_scan_names(cpa_part *f, cpa_use_texts use, void *ctx)
{
    cpa_status st;
    char *index = NULL, *path = NULL;
    const char *field;
    CPA_TRY(cpa_h5ad_index_name(f->h5, "obs", &index));
    CPA_TRY(cpa_h5ad_locate(f->h5, "obs", index, &path, &field));
    CPA_TRY(cpa_h5ad_scan_texts(f->h5, path, field, use, ctx));
cleanup:
    cpa_free(&index);
    cpa_free(&path);
    return st;
}

static cpa_status scan_names(cpa_h5ad *f, cpa_use_texts use, void *ctx)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_scan_names(p, use, ctx));
    }
cleanup:
    return st;
}

// ---- Names that come more than once

// Digests of all names: equal ones are taken for the same name.
typedef struct census {
    int64_t n, room;
    uint64_t *digest;  // [room] of all names; then, ascending, of those that come more than once
    cpa_strings *some; // where the first of these go
} census;

static uint64_t digest_of(const char *name)
{
    return cpa_hash(CPA_HASH_START, name, strlen(name));
}

static cpa_status take_digests(void *ctx, const cpa_strings *names)
{
    census *c = ctx;
    for (int64_t i = 0; i < names->n && c->n < c->room; i++) {
        c->digest[c->n++] = digest_of(names->s[i]);
    }
    return CPA_OK;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int bin_of(uint64_t digest)
{
    return (int)(digest >> 56);
}

// In place by the first byte; what is left to do takes the C library, which sorts in a copy, little room.
static void sort_digests(uint64_t *digest, int64_t n)
{
    int64_t begin[BINS + 1] = {0}, next[BINS];
    for (int64_t i = 0; i < n; i++) {
        begin[bin_of(digest[i]) + 1]++;
    }
    for (int k = 0; k < BINS; k++) {
        begin[k + 1] += begin[k];
        next[k] = begin[k];
    }
    for (int k = 0; k < BINS; k++) {
        while (next[k] < begin[k + 1]) {
            uint64_t moving = digest[next[k]];
            int to = bin_of(moving);
            digest[next[k]] = digest[next[to]];
            digest[next[to]++] = moving;
        }
    }
    for (int k = 0; k < BINS; k++) {
        cpa_comm_get_on();
        qsort(digest + begin[k], (size_t)(begin[k + 1] - begin[k]), sizeof *digest, by_value);
    }
}

// Leaves the digests that come more than once, each once; the names beyond the first of each.
static int64_t keep_repeated(census *c)
{
    int64_t n_kept = 0, n_beyond = 0;
    for (int64_t i = 0, next; i < c->n; i = next) {
        for (next = i + 1; next < c->n && c->digest[next] == c->digest[i];) {
            next++;
        }
        if (next > i + 1) {
            c->digest[n_kept++] = c->digest[i];
            n_beyond += next - i - 1;
        }
    }
    c->n = n_kept;
    return n_beyond;
}

static cpa_status find_repeated(void *ctx, const cpa_strings *names)
{
    cpa_status st = CPA_OK;
    census *c = ctx;
    for (int64_t i = 0; i < names->n && c->some->n < SOME_NAMES; i++) {
        uint64_t digest = digest_of(names->s[i]);
        if (bsearch(&digest, c->digest, (size_t)c->n, sizeof digest, by_value) != NULL &&
            cpa_strings_find(c->some, names->s[i]) < 0) {
            CPA_TRY(cpa_strings_add(c->some, names->s[i]));
        }
    }
cleanup:
    return st;
}

// What is left in `c` and `some` is said.
static cpa_status warn(const cpa_h5ad *f, const census *c, int64_t n_beyond)
{
    cpa_text names = {0};
    cpa_status st = cpa_text_add_names(&names, c->some, c->n);
    if (st == CPA_OK) {
        cpa_warn(
            "%s: observation names are not unique: %lld of the %lld cells have the name of a cell before them; they "
            "are told apart by their place: %s",
            f->path, (long long)n_beyond, (long long)f->n_cells, cpa_text_str(&names));
    }
    cpa_text_fini(&names);
    return st;
}

cpa_status cpa_h5ad_warn_of_names(cpa_h5ad *f)
{
    cpa_status st;
    cpa_strings some = {0};
    census c = {.room = f->n_cells, .some = &some};
    CPA_TRY(cpa_alloc((size_t)c.room, sizeof *c.digest, &c.digest));
    CPA_TRY(scan_names(f, take_digests, &c));
    sort_digests(c.digest, c.n);
    int64_t n_beyond = keep_repeated(&c);
    if (n_beyond > 0) {
        CPA_TRY(scan_names(f, find_repeated, &c));
        CPA_TRY(warn(f, &c, n_beyond));
    }
cleanup:
    cpa_free(&c.digest);
    cpa_strings_fini(&some);
    return st;
}
