// Owns: the sparse first layer on the CPU, forward and weight gradient. Only stored values are touched; never a dense
// copy of the cells.
#include "backend_cpu_impl.h"

#include <string.h>

// Sums are kept in vector registers, columns in slices of 8, 4, 2 or 1 of them. The wider the slice, the fewer
// mispredicted ends of short loops.
#ifdef __AVX512F__
enum { VECTOR_BYTES = 64 };
#else
enum { VECTOR_BYTES = 32 };
#endif
enum { REGISTERS = 8, LANES = VECTOR_BYTES / (int)sizeof(cpa_real) };
typedef cpa_real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(cpa_real)), may_alias));

// Both ways, the sums of OUT rows take terms from IN rows at a time: cells from genes, and genes from cells. A slice of the latter lies
// together and fills the first cache (rows as far apart as a power of two would drive each other out).
enum { SLICE_BYTES = 1 << 15, IN = SLICE_BYTES / (REGISTERS * VECTOR_BYTES), OUT = 512 };

// A thread's scratch.
typedef struct tile {
    int n; // sums in hand: rows of the result
    cpa_real *sum;
    int64_t ld;
    cpa_real *row;   // [IN, cols] slice after slice
    int *at;         // [MOST] the terms: of which of these rows,
    cpa_real *value; // [MOST] how much,
    int *start;      // [OUT + 1] to which sum
    int *cursor;     // [rows] next stored value of each cell
} tile;

// No (cell, gene) has two terms: of an entry that comes twice the surplus is 0, and zeros are none.
enum { MOST = OUT * IN + 1 }; // one more, as a zero is written before it is known to be one

static size_t tile_bytes(int rows, int cols)
{
    return cpa_lines((size_t)IN * (size_t)cols * sizeof(cpa_real)) + cpa_lines(MOST * sizeof(int)) +
           cpa_lines(MOST * sizeof(cpa_real)) + cpa_lines((OUT + 1) * sizeof(int)) +
           cpa_lines((size_t)rows * sizeof(int));
}

static tile tile_at(char *scratch, int rows, int cols)
{
    tile t = {0};
    t.row = cpa_carve(&scratch, (size_t)IN * (size_t)cols * sizeof *t.row);
    t.at = cpa_carve(&scratch, MOST * sizeof *t.at);
    t.value = cpa_carve(&scratch, MOST * sizeof *t.value);
    t.start = cpa_carve(&scratch, (OUT + 1) * sizeof *t.start);
    t.cursor = cpa_carve(&scratch, (size_t)rows * sizeof *t.cursor);
    return t;
}

// ---- Sums

// The columns of the slice that begins at `col`.
static int slice_width(int cols, int col)
{
    int left = cols - col, registers = REGISTERS;
    while (registers > 1 && left < registers * LANES) {
        registers /= 2;
    }
    return left < LANES ? left : registers * LANES;
}

