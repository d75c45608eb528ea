// Owns: loading the cells into the memory of the node, and judging every count on the way.
// Must never hold a second copy of a slice, nor leave a rank alone in a collective: failures are agreed first.
#include "cpa/data/cells.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "cpa/base/log.h"

enum { CELLS, GENES, COUNTS, N_WINDOWS }; // what the shared windows hold

// The matrix in the making: windows that can be written, and this rank's slice of the cells.
typedef struct loading {
    cpa_comm *comm;
    cpa_h5ad *f;
    const char *layer;
    cpa_layout layout;
    cpa_cells *cells;
    int64_t first, last;
    int64_t *indptr;
    double *library;
    uint16_t *gene16, *count16;
    uint32_t *gene32;
    float *count32;
    int64_t *cursor; // [last - first] next free place of each cell; NULL for CSR, where
    int64_t at;      // values arrive in their final order
    bool too_wide;   // a count that 16 bits cannot hold
    int64_t n_empty, n_non_integer, n_duplicate;
    double max_count;
} loading;

static uint32_t gene_at(const loading *l, int64_t p)
{
    return l->gene16 != NULL ? l->gene16[p] : l->gene32[p];
}

static double count_at(const loading *l, int64_t p)
{
    return l->count16 != NULL ? (double)l->count16[p] : (double)l->count32[p];
}

static void put_gene(loading *l, int64_t p, int64_t gene)
{
    if (l->gene16 != NULL) {
        l->gene16[p] = (uint16_t)gene;
    } else {
        l->gene32[p] = (uint32_t)gene;
    }
}

static void put_count(loading *l, int64_t p, double count)
{
    if (l->count16 != NULL) {
        l->count16[p] = (uint16_t)count;
    } else {
        l->count32[p] = (float)count;
    }
}

static cpa_status bad_count(const loading *l, int64_t cell, int64_t gene, double value)
{
    cpa_strings names = {0};
    const char *fault = isnan(value)                 ? "not a number"
                        : isinf(value) || value >= 0 ? "infinite or too large"
                                                     : "negative";
    cpa_status st = cpa_h5ad_index(l->f, "var", &names);
    if (st == CPA_OK) {
        st = cpa_fail(
            CPA_BAD_DATA,
            "%s: %s%s: cell row %lld, gene '%s' (column %lld): the count %g is %s; counts must be finite and >= 0",
            cpa_h5ad_path(l->f), l->layer != NULL ? "layers/" : "", l->layer != NULL ? l->layer : "X", (long long)cell,
            names.s[gene], (long long)gene, value, fault);
    }
    cpa_strings_fini(&names);
    return st;
}

// Ends a scan whose values need the wider counts; the caller looks at l->too_wide, not at the status.
static cpa_status stop_wide(loading *l)
{
    l->too_wide = true;
    return cpa_fail(CPA_INTERNAL, "a count does not fit into 16 bits");
}

static cpa_status check_counts(loading *l, const cpa_h5ad_block *b, const int64_t *cell, const int64_t *gene)
{
    bool wide = false;
    for (int64_t i = 0; i < b->n; i++) {
        double v = b->value[i];
        if (!(v >= 0 && v <= FLT_MAX)) {
            return bad_count(l, cell[i], gene[i], v);
        }
        bool whole = v == trunc(v);
        l->n_non_integer += !whole;
        wide |= !whole || v > UINT16_MAX;
    }
    return wide && l->count16 != NULL ? stop_wide(l) : CPA_OK;
}

static cpa_status take_block(void *ctx, const cpa_h5ad_block *b)
{
    loading *l = ctx;
    bool csc = l->layout == CPA_LAYOUT_CSC;
    const int64_t *cell = csc ? b->minor : b->major, *gene = csc ? b->major : b->minor;
    cpa_status st = check_counts(l, b, cell, gene);
    for (int64_t i = 0; st == CPA_OK && i < b->n; i++) {
        int64_t p = l->cursor != NULL ? l->cursor[cell[i] - l->first]++ : l->at++;
        put_gene(l, p, gene[i]);
        put_count(l, p, b->value[i]);
    }
    return st;
}

