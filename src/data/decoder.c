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

static bool is_dense(const cpa_decoder *d)
{
    return d->plan.raw->info.layout == CPA_LAYOUT_DENSE;
}

// Most pieces of one array: the chunks there are, or those that the cells can lie in.
static int64_t most_pieces(const cpa_decoder_plan *plan, const cpa_chunks *c)
{
    if (plan->raw->info.layout == CPA_LAYOUT_DENSE) {
        return c->grid[0] < plan->max_cells ? c->grid[0] : plan->max_cells;
    }
    int64_t touched = plan->max_values / c->chunk[0] + 2 * plan->max_cells;
    return c->n < touched ? c->n : touched;
}

static void size_up(const cpa_decoder_plan *plan, int *n_threads, int64_t *n_runs, int64_t *n_pieces)
{
    bool dense = plan->raw->info.layout == CPA_LAYOUT_DENSE;
    *n_threads = plan->n_threads > 0 ? plan->n_threads : omp_get_max_threads();
    *n_runs = dense ? 0 : plan->max_cells;
    *n_pieces = most_pieces(plan, plan->raw->data) + (dense ? 0 : most_pieces(plan, plan->raw->indices));
}

size_t cpa_decoder_bytes(const cpa_decoder_plan *plan)
{
    int n_threads;
    int64_t n_runs, n_pieces;
    size_up(plan, &n_threads, &n_runs, &n_pieces);
    size_t reader = cpa_chunk_reader_bytes(plan->raw->data, plan->raw->indices);
    return (size_t)n_threads * (reader + 2 * (size_t)plan->longest * sizeof(uint64_t)) +
           (size_t)n_runs * sizeof(cpa_run) + (size_t)n_pieces * sizeof(cpa_piece) +
           (n_runs == 0 ? (size_t)plan->max_cells * (sizeof(int64_t) + sizeof(double)) : 0);
}

cpa_status cpa_decoder_create(const cpa_decoder_plan *plan, cpa_decoder **out)
{
    cpa_status st;
    cpa_decoder *d = NULL;
    int n;
    CPA_TRY(cpa_alloc(1, sizeof *d, &d));
    d->plan = *plan;
    pthread_mutex_init(&d->lock, NULL);
    size_up(plan, &n, &d->max_runs, &d->max_pieces);
    CPA_TRY(cpa_alloc((size_t)d->max_runs, sizeof *d->run, &d->run));
    CPA_TRY(cpa_alloc((size_t)d->max_pieces, sizeof *d->piece, &d->piece));
    if (is_dense(d)) {
        CPA_TRY(cpa_alloc((size_t)plan->max_cells, sizeof *d->cursor, &d->cursor));
        CPA_TRY(cpa_alloc((size_t)plan->max_cells, sizeof *d->sum, &d->sum));
    }
    CPA_TRY(cpa_team_create(n, &d->team));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->stats, &d->stats));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->reader, &d->reader));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *d->room, &d->room));
    for (int i = 0; i < n; i++) {
        CPA_TRY(cpa_chunk_reader_create(plan->raw->data, plan->raw->indices, &d->reader[i]));
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
    cpa_free(&d->piece);
    cpa_free(&d->cursor);
    cpa_free(&d->sum);
    cpa_free(out);
}

// ---- At work

bool cpa_decoder_fail(cpa_decoder *d, const cpa_fault *fault)
{
    pthread_mutex_lock(&d->lock);
    if (d->fault.kind == CPA_FAULT_NONE || fault->at < d->fault.at) {
        d->fault = *fault;
    }
    pthread_mutex_unlock(&d->lock);
    return false;
}

static bool run_piece(cpa_decoder *d, int64_t i, int thread)
{
    if (i + AHEAD < d->n_pieces) {
        const cpa_piece *later = &d->piece[i + AHEAD];
        cpa_chunk_announce(later->counts ? d->plan.raw->data : d->plan.raw->indices, later->chunk);
    }
    return is_dense(d) ? cpa_decoder_run_dense(d, &d->piece[i], thread) : cpa_decoder_run_csr(d, &d->piece[i], thread);
}

// Genes, then counts (which are judged where the gene is used), then the rows, GROUP at a time.
static bool run_item(void *ctx, int phase, int64_t item, int thread)
{
    cpa_decoder *d = ctx;
    if (phase < 2) {
        return run_piece(d, phase == 0 ? item : d->n_first + item, thread);
    }
    for (int64_t i = item * GROUP; i < d->n && i < (item + 1) * GROUP; i++) {
        int64_t gene = cpa_rows_finish(&d->to, i, d->room[thread], &d->stats[thread]);
        cpa_row_stats_total(&d->stats[thread], cpa_wanted(d, i), d->to.library[i]);
        if (gene >= 0) {
            int64_t cell = cpa_wanted(d, i);
            return cpa_decoder_fail(
                d, &(cpa_fault){
                       .kind = CPA_FAULT_COUNT, .at = d->plan.indptr[cell], .gene = gene, .value = (double)INFINITY});
        }
    }
    return d->to.count16 == NULL || !d->stats[thread].wide;
}

