// Owns: the file of a simulated atlas: columns, names, counts. Never holds more cells than fit into a few megabytes, and never
// lets a byte depend on how many those are, or on threads.
#include "cpa/data/simulate.h"

#include <omp.h>
#include <string.h>

#include "cpa/data/h5ad_write.h"
#include "rowsort_impl.h"
#include "simulate_impl.h"

enum {
    ROWS = 1 << 14,        // cells of a column at once
    BLOCK_BYTES = 8 << 20, // of counts at once
    MAX_BLOCK = 1024,      // cells
};

// ---- Columns

typedef enum column { CONDITION, DOSE, CELL_TYPE, BATCH, SPLIT, COV_COND, N_COLUMNS } column;

static const char *const column_name[N_COLUMNS] = {
    [CONDITION] = "condition", [DOSE] = "dose",   [CELL_TYPE] = "cell_type",
    [BATCH] = "batch",         [SPLIT] = "split", [COV_COND] = "cov_cond",
};

static char *split_names[] = {[CPA_SIM_TRAIN] = "train", [CPA_SIM_TEST] = "test", [CPA_SIM_OOD] = "ood"};

static int32_t code_of(const cpa_truth *t, column k, const cpa_sim_cell *cell)
{
    const cpa_sim_condition *c = &t->condition[cell->condition];
    const int32_t code[N_COLUMNS] = {
        [CONDITION] = c->name, [DOSE] = c->text,      [CELL_TYPE] = cell->type,
        [BATCH] = cell->batch, [SPLIT] = cell->split, [COV_COND] = (int32_t)(cell->type * t->name.n + c->name),
    };
    return code[k];
}

static cpa_status write_column(const cpa_truth *t, cpa_h5 *f, column k)
{
    cpa_status st;
    const cpa_strings splits = {sizeof split_names / sizeof *split_names, split_names};
    const cpa_strings *const level[N_COLUMNS] = {
        [CONDITION] = &t->name, [DOSE] = &t->dose_text, [CELL_TYPE] = &t->type,
        [BATCH] = &t->batch,    [SPLIT] = &splits,      [COV_COND] = &t->cov_cond,
    };
    char *path = NULL;
    int32_t *code = NULL;
    cpa_h5ad_codes *codes = NULL;
    CPA_TRY(cpa_alloc(ROWS, sizeof *code, &code));
    CPA_TRY(cpa_sprintf(&path, "obs/%s", column_name[k]));
    CPA_TRY(cpa_h5ad_codes_open(f, path, level[k], t->config->gzip, &codes));
    for (int64_t first = 0; first < t->config->n_cells; first += ROWS) {
        int64_t left = t->config->n_cells - first, n = left < ROWS ? left : ROWS;
        for (int64_t i = 0; i < n; i++) {
            cpa_sim_cell cell = cpa_sim_cell_of(t, first + i);
            code[i] = code_of(t, k, &cell);
        }
        CPA_TRY(cpa_h5ad_codes_add(codes, n, code));
    }
    CPA_TRY(cpa_h5ad_codes_finish(&codes));
cleanup:
    cpa_h5ad_codes_close(&codes);
    cpa_free(&code);
    cpa_free(&path);
    return st;
}

static cpa_status write_names(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st;
    cpa_strings names = {0};
    char *name = NULL;
    int digits = 1;
    for (int64_t k = t->config->n_cells; k >= 10; k /= 10) {
        digits++;
    }
    CPA_TRY(cpa_h5_create_strings(f, "obs/_index", t->config->n_cells));
    CPA_TRY(cpa_h5ad_encode(f, "obs/_index", "string-array", "0.2.0"));
    for (int64_t first = 0; first < t->config->n_cells; first += ROWS) {
        int64_t left = t->config->n_cells - first, n = left < ROWS ? left : ROWS;
        for (int64_t i = 0; i < n; i++) {
            CPA_TRY(cpa_sprintf(&name, "cell_%0*lld", digits, (long long)(first + i)));
            CPA_TRY(cpa_strings_add(&names, name));
            cpa_free(&name);
        }
        CPA_TRY(cpa_h5_fill_strings(f, "obs/_index", first, &names));
        cpa_strings_fini(&names);
    }
cleanup:
    cpa_free(&name);
    cpa_strings_fini(&names);
    return st;
}

static cpa_status write_obs(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    cpa_strings columns = {0};
    for (int k = 0; k < N_COLUMNS; k++) {
        CPA_TRY(cpa_strings_add(&columns, column_name[k]));
    }
    CPA_TRY(cpa_h5ad_begin_frame(f, "obs", &columns));
    CPA_TRY(write_names(t, f));
    for (int k = 0; k < N_COLUMNS; k++) {
        CPA_TRY(write_column(t, f, (column)k));
    }
cleanup:
    cpa_strings_fini(&columns);
    return st;
}

// ---- Counts

// A block of cells: first drawn each into its own place, then moved together.
typedef struct block {
    int64_t room; // cells
    int64_t *n;   // [room] counts of each
    int32_t *gene;
    float *count; // [room, genes]
    int n_threads;
    cpa_sim_room *of; // [threads]
} block;

static cpa_status block_init(const cpa_truth *t, block *b)
{
    cpa_status st;
    int64_t n_genes = t->config->n_genes, fits = BLOCK_BYTES / (n_genes * 8);
    *b = (block){.room = fits < 1 ? 1 : fits < MAX_BLOCK ? fits : MAX_BLOCK, .n_threads = omp_get_max_threads()};
    CPA_TRY(cpa_alloc((size_t)b->room, sizeof *b->n, &b->n));
    CPA_TRY(cpa_alloc((size_t)(b->room * n_genes), sizeof *b->gene, &b->gene));
    CPA_TRY(cpa_alloc((size_t)(b->room * n_genes), sizeof *b->count, &b->count));
    CPA_TRY(cpa_alloc((size_t)b->n_threads, sizeof *b->of, &b->of));
    for (int k = 0; k < b->n_threads; k++) {
        CPA_TRY(cpa_sim_room_init(&b->of[k], t->config->n_genes));
    }
cleanup:
    return st;
}

