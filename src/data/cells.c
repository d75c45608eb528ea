// Owns: loading the cells into the memory of the node.
// Must never hold a second copy of a slice, nor leave a rank alone in a collective: failures are agreed first.
#include "cpa/data/cells.h"

#include <math.h>
#include <string.h>

#include "matrix_impl.h"

enum { GENES, COUNTS, LIBRARY, N_WINDOWS }; // what the shared windows hold

// The cells in the making.
typedef struct loading {
    cpa_matrix *m;
    cpa_cells *cells;
    cpa_rows rows;   // of all cells, to be written
    int64_t *cursor; // [last - first] next free place of each cell, for what HDF5 reads
    cpa_row_stats stats;
} loading;

// ---- What only HDF5 can read

// Takes values of any cells and genes one by one.
static cpa_status take_block(void *ctx, const cpa_h5ad_block *b)
{
    loading *l = ctx;
    for (int64_t i = 0; i < b->n; i++) {
        int64_t p = l->cursor[b->cell[i] - l->m->first]++;
        cpa_rows_put_gene(&l->rows, p, (uint32_t)b->gene[i]);
        if (cpa_rows_put_counts(&l->rows, p, 1, &b->value[i], NULL, &l->stats) >= 0) {
            return cpa_bad_count(l->m->file, l->m->path, b->cell[i], b->gene[i], b->value[i]);
        }
        if (l->stats.wide && l->rows.count16 != NULL) { // the caller looks at `wide`, not at the status
            return cpa_fail(CPA_INTERNAL, "a count does not fit into 16 bits");
        }
    }
    return CPA_OK;
}

static cpa_status finish_rows(loading *l)
{
    cpa_status st;
    uint64_t *room = NULL;
    CPA_TRY(cpa_alloc(2 * (size_t)l->m->longest, sizeof *room, &room));
    for (int64_t cell = l->m->first; cell < l->m->last; cell++) {
        int64_t gene = cpa_rows_finish(&l->rows, cell, room, &l->stats);
        cpa_row_stats_total(&l->stats, cell, l->rows.library[cell]);
        if (gene >= 0) {
            st = cpa_bad_count(l->m->file, l->m->path, cell, gene, (double)INFINITY);
            goto cleanup;
        }
    }
cleanup:
    cpa_free(&room);
    return st;
}

static cpa_status scan_slice(loading *l)
{
    cpa_status st = CPA_OK;
    int64_t first = l->m->first, n = l->m->last - first;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *l->cursor, &l->cursor));
    memcpy(l->cursor, l->m->indptr + first, (size_t)n * sizeof *l->cursor);
    CPA_TRY(cpa_h5ad_scan(l->m->file, l->m->layer, first, l->m->last, take_block, l));
    CPA_TRY(finish_rows(l));
cleanup:
    cpa_free(&l->cursor);
    return st;
}

// ---- What threads can unpack

static cpa_status decode_slice(loading *l)
{
    cpa_status st;
    cpa_decoder *decoder = NULL;
    const cpa_matrix *m = l->m;
    cpa_rows slice = l->rows;
    slice.indptr += m->first;
    slice.library += m->first;
    cpa_decoder_plan plan = {.file = m->file,
                             .raw = m->raw,
                             .indptr = m->indptr,
                             .max_cells = m->last - m->first,
                             .max_values = m->indptr[m->last] - m->indptr[m->first],
                             .longest = m->longest};
    CPA_TRY(cpa_decoder_create(&plan, &decoder));
    cpa_decoder_start(decoder, NULL, m->first, m->last - m->first, &slice);
    CPA_TRY(cpa_decoder_finish(decoder, &l->stats));
cleanup:
    cpa_decoder_destroy(&decoder);
    return st;
}

// Copies the values of used genes of row i of a slab to their place.
static void copy_row(const cpa_rows *from, int64_t i, const cpa_rows *to, int64_t cell)
{
    int64_t source = from->indptr[i], target = to->indptr[cell];
    size_t n = (size_t)from->kept[i];
    if (to->gene16 != NULL) {
        memcpy(to->gene16 + target, from->gene16 + source, n * sizeof *to->gene16);
    }
    for (size_t k = 0; to->gene16 == NULL && k < n; k++) {
        to->gene32[target + (int64_t)k] = cpa_rows_gene(from, source + (int64_t)k);
    }
    if (to->count16 != NULL) {
        memcpy(to->count16 + target, from->count16 + source, n * sizeof *to->count16);
    } else {
        memcpy(to->count32 + target, from->count32 + source, n * sizeof *to->count32);
    }
    to->library[cell] = from->library[i];
}

// The same where only some genes are used: stretch by stretch, so that the others take little room.
static cpa_status decode_selected(loading *l)
{
    cpa_status st;
    cpa_slab s = {0};
    CPA_TRY(cpa_slab_init(&s, l->m, l->rows.count32 != NULL));
    for (int64_t at = l->m->first, n; at < l->m->last; at += n) {
        CPA_TRY(cpa_slab_read(&s, at, l->m->last, &n, &l->stats));
        for (int64_t i = 0; i < n; i++) {
            copy_row(&s.rows, i, &l->rows, at + i);
        }
    }
cleanup:
    cpa_slab_fini(&s);
    return st;
}

