// Owns: the data set of one file or several: which cell is in which file, and which files are open. One file answers by itself
// (h5ad_part.c and what it names), names and values of several are united in h5ad_union.c.
// Must never hold more files open than a few, nor let those above know how many there are.
#include "cpa/data/h5ad.h"

#include <string.h>
#include <sys/stat.h>

#include "cpa/base/log.h"
#include "h5ad_impl.h"

enum { MAX_OPEN = 8 }; // files at a time: HDF5 takes almost a megabyte for each

// ---- Opening

bool cpa_h5ad_is_list(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".txt") == 0;
}

// Closes the file that was not used for the longest time, when there are too many.
static void close_oldest(cpa_h5ad *f)
{
    cpa_part *oldest = NULL;
    for (int k = 0; f->n_open > MAX_OPEN && k < f->n_parts; k++) {
        cpa_part *p = &f->part[k];
        oldest = p->h5 != NULL && (oldest == NULL || p->last_use < oldest->last_use) ? p : oldest;
    }
    if (oldest != NULL) {
        cpa_h5_close(&oldest->h5);
        f->n_open--;
    }
}

static void note_use(cpa_h5ad *f, cpa_part *p, bool opened)
{
    p->last_use = ++f->clock;
    f->n_open += opened;
    close_oldest(f);
}

cpa_status cpa_h5ad_part(cpa_h5ad *f, int k, cpa_part **out)
{
    cpa_status st = CPA_OK;
    cpa_part *p = &f->part[k];
    bool closed = p->h5 == NULL;
    if (closed) {
        CPA_TRY(cpa_h5_open(p->path, &p->h5));
    }
    note_use(f, p, closed);
    *out = p;
cleanup:
    return st;
}

// A file that is listed twice would count its cells twice; links are seen through.
static cpa_status check_distinct(const cpa_h5ad *f, int k)
{
    struct stat info;
    cpa_part *p = &f->part[k];
    if (stat(p->path, &info) != 0) {
        return CPA_OK; // it was there a moment ago; reading it will tell
    }
    p->device = info.st_dev;
    p->inode = info.st_ino;
    for (int i = 0; i < k; i++) {
        if (f->part[i].device == p->device && f->part[i].inode == p->inode) {
            return cpa_fail(CPA_BAD_DATA, "%s: '%s' and '%s' are the same file; name it once", f->path, f->part[i].path,
                            p->path);
        }
    }
    return CPA_OK;
}

