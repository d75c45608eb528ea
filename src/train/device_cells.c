// Owns: copying resident cells to a device, in the same compact form. Never keeps a copy on the host.
#include "cpa/train/device_cells.h"

#include "cpa/base/log.h"

enum { PIECE_ROWS = 65536 }; // libraries that are converted at a time

struct cpa_device_cells {
    cpa_backend *be;
    cpa_all_cells all;
};

static size_t gene_bytes(const cpa_all_cells *a)
{
    return a->gene16 ? sizeof(uint16_t) : sizeof(uint32_t);
}

static size_t count_bytes(const cpa_all_cells *a)
{
    return a->count16 ? sizeof(uint16_t) : sizeof(float);
}

static size_t bytes_of(const cpa_all_cells *a, int64_t nnz)
{
    return (size_t)nnz * (gene_bytes(a) + count_bytes(a)) +
           (size_t)(a->n_cells + 1) * (sizeof(int64_t) + sizeof(cpa_real));
}

static cpa_status place(cpa_device_cells *c, int64_t nnz)
{
    cpa_status st;
    cpa_all_cells *a = &c->all;
    CPA_TRY(cpa_op_alloc(c->be, (size_t)nnz * gene_bytes(a), (void **)(uintptr_t)&a->gene));
    CPA_TRY(cpa_op_alloc(c->be, (size_t)nnz * count_bytes(a), (void **)(uintptr_t)&a->count));
    CPA_TRY(cpa_op_alloc(c->be, (size_t)(a->n_cells + 1) * sizeof(int64_t), (void **)(uintptr_t)&a->indptr));
    CPA_TRY(cpa_op_alloc(c->be, (size_t)a->n_cells * sizeof(cpa_real), (void **)(uintptr_t)&a->library));
    CPA_TRY(cpa_op_alloc(c->be, (size_t)a->n_log1p * sizeof(cpa_real), (void **)(uintptr_t)&a->log1p));
cleanup:
    return st;
}

static cpa_status upload_libraries(const cpa_device_cells *c, const cpa_cells *cells)
{
    cpa_status st = CPA_OK;
    cpa_real *piece = NULL;
    CPA_TRY(cpa_alloc(PIECE_ROWS, sizeof *piece, &piece));
    for (int64_t at = 0, n; at < cells->n_cells; at += n) {
        n = cells->n_cells - at < PIECE_ROWS ? cells->n_cells - at : PIECE_ROWS;
        for (int64_t i = 0; i < n; i++) {
            piece[i] = (cpa_real)cells->library[at + i];
        }
        CPA_TRY(cpa_op_upload(c->be, cpa_real_at(c->all.library, at), piece, (size_t)n * sizeof *piece));
    }
cleanup:
    cpa_free(&piece);
    return st;
}

// Uploads entries [from, from + n) of the cells to [to, to + n) of the device.
static cpa_status upload_entries(const cpa_device_cells *c, const cpa_cells *cells, int64_t from, int64_t to, int64_t n)
{
    cpa_status st;
    const size_t g = gene_bytes(&c->all), k = count_bytes(&c->all);
    const char *gene = cells->gene16 != NULL ? (const char *)cells->gene16 : (const char *)cells->gene32;
    const char *count = cells->count16 != NULL ? (const char *)cells->count16 : (const char *)cells->count32;
    CPA_TRY(
        cpa_op_upload(c->be, (char *)(uintptr_t)c->all.gene + (size_t)to * g, gene + (size_t)from * g, (size_t)n * g));
    CPA_TRY(cpa_op_upload(c->be, (char *)(uintptr_t)c->all.count + (size_t)to * k, count + (size_t)from * k,
                          (size_t)n * k));
cleanup:
    return st;
}

// Where cells begin, and their entries, without what lies between them on the host.
static cpa_status upload_cells(const cpa_device_cells *c, const cpa_cells *cells)
{
    cpa_status st = CPA_OK;
    int64_t *begin = NULL;
    CPA_TRY(cpa_alloc((size_t)cells->n_cells + 1, sizeof *begin, &begin));
    for (int64_t i = 0; i < cells->n_cells; i++) {
        begin[i + 1] = begin[i] + cpa_cells_nnz(cells, i);
    }
    CPA_TRY(
        cpa_op_upload(c->be, (void *)(uintptr_t)c->all.indptr, begin, (size_t)(cells->n_cells + 1) * sizeof *begin));
    if (cells->kept == NULL) {
        CPA_TRY(upload_entries(c, cells, 0, 0, begin[cells->n_cells]));
    }
    for (int64_t i = 0; i < cells->n_cells && cells->kept != NULL; i++) {
        CPA_TRY(upload_entries(c, cells, cells->indptr[i], begin[i], begin[i + 1] - begin[i]));
    }
cleanup:
    cpa_free(&begin);
    return st;
}

cpa_status cpa_device_cells_create(cpa_backend *be, const cpa_feed *feed, int n_genes, cpa_device_cells **out)
{
    cpa_status st;
    cpa_device_cells *c = NULL;
    const cpa_matrix *m = cpa_feed_resident(feed);
    const cpa_cells *cells = cpa_feed_cells(feed); // NULL for a plan
    int n_log1p;
    const cpa_real *log1p = cpa_loader_log1p(&n_log1p); // the device looks up what the host does
    *out = NULL;
    if (cpa_backend_memory(be) != CPA_MEMORY_DEVICE || m == NULL) {
        return CPA_OK;
    }
    const cpa_all_cells all = {.n_cells = m->info.n_cells,
                               .n_genes = n_genes,
                               .gene16 = cpa_matrix_is_narrow(m),
                               .count16 = !m->stats.wide,
                               .n_log1p = n_log1p};
    const size_t bytes = bytes_of(&all, m->nnz), free_bytes = cpa_backend_free_bytes(be);
    if (bytes > free_bytes - free_bytes / 4 || all.n_cells > INT32_MAX) {
        cpa_info("the counts of the cells would take %.1f MiB of the device, which has %.1f free: batches come from "
                 "the host",
                 (double)bytes / (1 << 20), (double)free_bytes / (1 << 20));
        return CPA_OK;
    }
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    *c = (cpa_device_cells){be, all};
    CPA_TRY(place(c, m->nnz));
    if (cells != NULL) {
        CPA_TRY(cpa_op_upload(be, (void *)(uintptr_t)c->all.log1p, log1p, (size_t)n_log1p * sizeof *log1p));
        CPA_TRY(upload_libraries(c, cells));
        CPA_TRY(upload_cells(c, cells));
    }
    *out = c;
    c = NULL;
cleanup:
    cpa_device_cells_destroy(&c);
    return st;
}

void cpa_device_cells_destroy(cpa_device_cells **out)
{
    cpa_device_cells *c = *out;
    if (c == NULL) {
        return;
    }
    const void *memory[] = {c->all.gene, c->all.count, c->all.indptr, c->all.library, c->all.log1p};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        if (memory[i] != NULL) {
            cpa_op_release(c->be, (void *)(uintptr_t)memory[i]);
        }
    }
    cpa_free(out);
}

const cpa_all_cells *cpa_device_cells_all(const cpa_device_cells *c)
{
    return c != NULL ? &c->all : NULL;
}
