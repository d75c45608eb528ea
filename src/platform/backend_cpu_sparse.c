// Owns: the sparse first layer on the CPU, forward and weight gradient. Only stored values are touched; never a dense
// copy of the cells.
#include "backend_cpu_impl.h"

#include <string.h>

// Outputs are accumulated in vector registers, columns in slices of 16, 8, 4, 2 or 1 of them. The wider the slice, the
// fewer mispredicted ends of short loops.
#ifdef __AVX512F__
enum { VECTOR_BYTES = 64, REGISTERS = 16 };
#else
enum { VECTOR_BYTES = 32, REGISTERS = 8 };
#endif
enum { LANES = VECTOR_BYTES / (int)sizeof(cpa_real) };
typedef cpa_real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(cpa_real)), may_alias));

// Genes, and cells, that are worked on at a time, so that the genes' rows of a slice and the cells' sums stay in cache.
enum { GENES = 64, CELLS = 64 };

// The stored values of a row, or of a gene: where, and how much.
typedef struct terms {
    const int *at;
    const cpa_real *value;
    int n;
} terms;

// y[0..) += sum over terms of value * rows[at * ld + 0..), in the order of the terms, for `registers` vectors of
// columns.
static inline __attribute__((always_inline)) void add_vectors(cpa_real *y, terms t, const cpa_real *rows, int64_t ld,
                                                              const int registers)
{
    vec acc[REGISTERS];
    vec *to = (vec *)y;
#pragma GCC unroll 16
    for (int r = 0; r < registers; r++) {
        acc[r] = to[r];
    }
    for (int k = 0; k < t.n; k++) {
        const vec *row = (const vec *)(rows + t.at[k] * ld);
        cpa_real x = t.value[k];
#pragma GCC unroll 16
        for (int r = 0; r < registers; r++) {
            acc[r] += x * row[r];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < registers; r++) {
        to[r] = acc[r];
    }
}

// The same for columns fewer than a vector.
static void add_narrow(cpa_real *y, terms t, const cpa_real *rows, int64_t ld, int cols)
{
    for (int k = 0; k < t.n; k++) {
        const cpa_real *row = rows + t.at[k] * ld;
        cpa_real x = t.value[k];
        for (int j = 0; j < cols; j++) {
            y[j] += x * row[j];
        }
    }
}

// The columns of the slice that begins at `col`.
static int slice_width(int cols, int col)
{
    int left = cols - col, registers = REGISTERS;
    while (registers > 1 && left < registers * LANES) {
        registers /= 2;
    }
    return left < LANES ? left : registers * LANES;
}

static void add_terms(cpa_real *y, terms t, const cpa_real *rows, int64_t ld, int width)
{
    switch (width) {
    case 16 * LANES: // only where REGISTERS is 16
        add_vectors(y, t, rows, ld, REGISTERS);
        break;
    case 8 * LANES:
        add_vectors(y, t, rows, ld, 8);
        break;
    case 4 * LANES:
        add_vectors(y, t, rows, ld, 4);
        break;
    case 2 * LANES:
        add_vectors(y, t, rows, ld, 2);
        break;
    case LANES:
        add_vectors(y, t, rows, ld, 1);
        break;
    default:
        add_narrow(y, t, rows, ld, width);
    }
}

// The stored values that the layer sees.
static const cpa_real *values_of(cpa_csr x, bool use_log1p)
{
    return cpa_reals(use_log1p ? x.log1p : x.count);
}

// Y for the cells [b0, b1); cursor[b] walks along each cell's genes.
static void linear_rows(cpa_mat y, cpa_csr x, const cpa_real *value, cpa_mat wt, int b0, int b1, int *cursor)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    for (int col = 0, width; col < y.cols; col += width) {
        width = slice_width(y.cols, col);
        for (int b = b0; b < b1; b++) {
            cursor[b] = indptr[b];
            memset(cpa_row(y, b) + col, 0, (size_t)width * sizeof(cpa_real));
        }
        for (int g = 0; g < wt.rows; g += GENES) {
            for (int b = b0; b < b1; b++) {
                int k = cursor[b], end = indptr[b + 1];
                while (k < end && gene[k] < g + GENES) {
                    k++;
                }
                terms t = {gene + cursor[b], value + cursor[b], k - cursor[b]};
                add_terms(cpa_row(y, b) + col, t, cpa_reals(wt.data) + col, wt.ld, width);
                cursor[b] = k;
            }
        }
    }
}

// Work below this many multiplications is done by one thread.
static const int64_t serial_work = 1 << 17;

