// Owns: copying cells into batches: counts, ln(1 + count), meaning. Allocates nothing while filling, never chooses cells.
#include "cpa/data/loader.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum {
    TABLE_SIZE = 4096,    // counts below this are looked up
    PARALLEL_NNZ = 65536, // below this a team of threads costs more than it saves
    AHEAD = 16,           // cells that are asked of memory before it is their turn
    LINE = 64,            // bytes that memory gives at once
};

static cpa_real log1p_table[TABLE_SIZE];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (int k = 0; k < TABLE_SIZE; k++) {
        log1p_table[k] = (cpa_real)log1p((double)k);
    }
}

const cpa_real *cpa_loader_log1p(int *n)
{
    pthread_once(&table_once, fill_table);
    *n = TABLE_SIZE;
    return log1p_table;
}

// Eight counts, and their logarithms: the first 16 of the table are two registers, and most counts are below.
enum { EIGHT = 8 };
typedef uint16_t shorts __attribute__((vector_size(EIGHT * sizeof(uint16_t))));
typedef int32_t ints __attribute__((vector_size(EIGHT * sizeof(int32_t))));
typedef cpa_real reals __attribute__((vector_size(EIGHT * sizeof(cpa_real))));
#ifdef CPA_DOUBLE
typedef int64_t places __attribute__((vector_size(EIGHT * sizeof(int64_t))));
#else
typedef ints places;
#endif

static cpa_real log_of(uint16_t count)
{
    return count < TABLE_SIZE ? log1p_table[count] : (cpa_real)log1p((double)count);
}

// The logarithms of eight counts below 16, of which `low` and `high` are all there are. By address: how registers of
// this width are handed over depends on the instruction set.
static inline void logs_of(const reals *low, const reals *high, const ints *count, reals *logs)
{
#if __has_builtin(__builtin_shuffle)
    *logs = __builtin_shuffle(*low, *high, __builtin_convertvector(*count, places));
#else // clang
    for (int k = 0; k < EIGHT; k++) {
        (*logs)[k] = (*count)[k] < EIGHT ? (*low)[(*count)[k]] : (*high)[(*count)[k] - EIGHT];
    }
#endif
}

// Copies `n` 16-bit counts and their logarithms.
static void copy_counts16(const uint16_t *restrict from, int64_t n, cpa_real *restrict count, cpa_real *restrict log)
{
    reals low, high;
    memcpy(&low, log1p_table, sizeof low);
    memcpy(&high, log1p_table + EIGHT, sizeof high);
    int64_t i = 0;
    for (; i + EIGHT <= n; i += EIGHT) {
        shorts eight;
        uint64_t half[2];
        memcpy(&eight, from + i, sizeof eight);
        memcpy(half, from + i, sizeof half);
        ints wide = __builtin_convertvector(eight, ints);
        reals counts = __builtin_convertvector(wide, reals);
        memcpy(count + i, &counts, sizeof counts);
        if (((half[0] | half[1]) & 0xFFF0FFF0FFF0FFF0U) == 0) {
            reals logs;
            logs_of(&low, &high, &wide, &logs);
            memcpy(log + i, &logs, sizeof logs);
        } else {
            for (int k = 0; k < EIGHT; k++) {
                log[i + k] = log_of(from[i + k]);
            }
        }
    }
    for (; i < n; i++) {
        count[i] = from[i];
        log[i] = log_of(from[i]);
    }
}

static void copy_counts32(const float *restrict from, int64_t n, cpa_real *restrict count, cpa_real *restrict log)
{
    for (int64_t i = 0; i < n; i++) {
        float c = from[i];
        bool tabled = c < (float)TABLE_SIZE && c == (float)(int)c;
        count[i] = c;
        log[i] = tabled ? log1p_table[(int)c] : (cpa_real)log1p((double)c);
    }
}

// Must be inlined: the compiler takes a call that only asks for one without effect, and drops it.
static inline __attribute__((always_inline)) void ask_for(const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += LINE) {
        __builtin_prefetch((const char *)from + i);
    }
}

// The cells of a batch lie scattered over far more memory than a cache holds: waiting for them would take longer than copying.
static inline __attribute__((always_inline)) void ask_for_cell(const cpa_cells *cells, int64_t row)
{
    int64_t from = cells->indptr[row];
    size_t n = (size_t)cpa_cells_nnz(cells, row);
    __builtin_prefetch(&cells->library[row]);
    if (cells->gene16 != NULL) {
        ask_for(cells->gene16 + from, n * sizeof *cells->gene16);
    } else {
        ask_for(cells->gene32 + from, n * sizeof *cells->gene32);
    }
    if (cells->count16 != NULL) {
        ask_for(cells->count16 + from, n * sizeof *cells->count16);
    } else {
        ask_for(cells->count32 + from, n * sizeof *cells->count32);
    }
}

static void copy_cell(const cpa_cells *cells, int64_t row, cpa_batch *batch, int slot)
{
    int64_t from = cells->indptr[row], n = cpa_cells_nnz(cells, row);
    int32_t *restrict gene = batch->gene + batch->indptr[slot];
    cpa_real *count = batch->count + batch->indptr[slot], *log = batch->log1p + batch->indptr[slot];
    if (cells->gene16 != NULL) {
        const uint16_t *restrict gene16 = cells->gene16 + from;
        for (int64_t i = 0; i < n; i++) {
            gene[i] = gene16[i];
        }
    } else {
        const uint32_t *restrict gene32 = cells->gene32 + from;
        for (int64_t i = 0; i < n; i++) {
            gene[i] = (int32_t)gene32[i];
        }
    }
    if (cells->count16 != NULL) {
        copy_counts16(cells->count16 + from, n, count, log);
    } else {
        copy_counts32(cells->count32 + from, n, count, log);
    }
    batch->library[slot] = (cpa_real)cells->library[row];
}

