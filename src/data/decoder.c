// Owns: the life of a decoder, its threads, and what it says of faults. How chunks become rows is in decoder_csr.c and
// decoder_dense.c. Must never let a message depend on which thread was first.
#include <math.h>
#include <omp.h>
#include <string.h>

#include "decoder_impl.h"

enum {
    GROUP = 256, // rows finished as one item
    AHEAD = 32,  // chunks that the system is told of in advance
};

// What the files of the cells have.
typedef struct extent {
    bool has_csr, has_dense;
    int64_t n_indices, n_data, n_bands; // chunks of all CSR matrices, bands of chunks of all dense ones
    int64_t indices, data;              // elements of the smallest chunk
    cpa_chunk_room room;
} extent;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static extent look_at(const cpa_h5ad_raw *raw)
{
    extent e = {.indices = INT64_MAX, .data = INT64_MAX};
    for (int k = 0; k < raw->n_parts; k++) {
        const cpa_h5ad_raw_part *p = &raw->part[k];
        cpa_chunk_room_add(&e.room, p->data);
        if (p->dense) {
            e.has_dense = true;
            e.n_bands += p->data->grid[0];
            continue;
        }
        e.has_csr = true;
        cpa_chunk_room_add(&e.room, p->indices);
        e.n_indices += p->indices->n;
        e.n_data += p->data->n;
        e.indices = smaller(e.indices, p->indices->chunk[0]);
        e.data = smaller(e.data, p->data->chunk[0]);
    }
    return e;
}

// Most pieces at a time: the chunks there are, or those that the cells can lie in.
static int64_t most_pieces(const cpa_decoder_plan *plan, const extent *e)
{
    int64_t ends = 2 * plan->max_cells;
    int64_t n = smaller(e->n_bands, plan->max_cells);
    n += e->has_csr ? smaller(e->n_indices, plan->max_values / e->indices + ends) : 0;
    return n + (e->has_csr ? smaller(e->n_data, plan->max_values / e->data + ends) : 0);
}

static int n_threads(const cpa_decoder_plan *plan)
{
    return plan->n_threads > 0 ? plan->n_threads : omp_get_max_threads();
}

size_t cpa_decoder_bytes(const cpa_decoder_plan *plan)
{
    extent e = look_at(plan->raw);
    size_t cells = (size_t)plan->max_cells;
    return (size_t)n_threads(plan) * (cpa_chunk_reader_bytes(&e.room) + 2 * (size_t)plan->longest * sizeof(uint64_t)) +
           (size_t)most_pieces(plan, &e) * sizeof(cpa_piece) +
           (e.has_csr ? cells * (sizeof(cpa_run) + sizeof(uint8_t)) : 0) +
           (e.has_dense ? cells * (sizeof(int64_t) + sizeof(double) + sizeof(uint32_t)) : 0);
}

cpa_status cpa_decoder_create(const cpa_decoder_plan *plan, cpa_decoder **out)
{
    cpa_status st;
    cpa_decoder *d = NULL;
    extent e = look_at(plan->raw);
    int n = n_threads(plan);
    CPA_TRY(cpa_alloc(1, sizeof *d, &d));
    d->plan = *plan;
    pthread_mutex_init(&d->lock, NULL);
    CPA_TRY(cpa_alloc(e.has_csr ? (size_t)plan->max_cells : 0, sizeof *d->run, &d->run));
    CPA_TRY(cpa_alloc(e.has_csr ? (size_t)plan->max_cells : 0, sizeof *d->state, &d->state));
    CPA_TRY(cpa_alloc((size_t)most_pieces(plan, &e), sizeof *d->piece, &d->piece));
    CPA_TRY(cpa_alloc(e.has_dense ? (size_t)plan->max_cells : 0, sizeof *d->cursor, &d->cursor));
    CPA_TRY(cpa_alloc(e.has_dense ? (size_t)plan->max_cells : 0, sizeof *d->sum, &d->sum));
    CPA_TRY(cpa_alloc(e.has_dense ? (size_t)plan->max_cells : 0, sizeof *d->entries, &d->entries));
    CPA_TRY(cpa_team_create(n, &d->team));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->stats, &d->stats));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->reader, &d->reader));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->room, &d->room));
    for (int i = 0; i < n; i++) {
        CPA_TRY(cpa_chunk_reader_create(&e.room, &d->reader[i]));
        CPA_TRY(cpa_alloc(2 * (size_t)plan->longest, sizeof **d->room, &d->room[i]));
    }
    *out = d;
    d = NULL;