// Opens the files one after the other and counts their cells.
static cpa_status open_parts(cpa_h5ad *f, const cpa_strings *path)
{
    cpa_status st;
    CPA_TRY(cpa_alloc((size_t)path->n, sizeof *f->part, &f->part));
    for (; f->n_parts < path->n;) {
        cpa_part *p = &f->part[f->n_parts++];
        st = cpa_part_open(path->s[f->n_parts - 1], p);
        CPA_REQUIRE(st == CPA_OK || !f->is_list, st, "%s: %s", f->path, cpa_message());
        CPA_TRY(st);
        CPA_TRY(check_distinct(f, f->n_parts - 1));
        p->first = f->n_cells;
        f->n_cells += p->n_cells;
        note_use(f, p, true);
    }
    f->n_genes = f->part[0].n_genes;
    if (f->n_parts > 1) {
        CPA_TRY(cpa_sprintf(&f->fault, "%s: one file is needed here, not a list of %d", f->path, f->n_parts));
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_open(const char *path, cpa_h5ad **out)
{
    cpa_status st;
    cpa_h5ad *f = NULL;
    cpa_strings file = {0};
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    CPA_TRY(cpa_strdup(path, &f->path));
    f->is_list = cpa_h5ad_is_list(path);
    CPA_TRY(f->is_list ? cpa_h5ad_read_list(path, &file) : cpa_strings_add(&file, path));
    CPA_TRY(open_parts(f, &file));
    *out = f;
    f = NULL;
cleanup:
    cpa_strings_fini(&file);
    cpa_h5ad_close(&f);
    return st;
}

void cpa_h5ad_close(cpa_h5ad **f)
{
    if (*f != NULL) {
        for (int k = 0; k < (*f)->n_parts; k++) {
            cpa_part_fini(&(*f)->part[k]);
        }
        cpa_free(&(*f)->part);
        cpa_free(&(*f)->path);
        cpa_free(&(*f)->fault);
        cpa_free(f);
    }
}

const char *cpa_h5ad_path(const cpa_h5ad *f)
{
    return f->path;
}

int cpa_h5ad_n_files(const cpa_h5ad *f)
{
    return f->n_parts;
}

const char *cpa_h5ad_file(const cpa_h5ad *f, int k)
{
    return f->part[k].path;
}

const char *cpa_h5ad_cell(const cpa_h5ad *f, int64_t cell, int64_t *row)
{
    int k = f->n_parts - 1;
    while (f->part[k].first > cell) {
        k--;
    }
    *row = cell - f->part[k].first;
    return f->part[k].path;
}

int64_t cpa_h5ad_n_cells(const cpa_h5ad *f)
{
    return f->n_cells;
}

int64_t cpa_h5ad_n_genes(const cpa_h5ad *f)
{
    return f->n_genes;
}

// ---- Genes

// "raw" is raw/X unless a layer has that name.
static cpa_status use_layer(cpa_h5ad *f, const char *layer)
{
    cpa_status st = CPA_OK;
    cpa_part *p;
    bool maybe_raw = layer != NULL && strcmp(layer, "raw") == 0;
    for (int k = 0; k < f->n_parts; k++) {
        if (maybe_raw) {
            CPA_TRY(cpa_h5ad_part(f, k, &p));
        }
        p = &f->part[k];
        CPA_TRY(cpa_part_use(p, maybe_raw && cpa_h5_kind_of(p->h5, "layers/raw") == CPA_H5_NOTHING));
    }
    f->n_genes = f->part[0].n_genes;
cleanup:
    return st;
}

// Keeps in mind why the genes could not be brought together: without that no counts can be read of several files.
static cpa_status settle(cpa_h5ad *f, cpa_status st)
{
    cpa_free(&f->fault);
    if (st == CPA_BAD_DATA && f->n_parts > 1 && cpa_strdup(cpa_message(), &f->fault) != CPA_OK) {
        return CPA_INTERNAL;
    }
    return st;
}

cpa_status cpa_h5ad_select(cpa_h5ad *f, const char *layer, const char *genes)
{
    cpa_status st;
    cpa_part *p;
    struct stat info;
    CPA_TRY(use_layer(f, layer));
    CPA_TRY(cpa_h5ad_part(f, 0, &p));
    bool by_list = genes != NULL && !cpa_part_has_column(p, "var", genes) && stat(genes, &info) == 0;
    CPA_TRY(cpa_part_select(p, genes));
    CPA_TRY(cpa_h5ad_join_genes(f, by_list));
cleanup:
    return settle(f, st);
}

cpa_status cpa_h5ad_select_names(cpa_h5ad *f, const char *layer, const cpa_strings *names, const char *whose)
{
    cpa_status st;
    cpa_part *p;
    CPA_TRY(use_layer(f, layer));
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_select_names(p, names, whose));
        cpa_h5ad_share_genes(f, k);
    }
    f->n_genes = names->n;
cleanup:
    return settle(f, st);
}

// ---- Matrices

static cpa_status check_joined(const cpa_h5ad *f)
{
    return f->fault != NULL ? cpa_fail(CPA_BAD_DATA, "%s", f->fault) : CPA_OK;
}

// Adds what another file's matrix looks like.
static void unite(cpa_matrix_info *a, const cpa_matrix_info *b)
{
    a->layout = a->layout == b->layout ? a->layout : CPA_LAYOUT_MIXED;
    a->n_cells += b->n_cells;
    a->nnz += b->nnz;
    a->chunk = b->chunk > a->chunk ? b->chunk : a->chunk;
    if (strcmp(a->dtype, b->dtype) != 0) {
        strcpy(a->dtype, "mixed");
    }
    if (strcmp(a->filters, b->filters) != 0) {
        strcpy(a->filters, "mixed");
    }
}