cpa_status cpa_cpu_sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    int *cursor;
    cpa_status st = cpa_cpu_scratch(be, (size_t)y.rows * sizeof *cursor, &cursor);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel if ((int64_t)x.nnz * y.cols >= serial_work)
    {
        int id = omp_get_thread_num(), of = omp_get_num_threads();
        int end = (int)((int64_t)y.rows * (id + 1) / of);
        for (int b = (int)((int64_t)y.rows * id / of); b < end; b += CELLS) {
            linear_rows(y, x, values_of(x, use_log1p), wt, b, end - b < CELLS ? end : b + CELLS, cursor);
        }
    }
    return CPA_OK;
}

// Genes whose values are gathered together, sorted by gene, before they are summed.
enum { BIN = 128 };

// A thread's scratch for one bin of genes.
typedef struct bin {
    int *cursor;     // [cells] next stored value of each cell
    int *cell;       // [BIN * cells] cells of the bin's values, by gene
    cpa_real *value; // [BIN * cells]
    int start[BIN + 1];
} bin;

static size_t bin_bytes(int cells)
{
    return cpa_lines((size_t)cells * sizeof(int)) + cpa_lines((size_t)cells * BIN * sizeof(int)) +
           cpa_lines((size_t)cells * BIN * sizeof(cpa_real));
}

static bin bin_at(char *scratch, int cells)
{
    bin b = {.cursor = (int *)scratch};
    b.cell = (int *)(scratch + cpa_lines((size_t)cells * sizeof(int)));
    b.value = (cpa_real *)((char *)b.cell + cpa_lines((size_t)cells * BIN * sizeof(int)));
    return b;
}

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

// Sorts the values of genes [g, g + n) by gene; within a gene the cells ascend.
static void fill_bin(bin *b, cpa_csr x, const cpa_real *value, int g, int n)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    int next[BIN + 1] = {0};
    for (int c = 0; c < x.rows; c++) {
        for (int k = b->cursor[c]; k < indptr[c + 1] && gene[k] < g + n; k++) {
            next[gene[k] - g + 1]++;
        }
    }
    for (int i = 0; i < n; i++) {
        next[i + 1] += next[i];
    }
    memcpy(b->start, next, (size_t)(n + 1) * sizeof *next);
    for (int c = 0; c < x.rows; c++) {
        int k = b->cursor[c];
        for (; k < indptr[c + 1] && gene[k] < g + n; k++) {
            int at = next[gene[k] - g]++;
            b->cell[at] = c;
            b->value[at] = value[k];
        }
        b->cursor[c] = k;
    }
}

// Rows [g0, g1) of the gradient.
static void grad_rows(cpa_mat dwt, cpa_csr x, const cpa_real *value, cpa_mat dy, int g0, int g1, bin *b)
{
    const int *indptr = cpa_ints(x.indptr), *gene = cpa_ints(x.gene);
    for (int c = 0; c < x.rows; c++) {
        b->cursor[c] = lower_bound(gene, indptr[c], indptr[c + 1], g0);
    }
    for (int g = g0; g < g1; g += BIN) {
        int n = g1 - g < BIN ? g1 - g : BIN;
        fill_bin(b, x, value, g, n);
        for (int col = 0, width; col < dwt.cols; col += width) {
            width = slice_width(dwt.cols, col);
            for (int i = 0; i < n; i++) {
                cpa_real *to = cpa_row(dwt, g + i) + col;
                terms t = {b->cell + b->start[i], b->value + b->start[i], b->start[i + 1] - b->start[i]};
                memset(to, 0, (size_t)width * sizeof *to);
                add_terms(to, t, cpa_reals(dy.data) + col, dy.ld, width);
            }
        }
    }
}

size_t cpa_cpu_sparse_linear_grad_scratch(int rows)
{
    return bin_bytes(rows) * (size_t)omp_get_max_threads();
}

cpa_status cpa_cpu_sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    char *scratch;
    size_t each = bin_bytes(x.rows);
    cpa_status st = cpa_cpu_scratch(be, cpa_cpu_sparse_linear_grad_scratch(x.rows), &scratch);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel if ((int64_t)x.nnz * dwt.cols >= serial_work || cpa_parallel(dwt))
    {
        int id = omp_get_thread_num(), of = omp_get_num_threads();
        bin b = bin_at(scratch + (size_t)id * each, x.rows);
        int g0 = (int)((int64_t)dwt.rows * id / of), g1 = (int)((int64_t)dwt.rows * (id + 1) / of);
        grad_rows(dwt, x, values_of(x, use_log1p), dy, g0, g1, &b);
    }
    return CPA_OK;
}