cleanup:
    cpa_decoder_destroy(&d);
    return st;
}

void cpa_decoder_destroy(cpa_decoder **out)
{
    cpa_decoder *d = *out;
    if (d == NULL) {
        return;
    }
    int n = d->team != NULL ? cpa_team_size(d->team) : 0;
    cpa_team_destroy(&d->team);
    for (int i = 0; i < n; i++) {
        if (d->reader != NULL) {
            cpa_chunk_reader_destroy(&d->reader[i]);
        }
        if (d->room != NULL) {
            cpa_free(&d->room[i]);
        }
    }
    pthread_mutex_destroy(&d->lock);
    cpa_free(&d->reader);
    cpa_free(&d->room);
    cpa_free(&d->stats);
    cpa_free(&d->run);
    cpa_free(&d->state);
    cpa_free(&d->piece);
    cpa_free(&d->cursor);
    cpa_free(&d->sum);
    cpa_free(&d->entries);
    cpa_free(out);
}

// ---- At work

bool cpa_decoder_fail(cpa_decoder *d, const cpa_fault *fault)
{
    pthread_mutex_lock(&d->lock);
    if (d->fault.kind == CPA_FAULT_NONE || fault->part < d->fault.part ||
        (fault->part == d->fault.part && fault->at < d->fault.at)) {
        d->fault = *fault;
    }
    pthread_mutex_unlock(&d->lock);
    return false;
}

static bool run_piece(cpa_decoder *d, int64_t i, int thread)
{
    const cpa_piece *piece = &d->piece[i];
    if (i + AHEAD < d->n_pieces) {
        const cpa_piece *later = &d->piece[i + AHEAD];
        const cpa_h5ad_raw_part *part = cpa_part_of(d, later->part);
        cpa_chunk_announce(later->counts ? part->data : part->indices, later->chunk);
    }
    return cpa_part_of(d, piece->part)->dense ? cpa_decoder_run_dense(d, piece, thread)
                                              : cpa_decoder_run_csr(d, piece, thread);
}

// The sum of a cell's counts of a gene is too large; only cells stored as CSR can name a gene twice.
static bool too_large(cpa_decoder *d, int64_t cell, int64_t gene)
{
    int part = cpa_h5ad_raw_find(d->plan.raw, cell);
    return cpa_decoder_fail(d, &(cpa_fault){.kind = CPA_FAULT_COUNT,
                                            .part = part,
                                            .at = d->plan.indptr[cell] - d->plan.indptr[cpa_part_of(d, part)->first],
                                            .gene = gene,
                                            .value = (double)INFINITY});
}

// Genes, then counts (which are judged where the gene is used), then the rows, GROUP at a time.
static bool run_item(void *ctx, int phase, int64_t item, int thread)
{
    cpa_decoder *d = ctx;
    if (phase < 2) {
        return run_piece(d, phase == 0 ? item : d->n_first + item, thread);
    }
    for (int64_t i = item * GROUP; i < d->n && i < (item + 1) * GROUP; i++) {
        bool done = d->n_runs > 0 && d->state[i] == CPA_ROW_DONE;
        int64_t gene = done ? -1 : cpa_rows_finish(&d->to, i, d->room[thread], &d->stats[thread]);
        cpa_row_stats_total(&d->stats[thread], cpa_wanted(d, i), d->to.library[i]);
        if (gene >= 0) {
            return too_large(d, cpa_wanted(d, i), gene);
        }
    }
    return d->to.count16 == NULL || !d->stats[thread].wide;
}