// ---- Rows: sorted genes, no duplicates

// Sorts keys by their upper 32 bits (values below 256^n_bytes), stable, a byte at a time.
static void sort_keys(uint64_t *key, uint64_t *spare, int64_t n, int n_bytes)
{
    for (int byte = 0; byte < n_bytes; byte++) {
        int shift = 32 + 8 * byte;
        int64_t start[257] = {0};
        for (int64_t i = 0; i < n; i++) {
            start[((key[i] >> shift) & 255) + 1]++;
        }
        for (int i = 0; i < 256; i++) {
            start[i + 1] += start[i];
        }
        for (int64_t i = 0; i < n; i++) {
            spare[start[(key[i] >> shift) & 255]++] = key[i];
        }
        memcpy(key, spare, (size_t)n * sizeof *key);
    }
}

// Sorts the genes of a row. `key` and `spare` hold the row.
static void sort_row(loading *l, int64_t begin, int64_t n, uint64_t *key, uint64_t *spare)
{
    int n_bytes = l->cells->n_genes <= 1 << 16 ? 2 : 4;
    for (int64_t i = 0; i < n; i++) {
        float count = (float)count_at(l, begin + i); // exact: it is stored as a float or in 16 bits
        uint32_t bits;
        memcpy(&bits, &count, sizeof bits);
        key[i] = (uint64_t)gene_at(l, begin + i) << 32 | bits;
    }
    sort_keys(key, spare, n, n_bytes);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)key[i];
        float count;
        memcpy(&count, &bits, sizeof count);
        put_gene(l, begin + i, (int64_t)(key[i] >> 32));
        put_count(l, begin + i, (double)count);
    }
}

// Adds entries of one gene up into the first of them; genes ascend.
static cpa_status merge_row(loading *l, int64_t cell, int64_t begin, int64_t end)
{
    int64_t head = begin;
    for (int64_t p = begin + 1; p < end; p++) {
        if (gene_at(l, p) != gene_at(l, head)) {
            head = p;
            continue;
        }
        double sum = count_at(l, head) + count_at(l, p);
        if (l->count16 != NULL && sum > UINT16_MAX) {
            return stop_wide(l);
        }
        if (sum > FLT_MAX) {
            return bad_count(l, cell, gene_at(l, head), sum);
        }
        put_count(l, head, sum);
        put_count(l, p, 0);
        l->n_duplicate++;
    }
    return CPA_OK;
}

static cpa_status finish_row(loading *l, int64_t cell, uint64_t *key, uint64_t *spare)
{
    int64_t begin = l->indptr[cell], end = l->indptr[cell + 1];
    bool sorted = true, distinct = true;
    for (int64_t p = begin + 1; p < end; p++) {
        sorted &= gene_at(l, p - 1) <= gene_at(l, p);
        distinct &= gene_at(l, p - 1) != gene_at(l, p);
    }
    if (!sorted) {
        sort_row(l, begin, end - begin, key, spare);
    }
    if (!sorted || !distinct) {
        cpa_status st = merge_row(l, cell, begin, end);
        if (st != CPA_OK) {
            return st;
        }
    }
    double sum = 0;
    for (int64_t p = begin; p < end; p++) {
        double v = count_at(l, p);
        sum += v;
        l->max_count = v > l->max_count ? v : l->max_count;
    }
    l->library[cell] = sum;
    l->n_empty += sum == 0;
    return CPA_OK;
}

