// Owns: opening a matrix by all ranks, its indptr in the memory of the node, and looking at every count once.
// Must never leave a rank alone in a collective: failures are agreed first.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "cpa/base/text.h"
#include "matrix_impl.h"

enum {
    SLAB_CELLS = 1 << 16,  // judged at once, at most
    SLAB_VALUES = 1 << 22, // the same; more only for a cell or chunk that is larger
    SOME_NAMES = 3,        // in a warning
};

static cpa_status open_parts(cpa_matrix *m)
{
    cpa_status st;
    CPA_TRY(cpa_h5ad_matrix_path(m->file, m->layer, &m->path));
    CPA_TRY(cpa_h5ad_raw_open(m->file, m->layer, &m->info, &m->raw, &m->why, &m->which));
    m->first = m->info.n_cells * cpa_comm_node_rank(m->comm) / cpa_comm_node_size(m->comm);
    m->last = m->info.n_cells * (cpa_comm_node_rank(m->comm) + 1) / cpa_comm_node_size(m->comm);
    CPA_TRY(cpa_alloc((size_t)m->info.n_genes, sizeof *m->counted, &m->counted));
cleanup:
    return st;
}

// Takes node memory for one number per cell and one more. Collective.
static cpa_status take_pointers(const cpa_matrix *m, int64_t **out)
{
    void *shared = NULL;
    cpa_status st = cpa_comm_shared_alloc(m->comm, (size_t)(m->info.n_cells + 1) * sizeof **out, &shared);
    *out = shared;
    return cpa_comm_agree(m->comm, st);
}

// Adds the numbers of all ranks of the node up, so that they say where each cell begins. Collective over the node.
static cpa_status accumulate(const cpa_matrix *m, int64_t *pointer)
{
    cpa_status st;
    CPA_TRY(cpa_comm_node_barrier(m->comm));
    for (int64_t i = 0; cpa_comm_node_rank(m->comm) == 0 && i < m->info.n_cells; i++) {
        pointer[i + 1] += pointer[i];
    }
    CPA_TRY(cpa_comm_node_barrier(m->comm));
cleanup:
    return st;
}

// Counts the values of each of the dense cells [first, last) and judges them on the way.
static cpa_status count_dense(const cpa_matrix *m, int64_t first, int64_t last, int64_t *count, cpa_row_stats *stats)
{
    cpa_status st;
    cpa_decoder *decoder = NULL;
    cpa_row_stats met;
    CPA_TRY(
        cpa_decoder_create(&(cpa_decoder_plan){.file = m->file, .raw = m->raw, .max_cells = last - first}, &decoder));
    CPA_TRY(cpa_decoder_count(decoder, first, last - first, count, m->counted, &met));
    for (int64_t i = 0; i < last - first; i++) {
        met.n_empty += count[i] == 0;
    }
    cpa_row_stats_add(stats, &met);
cleanup:
    cpa_decoder_destroy(&decoder);
    return st;
}

// The end of the cells from `at` on that are stored in the same way: all dense, or all as CSR.
static int64_t end_of_kind(const cpa_matrix *m, int64_t at)
{
    const cpa_h5ad_raw *raw = m->raw;
    int k = cpa_h5ad_raw_find(raw, at);
    while (k + 1 < raw->n_parts && raw->part[k + 1].dense == raw->part[k].dense) {
        k++;
    }
    int64_t end = raw->part[k].first + raw->part[k].n_cells;
    return end < m->last ? end : m->last;
}

// The values of each cell of this rank's slice, as threads read them; those of dense cells are judged.
static cpa_status count_stored(const cpa_matrix *m, int64_t *count, cpa_row_stats *stats)
{
    cpa_status st = CPA_OK;
    for (int64_t at = m->first, end; at < m->last; at = end) {
        end = end_of_kind(m, at);
        int64_t *to = count + at - m->first;
        CPA_TRY(m->raw->part[cpa_h5ad_raw_find(m->raw, at)].dense
                    ? count_dense(m, at, end, to, stats)
                    : cpa_h5ad_count_stored(m->file, m->layer, at, end, to));
    }
cleanup:
    return st;
}