// The end of the wanted cells from the i-th on that are in this file.
static int64_t end_of_part(const cpa_decoder *d, int part, int64_t i)
{
    const cpa_h5ad_raw_part *p = cpa_part_of(d, part);
    while (i < d->n && cpa_wanted(d, i) < p->first + p->n_cells) {
        i++;
    }
    return i;
}

static void make_pieces(cpa_decoder *d)
{
    d->n_runs = d->n_pieces = 0;
    for (int64_t i = 0, end; i < d->n; i = end) {
        int part = cpa_h5ad_raw_find(d->plan.raw, cpa_wanted(d, i));
        end = end_of_part(d, part, i);
        if (cpa_part_of(d, part)->dense) {
            cpa_decoder_plan_dense(d, part, i, end);
        } else {
            cpa_decoder_find_runs(d, part, i, end);
        }
    }
    cpa_decoder_plan_csr(d, false);
    d->n_first = d->n_pieces;
    cpa_decoder_plan_csr(d, true);
}

static void begin(cpa_decoder *d)
{
    memset(d->stats, 0, (size_t)cpa_team_size(d->team) * sizeof *d->stats);
    d->fault = (cpa_fault){.kind = CPA_FAULT_NONE};
    make_pieces(d);
    if (d->n_runs > 0) {
        memset(d->state, CPA_ROW_UNKNOWN, (size_t)d->n);
    }
    int64_t groups = d->count != NULL || d->unpacks ? 0 : (d->n + GROUP - 1) / GROUP;
    cpa_team_start(d->team, &(cpa_work){d, {d->n_first, d->n_pieces - d->n_first, groups}, run_item});
}

void cpa_decoder_start(cpa_decoder *d, const int64_t *cell, int64_t first, int64_t n, const cpa_rows *to)
{
    d->cell = cell;
    d->first = first;
    d->n = n;
    d->to = *to;
    d->to.first = first;
    d->count = NULL;
    d->unpacks = false;
    begin(d);
}

void cpa_decoder_start_unpacking(cpa_decoder *d, const int64_t *cell, int64_t n)
{
    d->cell = cell;
    d->n = n;
    d->to = (cpa_rows){0};
    d->count = NULL;
    d->unpacks = true;
    begin(d);
}

bool cpa_decoder_is_busy(cpa_decoder *d)
{
    return cpa_team_is_busy(d->team);
}

// ---- Faults

cpa_status cpa_bad_count(cpa_h5ad *f, const char *path, int64_t cell, int64_t gene, double value)
{
    cpa_strings names = {0};
    const char *fault = isnan(value)                 ? "not a number"
                        : isinf(value) || value >= 0 ? "infinite or too large"
                                                     : "negative";
    cpa_status st = cpa_h5ad_index(f, "var", &names);
    if (st == CPA_OK) {
        int64_t row;
        const char *file = cpa_h5ad_cell(f, cell, &row);
        st = cpa_fail(
            CPA_BAD_DATA,
            "%s: %s: cell row %lld, gene '%s' (column %lld): the count %g is %s; counts must be finite and >= 0", file,
            path, (long long)row, names.s[gene], (long long)gene, value, fault);
    }
    cpa_strings_fini(&names);
    return st;
}

