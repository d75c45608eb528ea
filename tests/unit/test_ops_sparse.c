// Owns: conformance of the sparse first layer, against dense loops in double. Never another family's.
#include "../support/ops.h"

// Rows, genes, outputs: also fewer than a vector, between slices, large enough for threads, more genes than a block has room for, and
// (square ones are full) more cells and values than are worked on at a time.
static const int shapes[][3] = {{0, 5, 3},     {1, 1, 1},     {2, 33, 31},    {31, 2, 33},     {33, 129, 65},
                                {128, 700, 1}, {5, 300, 128}, {70, 260, 200}, {33, 1000, 256}, {4, 50, 523},
                                {3, 8192, 2},  {3, 8195, 1},  {2, 17001, 3},  {600, 300, 70},  {520, 520, 9}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

// Cells with counts of all genes, each followed by what is left of a duplicate that was added up.
static cells put_full(int rows, int genes)
{
    size_t n = (size_t)rows * (size_t)genes;
    cells c = {.indptr = host((size_t)rows + 1, sizeof(int)),
               .gene = host(2 * n, sizeof(int)),
               .count = host(2 * n, sizeof(double)),
               .log1p = host(2 * n, sizeof(double)),
               .library = host((size_t)rows, sizeof(double)),
               .dense = host(n, sizeof(double)),
               .dense_log1p = host(n, sizeof(double))};
    for (int i = 0; i < rows * genes; i++) {
        c.dense[i] = c.count[2 * i] = 1 + below(5);
        c.dense_log1p[i] = c.log1p[2 * i] = rounded(log1p(c.dense[i]));
        c.gene[2 * i] = c.gene[2 * i + 1] = i % genes;
        c.library[i / genes] += c.dense[i];
        c.indptr[i / genes + 1] = 2 * (i + 1);
    }
    int nnz = 2 * rows * genes;
    mat count = put_values(1, nnz, 0, c.count), log = put_values(1, nnz, 0, c.log1p);
    mat library = put_values(1, rows, 0, c.library);
    c.x = (cpa_csr){rows,         genes,      nnz,           put_ints(c.indptr, rows + 1), put_ints(c.gene, nnz),
                    count.m.data, log.m.data, library.m.data};
    return c;
}

static cells put_shape(int i, bool fractions)
{
    int rows = shapes[i][0], genes = shapes[i][1];
    return rows == genes ? put_full(rows, genes) : put_cells(rows, genes, 0.3, fractions);
}

static void case_sparse_linear(void)
{
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        int rows = shapes[i / 2][0], genes = shapes[i / 2][1], n = shapes[i / 2][2];
        bool use_log1p = i % 2 == 0;
        cells c = put_shape(i / 2, !use_log1p);
        const double *x = use_log1p ? c.dense_log1p : c.dense;
        mat wt = put_uniform(genes, n, i % 3, -1, 1), y = put_nan(rows, n, i % 2);
        double *want = host((size_t)rows * (size_t)n, sizeof *want);
        for (int b = 0; b < rows; b++) {
            for (int g = 0; g < genes; g++) {
                for (int j = 0; j < n; j++) {
                    want[b * n + j] += x[b * genes + g] * wt.h[g * n + j];
                }
            }
        }
        OK(cpa_op_sparse_linear(be, y.m, c.x, wt.m, use_log1p));
        near("sparse_linear", get(y), want, rows * n, tolerance);
        DROP(wt, y);
        drop_cells(c);
    }
}

static void case_sparse_linear_grad(void)
{
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        int rows = shapes[i / 2][0], genes = shapes[i / 2][1], n = shapes[i / 2][2];
        bool use_log1p = i % 2 == 0;
        cells c = put_shape(i / 2, !use_log1p);
        const double *x = use_log1p ? c.dense_log1p : c.dense;
        mat dy = put_uniform(rows, n, i % 3, -1, 1), dwt = put_nan(genes, n, i % 2);
        double *want = host((size_t)genes * (size_t)n, sizeof *want);
        for (int b = 0; b < rows; b++) {
            for (int g = 0; g < genes; g++) {
                for (int j = 0; j < n; j++) {
                    want[g * n + j] += x[b * genes + g] * dy.h[b * n + j];
                }
            }
        }
        OK(cpa_op_sparse_linear_grad(be, dwt.m, c.x, dy.m, use_log1p));
        near("sparse_linear_grad", get(dwt), want, genes * n, tolerance);
        DROP(dy, dwt);
        drop_cells(c);
    }
}

// As bfloat16, where the backend has that: every count that a float's upper half can hold as it is, the others rounded to it.
static void expand_bf16(int rows, int genes, int pad)
{
    int ld = genes + pad, n = rows * ld;
    cells c = put_cells(rows, genes, 0.3, true);
    uint16_t *raw = host((size_t)n, sizeof *raw);
    memset(raw, 0x55, (size_t)n * sizeof *raw);
    void *dev;
    OK(cpa_op_alloc(be, (size_t)n * sizeof *raw, &dev));
    OK(cpa_op_upload(be, dev, raw, (size_t)n * sizeof *raw));
    OK(cpa_op_csr_expand(be, (cpa_mat){dev, rows, genes, ld, true}, c.x, true));
    OK(cpa_op_download(be, raw, dev, (size_t)n * sizeof *raw));
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)raw[i] << 16;
        float got;
        memcpy(&got, &bits, sizeof got);
        double want = i % ld < genes ? c.dense_log1p[i / ld * genes + i % ld] : 0;
        assert_true(i % ld < genes ? fabs((double)got - want) <= 0x1p-8 * want : raw[i] == 0x5555);
        digest = digest * 31 + raw[i];
    }
    drop(dev);
    drop_cells(c);
}

static void case_csr_expand(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        int rows = shapes[i][0], genes = shapes[i][1];
        cells c = put_shape(i, true);
        mat y = put_nan(rows, genes, i % 3);
        OK(cpa_op_csr_expand(be, y.m, c.x, false));
        near("csr_expand, counts", get(y), c.dense, rows * genes, 0);
        OK(cpa_op_csr_expand(be, y.m, c.x, true));
        near("csr_expand, log1p", get(y), c.dense_log1p, rows * genes, 0);
        DROP(y);
        drop_cells(c);
        if (strcmp(cpa_backend_name(be), "cpu") != 0 && strcmp(cpa_backend_name(be), "check") != 0) {
            expand_bf16(rows, genes, i % 4);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_SPARSE(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
