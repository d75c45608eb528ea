// Owns: bringing the entries of some neighbouring cells into rows: sorted by gene, one for each gene, without zeros.
// Must never hold more than one block of entries.
#include "rowsort_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = CPA_ROWSORT_ENTRIES,
    ROWS = CPA_ROWSORT_CELLS,
};

// Some cells: what was read of them, and what is written.
struct cpa_rowsort {
    int64_t first, n_cells;
    bool wide;
    int64_t n, room; // entries
    cpa_entry *entry;
    int64_t begin[ROWS + 1]; // of each cell in `sorted`
    cpa_entry *sorted;       // [room]
    int64_t count[ROWS];     // kept of each cell
    int32_t *gene;           // [room]
    float *narrow;           // [room] one of the two
    double *value;
    int64_t n_added, n_zeros; // met so far
};

static cpa_status make_room(cpa_rowsort *b, int64_t n)
{
    cpa_status st = CPA_OK;
    if (n <= b->room) {
        return CPA_OK;
    }
    n = n < BLOCK ? BLOCK : n + n / 2;
    CPA_TRY(cpa_realloc((size_t)n, sizeof *b->entry, &b->entry));
    CPA_TRY(cpa_realloc((size_t)n, sizeof *b->sorted, &b->sorted));
    CPA_TRY(cpa_realloc((size_t)n, sizeof *b->gene, &b->gene));
    CPA_TRY(b->wide ? cpa_realloc((size_t)n, sizeof *b->value, &b->value)
                    : cpa_realloc((size_t)n, sizeof *b->narrow, &b->narrow));
    b->room = n;
cleanup:
    return st;
}

// Of a bucket, those of the cells in hand.
static cpa_status take_entries(void *ctx, int64_t n, const cpa_entry *from)
{
    cpa_status st;
    cpa_rowsort *b = ctx;
    CPA_TRY(make_room(b, b->n + n));
    for (int64_t i = 0; i < n; i++) {
        b->entry[b->n] = from[i];
        b->n += from[i].cell >= b->first && from[i].cell < b->first + b->n_cells;
    }
cleanup:
    return st;
}

// ---- From entries to rows

static int by_gene(const void *a, const void *b)
{
    const cpa_entry *x = a, *y = b; // `cell` is the place in the row here, so equal genes keep their order
    return x->gene < y->gene ? -1 : x->gene > y->gene ? 1 : x->cell < y->cell ? -1 : x->cell > y->cell;
}

// Brings the entries of each cell together, in the order in which they came.
static void gather_rows(cpa_rowsort *b)
{
    memset(b->begin, 0, sizeof b->begin);
    for (int64_t i = 0; i < b->n; i++) {
        b->begin[b->entry[i].cell - b->first + 1]++;
    }
    for (int64_t k = 0; k < b->n_cells; k++) {
        b->begin[k + 1] += b->begin[k];
    }
    for (int64_t i = 0; i < b->n; i++) {
        b->sorted[b->begin[b->entry[i].cell - b->first]++] = b->entry[i];
    }
    for (int64_t k = b->n_cells; k > 0; k--) { // each begin has moved to its end
        b->begin[k] = b->begin[k - 1];
    }
    b->begin[0] = 0;
}

// Sorts a row unless it is sorted.
static void sort_row(cpa_entry *row, int64_t n)
{
    bool sorted = true;
    for (int64_t i = 1; i < n; i++) {
        sorted &= row[i - 1].gene <= row[i].gene;
    }
    for (int64_t i = 0; !sorted && i < n; i++) {
        row[i].cell = (uint32_t)i;
    }
    if (!sorted) {
        qsort(row, (size_t)n, sizeof *row, by_gene);
    }
}

// Adds duplicates up, drops zeros, and puts the rest behind what is there; the new end.
static int64_t keep_row(cpa_rowsort *b, const cpa_entry *row, int64_t n, int64_t end)
{
    for (int64_t i = 0, next; i < n; i = next) {
        double sum = row[i].value;
        for (next = i + 1; next < n && row[next].gene == row[i].gene; next++) {
            sum += row[next].value;
            b->n_added++;
        }
        if (sum == 0) {
            b->n_zeros++;
            continue;
        }
        b->gene[end] = (int32_t)row[i].gene;
        if (b->wide) {
            b->value[end] = sum;
        } else {
            b->narrow[end] = (float)sum;
        }
        end++;
    }
    return end;
}

cpa_status cpa_rowsort_write(cpa_rowsort *b, cpa_h5ad_sparse *to)
{
    gather_rows(b);
    int64_t end = 0;
    for (int64_t k = 0; k < b->n_cells; k++) {
        int64_t before = end, n = b->begin[k + 1] - b->begin[k];
        sort_row(b->sorted + b->begin[k], n);
        end = keep_row(b, b->sorted + b->begin[k], n, end);
        b->count[k] = end - before;
    }
    b->n = 0;
    return cpa_h5ad_sparse_add(to, b->n_cells, b->count, b->gene, b->wide ? (const void *)b->value : b->narrow);
}

cpa_status cpa_rowsort_create(bool wide, cpa_rowsort **out)
{
    cpa_status st;
    cpa_rowsort *b = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *b, &b));
    b->wide = wide;
    CPA_TRY(make_room(b, 1));
    *out = b;
    b = NULL;
cleanup:
    cpa_rowsort_destroy(&b);
    return st;
}

void cpa_rowsort_destroy(cpa_rowsort **b)
{
    if (*b != NULL) {
        cpa_free(&(*b)->entry);
        cpa_free(&(*b)->sorted);
        cpa_free(&(*b)->gene);
        cpa_free(&(*b)->narrow);
        cpa_free(&(*b)->value);
        cpa_free(b);
    }
}

void cpa_rowsort_begin(cpa_rowsort *b, int64_t first, int64_t n_cells)
{
    b->first = first;
    b->n_cells = n_cells;
    b->n = 0;
}

cpa_status cpa_rowsort_take(cpa_rowsort *b, int64_t n, const int64_t *cell, const int64_t *gene, const double *value)
{
    cpa_status st;
    CPA_TRY(make_room(b, b->n + n));
    for (int64_t i = 0; i < n; i++) {
        b->entry[b->n++] = (cpa_entry){(uint32_t)cell[i], (uint32_t)gene[i], value[i]};
    }
cleanup:
    return st;
}

cpa_status cpa_rowsort_buckets(cpa_rowsort *b, cpa_buckets *buckets, cpa_h5ad_sparse *to)
{
    cpa_status st = CPA_OK;
    for (int64_t k = 0; k < cpa_buckets_count(buckets); k++) {
        int64_t first, last, n;
        cpa_buckets_range(buckets, k, &first, &last, &n);
        int64_t parts = 1 + n / (2 * BLOCK), step = (last - first + parts - 1) / parts;
        step = step < ROWS ? step : ROWS;
        for (int64_t at = first; at < last; at += step) {
            cpa_rowsort_begin(b, at, last - at < step ? last - at : step);
            CPA_TRY(cpa_buckets_read(buckets, k, take_entries, b));
            CPA_TRY(cpa_rowsort_write(b, to));
        }
    }
cleanup:
    return st;
}

void cpa_rowsort_met(const cpa_rowsort *b, int64_t *n_added, int64_t *n_zeros)
{
    *n_added = b->n_added;
    *n_zeros = b->n_zeros;
}