// The cell that element `at` of a file's arrays belongs to.
static int64_t cell_of(const cpa_decoder *d, const cpa_h5ad_raw_part *p, int64_t at)
{
    const int64_t *indptr = d->plan.indptr;
    int64_t low = p->first, high = p->first + p->n_cells; // indptr[low] <= its place < indptr[high]
    at += indptr[low];
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (indptr[middle] <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// The stored gene of element `at`.
static cpa_status gene_of(cpa_decoder *d, const cpa_h5ad_raw_part *p, int64_t at, int64_t *gene)
{
    const cpa_chunks *c = p->indices;
    int64_t chunk = at / c->chunk[0], inside = at % c->chunk[0], n_read = 0;
    const void *element;
    const char *reason = cpa_chunk_read(d->reader[0], c, chunk, inside, inside + 1, &element, &n_read);
    if (reason != NULL) {
        return cpa_chunks_unreadable(c, chunk, reason, cpa_chunk_error(d->reader[0]));
    }
    *gene = cpa_element_as_integer(c, element);
    return CPA_OK;
}

static cpa_status bad_gene(const cpa_h5ad_raw_part *p, int64_t cell, int64_t gene)
{
    return cpa_fail(CPA_BAD_DATA,
                    "%s: %s/indices: cell row %lld has the gene index %lld, but indices go from 0 to %lld", p->file,
                    p->path, (long long)(cell - p->first), (long long)gene, (long long)p->n_stored - 1);
}

// `gene` as it is stored.
static cpa_status bad_count(const cpa_decoder *d, const cpa_h5ad_raw_part *p, int64_t cell, int64_t gene, double value)
{
    return cpa_bad_count(d->plan.file, p->path, cell, p->place != NULL ? p->place[gene] : gene, value);
}

// The message of the fault that comes first in the files.
static cpa_status tell(cpa_decoder *d)
{
    cpa_status st = CPA_OK;
    const cpa_fault *f = &d->fault;
    const cpa_h5ad_raw_part *p = cpa_part_of(d, f->part);
    int64_t gene = f->gene;
    switch (f->kind) {
    case CPA_FAULT_CHUNK:
        return cpa_chunks_unreadable(f->counts ? p->data : p->indices, f->chunk, f->reason, f->error);
    case CPA_FAULT_GENE:
        return bad_gene(p, cell_of(d, p, f->at), gene);
    case CPA_FAULT_COUNT:
        if (p->dense) {
            return bad_count(d, p, p->first + f->at / p->n_stored, f->at % p->n_stored, f->value);
        }
        if (gene >= 0) {
            return cpa_bad_count(d->plan.file, p->path, cell_of(d, p, f->at), gene, f->value);
        }
        CPA_TRY(gene_of(d, p, f->at, &gene));
        st = gene >= 0 && gene < p->n_stored ? bad_count(d, p, cell_of(d, p, f->at), gene, f->value)
                                             : bad_gene(p, cell_of(d, p, f->at), gene);
        break;
    case CPA_FAULT_NONE:
        break;
    }
cleanup:
    return st;
}

cpa_status cpa_decoder_same(const cpa_decoder *d)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < d->n && st == CPA_OK;) {
        int part = cpa_h5ad_raw_find(d->plan.raw, cpa_wanted(d, i));
        st = cpa_chunks_same(cpa_part_of(d, part)->data);
        i = end_of_part(d, part, i);
    }
    return st;
}

cpa_status cpa_decoder_finish(cpa_decoder *d, cpa_row_stats *stats)
{
    cpa_team_wait(d->team);
    *stats = (cpa_row_stats){0};
    for (int i = 0; i < cpa_team_size(d->team); i++) {
        cpa_row_stats_add(stats, &d->stats[i]);
    }
    return tell(d);
}

cpa_status cpa_decoder_count(cpa_decoder *d, int64_t first, int64_t n, int64_t *count, uint8_t *counted,
                             cpa_row_stats *stats)
{
    d->cell = NULL;
    d->first = first;
    d->n = n;
    d->to = (cpa_rows){.counted = counted};
    d->count = count;
    d->unpacks = false;
    memset(count, 0, (size_t)n * sizeof *count);
    begin(d);
    return cpa_decoder_finish(d, stats);
}