// ---- All ranks together

// Takes node memory; the failure is agreed. Collective.
static cpa_status take_window(loading *l, int window, size_t bytes)
{
    cpa_status st = cpa_comm_shared_alloc(l->m->comm, bytes, &l->cells->shared[window]);
    l->cells->bytes += bytes;
    return cpa_comm_agree(l->m->comm, st);
}

// Takes the counts for 16-bit integers; when any rank meets others, once more as float. Collective.
static cpa_status fill(loading *l)
{
    cpa_status st;
    size_t nnz = (size_t)l->m->nnz;
    bool narrow = cpa_matrix_is_narrow(l->m);
    CPA_TRY(take_window(l, GENES, nnz * (narrow ? sizeof *l->rows.gene16 : sizeof *l->rows.gene32)));
    l->rows.gene16 = narrow ? l->cells->shared[GENES] : NULL;
    l->rows.gene32 = narrow ? NULL : l->cells->shared[GENES];
    for (double wide = l->m->judged && l->m->stats.wide ? 1 : 0;;) {
        bool is_wide = wide > 0;
        CPA_TRY(take_window(l, COUNTS, nnz * (is_wide ? sizeof *l->rows.count32 : sizeof *l->rows.count16)));
        l->rows.count16 = is_wide ? NULL : l->cells->shared[COUNTS];
        l->rows.count32 = is_wide ? l->cells->shared[COUNTS] : NULL;
        l->stats = (cpa_row_stats){0};
        memset(l->m->counted, 0, (size_t)l->m->info.n_genes); // what was read in vain does not count
        st = l->m->raw == NULL ? scan_slice(l) : l->m->stored != NULL ? decode_selected(l) : decode_slice(l);
        wide = !is_wide && l->stats.wide ? 1 : 0;
        CPA_TRY(cpa_comm_agree(l->m->comm, wide > 0 ? CPA_OK : st));
        CPA_TRY(cpa_comm_max_f64(l->m->comm, &wide, 1));
        if (wide <= 0) {
            return cpa_comm_node_barrier(l->m->comm);
        }
        cpa_comm_shared_free(l->m->comm, &l->cells->shared[COUNTS]);
        l->cells->bytes -= nnz * sizeof *l->rows.count16;
    }
cleanup:
    return st;
}

// Takes the memory, reads, and adds the figures of the slices up: every node has all cells. Collective.
static cpa_status load(loading *l)
{
    cpa_status st;
    int64_t n = l->m->info.n_cells;
    CPA_TRY(cpa_comm_agree(l->m->comm, cpa_alloc(1, sizeof *l->cells, &l->cells)));
    cpa_cells *c = l->cells;
    c->matrix = l->m;
    c->bytes = (size_t)(n + 1) * sizeof *c->indptr;
    CPA_TRY(take_window(l, LIBRARY, (size_t)n * sizeof *c->library));
    l->rows.library = c->shared[LIBRARY];
    l->rows.indptr = l->m->indptr;
    l->rows.counted = l->m->counted;
    CPA_TRY(fill(l));
    CPA_TRY(cpa_matrix_take_stats(l->m, &l->stats, l->m->is_first_node));
    c->n_cells = n;
    c->n_genes = (int32_t)l->m->info.n_genes;
    c->nnz = l->m->nnz;
    c->n_empty = l->m->stats.n_empty;
    c->n_non_integer = l->m->stats.n_non_integer;
    c->n_duplicate = l->m->stats.n_duplicate;
    c->max_count = l->m->stats.max_count;
    c->indptr = l->rows.indptr;
    c->library = l->rows.library;
    c->gene16 = l->rows.gene16;
    c->gene32 = l->rows.gene32;
    c->count16 = l->rows.count16;
    c->count32 = l->rows.count32;
    cpa_h5ad_raw_close(&l->m->raw); // the tables of chunks have served
cleanup:
    return st;
}

cpa_status cpa_cells_load_matrix(cpa_matrix **m, cpa_cells **out)
{
    loading l = {.m = *m};
    cpa_status st = load(&l);
    st = st == CPA_OK ? cpa_matrix_warn(l.m) : st;
    *m = NULL;
    if (st != CPA_OK) {
        if (l.cells == NULL || l.cells->matrix == NULL) {
            cpa_matrix_close(&l.m);
        }
        cpa_cells_destroy(&l.cells);
        return st;
    }
    *out = l.cells;
    return CPA_OK;
}

cpa_status cpa_cells_load(cpa_comm *comm, cpa_h5ad *f, const char *layer, cpa_cells **out)
{
    cpa_matrix *m = NULL;
    cpa_status st = cpa_matrix_open(comm, f, layer, &m);
    return st == CPA_OK ? cpa_cells_load_matrix(&m, out) : st;
}

void cpa_cells_destroy(cpa_cells **cells)
{
    if (*cells == NULL) {
        return;
    }
    for (int i = 0; i < N_WINDOWS && (*cells)->matrix != NULL; i++) {
        cpa_comm_shared_free((*cells)->matrix->comm, &(*cells)->shared[i]);
    }
    cpa_matrix_close(&(*cells)->matrix);
    cpa_free(cells);
}