static void block_fini(block *b)
{
    for (int k = 0; b->of != NULL && k < b->n_threads; k++) {
        cpa_sim_room_fini(&b->of[k]);
    }
    cpa_free(&b->of);
    cpa_free(&b->n);
    cpa_free(&b->gene);
    cpa_free(&b->count);
}

static void draw_block(const cpa_truth *t, block *b, int64_t first, int64_t n)
{
    int64_t n_genes = t->config->n_genes;
#pragma omp parallel for schedule(dynamic) num_threads(b->n_threads)
    for (int64_t i = 0; i < n; i++) {
        b->n[i] =
            cpa_sim_draw(t, first + i, &b->of[omp_get_thread_num()], b->gene + i * n_genes, b->count + i * n_genes);
    }
    int64_t end = 0;
    for (int64_t i = 0; i < n; i++) {
        memmove(b->gene + end, b->gene + i * n_genes, (size_t)b->n[i] * sizeof *b->gene);
        memmove(b->count + end, b->count + i * n_genes, (size_t)b->n[i] * sizeof *b->count);
        end += b->n[i];
    }
}

// Where the counts go: CSR as they come, CSC by way of buckets of genes.
typedef struct sink {
    cpa_h5ad_sparse *x;
    cpa_buckets *buckets; // NULL: CSR
    int64_t *cell, *gene; // [genes] of one cell
    double *value;
} sink;

static cpa_status sink_open(const cpa_truth *t, cpa_h5 *f, sink *s)
{
    cpa_status st;
    const cpa_simulate_config *c = t->config;
    bool csc = strcmp(c->format, "csc") == 0;
    double of_cell = c->density * c->n_genes, all = of_cell * (double)c->n_cells;
    CPA_TRY(cpa_h5ad_sparse_open(f, "X", csc ? CPA_LAYOUT_CSC : CPA_LAYOUT_CSR, c->n_cells, c->n_genes, CPA_H5_F32,
                                 cpa_h5ad_sparse_chunk(csc ? all / c->n_genes : of_cell), c->gzip, &s->x));
    if (csc) {
        size_t n = (size_t)c->n_genes;
        CPA_TRY(cpa_buckets_create(cpa_h5_path(f), c->n_genes, (int64_t)all, CPA_ROWSORT_ENTRIES, &s->buckets));
        CPA_TRY(cpa_alloc(n, sizeof *s->cell, &s->cell));
        CPA_TRY(cpa_alloc(n, sizeof *s->gene, &s->gene));
        CPA_TRY(cpa_alloc(n, sizeof *s->value, &s->value));
    }
cleanup:
    return st;
}

static cpa_status sink_add(sink *s, const block *b, int64_t first, int64_t n)
{
    cpa_status st = CPA_OK;
    if (s->buckets == NULL) {
        return cpa_h5ad_sparse_add(s->x, n, b->n, b->gene, b->count);
    }
    for (int64_t i = 0, at = 0; i < n; at += b->n[i++]) {
        for (int64_t k = 0; k < b->n[i]; k++) {
            s->cell[k] = first + i;
            s->gene[k] = b->gene[at + k];
            s->value[k] = b->count[at + k];
        }
        CPA_TRY(cpa_buckets_add(s->buckets, b->n[i], s->gene, s->cell, s->value));
    }
cleanup:
    return st;
}

static cpa_status sink_finish(sink *s)
{
    cpa_status st = CPA_OK;
    cpa_rowsort *columns = NULL;
    if (s->buckets != NULL) {
        CPA_TRY(cpa_rowsort_create(false, &columns));
        CPA_TRY(cpa_rowsort_buckets(columns, s->buckets, s->x));
    }
    CPA_TRY(cpa_h5ad_sparse_finish(&s->x));
cleanup:
    cpa_rowsort_destroy(&columns);
    return st;
}

static void sink_fini(sink *s)
{
    cpa_h5ad_sparse_close(&s->x);
    cpa_buckets_destroy(&s->buckets);
    cpa_free(&s->cell);
    cpa_free(&s->gene);
    cpa_free(&s->value);
}

static cpa_status write_counts(const cpa_truth *t, cpa_h5 *f)
{
    cpa_status st;
    int64_t n_cells = t->config->n_cells;
    block b = {0};
    sink s = {0};
    CPA_TRY(block_init(t, &b));
    CPA_TRY(sink_open(t, f, &s));
    for (int64_t first = 0; first < n_cells; first += b.room) {
        int64_t n = n_cells - first < b.room ? n_cells - first : b.room;
        draw_block(t, &b, first, n);
        CPA_TRY(sink_add(&s, &b, first, n));
    }
    CPA_TRY(sink_finish(&s));
cleanup:
    sink_fini(&s);
    block_fini(&b);
    return st;
}

cpa_status cpa_simulate(const cpa_simulate_config *config, const char *path)
{
    cpa_status st;
    cpa_truth t;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_truth_init(&t, config));
    CPA_TRY(cpa_h5_create(path, &f));
    CPA_TRY(cpa_h5ad_write_root(f));
    CPA_TRY(write_obs(&t, f));
    CPA_TRY(cpa_h5ad_write_frame(f, "var", &t.gene, NULL, 0));
    CPA_TRY(cpa_truth_write(&t, f));
    CPA_TRY(write_counts(&t, f));
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    cpa_truth_fini(&t);
    return st;
}
