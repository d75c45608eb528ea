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
            CPA_TRY(cpa_part_count(f, layer, at, at + n, count));
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

// Whether every value is the same as a float; NaN is.
typedef struct width {
    bool wide;
    cpa_buckets *buckets; // where the values go, or NULL
} width;

static cpa_status look_at_values(void *ctx, const cpa_h5ad_block *from)
{
    width *w = ctx;
    for (int64_t i = 0; i < from->n; i++) {
        w->wide |= from->value[i] > (double)(float)from->value[i] || from->value[i] < (double)(float)from->value[i];
    }
    return w->buckets != NULL ? cpa_buckets_add(w->buckets, from->n, from->cell, from->gene, from->value) : CPA_OK;
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

static void say(const cpa_rowsort *b, const char *path, const cpa_matrix_info *info, bool wide)
{
    static const char *const layout[] = {
        [CPA_LAYOUT_CSR] = "CSR", [CPA_LAYOUT_CSC] = "CSC", [CPA_LAYOUT_DENSE] = "dense"};
    int64_t n_added, n_zeros;
    cpa_rowsort_met(b, &n_added, &n_zeros);
    cpa_info("%s: from %s %s (%s) to CSR %s; %lld entries added up, %lld zeros dropped", path, layout[info->layout],
             info->dtype, info->filters, wide ? "float64" : "float32", (long long)n_added, (long long)n_zeros);
}

cpa_status cpa_convert_matrix(const cpa_conversion *c, const char *layer, const char *path)
{
    cpa_status st;
    cpa_matrix_info info;
    cpa_rowsort *b = NULL;
    width w = {0};
    cpa_h5ad_sparse *to = NULL;
    CPA_TRY(cpa_part_matrix_info(c->in, layer, &info));
    CPA_REQUIRE(info.n_cells <= UINT32_MAX, CPA_BAD_DATA, "%s: %lld cells are more than can be converted", c->in->path,
                (long long)info.n_cells);
    bool csc = info.layout == CPA_LAYOUT_CSC;
    if (csc) {
        CPA_TRY(cpa_buckets_create(cpa_h5_path(c->out), info.n_cells, info.nnz, BLOCK, &w.buckets));
    }
    if (csc || !always_narrow(info.dtype)) {
        CPA_TRY(cpa_part_scan(c->in, layer, 0, info.n_cells, look_at_values, &w));
    }
    CPA_TRY(cpa_rowsort_create(w.wide, &b));
    CPA_TRY(cpa_h5ad_sparse_open(c->out, path, CPA_LAYOUT_CSR, info.n_cells, info.n_genes,
                                 w.wide ? CPA_H5_F64 : CPA_H5_F32,
                                 cpa_h5ad_sparse_chunk((double)info.nnz / (double)info.n_cells), c->gzip, &to));
    CPA_TRY(csc ? cpa_rowsort_buckets(b, w.buckets, to) : rewrite_rows(c->in, b, layer, &info, to));
    CPA_TRY(cpa_h5ad_sparse_finish(&to));
    say(b, path, &info, w.wide);
cleanup:
    cpa_h5ad_sparse_close(&to);
    cpa_buckets_destroy(&w.buckets);
    cpa_rowsort_destroy(&b);
    return st;
}