// Adds its terms to each sum, in their order, for a slice of so many vectors of columns.
static inline __attribute__((always_inline)) void add_vectors(const tile *t, int col, const int registers)
{
    const cpa_real *rows = t->row + col * IN;
    cpa_real *sums = t->sum + col;
    for (int i = 0; i < t->n; i++) {
        vec acc[REGISTERS], *to = (vec *)(sums + i * t->ld);
#pragma GCC unroll 8
        for (int r = 0; r < registers; r++) {
            acc[r] = to[r];
        }
        for (int k = t->start[i]; k < t->start[i + 1]; k++) {
            const vec *row = (const vec *)(rows + t->at[k] * registers * LANES);
            const cpa_real x = t->value[k];
#pragma GCC unroll 8
            for (int r = 0; r < registers; r++) {
                acc[r] += x * row[r];
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < registers; r++) {
            to[r] = acc[r];
        }
    }
}

// The same for columns fewer than a vector.
static void add_narrow(const tile *t, int col, int cols)
{
    for (int i = 0; i < t->n; i++) {
        cpa_real *to = t->sum + col + i * t->ld;
        for (int k = t->start[i]; k < t->start[i + 1]; k++) {
            const cpa_real *row = t->row + col * IN + t->at[k] * cols, x = t->value[k];
            for (int j = 0; j < cols; j++) {
                to[j] += x * row[j];
            }
        }
    }
}

static void add_terms(const tile *t, int cols)
{
    for (int col = 0, width; col < cols; col += width) {
        width = slice_width(cols, col);
        switch (width) {
        case 8 * LANES:
            add_vectors(t, col, 8);
            break;
        case 4 * LANES:
            add_vectors(t, col, 4);
            break;
        case 2 * LANES:
            add_vectors(t, col, 2);
            break;
        case LANES:
            add_vectors(t, col, 1);
            break;
        default:
            add_narrow(t, col, width);
        }
    }
}

// Brings the rows [first, first + n) into slices.
static void take_rows(const tile *t, cpa_mat rows, int first, int n)
{
    for (int i = 0; i < n; i++) {
        for (int col = 0, width; col < rows.cols; col += width) {
            width = slice_width(rows.cols, col);
            memcpy(t->row + col * IN + i * width, cpa_row(rows, first + i) + col, (size_t)width * sizeof *t->row);
        }
    }
}

// The rows [first, first + n) of the result are the sums, and 0 so far.
static void begin_sums(tile *t, cpa_mat to, int first, int n)
{
    t->n = n;
    t->sum = cpa_row(to, first);
    t->ld = to.ld;
    for (int i = 0; i < n; i++) {
        memset(cpa_row(to, first + i), 0, (size_t)to.cols * sizeof *t->sum);
    }
}

// Whoever reads a stretch of each of many rows asks for what will be read next of a row, as the processor does not see it coming. Inlined,
// or the compiler takes the call for one without effect; by address, as it may lie behind the last row.
static inline __attribute__((always_inline)) void ask_for_next(const int *gene, const cpa_real *value)
{
    enum { LINE = 64 }; // bytes
    __builtin_prefetch((const void *)((uintptr_t)gene + LINE));
    __builtin_prefetch((const void *)((uintptr_t)value + LINE));
}

// ---- Forward

// The stored values that the layer sees.
static const cpa_real *values_of(cpa_csr x, bool use_log1p)
{
    return cpa_reals(use_log1p ? x.log1p : x.count);
}

// The terms of the cells from b0 on in genes [g, g + IN); how many.
static int terms_of_cells(const tile *t, cpa_csr x, const cpa_real *value, int b0, int g)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    int n_terms = 0;
    for (int i = 0; i < t->n; i++) {
        int k = t->cursor[i], end = indptr[b0 + i + 1];
        t->start[i] = n_terms;
        for (; k < end && gene[k] < g + IN; k++) {
            t->at[n_terms] = gene[k] - g;
            t->value[n_terms] = value[k];
            n_terms += value[k] != 0; // without a branch, of which few would go as predicted
        }
        t->cursor[i] = k;
        ask_for_next(gene + k, value + k);
    }
    t->start[t->n] = n_terms;
    return n_terms;
}

// Y for n cells from b0 on.
static void linear_cells(tile *t, cpa_mat y, cpa_csr x, const cpa_real *value, cpa_mat wt, int b0, int n)
{
    memcpy(t->cursor, cpa_ints(x.indptr) + b0, (size_t)n * sizeof *t->cursor);
    begin_sums(t, y, b0, n);
    for (int g = 0; g < wt.rows; g += IN) {
        if (terms_of_cells(t, x, value, b0, g) > 0) {
            take_rows(t, wt, g, wt.rows - g < IN ? wt.rows - g : IN);
            add_terms(t, y.cols);
        }
    }
}

// Work below this many multiplications is done by one thread.
static const int64_t serial_work = 1 << 17;

size_t cpa_cpu_sparse_scratch(int rows, int cols)
{
    return tile_bytes(rows, cols) * (size_t)omp_get_max_threads();
}

