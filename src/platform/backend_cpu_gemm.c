// Owns: dense products on the CPU: oneDNN in float, OpenBLAS in the double build. The only file that knows a BLAS;
// never lets the library choose how to cut the work.
#include "backend_cpu_impl.h"

#include <string.h>

#ifdef CPA_DOUBLE
#include <cblas-openblas.h>
#else
#include <dnnl.h>
#endif

// C is cut into tiles by its shape alone, and a library call computes a tile on one thread. Left to itself oneDNN
// splits the inner dimension between threads when C is small, and then the bits depend on how many there are. The library
// repacks A and B for each tile, so that long and thin tiles cost more than these; a small C has smaller ones, for threads to share.
enum { LARGE = 1 << 18 };

static int tile_rows(int64_t elements)
{
    return elements >= LARGE ? 128 : 64;
}

static int tile_cols(int64_t elements)
{
    return elements >= LARGE ? 256 : 128;
}

// Below this many multiplications a product takes a few microseconds: not worth waking threads for.
static const int64_t serial_work = 1 << 18;

#ifdef CPA_DOUBLE
static bool tile_product(bool ta, bool tb, int m, int n, int k, double alpha, const double *a, int lda, const double *b,
                         int ldb, double beta, double *c, int ldc)
{
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
                b, ldb, beta, c, ldc);
    return true;
}

const char *cpa_cpu_isa(void)
{
    return openblas_get_corename();
}
#else
static bool tile_product(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                         int ldb, float beta, float *c, int ldc)
{
    return dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) == dnnl_success;
}

const char *cpa_cpu_isa(void)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        {dnnl_cpu_isa_sse41, "sse41"},
        {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_avx2, "avx2"},
        {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"},
        {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
        {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].isa == dnnl_get_effective_cpu_isa()) {
            return names[i].name;
        }
    }
    return "unknown";
}
#endif

// Without an inner dimension the product is 0.
static void scale_only(cpa_mat c, cpa_real beta)
{
    for (int i = 0; i < c.rows; i++) {
        cpa_real *y = cpa_row(c, i);
        for (int j = 0; j < c.cols; j++) {
            y[j] = beta == 0 ? 0 : beta * y[j];
        }
    }
}

cpa_status cpa_cpu_gemm(cpa_backend *be, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                        cpa_real beta)
{
    (void)be;
    int m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    if (m == 0 || n == 0 || k == 0) {
        scale_only(c, beta);
        return CPA_OK;
    }
    int mb = tile_rows((int64_t)m * n), nb = tile_cols((int64_t)m * n), down = (m + mb - 1) / mb,
        tiles = down * ((n + nb - 1) / nb);
    bool serial = tiles == 1 || (int64_t)m * n * k < serial_work;
    int threads = omp_get_max_threads(), failed = 0;
    if (serial) {
        omp_set_num_threads(1); // for the library: it asks how many it may use
    }
#ifdef CPA_DOUBLE
    openblas_set_num_threads(1);
#endif
#pragma omp parallel for schedule(dynamic) reduction(+ : failed) if (!serial)
    for (int i = 0; i < tiles; i++) {
        int r = i % down * mb, s = i / down * nb;
        int rows = m - r < mb ? m - r : mb, cols = n - s < nb ? n - s : nb;
        const cpa_real *pa = cpa_reals(a.data) + (ta ? r : (int64_t)r * a.ld);
        const cpa_real *pb = cpa_reals(b.data) + (tb ? (int64_t)s * b.ld : s);
        failed += !tile_product(ta, tb, rows, cols, k, alpha, pa, a.ld, pb, b.ld, beta, cpa_row(c, r) + s, c.ld);
    }
    omp_set_num_threads(threads);
    if (failed > 0) {
        return cpa_fail(CPA_INTERNAL,
                        "operation gemm: the library refused [%d, %d] with inner dimension %d; report this bug", m, n,
                        k);
    }
    return CPA_OK;
}