static cpa_status finish_rows(loading *l)
{
    cpa_status st;
    uint64_t *key = NULL, *spare = NULL;
    int64_t longest = 0;
    for (int64_t cell = l->first; cell < l->last; cell++) {
        int64_t n = l->indptr[cell + 1] - l->indptr[cell];
        longest = n > longest ? n : longest;
    }
    CPA_TRY(cpa_alloc((size_t)longest, sizeof *key, &key));
    CPA_TRY(cpa_alloc((size_t)longest, sizeof *spare, &spare));
    for (int64_t cell = l->first; cell < l->last; cell++) {
        CPA_TRY(finish_row(l, cell, key, spare));
    }
cleanup:
    cpa_free(&key);
    cpa_free(&spare);
    return st;
}

// Reads this rank's slice into its place.
static cpa_status fill_slice(loading *l)
{
    cpa_status st = CPA_OK;
    l->too_wide = false;
    l->n_empty = l->n_non_integer = l->n_duplicate = 0;
    l->max_count = 0;
    l->at = l->indptr[l->first];
    if (l->layout != CPA_LAYOUT_CSR) {
        CPA_TRY(cpa_alloc((size_t)(l->last - l->first), sizeof *l->cursor, &l->cursor));
        memcpy(l->cursor, l->indptr + l->first, (size_t)(l->last - l->first) * sizeof *l->cursor);
    }
    CPA_TRY(cpa_h5ad_scan(l->f, l->layer, l->first, l->last, take_block, l));
    CPA_TRY(finish_rows(l));
cleanup:
    cpa_free(&l->cursor);
    return st;
}

// ---- All ranks together

// Takes node memory; the failure is agreed. Collective.
static cpa_status take_window(loading *l, int window, size_t bytes)
{
    cpa_status st = cpa_comm_shared_alloc(l->comm, bytes, &l->cells->shared[window]);
    l->cells->bytes += bytes;
    return cpa_comm_agree(l->comm, st);
}

static cpa_status start(loading *l)
{
    cpa_status st;
    cpa_matrix_info info;
    CPA_TRY(cpa_h5ad_matrix_info(l->f, l->layer, &info));
    CPA_TRY(cpa_alloc(1, sizeof *l->cells, &l->cells));
    int rank = cpa_comm_node_rank(l->comm), size = cpa_comm_node_size(l->comm);
    l->layout = info.layout;
    l->cells->comm = l->comm;
    l->cells->n_cells = info.n_cells;
    l->cells->n_genes = (int32_t)info.n_genes;
    l->first = info.n_cells * rank / size;
    l->last = info.n_cells * (rank + 1) / size;
cleanup:
    return st;
}

// Counts, and adds up where each cell begins. Collective.
static cpa_status build_indptr(loading *l)
{
    int64_t n = l->cells->n_cells;
    cpa_status st;
    CPA_TRY(take_window(l, CELLS, (size_t)(2 * n + 1) * sizeof(int64_t)));
    l->indptr = l->cells->shared[CELLS];
    l->library = (double *)(void *)(l->indptr + n + 1);
    CPA_TRY(cpa_comm_agree(l->comm, cpa_h5ad_count(l->f, l->layer, l->first, l->last, l->indptr + l->first + 1)));
    CPA_TRY(cpa_comm_node_barrier(l->comm));
    for (int64_t i = 0; cpa_comm_node_rank(l->comm) == 0 && i < n; i++) {
        l->indptr[i + 1] += l->indptr[i];
    }
    CPA_TRY(cpa_comm_node_barrier(l->comm));
    l->cells->nnz = l->indptr[n];
cleanup:
    return st;
}