static void find_longest(cpa_matrix *m)
{
    const int64_t *extent = cpa_matrix_extent(m);
    m->longest = 0;
    for (int64_t i = 0; i < m->info.n_cells; i++) {
        int64_t values = extent[i + 1] - extent[i];
        m->longest = values > m->longest ? values : m->longest;
    }
}

static cpa_status judge_cells(const cpa_matrix *m, int64_t first, int64_t last, int64_t *count, cpa_row_stats *stats);

// Whether some cells are stored as CSR with genes that are not used, or under other numbers.
static bool is_selected(const cpa_h5ad_raw *raw)
{
    bool selected = false;
    for (int k = 0; raw != NULL && k < raw->n_parts; k++) {
        selected = selected || (!raw->part[k].dense && raw->part[k].place != NULL);
    }
    return selected;
}

static bool is_dense(const cpa_h5ad_raw *raw)
{
    bool dense = raw != NULL;
    for (int k = 0; dense && k < raw->n_parts; k++) {
        dense = raw->part[k].dense;
    }
    return dense;
}

// Where the cells begin as they are read, where that is not what becomes of them. Collective.
static cpa_status build_stored(cpa_matrix *m)
{
    cpa_status st;
    cpa_row_stats stats = {0}; // all cells are judged later
    CPA_TRY(take_pointers(m, &m->stored));
    CPA_TRY(cpa_comm_agree(m->comm, count_stored(m, m->stored + m->first + 1, &stats)));
    CPA_TRY(accumulate(m, m->stored));
    find_longest(m);
cleanup:
    return st;
}

// The values of each cell of this rank's slice; where that takes looking at all of them, they are judged on the way.
static cpa_status count_slice(cpa_matrix *m, int64_t *count, cpa_row_stats *stats)
{
    return m->stored != NULL ? judge_cells(m, m->first, m->last, count, stats)
           : m->raw != NULL  ? count_stored(m, count, stats)
                             : cpa_h5ad_count(m->file, m->layer, m->first, m->last, count);
}

