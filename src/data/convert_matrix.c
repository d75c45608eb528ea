// Owns: rewriting one matrix: from CSR and dense storage block by block as it comes, from CSC by way of buckets on disk.
// Must never hold more than a block of entries.
#include <string.h>

#include "convert_impl.h"
#include "cpa/base/log.h"
#include "rowsort_impl.h"

enum {
    BLOCK = CPA_ROWSORT_ENTRIES,
    ROWS = CPA_ROWSORT_CELLS,
};

static cpa_status take_values(void *ctx, const cpa_h5ad_block *from)
{
    return cpa_rowsort_take(ctx, from->n, from->cell, from->gene, from->value);
}

// Reads the cells of CSR and dense storage in runs that hold at most BLOCK entries or one cell.
static cpa_status rewrite_rows(cpa_part *f, cpa_rowsort *b, const char *layer, const cpa_matrix_info *info,
                               cpa_h5ad_sparse *to)
{
    cpa_status st = CPA_OK;
    int64_t *count = NULL, dense_rows = BLOCK / info->n_genes > 0 ? BLOCK / info->n_genes : 1;
    int64_t most = info->layout == CPA_LAYOUT_DENSE && dense_rows < ROWS ? dense_rows : ROWS;
    CPA_TRY(cpa_alloc(ROWS, sizeof *count, &count));
    for (int64_t at = 0; at < info->n_cells; at += most) {
        int64_t n = info->n_cells - at < most ? info->n_cells - at : most;
        for (int64_t k = 0; k < n; k++) {
            count[k] = info->n_genes;
        }
        if (info->layout == CPA_LAYOUT_CSR) {
            CPA_TRY(cpa_part_count_stored(f, layer, at, at + n, count));
        }
        for (int64_t k = 0, next; k < n; k = next) {
            int64_t sum = count[k];
            for (next = k + 1; next < n && sum + count[next] <= BLOCK; next++) {
                sum += count[next];
            }
            cpa_rowsort_begin(b, at + k, next - k);
            CPA_TRY(cpa_part_scan(f, layer, at + k, at + next, take_values, b));
            CPA_TRY(cpa_rowsort_write(b, to));
        }
    }
cleanup:
    cpa_free(&count);
    return st;
}

static bool always_narrow(const char *dtype)
{
    static const char *const narrow[] = {"float32", "float16", "int16", "uint16", "int8", "uint8", "bool"};
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        if (strcmp(dtype, narrow[i]) == 0) {
            return true;
        }
    }
    return false;
}

// A matrix of one file or several in the making.
typedef struct rewriting {
    const cpa_conversion *c;
    const char *layer;
    bool wide;            // some value is not the same as a float; NaN is
    cpa_buckets *buckets; // of the CSC matrix in hand, or NULL
    cpa_rowsort *b;
    cpa_h5ad_sparse *to;
} rewriting;

static cpa_status look_at_values(void *ctx, const cpa_h5ad_block *from)
{
    rewriting *w = ctx;
    for (int64_t i = 0; i < from->n; i++) {
        w->wide |= from->value[i] > (double)(float)from->value[i] || from->value[i] < (double)(float)from->value[i];
    }
    return w->buckets != NULL ? cpa_buckets_add(w->buckets, from->n, from->cell, from->gene, from->value) : CPA_OK;
}

// File k, open, as if its cells were the only ones; borrows what it holds.
static cpa_status take_part(const rewriting *w, int k, cpa_part *part, cpa_matrix_info *info)
{
    cpa_status st;
    cpa_part *p;
    CPA_TRY(cpa_h5ad_part(w->c->all, k, &p));
    *part = *p;
    part->first = 0;
    CPA_TRY(cpa_part_matrix_info(part, w->layer, info));
    CPA_REQUIRE(info->n_cells <= UINT32_MAX, CPA_BAD_DATA, "%s: %lld cells are more than can be converted", part->path,
                (long long)info->n_cells);
cleanup:
    return st;
}

static cpa_status fill_buckets(rewriting *w, cpa_part *part, const cpa_matrix_info *info)
{
    cpa_status st;
    CPA_TRY(cpa_buckets_create(cpa_h5_path(w->c->out), info->n_cells, info->nnz, BLOCK, &w->buckets));
    CPA_TRY(cpa_part_scan(part, w->layer, 0, info->n_cells, look_at_values, w));
cleanup:
    return st;
}

// Learns whether the values are wide. A single CSC matrix is read but once: its values stay in the buckets.
static cpa_status look_at_part(rewriting *w, int k)
{
    cpa_status st;
    cpa_part part;
    cpa_matrix_info info;
    CPA_TRY(take_part(w, k, &part, &info));
    if (info.layout == CPA_LAYOUT_CSC && w->c->all->n_parts == 1) {
        CPA_TRY(fill_buckets(w, &part, &info));
    } else if (!always_narrow(info.dtype)) {
        CPA_TRY(cpa_part_scan(&part, w->layer, 0, info.n_cells, look_at_values, w));
    }
cleanup:
    return st;
}

static cpa_status rewrite_part(rewriting *w, int k)
{
    cpa_status st;
    cpa_part part;
    cpa_matrix_info info;
    CPA_TRY(take_part(w, k, &part, &info));
    if (info.layout != CPA_LAYOUT_CSC) {
        CPA_TRY(rewrite_rows(&part, w->b, w->layer, &info, w->to));
        goto cleanup;
    }
    if (w->buckets == NULL) {
        CPA_TRY(fill_buckets(w, &part, &info));
    }
    CPA_TRY(cpa_rowsort_buckets(w->b, w->buckets, w->to));
cleanup:
    cpa_buckets_destroy(&w->buckets);
    return st;
}

static void say(const rewriting *w, const char *path, const cpa_matrix_info *info)
{
    static const char *const layout[] = {
        [CPA_LAYOUT_CSR] = "CSR", [CPA_LAYOUT_CSC] = "CSC", [CPA_LAYOUT_DENSE] = "dense", [CPA_LAYOUT_MIXED] = "mixed"};
    int64_t n_added, n_zeros;
    cpa_rowsort_met(w->b, &n_added, &n_zeros);
    cpa_info("%s: from %s %s (%s) to CSR %s; %lld entries added up, %lld zeros dropped", path, layout[info->layout],
             info->dtype, info->filters, w->wide ? "float64" : "float32", (long long)n_added, (long long)n_zeros);
}

cpa_status cpa_convert_matrix(const cpa_conversion *c, const char *layer, const char *path)
{
    cpa_status st;
    cpa_matrix_info info;
    rewriting w = {.c = c, .layer = layer};
    CPA_TRY(cpa_h5ad_matrix_info(c->all, layer, &info));
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(look_at_part(&w, k));
    }
    CPA_TRY(cpa_rowsort_create(w.wide, &w.b));
    CPA_TRY(cpa_h5ad_sparse_open(c->out, path, CPA_LAYOUT_CSR, info.n_cells, info.n_genes,
                                 w.wide ? CPA_H5_F64 : CPA_H5_F32,
                                 cpa_h5ad_sparse_chunk((double)info.nnz / (double)info.n_cells), c->gzip, &w.to));
    for (int k = 0; k < c->all->n_parts; k++) {
        CPA_TRY(rewrite_part(&w, k));
    }
    CPA_TRY(cpa_h5ad_sparse_finish(&w.to));
    say(&w, path, &info);
cleanup:
    cpa_h5ad_sparse_close(&w.to);
    cpa_buckets_destroy(&w.buckets);
    cpa_rowsort_destroy(&w.b);
    return st;
}