cpa_status cpa_h5ad_matrix_info(cpa_h5ad *f, const char *layer, cpa_matrix_info *out)
{
    cpa_part *p;
    cpa_matrix_info info;
    cpa_status st = check_joined(f);
    CPA_TRY(st);
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_matrix_info(p, layer, k == 0 ? out : &info));
        if (k > 0) {
            unite(out, &info);
        }
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_matrix_path(const cpa_h5ad *f, const char *layer, char **out)
{
    return cpa_part_matrix_path(&f->part[0], layer, out);
}

// What of the cells [first, last) is in a file, as the file counts them; false: none.
static bool overlap(const cpa_part *p, int64_t first, int64_t last, int64_t *from, int64_t *to)
{
    *from = first > p->first ? first - p->first : 0;
    *to = last < p->first + p->n_cells ? last - p->first : p->n_cells;
    return *from < *to;
}

cpa_status cpa_h5ad_scan(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, cpa_use_block use, void *ctx)
{
    cpa_part *p;
    int64_t from, to;
    cpa_status st = check_joined(f);
    CPA_TRY(st);
    for (int k = 0; k < f->n_parts; k++) {
        if (overlap(&f->part[k], first, last, &from, &to)) {
            CPA_TRY(cpa_h5ad_part(f, k, &p));
            CPA_TRY(cpa_part_scan(p, layer, from, to, use, ctx));
        }
    }
cleanup:
    return st;
}

typedef cpa_status (*count_part)(cpa_part *p, const char *layer, int64_t first, int64_t last, int64_t *count);

static cpa_status count_cells(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count,
                              count_part of)
{
    cpa_part *p;
    int64_t from, to;
    cpa_status st = check_joined(f);
    CPA_TRY(st);
    for (int k = 0; k < f->n_parts; k++) {
        if (overlap(&f->part[k], first, last, &from, &to)) {
            CPA_TRY(cpa_h5ad_part(f, k, &p));
            CPA_TRY(of(p, layer, from, to, count + p->first + from - first));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_count(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count)
{
    return count_cells(f, layer, first, last, count, cpa_part_count);
}

cpa_status cpa_h5ad_count_stored(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count)
{
    return count_cells(f, layer, first, last, count, cpa_part_count_stored);
}

cpa_status cpa_h5ad_raw_open(cpa_h5ad *f, const char *layer, cpa_matrix_info *info, cpa_h5ad_raw **out,
                             const char **why, const char **which)
{
    cpa_part *p;
    cpa_matrix_info one;
    cpa_h5ad_raw *raw = NULL;
    const char *reason = NULL;
    cpa_status st = check_joined(f);
    *out = NULL;
    *which = NULL;
    CPA_TRY(st);
    CPA_TRY(cpa_alloc(1, sizeof *raw, &raw));
    CPA_TRY(cpa_alloc((size_t)f->n_parts, sizeof *raw->part, &raw->part));
    for (int k = 0; k < f->n_parts; k++) {
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        raw->n_parts = k + 1;
        CPA_TRY(cpa_part_raw_open(p, layer, k == 0 ? info : &one, &raw->part[k], &reason));
        if (k > 0) {
            unite(info, &one);
        }
        if (raw->part[k].data == NULL && *which == NULL) {
            *which = p->path;
            *why = reason;
        }
    }
    if (*which == NULL) {
        *out = raw;
        raw = NULL;
    }
cleanup:
    cpa_h5ad_raw_close(&raw);
    return st;
}

void cpa_h5ad_raw_close(cpa_h5ad_raw **raw)
{
    if (*raw != NULL) {
        for (int k = 0; k < (*raw)->n_parts; k++) {
            cpa_part_raw_fini(&(*raw)->part[k]);
        }
        cpa_free(&(*raw)->part);
        cpa_free(raw);
    }
}

size_t cpa_h5ad_raw_bytes(const cpa_h5ad_raw *raw)
{
    size_t n = 0;
    for (int k = 0; k < raw->n_parts; k++) {
        const cpa_h5ad_raw_part *p = &raw->part[k];
        n += cpa_chunks_bytes(p->data) + (p->indices != NULL ? cpa_chunks_bytes(p->indices) : 0);
    }
    return n;
}

int cpa_h5ad_raw_find(const cpa_h5ad_raw *raw, int64_t cell)
{
    int low = 0, high = raw->n_parts; // part[low].first <= cell < part[high].first
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (raw->part[middle].first <= cell) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
