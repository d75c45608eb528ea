// Owns: opening a matrix by all ranks, its indptr in the memory of the node, and looking at every count once.
// Must never leave a rank alone in a collective: failures are agreed first.
#include "cpa/data/matrix.h"

#include <string.h>

#include "cpa/base/log.h"

enum {
    SLAB_CELLS = 1 << 16,  // judged at once, at most
    SLAB_VALUES = 1 << 22, // the same; more only for a cell or chunk that is larger
};

static cpa_status open_parts(cpa_matrix *m)
{
    cpa_status st;
    CPA_TRY(cpa_h5ad_matrix_info(m->file, m->layer, &m->info));
    CPA_TRY(cpa_h5ad_matrix_path(m->file, m->layer, &m->path));
    CPA_TRY(cpa_h5ad_raw_open(m->file, m->layer, &m->raw, &m->why));
    m->first = m->info.n_cells * cpa_comm_node_rank(m->comm) / cpa_comm_node_size(m->comm);
    m->last = m->info.n_cells * (cpa_comm_node_rank(m->comm) + 1) / cpa_comm_node_size(m->comm);
cleanup:
    return st;
}

// The stored values of each cell of this rank's slice. Those of a dense matrix are judged on the way.
static cpa_status count_slice(cpa_matrix *m, int64_t *count, cpa_row_stats *stats)
{
    cpa_status st;
    cpa_decoder *decoder = NULL;
    if (m->raw == NULL || m->info.layout != CPA_LAYOUT_DENSE) {
        return cpa_h5ad_count(m->file, m->layer, m->first, m->last, count);
    }
    CPA_TRY(cpa_decoder_create(&(cpa_decoder_plan){.file = m->file, .raw = m->raw, .max_cells = m->last - m->first},
                               &decoder));
    CPA_TRY(cpa_decoder_count(decoder, m->first, m->last - m->first, count, stats));
    for (int64_t i = 0; i < m->last - m->first; i++) {
        stats->n_empty += count[i] == 0;
    }
cleanup:
    cpa_decoder_destroy(&decoder);
    return st;
}

static cpa_status build_indptr(cpa_matrix *m)
{
    cpa_status st;
    int64_t n = m->info.n_cells;
    cpa_row_stats stats = {0};
    void *shared = NULL;
    st = cpa_comm_shared_alloc(m->comm, (size_t)(n + 1) * sizeof *m->indptr, &shared);
    m->indptr = shared;
    CPA_TRY(cpa_comm_agree(m->comm, st));
    CPA_TRY(cpa_comm_agree(m->comm, count_slice(m, m->indptr + m->first + 1, &stats)));
    CPA_TRY(cpa_comm_node_barrier(m->comm));
    for (int64_t i = 0; cpa_comm_node_rank(m->comm) == 0 && i < n; i++) {
        m->indptr[i + 1] += m->indptr[i];
    }
    CPA_TRY(cpa_comm_node_barrier(m->comm));
    m->nnz = m->indptr[n];
    for (int64_t i = 0; i < n; i++) {
        int64_t values = m->indptr[i + 1] - m->indptr[i];
        m->longest = values > m->longest ? values : m->longest;
    }
    if (m->raw != NULL && m->info.layout == CPA_LAYOUT_DENSE) {
        CPA_TRY(cpa_matrix_take_stats(m, &stats, m->is_first_node));
    }
cleanup:
    return st;
}

// Whether rank 0, which is the first of its node, runs on this one.
static cpa_status find_first_node(cpa_matrix *m)
{
    void *shared = NULL;
    cpa_status st = cpa_comm_agree(m->comm, cpa_comm_shared_alloc(m->comm, 1, &shared));
    CPA_TRY(st);
    if (cpa_comm_node_rank(m->comm) == 0) {
        *(bool *)shared = cpa_comm_rank(m->comm) == 0;
    }
    CPA_TRY(cpa_comm_node_barrier(m->comm));
    m->is_first_node = *(bool *)shared;
cleanup:
    cpa_comm_shared_free(m->comm, &shared);
    return st;
}

cpa_status cpa_matrix_open(cpa_comm *comm, cpa_h5ad *f, const char *layer, cpa_matrix **out)
{
    cpa_matrix *m = NULL;
    cpa_status st = cpa_alloc(1, sizeof *m, &m);
    CPA_TRY(cpa_comm_agree(comm, st));
    *m = (cpa_matrix){.comm = comm, .file = f, .layer = layer, .name = layer != NULL ? layer : "X"};
    CPA_TRY(cpa_comm_agree(comm, open_parts(m)));
    CPA_TRY(find_first_node(m));
    CPA_TRY(build_indptr(m));
    *out = m;
    m = NULL;
cleanup:
    cpa_matrix_close(&m);
    return st;
}

void cpa_matrix_close(cpa_matrix **m)
{
    if (*m == NULL) {
        return;
    }
    void *shared = (*m)->indptr;
    cpa_comm_shared_free((*m)->comm, &shared);
    cpa_h5ad_raw_close(&(*m)->raw);
    cpa_free(&(*m)->path);
    cpa_free(m);
}

// ---- Judging

// Memory for a stretch of cells that are looked at and forgotten.
typedef struct slab {
    cpa_rows rows;
    int64_t *indptr;
    int64_t max_values;
} slab;