cpa_status cpa_cpu_sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    char *scratch;
    cpa_status st = cpa_cpu_scratch(be, cpa_cpu_sparse_scratch(y.rows, y.cols), &scratch);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel if ((int64_t)x.nnz * y.cols >= serial_work)
    {
        int id = omp_get_thread_num(), of = omp_get_num_threads();
        tile t = tile_at(scratch + (size_t)id * tile_bytes(y.rows, y.cols), y.rows, y.cols);
        int end = (int)((int64_t)y.rows * (id + 1) / of);
        for (int b = (int)((int64_t)y.rows * id / of); b < end; b += OUT) {
            linear_cells(&t, y, x, values_of(x, use_log1p), wt, b, end - b < OUT ? end - b : OUT);
        }
    }
    return CPA_OK;
}

// ---- Weight gradient

// First stored value of a cell whose gene is at least g.
static int lower_bound(const int *gene, int from, int to, int g)
{
    while (from < to) {
        int mid = from + (to - from) / 2;
        if (gene[mid] < g) {
            from = mid + 1;
        } else {
            to = mid;
        }
    }
    return from;
}

// The terms of the genes from g on in cells [b0, b0 + m), sorted by gene; within a gene the cells ascend. How many.
static int terms_of_genes(const tile *t, cpa_csr x, const cpa_real *value, int g, int b0, int m)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    int next[OUT + 1] = {0};
    for (int b = b0; b < b0 + m; b++) {
        for (int k = t->cursor[b]; k < indptr[b + 1] && gene[k] < g + t->n; k++) {
            next[gene[k] - g + 1] += value[k] != 0;
        }
    }
    for (int i = 0; i < t->n; i++) {
        next[i + 1] += next[i];
    }
    memcpy(t->start, next, (size_t)(t->n + 1) * sizeof *next);
    for (int b = b0; b < b0 + m; b++) {
        int k = t->cursor[b];
        for (; k < indptr[b + 1] && gene[k] < g + t->n; k++) {
            if (value[k] != 0) {
                int to = next[gene[k] - g]++;
                t->at[to] = b - b0;
                t->value[to] = value[k];
            }
        }
        t->cursor[b] = k;
        ask_for_next(gene + k, value + k);
    }
    return t->start[t->n];
}

// Rows [g0, g1) of the gradient.
static void grad_genes(tile *t, cpa_mat dwt, cpa_csr x, const cpa_real *value, cpa_mat dy, int g0, int g1)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    for (int b = 0; b < x.rows; b++) {
        t->cursor[b] = lower_bound(gene, indptr[b], indptr[b + 1], g0);
    }
    for (int g = g0; g < g1; g += OUT) {
        begin_sums(t, dwt, g, g1 - g < OUT ? g1 - g : OUT);
        for (int b = 0; b < x.rows; b += IN) {
            int m = x.rows - b < IN ? x.rows - b : IN;
            if (terms_of_genes(t, x, value, g, b, m) > 0) {
                take_rows(t, dy, b, m);
                add_terms(t, dwt.cols);
            }
        }
    }
}

cpa_status cpa_cpu_sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    char *scratch;
    cpa_status st = cpa_cpu_scratch(be, cpa_cpu_sparse_scratch(x.rows, dwt.cols), &scratch);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel if ((int64_t)x.nnz * dwt.cols >= serial_work || cpa_parallel(dwt))
    {
        int id = omp_get_thread_num(), of = omp_get_num_threads();
        tile t = tile_at(scratch + (size_t)id * tile_bytes(x.rows, dwt.cols), x.rows, dwt.cols);
        int g0 = (int)((int64_t)dwt.rows * id / of), g1 = (int)((int64_t)dwt.rows * (id + 1) / of);
        grad_genes(&t, dwt, x, values_of(x, use_log1p), dy, g0, g1);
    }
    return CPA_OK;
}
