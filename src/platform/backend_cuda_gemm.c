// Owns: dense products on the device, by cuBLAS. The only file that knows cuBLAS; never a faster arithmetic than that of cpa_real.
#include "backend_cuda_impl.h"

#include <cublas_v2.h>

static cpa_status judge(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS) {
        return CPA_OK;
    }
    return cpa_fail(CPA_INTERNAL, "backend cuda: %s: %s", what, cublasGetStatusString(status));
}

cpa_status cpa_cuda_blas_create(cpa_cuda *cuda)
{
    cpa_status st;
    CPA_TRY(judge(cublasCreate(&cuda->blas), "cuBLAS"));
    CPA_TRY(judge(cublasSetStream(cuda->blas, cuda->stream), "the stream of cuBLAS"));
    // No tensor cores that round to fewer bits, and no sums whose order is left to chance.
    CPA_TRY(judge(cublasSetMathMode(cuda->blas, CUBLAS_PEDANTIC_MATH), "the arithmetic of cuBLAS"));
    CPA_TRY(judge(cublasSetAtomicsMode(cuda->blas, CUBLAS_ATOMICS_NOT_ALLOWED), "the order of cuBLAS's sums"));
cleanup:
    return st;
}

int cpa_cuda_blas_version(void)
{
    int part[3] = {0};
    cublasGetProperty(MAJOR_VERSION, &part[0]);
    cublasGetProperty(MINOR_VERSION, &part[1]);
    cublasGetProperty(PATCH_LEVEL, &part[2]);
    return part[0] * 10000 + part[1] * 100 + part[2];
}

void cpa_cuda_blas_destroy(cpa_cuda *cuda)
{
    if (cuda->blas != NULL) {
        cublasDestroy(cuda->blas);
    }
    cuda->blas = NULL;
}

#ifdef CPA_DOUBLE
#define CPA_CUBLAS_GEMM cublasDgemm
#else
#define CPA_CUBLAS_GEMM cublasSgemm
#endif

// cuBLAS goes down the columns: to it our matrices are their transposes, and C^T = op(B)^T op(A)^T.
cpa_status cpa_cuda_gemm(cpa_backend *be, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                         cpa_real beta)
{
    const int m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    if (m == 0 || n == 0) {
        return CPA_OK;
    }
    if (k == 0) { // the product is 0
        return cpa_cuda_scale(be, c, beta);
    }
    return judge(CPA_CUBLAS_GEMM(((cpa_cuda *)be)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 n, m, k, &alpha, (const cpa_real *)(uintptr_t)b.data, b.ld,
                                 (const cpa_real *)(uintptr_t)a.data, a.ld, &beta, (cpa_real *)(uintptr_t)c.data, c.ld),
                 "a product");
}