static cpa_status slab_init(slab *s, const cpa_matrix *m)
{
    cpa_status st;
    int64_t chunk =
        4 * (m->raw->data->chunk[0] > m->raw->indices->chunk[0] ? m->raw->data->chunk[0] : m->raw->indices->chunk[0]);
    s->max_values = SLAB_VALUES;
    s->max_values = m->longest > s->max_values ? m->longest : s->max_values;
    s->max_values = chunk > s->max_values ? chunk : s->max_values; // or chunks would be unpacked again and again
    s->max_values = m->nnz < s->max_values ? m->nnz : s->max_values;
    CPA_TRY(cpa_alloc(SLAB_CELLS + 1, sizeof *s->indptr, &s->indptr));
    CPA_TRY(cpa_alloc(SLAB_CELLS, sizeof *s->rows.library, &s->rows.library));
    CPA_TRY(cpa_alloc((size_t)s->max_values, sizeof *s->rows.count32, &s->rows.count32));
    if (m->info.n_genes <= 1 << 16) {
        CPA_TRY(cpa_alloc((size_t)s->max_values, sizeof *s->rows.gene16, &s->rows.gene16));
    } else {
        CPA_TRY(cpa_alloc((size_t)s->max_values, sizeof *s->rows.gene32, &s->rows.gene32));
    }
    s->rows.indptr = s->indptr;
cleanup:
    return st;
}

static void slab_fini(slab *s)
{
    cpa_free(&s->indptr);
    cpa_free(&s->rows.library);
    cpa_free(&s->rows.count32);
    cpa_free(&s->rows.gene16);
    cpa_free(&s->rows.gene32);
}

// How many cells from `first` on fit into a slab; their beginnings in it.
static int64_t fit(const cpa_matrix *m, slab *s, int64_t first, int64_t last)
{
    int64_t n = 0;
    while (first + n < last && n < SLAB_CELLS && m->indptr[first + n + 1] - m->indptr[first] <= s->max_values) {
        n++;
        s->indptr[n] = m->indptr[first + n] - m->indptr[first];
    }
    return n;
}

static cpa_status judge_cells(const cpa_matrix *m, int64_t first, int64_t last, cpa_row_stats *stats)
{
    cpa_status st;
    slab s = {0};
    cpa_decoder *decoder = NULL;
    CPA_TRY(slab_init(&s, m));
    CPA_TRY(cpa_decoder_create(&(cpa_decoder_plan){.file = m->file,
                                                   .raw = m->raw,
                                                   .indptr = m->indptr,
                                                   .max_cells = SLAB_CELLS,
                                                   .max_values = s.max_values,
                                                   .longest = m->longest},
                               &decoder));
    for (int64_t n; first < last; first += n) {
        cpa_row_stats met;
        n = fit(m, &s, first, last);
        cpa_decoder_start(decoder, NULL, first, n, &s.rows);
        CPA_TRY(cpa_decoder_finish(decoder, &met));
        cpa_row_stats_add(stats, &met);
    }
cleanup:
    cpa_decoder_destroy(&decoder);
    slab_fini(&s);
    return st;
}

cpa_status cpa_matrix_judge(cpa_matrix *m)
{
    cpa_status st = CPA_OK;
    cpa_row_stats mine = {0};
    int64_t n = m->info.n_cells;
    int rank = cpa_comm_rank(m->comm), size = cpa_comm_size(m->comm);
    if (m->judged) {
        return CPA_OK;
    }
    CPA_TRY(cpa_comm_agree(m->comm, judge_cells(m, n * rank / size, n * (rank + 1) / size, &mine)));
    CPA_TRY(cpa_matrix_take_stats(m, &mine, true));
cleanup:
    return st;
}

cpa_status cpa_matrix_take_stats(cpa_matrix *m, const cpa_row_stats *mine, bool counts)
{
    cpa_status st;
    int64_t sum[] = {mine->n_empty, mine->n_non_integer, mine->n_duplicate, mine->wide, (int64_t)mine->totals};
    double max_count = mine->max_count;
    m->n_read += mine->n_read;
    if (!counts) {
        memset(sum, 0, sizeof sum);
    }
    CPA_TRY(cpa_comm_sum_i64(m->comm, sum, 5));
    CPA_TRY(cpa_comm_max_f64(m->comm, &max_count, 1));
    m->stats = (cpa_row_stats){.n_empty = sum[0],
                               .n_non_integer = sum[1],
                               .n_duplicate = sum[2],
                               .wide = sum[3] > 0,
                               .totals = (uint64_t)sum[4],
                               .max_count = max_count};
    m->judged = true;
cleanup:
    return st;
}

void cpa_matrix_warn(const cpa_matrix *m)
{
    const cpa_row_stats *s = &m->stats;
    const char *path = cpa_h5ad_path(m->file);
    if (s->n_non_integer > 0) {
        cpa_warn("%s: %lld of the %lld values of %s are not integers (largest value %g): corrected counts are fine, "
                 "normalised or log-transformed ones are not",
                 path, (long long)s->n_non_integer, (long long)m->nnz, m->name, s->max_count);
    }
    if (s->n_duplicate > 0) {
        cpa_warn("%s: %lld entries of %s name a gene twice in a cell; they were added up", path,
                 (long long)s->n_duplicate, m->name);
    }
    if (s->n_empty > 0) {
        cpa_warn("%s: %lld of the %lld cells of %s have no counts; they are kept", path, (long long)s->n_empty,
                 (long long)m->info.n_cells, m->name);
    }
    if (s->max_count > 0x1p24) {
        cpa_warn("%s: counts of %s reach %g; those above 2^24 are rounded", path, m->name, s->max_count);
    }
}