// Takes the counts for 16-bit integers; when any rank meets others, once more as float. Collective.
static cpa_status fill(loading *l)
{
    cpa_status st;
    size_t nnz = (size_t)l->cells->nnz;
    bool narrow = l->cells->n_genes <= 1 << 16;
    CPA_TRY(take_window(l, GENES, nnz * (narrow ? sizeof *l->gene16 : sizeof *l->gene32)));
    l->gene16 = narrow ? l->cells->shared[GENES] : NULL;
    l->gene32 = narrow ? NULL : l->cells->shared[GENES];
    for (double wide = 0;;) {
        CPA_TRY(take_window(l, COUNTS, nnz * (wide > 0 ? sizeof *l->count32 : sizeof *l->count16)));
        l->count16 = wide > 0 ? NULL : l->cells->shared[COUNTS];
        l->count32 = wide > 0 ? l->cells->shared[COUNTS] : NULL;
        st = fill_slice(l);
        CPA_TRY(cpa_comm_agree(l->comm, l->too_wide ? CPA_OK : st));
        wide = l->too_wide ? 1 : 0;
        CPA_TRY(cpa_comm_max_f64(l->comm, &wide, 1));
        if (wide <= 0) {
            return cpa_comm_node_barrier(l->comm);
        }
        cpa_comm_shared_free(l->comm, &l->cells->shared[COUNTS]);
        l->cells->bytes -= nnz * sizeof *l->count16;
    }
cleanup:
    return st;
}

// Adds the figures of the slices up: every node has all cells, so the sum over ranks counts each cell once per node.
// Collective.
static cpa_status add_up(loading *l)
{
    cpa_status st;
    int64_t sum[4] = {l->n_empty, l->n_non_integer, l->n_duplicate, cpa_comm_node_rank(l->comm) == 0 ? 1 : 0};
    CPA_TRY(cpa_comm_sum_i64(l->comm, sum, 4));
    CPA_TRY(cpa_comm_max_f64(l->comm, &l->max_count, 1));
    cpa_cells *c = l->cells;
    c->n_empty = sum[0] / sum[3];
    c->n_non_integer = sum[1] / sum[3];
    c->n_duplicate = sum[2] / sum[3];
    c->max_count = l->max_count;
    c->indptr = l->indptr;
    c->library = l->library;
    c->gene16 = l->gene16;
    c->gene32 = l->gene32;
    c->count16 = l->count16;
    c->count32 = l->count32;
cleanup:
    return st;
}

static void warn(const loading *l)
{
    const cpa_cells *c = l->cells;
    const char *path = cpa_h5ad_path(l->f), *name = l->layer != NULL ? l->layer : "X";
    if (c->n_non_integer > 0) {
        cpa_warn("%s: %lld of the %lld values of %s are not integers (largest value %g): corrected counts are fine, "
                 "normalised or log-transformed ones are not",
                 path, (long long)c->n_non_integer, (long long)c->nnz, name, c->max_count);
    }
    if (c->n_duplicate > 0) {
        cpa_warn("%s: %lld entries of %s name a gene twice in a cell; they were added up", path,
                 (long long)c->n_duplicate, name);
    }
    if (c->n_empty > 0) {
        cpa_warn("%s: %lld of the %lld cells of %s have no counts; they are kept", path, (long long)c->n_empty,
                 (long long)c->n_cells, name);
    }
    if (c->max_count > 0x1p24) {
        cpa_warn("%s: counts of %s reach %g; those above 2^24 are rounded", path, name, c->max_count);
    }
}

cpa_status cpa_cells_load(cpa_comm *comm, cpa_h5ad *f, const char *layer, cpa_cells **out)
{
    cpa_status st;
    loading l = {.comm = comm, .f = f, .layer = layer};
    CPA_TRY(cpa_comm_agree(comm, start(&l)));
    CPA_TRY(build_indptr(&l));
    CPA_TRY(fill(&l));
    CPA_TRY(add_up(&l));
    warn(&l);
    *out = l.cells;
    return CPA_OK;
cleanup:
    cpa_cells_destroy(&l.cells);
    return st;
}

void cpa_cells_destroy(cpa_cells **cells)
{
    if (*cells == NULL) {
        return;
    }
    for (int i = 0; i < N_WINDOWS; i++) {
        cpa_comm_shared_free((*cells)->comm, &(*cells)->shared[i]);
    }
    cpa_free(cells);
}