static void begin(cpa_decoder *d)
{
    memset(d->stats, 0, (size_t)cpa_team_size(d->team) * sizeof *d->stats);
    d->fault = (cpa_fault){.kind = CPA_FAULT_NONE};
    if (is_dense(d)) {
        cpa_decoder_plan_dense(d);
    } else {
        cpa_decoder_plan_csr(d);
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
        st = cpa_fail(
            CPA_BAD_DATA,
            "%s: %s: cell row %lld, gene '%s' (column %lld): the count %g is %s; counts must be finite and >= 0",
            cpa_h5ad_path(f), path, (long long)cell, names.s[gene], (long long)gene, value, fault);
    }
    cpa_strings_fini(&names);
    return st;
}

// The cell that element `at` of the arrays belongs to.
static int64_t cell_of(const cpa_decoder *d, int64_t at)
{
    int64_t low = 0, high = d->plan.raw->info.n_cells; // indptr[low] <= at < indptr[high]
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (d->plan.indptr[middle] <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// The stored gene of element `at`.
static cpa_status gene_of(cpa_decoder *d, int64_t at, int64_t *gene)
{
    const cpa_chunks *c = d->plan.raw->indices;
    int64_t chunk = at / c->chunk[0], inside = at % c->chunk[0], n_read = 0;
    const void *element;
    const char *reason = cpa_chunk_read(d->reader[0], c, chunk, inside, inside + 1, &element, &n_read);
    if (reason != NULL) {
        return cpa_chunks_unreadable(c, chunk, reason, cpa_chunk_error(d->reader[0]));
    }
    *gene = cpa_element_as_integer(c, element);
    return CPA_OK;
}

static cpa_status bad_gene(const cpa_decoder *d, int64_t cell, int64_t gene)
{
    const cpa_h5ad_raw *raw = d->plan.raw;
    return cpa_fail(
        CPA_BAD_DATA, "%s: %s/indices: cell row %lld has the gene index %lld, but indices go from 0 to %lld",
        cpa_h5ad_path(d->plan.file), raw->path, (long long)cell, (long long)gene, (long long)raw->n_stored - 1);
}

// `gene` as it is stored.
static cpa_status bad_count(const cpa_decoder *d, int64_t cell, int64_t gene, double value)
{
    const cpa_h5ad_raw *raw = d->plan.raw;
    return cpa_bad_count(d->plan.file, raw->path, cell, raw->place != NULL ? raw->place[gene] : gene, value);
}

// The message of the fault that comes first in the file.
static cpa_status tell(cpa_decoder *d)
{
    cpa_status st = CPA_OK;
    const cpa_fault *f = &d->fault;
    const cpa_h5ad_raw *raw = d->plan.raw;
    int64_t gene = f->gene;
    switch (f->kind) {
    case CPA_FAULT_CHUNK:
        return cpa_chunks_unreadable(f->counts ? raw->data : raw->indices, f->chunk, f->reason, f->error);
    case CPA_FAULT_GENE:
        return bad_gene(d, cell_of(d, f->at), gene);
    case CPA_FAULT_COUNT:
        if (is_dense(d)) {
            return bad_count(d, f->at / raw->n_stored, f->at % raw->n_stored, f->value);
        }
        if (gene >= 0) {
            return cpa_bad_count(d->plan.file, raw->path, cell_of(d, f->at), gene, f->value);
        }
        CPA_TRY(gene_of(d, f->at, &gene));
        st = gene >= 0 && gene < raw->n_stored ? bad_count(d, cell_of(d, f->at), gene, f->value)
                                               : bad_gene(d, cell_of(d, f->at), gene);
        break;
    case CPA_FAULT_NONE:
        break;
    }
cleanup:
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

cpa_status cpa_decoder_count(cpa_decoder *d, int64_t first, int64_t n, int64_t *count, cpa_row_stats *stats)
{
    d->cell = NULL;
    d->first = first;
    d->n = n;
    d->to = (cpa_rows){0};
    d->count = count;
    d->unpacks = false;
    memset(count, 0, (size_t)n * sizeof *count);
    begin(d);
    return cpa_decoder_finish(d, stats);
}
