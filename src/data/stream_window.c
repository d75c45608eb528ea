// Owns: the memory of one window of cells. Never reads a file.
#include <stdlib.h>

#include "stream_impl.h"

size_t cpa_window_bytes(const cpa_matrix *m, int64_t max_cells, int64_t max_values)
{
    size_t value = (cpa_matrix_is_narrow(m) ? sizeof(uint16_t) : sizeof(uint32_t)) +
                   (m->stats.wide ? sizeof(float) : sizeof(uint16_t));
    return (size_t)max_values * value +
           (size_t)max_cells * (2 * sizeof(int64_t) + 2 * sizeof(int32_t) + sizeof(double));
}

cpa_status cpa_window_init(cpa_window *w, const cpa_matrix *m, int64_t max_cells, int64_t max_values, int n_lanes)
{
    cpa_status st;
    size_t cells = (size_t)max_cells, values = (size_t)max_values;
    *w = (cpa_window){.state = CPA_WINDOW_EMPTY};
    CPA_TRY(cpa_alloc(cells, sizeof *w->cell, &w->cell));
    CPA_TRY(cpa_alloc(cells, sizeof *w->visit, &w->visit));
    CPA_TRY(cpa_alloc((size_t)n_lanes, sizeof *w->lane, &w->lane));
    CPA_TRY(cpa_alloc(cells + 1, sizeof *w->indptr, &w->indptr));
    CPA_TRY(cpa_alloc(cells, sizeof *w->rows.library, &w->rows.library));
    CPA_TRY(cpa_matrix_is_narrow(m) ? cpa_alloc(values, sizeof *w->rows.gene16, &w->rows.gene16)
                                    : cpa_alloc(values, sizeof *w->rows.gene32, &w->rows.gene32));
    CPA_TRY(m->stats.wide ? cpa_alloc(values, sizeof *w->rows.count32, &w->rows.count32)
                          : cpa_alloc(values, sizeof *w->rows.count16, &w->rows.count16));
    if (m->stored != NULL) {
        CPA_TRY(cpa_alloc(cells, sizeof *w->rows.kept, &w->rows.kept));
    }
    w->rows.indptr = w->indptr;
    w->cells = (cpa_cells){.n_genes = (int32_t)m->info.n_genes,
                           .indptr = w->indptr,
                           .kept = w->rows.kept,
                           .gene16 = w->rows.gene16,
                           .gene32 = w->rows.gene32,
                           .count16 = w->rows.count16,
                           .count32 = w->rows.count32,
                           .library = w->rows.library};
cleanup:
    return st;
}

void cpa_window_fini(cpa_window *w)
{
    cpa_free(&w->cell);
    cpa_free(&w->visit);
    cpa_free(&w->lane);
    cpa_free(&w->indptr);
    cpa_free(&w->rows.library);
    cpa_free(&w->rows.gene16);
    cpa_free(&w->rows.gene32);
    cpa_free(&w->rows.count16);
    cpa_free(&w->rows.count32);
    cpa_free(&w->rows.kept);
}

void cpa_window_set(cpa_window *w, const cpa_matrix *m, int64_t n)
{
    const int64_t *extent = cpa_matrix_extent(m);
    w->indptr[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        w->indptr[i + 1] = w->indptr[i] + extent[w->cell[i] + 1] - extent[w->cell[i]];
    }
    w->cells.n_cells = n;
    w->cells.nnz = w->indptr[n];
}

static int by_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

void cpa_window_set_list(cpa_window *w, const cpa_matrix *m, const int64_t *cell, int64_t n, int64_t *pair)
{
    for (int64_t i = 0; i < n; i++) {
        pair[2 * i] = cell[i];
        pair[2 * i + 1] = i;
    }
    qsort(pair, (size_t)n, 2 * sizeof *pair, by_first);
    int64_t n_cells = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || pair[2 * i] != pair[2 * (i - 1)]) {
            w->cell[n_cells++] = pair[2 * i];
        }
        w->visit[pair[2 * i + 1]] = (int32_t)(n_cells - 1);
    }
    cpa_window_set(w, m, n_cells);
}