static cpa_status build_indptr(cpa_matrix *m)
{
    cpa_status st;
    cpa_row_stats stats = {0};
    if (is_selected(m->raw)) {
        CPA_TRY(build_stored(m));
    }
    CPA_TRY(take_pointers(m, &m->indptr));
    CPA_TRY(cpa_comm_agree(m->comm, count_slice(m, m->indptr + m->first + 1, &stats)));
    CPA_TRY(accumulate(m, m->indptr));
    m->nnz = m->indptr[m->info.n_cells];
    find_longest(m);
    if (m->stored != NULL || is_dense(m->raw)) {
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
    void *shared[] = {(*m)->indptr, (*m)->stored};
    cpa_comm_shared_free((*m)->comm, &shared[0]);
    cpa_comm_shared_free((*m)->comm, &shared[1]);
    cpa_h5ad_raw_close(&(*m)->raw);
    cpa_free(&(*m)->path);
    cpa_free(&(*m)->counted);
    cpa_free(m);
}

// ---- Judging

// Elements of the largest chunk.
static int64_t largest_chunk(const cpa_h5ad_raw *raw)
{
    int64_t most = 0;
    for (int k = 0; k < raw->n_parts; k++) {
        const cpa_chunks *both[] = {raw->part[k].data, raw->part[k].indices};
        for (int i = 0; i < 2 && both[i] != NULL; i++) {
            int64_t n = both[i]->chunk[0] * both[i]->chunk[1];
            most = n > most ? n : most;
        }
    }
    return most;
}

cpa_status cpa_slab_init(cpa_slab *s, const cpa_matrix *m, bool wide)
{
    cpa_status st;
    int64_t chunk = largest_chunk(m->raw);
    int64_t all = cpa_matrix_extent(m)[m->info.n_cells], most = SLAB_VALUES;
    most = m->longest > most ? m->longest : most;
    most = 4 * chunk > most ? 4 * chunk : most; // or chunks would be unpacked again and again
    *s = (cpa_slab){.m = m, .max_values = all < most ? all : most};
    size_t values = (size_t)s->max_values;
    CPA_TRY(cpa_alloc(SLAB_CELLS + 1, sizeof *s->indptr, &s->indptr));
    CPA_TRY(cpa_alloc(SLAB_CELLS, sizeof *s->rows.library, &s->rows.library));
    CPA_TRY(wide ? cpa_alloc(values, sizeof *s->rows.count32, &s->rows.count32)
                 : cpa_alloc(values, sizeof *s->rows.count16, &s->rows.count16));
    CPA_TRY(cpa_matrix_is_narrow(m) ? cpa_alloc(values, sizeof *s->rows.gene16, &s->rows.gene16)
                                    : cpa_alloc(values, sizeof *s->rows.gene32, &s->rows.gene32));
    if (m->stored != NULL) {
        CPA_TRY(cpa_alloc(SLAB_CELLS, sizeof *s->rows.kept, &s->rows.kept));
    }
    s->rows.indptr = s->indptr;
    s->rows.counted = m->counted;
    CPA_TRY(cpa_decoder_create(&(cpa_decoder_plan){.file = m->file,
                                                   .raw = m->raw,
                                                   .indptr = cpa_matrix_extent(m),
                                                   .max_cells = SLAB_CELLS,
                                                   .max_values = s->max_values,
                                                   .longest = m->longest},
                               &s->decoder));
cleanup:
    return st;
}

void cpa_slab_fini(cpa_slab *s)
{
    cpa_decoder_destroy(&s->decoder);
    cpa_free(&s->indptr);
    cpa_free(&s->rows.library);
    cpa_free(&s->rows.count16);
    cpa_free(&s->rows.count32);
    cpa_free(&s->rows.gene16);
    cpa_free(&s->rows.gene32);
    cpa_free(&s->rows.kept);
}

cpa_status cpa_slab_read(cpa_slab *s, int64_t first, int64_t last, int64_t *n, cpa_row_stats *stats)
{
    const int64_t *extent = cpa_matrix_extent(s->m);
    for (*n = 0; first + *n < last && *n < SLAB_CELLS && extent[first + *n + 1] - extent[first] <= s->max_values;) {
        ++*n;
        s->indptr[*n] = extent[first + *n] - extent[first];
    }
    cpa_row_stats met;
    cpa_decoder_start(s->decoder, NULL, first, *n, &s->rows);
    cpa_status st = cpa_decoder_finish(s->decoder, &met);
    cpa_row_stats_add(stats, &met);
    return st;
}

// Looks at the cells [first, last); with `count`, says how many values of each are used.
static cpa_status judge_cells(const cpa_matrix *m, int64_t first, int64_t last, int64_t *count, cpa_row_stats *stats)
{
    cpa_status st;
    cpa_slab s = {0};
    CPA_TRY(cpa_slab_init(&s, m, true));
    for (int64_t at = first, n; at < last; at += n) {
        CPA_TRY(cpa_slab_read(&s, at, last, &n, stats));
        for (int64_t i = 0; count != NULL && i < n; i++) {
            count[at - first + i] = s.rows.kept[i];
        }
    }
cleanup:
    cpa_slab_fini(&s);
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
    CPA_TRY(cpa_comm_agree(m->comm, judge_cells(m, n * rank / size, n * (rank + 1) / size, NULL, &mine)));
    CPA_TRY(cpa_matrix_take_stats(m, &mine, true));
cleanup:
    return st;
}

cpa_status cpa_matrix_sample(cpa_matrix *m)
{
    cpa_status st = CPA_OK;
    cpa_slab s = {0};
    int64_t n;
    if (m->judged || m->raw == NULL) {
        return CPA_OK;
    }
    CPA_TRY(cpa_slab_init(&s, m, true));
    CPA_TRY(cpa_slab_read(&s, 0, m->info.n_cells, &n, &m->stats));
cleanup:
    cpa_slab_fini(&s);
    return st;
}

// Adds the genes with counts of all ranks up. Collective.
static cpa_status share_counted(const cpa_matrix *m)
{
    int64_t *sum = NULL;
    size_t n = (size_t)m->info.n_genes;
    cpa_status st = cpa_alloc(n, sizeof *sum, &sum);
    CPA_TRY(cpa_comm_agree(m->comm, st));
    for (size_t g = 0; g < n; g++) {
        sum[g] = m->counted[g];
    }
    CPA_TRY(cpa_comm_sum_i64(m->comm, sum, (int)n));
    for (size_t g = 0; g < n; g++) {
        m->counted[g] = sum[g] > 0;
    }
cleanup:
    cpa_free(&sum);
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
    CPA_TRY(share_counted(m));
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

// Names the first genes without counts; all [n_genes] names.
static cpa_status warn_of_silent(const cpa_matrix *m, const cpa_strings *all)
{
    cpa_status st = CPA_OK;
    cpa_strings some = {0};
    cpa_text names = {0};
    int64_t n = 0;
    for (int64_t g = 0; g < m->info.n_genes; g++) {
        n += m->counted[g] == 0;
        if (m->counted[g] == 0 && some.n < SOME_NAMES) {
            CPA_TRY(cpa_strings_add(&some, all->s[g]));
        }
    }
    if (n > 0) {
        CPA_TRY(cpa_text_add_names(&names, &some, n));
        cpa_warn("%s: %lld of the %lld genes of %s have no counts; they are kept: %s", cpa_h5ad_path(m->file),
                 (long long)n, (long long)m->info.n_genes, m->name, cpa_text_str(&names));
    }
cleanup:
    cpa_strings_fini(&some);
    cpa_text_fini(&names);
    return st;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Names the first names that several genes have; sorts all.
static cpa_status warn_of_shared(const cpa_matrix *m, cpa_strings *all)
{
    cpa_status st = CPA_OK;
    cpa_strings some = {0};
    cpa_text names = {0};
    int64_t n_names = 0, n_beyond = 0;
    qsort(all->s, (size_t)all->n, sizeof *all->s, by_text);
    for (int64_t g = 0, next; g < all->n; g = next) {
        for (next = g + 1; next < all->n && strcmp(all->s[next], all->s[g]) == 0;) {
            next++;
        }
        n_names += next > g + 1;
        n_beyond += next - g - 1;
        if (next > g + 1 && some.n < SOME_NAMES) {
            CPA_TRY(cpa_strings_add(&some, all->s[g]));
        }
    }
    if (n_names > 0) {
        CPA_TRY(cpa_text_add_names(&names, &some, n_names));
        cpa_warn("%s: gene names are not unique: %lld of the %lld genes have the name of another one; a model of them "
                 "is for files with the same genes in the same order alone: %s",
                 cpa_h5ad_path(m->file), (long long)n_beyond, (long long)all->n, cpa_text_str(&names));
    }
cleanup:
    cpa_strings_fini(&some);
    cpa_text_fini(&names);
    return st;
}

static cpa_status warn_of_genes(const cpa_matrix *m)
{
    cpa_status st;
    cpa_strings all = {0};
    CPA_TRY(cpa_h5ad_index(m->file, "var", &all));
    CPA_TRY(warn_of_silent(m, &all));
    CPA_TRY(warn_of_shared(m, &all));
cleanup:
    cpa_strings_fini(&all);
    return st;
}

cpa_status cpa_matrix_warn(const cpa_matrix *m)
{
    const cpa_row_stats *s = &m->stats;
    const char *path = cpa_h5ad_path(m->file);
    if (s->n_non_integer > 0) {
        cpa_warn("%s: %lld of the %lld values of %s are not integers (largest value %g): to the likelihoods of "
                 "counts, nb and zinb, corrected counts are fine, normalised or log-transformed ones are not",
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
    return cpa_comm_agree(m->comm, cpa_comm_rank(m->comm) == 0 ? warn_of_genes(m) : CPA_OK);
}