static void copy_meaning(const cpa_registry *r, int64_t row, cpa_batch *batch, int slot)
{
    const cpa_condition *condition = &r->condition[r->condition_of[row]];
    int32_t *pert = batch->pert + (int64_t)slot * batch->max_comb_len;
    cpa_real *dose = batch->dose + (int64_t)slot * batch->max_comb_len;
    for (int k = 0; k < batch->max_comb_len; k++) {
        pert[k] = k < condition->n ? condition->pert[k] : CPA_PAD;
        dose[k] = k < condition->n ? (cpa_real)condition->dose[k] : 0;
    }
    for (int c = 0; c < batch->n_covs; c++) {
        batch->cov[(int64_t)c * batch->max_cells + slot] = r->cov[c].code[row];
    }
    batch->label[slot] = condition->label;
    batch->category[slot] = r->category_of[row];
    batch->cell[slot] = (int32_t)(uint32_t)row;
}

static inline __attribute__((always_inline)) void ask_for_meaning(const cpa_registry *r, int64_t row)
{
    __builtin_prefetch(&r->condition_of[row]);
    __builtin_prefetch(&r->category_of[row]);
    for (int c = 0; c < r->n_covs; c++) {
        __builtin_prefetch(&r->cov[c].code[row]);
    }
}

// The counts of cell row[i]: at place[i], or with `place` NULL in `cells`, which hold all.
static inline cpa_place place_of(const cpa_cells *cells, const cpa_place *place, const int64_t *row, int i)
{
    return place != NULL ? place[i] : (cpa_place){cells, row[i]};
}

static cpa_status check_meaning(const cpa_registry *registry, const cpa_batch *batch)
{
    return batch->n_covs == registry->n_covs && batch->max_comb_len >= registry->max_comb_len
               ? CPA_OK
               : cpa_fail(CPA_INTERNAL,
                          "a batch made for %d covariates and %d components cannot hold cells with %d and %d",
                          batch->n_covs, batch->max_comb_len, registry->n_covs, registry->max_comb_len);
}

cpa_status cpa_loader_name(const cpa_registry *registry, const int64_t *row, int n, cpa_batch *batch)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(n <= batch->max_cells, CPA_INTERNAL, "a batch of %d cells does not fit into one made for %d", n,
                batch->max_cells);
    CPA_TRY(check_meaning(registry, batch));
    batch->n_cells = n;
    batch->nnz = batch->max_nnz;
    for (int i = 0; i < n; i++) {
        batch->row[i] = (int32_t)row[i];
        copy_meaning(registry, row[i], batch, i);
    }
cleanup:
    return st;
}

static cpa_status fill(const cpa_cells *cells, const cpa_place *place, const cpa_registry *registry, const int64_t *row,
                       int n, cpa_batch *batch)
{
    cpa_status st = CPA_OK;
    int64_t nnz = 0;
    for (int i = 0; i < n; i++) {
        cpa_place p = place_of(cells, place, row, i);
        nnz += cpa_cells_nnz(p.cells, p.row);
    }
    CPA_REQUIRE(n <= batch->max_cells && nnz <= batch->max_nnz, CPA_INTERNAL,
                "a batch of %d cells and %lld values does not fit into one made for %d and %lld", n, (long long)nnz,
                batch->max_cells, (long long)batch->max_nnz);
    CPA_TRY(check_meaning(registry, batch));
    pthread_once(&table_once, fill_table);
    batch->n_cells = n;
    batch->nnz = nnz;
    batch->indptr[0] = 0;
    for (int i = 0; i < n; i++) {
        cpa_place p = place_of(cells, place, row, i);
        batch->indptr[i + 1] = batch->indptr[i] + (int32_t)cpa_cells_nnz(p.cells, p.row);
        ask_for_meaning(registry, row[i + AHEAD < n ? i + AHEAD : i]);
        copy_meaning(registry, row[i], batch, i);
    }
#pragma omp parallel for schedule(static) if (nnz >= PARALLEL_NNZ)
    for (int i = 0; i < n; i++) {
        cpa_place p = place_of(cells, place, row, i),
                  later = place_of(cells, place, row, i + AHEAD < n ? i + AHEAD : i);
        ask_for_cell(later.cells, later.row);
        copy_cell(p.cells, p.row, batch, i);
    }
cleanup:
    return st;
}

cpa_status cpa_loader_fill(const cpa_cells *cells, const cpa_registry *registry, const int64_t *row, int n,
                           cpa_batch *batch)
{
    return fill(cells, NULL, registry, row, n, batch);
}

cpa_status cpa_loader_fill_from(const cpa_place *place, const cpa_registry *registry, const int64_t *row, int n,
                                cpa_batch *batch)
{
    return fill(NULL, place, registry, row, n, batch);
}

cpa_status cpa_loader_max_nnz(const cpa_cells *cells, int n, int64_t *out)
{
    cpa_status st;
    int64_t *n_with = NULL, largest = 0, left = n, sum = 0; // n_with[k]: cells with k values
    for (int64_t i = 0; i < cells->n_cells; i++) {
        largest = cpa_cells_nnz(cells, i) > largest ? cpa_cells_nnz(cells, i) : largest;
    }
    CPA_TRY(cpa_alloc((size_t)largest + 1, sizeof *n_with, &n_with));
    for (int64_t i = 0; i < cells->n_cells; i++) {
        n_with[cpa_cells_nnz(cells, i)]++;
    }
    for (int64_t k = largest; k > 0 && left > 0; k--) {
        int64_t taken = n_with[k] < left ? n_with[k] : left;
        sum += taken * k;
        left -= taken;
    }
    *out = sum;
cleanup:
    cpa_free(&n_with);
    return st;
}
