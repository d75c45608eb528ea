// Owns: conformance of taking batches from all cells: which entries, in which places, mixed or not, against the dense counts.
// Never another family's.
#include "../support/ops.h"

// Compact cells on the backend, and the same densely.
typedef struct all_cells {
    cpa_all_cells c;
    cells of;
} all_cells;

static void *put_bytes(const void *h, size_t bytes)
{
    void *dev;
    OK(cpa_op_alloc(be, bytes, &dev));
    OK(cpa_op_upload(be, dev, h, bytes));
    return dev;
}

static all_cells put_all(int rows, int genes, double density, bool gene16, bool count16, int n_log1p)
{
    all_cells a = {.of = put_cells(rows, genes, density, !count16)};
    const int nnz = a.of.indptr[rows];
    uint16_t *short_gene = host((size_t)nnz, 2), *short_count = host((size_t)nnz, 2);
    uint32_t *gene = host((size_t)nnz, 4);
    float *count = host((size_t)nnz, 4);
    int64_t *indptr = host((size_t)rows + 1, 8);
    double *log = host((size_t)n_log1p, sizeof *log);
    for (int k = 0; k < nnz; k++) {
        gene[k] = (uint32_t)a.of.gene[k];
        short_gene[k] = (uint16_t)gene[k];
        count[k] = (float)a.of.count[k];
        short_count[k] = (uint16_t)a.of.count[k];
    }
    for (size_t i = 0; i < (size_t)rows * (size_t)genes; i++) {
        a.of.dense[i] = (double)(float)a.of.dense[i]; // as all cells have them in any build
    }
    for (int i = 0; i <= rows; i++) {
        indptr[i] = a.of.indptr[i];
    }
    for (int k = 0; k < n_log1p; k++) {
        log[k] = log1p(k);
    }
    a.c = (cpa_all_cells){.n_cells = rows, .n_genes = genes, .gene16 = gene16, .count16 = count16, .n_log1p = n_log1p};
    a.c.gene = put_bytes(gene16 ? (void *)short_gene : gene, (size_t)nnz * (gene16 ? 2 : 4));
    a.c.count = put_bytes(count16 ? (void *)short_count : count, (size_t)nnz * (count16 ? 2 : 4));
    a.c.indptr = put_bytes(indptr, ((size_t)rows + 1) * 8);
    a.c.library = a.of.x.library;
    a.c.log1p = put_values(1, n_log1p, 0, log).m.data;
    return a;
}

static int *get_ints(const cpa_dev_int *dev, int n)
{
    int *h = host((size_t)n, sizeof *h);
    OK(cpa_op_download(be, h, dev, (size_t)n * sizeof *h));
    for (int i = 0; i < n; i++) {
        digest = (digest ^ (uint64_t)h[i]) * 0x100000001b3u;
    }
    return h;
}

// As exact as one rounding of the product and one of the sum, which may be one, leave it.
static bool same(double got, double want)
{
    return fabs(got - want) <= 2 * (sizeof(cpa_real) == sizeof(float) ? 0x1p-23 : 0x1p-52) * fabs(want);
}

// What `n` cells of a must have come to, given the batch x; partner NULL: not mixed.
static void judge(const all_cells *a, cpa_csr x, const int *row, const int *partner, double lambda)
{
    const int genes = x.cols, *indptr = get_ints(x.indptr, x.rows + 1), nnz = indptr[x.rows];
    const int *gene = get_ints(x.gene, nnz);
    const double *count = get((mat){cpa_mat_of(x.count, 1, nnz), NULL}),
                 *log = get((mat){cpa_mat_of(x.log1p, 1, nnz), NULL});
    const double *library = get((mat){cpa_mat_of(x.library, 1, x.rows), NULL});
    double *dense = host((size_t)genes, sizeof *dense);
    assert_int_equal(indptr[0], 0);
    for (int i = 0; i < x.rows; i++) {
        const double *own = a->of.dense + (size_t)row[i] * (size_t)genes;
        const double *other = partner ? a->of.dense + (size_t)partner[i] * (size_t)genes : own;
        memset(dense, 0, (size_t)genes * sizeof *dense);
        for (int k = indptr[i]; k < indptr[i + 1]; k++) {
            assert_true(k == indptr[i] || gene[k] > gene[k - 1] || (!partner && count[k] == 0));
            dense[gene[k]] += count[k];
            assert_true(
                same(log[k], log1p(partner ? lambda * own[gene[k]] + (1 - lambda) * other[gene[k]] : own[gene[k]])) ||
                (log[k] == 0 && count[k] == 0));
        }
        for (int g = 0; g < genes; g++) {
            assert_true(partner ? same(dense[g], lambda * own[g] + (1 - lambda) * other[g]) : dense[g] == own[g]);
        }
        const double sum = a->of.library[row[i]];
        assert_true(partner ? same(library[i], lambda * sum + (1 - lambda) * a->of.library[partner[i]])
                            : library[i] == rounded(sum));
    }
}

static void take(int n_all, int genes, int n, double density, bool gene16, bool count16, int n_log1p)
{
    all_cells a = put_all(n_all, genes, density, gene16, count16, n_log1p);
    int *row = host((size_t)n, sizeof *row), *partner = host((size_t)n, sizeof *partner), room = 0, most = 0;
    for (int i = 0; i < n; i++) {
        row[i] = below(n_all);
        partner[i] = i % 5 ? below(n_all) : row[i];
    }
    for (int i = 0; i < n_all; i++) {
        const int of_cell = a.of.indptr[i + 1] - a.of.indptr[i];
        most = of_cell > most ? of_cell : most;
    }
    room = 2 * n * most + 1;
    int *none = host((size_t)(room > n ? room : n) + 1, sizeof *none);
    cpa_csr x = {.rows = n, .cols = genes, .nnz = room};
    mat count = put_values(1, room, 0, host((size_t)room, 8)), log = put_values(1, room, 0, host((size_t)room, 8));
    mat library = put_values(1, n, 0, host((size_t)n, 8));
    x.indptr = put_ints(none, n + 1);
    x.gene = put_ints(none, room);
    x.count = count.m.data;
    x.log1p = log.m.data;
    x.library = library.m.data;
    cpa_dev_int *rows = put_ints(row, n), *partners = put_ints(partner, n);
    OK(cpa_op_take_cells(be, x, a.c, rows, NULL, 1));
    judge(&a, x, row, NULL, 1);
    OK(cpa_op_take_cells(be, x, a.c, rows, partners, 0.3));
    judge(&a, x, row, partner, 0.3);
    drop(rows);
    drop(partners);
    drop(x.indptr);
    drop(x.gene);
    DROP(count, log, library);
    drop(a.c.gene);
    drop(a.c.count);
    drop(a.c.indptr);
    drop(a.c.log1p);
    drop_cells(a.of);
}

static void case_take_cells(void)
{
    take(7, 5, 1, 0.5, true, true, 16);
    take(20, 60, 33, 0.3, true, false, 0);
    take(40, 2049, 30, 0.05, false, true, 4096); // more genes than a block mixes at a time
    take(30, 4500, 300, 0.02, false, false, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_CELLS(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
