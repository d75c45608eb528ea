// Owns: dense products on the device, by cuBLAS. The only file that knows cuBLAS; never a faster arithmetic than the backend's precision.
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
    // A workspace of our own: the same sums on every run, and none that grows.
    CPA_TRY(cpa_cuda_alloc(&cuda->base, CPA_CUDA_WORKSPACE, &cuda->blas_room));
    CPA_TRY(judge(cublasSetWorkspace(cuda->blas, cuda->blas_room, CPA_CUDA_WORKSPACE), "the workspace of cuBLAS"));
    // No tensor cores that round to fewer bits, and no sums whose order is left to chance.
    CPA_TRY(judge(cublasSetMathMode(cuda->blas, CUBLAS_PEDANTIC_MATH), "the arithmetic of cuBLAS"));
    cuda->blas_precision = CPA_FP32;
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
    cpa_cuda_release(&cuda->base, cuda->blas_room);
    cuda->blas = NULL;
    cuda->blas_room = NULL;
}

// The arithmetic of products.
static cpa_status set_mode(cpa_cuda *cuda)
{
    if (cuda->blas_precision == cuda->base.precision) {
        return CPA_OK;
    }
    cuda->blas_precision = cuda->base.precision;
    return judge(cublasSetMathMode(cuda->blas, cuda->base.precision == CPA_FP32 ? CUBLAS_PEDANTIC_MATH
                                                                                : CUBLAS_TF32_TENSOR_OP_MATH),
                 "the arithmetic of cuBLAS");
}

static cublasOperation_t turned(bool t)
{
    return t ? CUBLAS_OP_T : CUBLAS_OP_N;
}

#ifdef CPA_DOUBLE
#define CPA_CUBLAS_GEMM cublasDgemm
#else
#define CPA_CUBLAS_GEMM cublasSgemm
#endif

static cpa_status multiply_reals(cpa_cuda *cuda, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                                 cpa_real beta)
{
    cpa_status st = set_mode(cuda);
    return st != CPA_OK
               ? st
               : judge(CPA_CUBLAS_GEMM(cuda->blas, turned(tb), turned(ta), c.cols, c.rows, ta ? a.rows : a.cols, &alpha,
                                       (const cpa_real *)(uintptr_t)b.data, b.ld, (const cpa_real *)(uintptr_t)a.data,
                                       a.ld, &beta, (cpa_real *)(uintptr_t)c.data, c.ld),
                       "a product");
}

static size_t half_bytes(cpa_mat m)
{
    return ((size_t)m.rows * (size_t)m.cols * 2 + 255) / 256 * 256;
}

// A factor in bfloat16: itself, or a copy at *room, which moves on.
static cpa_status halve(cpa_backend *be, cpa_mat *m, char **room)
{
    if (m->bf16) {
        return CPA_OK;
    }
    const cpa_mat half = {(cpa_dev_real *)(void *)*room, m->rows, m->cols, m->cols, true};
    *room += half_bytes(half);
    const cpa_status st = cpa_cuda_axpby(be, half, 1, *m, 0);
    *m = half;
    return st;
}

// Where one of the three is in bfloat16, both factors are; sums are floats, and C is what it is.
static cpa_status multiply_halves(cpa_cuda *cuda, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                                  cpa_real beta)
{
    cpa_status st;
    char *room;
    const float scale = (float)alpha, keep = (float)beta;
    CPA_TRY(set_mode(cuda)); // or what the last product was would choose the kernel
    CPA_TRY(cpa_cuda_scratch(&cuda->base, (a.bf16 ? 0 : half_bytes(a)) + (b.bf16 ? 0 : half_bytes(b)), &room));
    CPA_TRY(halve(&cuda->base, &a, &room));
    CPA_TRY(halve(&cuda->base, &b, &room));
    CPA_TRY(judge(cublasGemmEx(cuda->blas, turned(tb), turned(ta), c.cols, c.rows, ta ? a.rows : a.cols, &scale, b.data,
                               CUDA_R_16BF, b.ld, a.data, CUDA_R_16BF, a.ld, &keep, c.data,
                               c.bf16 ? CUDA_R_16BF : CUDA_R_32F, c.ld, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                  "a product in bfloat16"));
cleanup:
    return st;
}

// cuBLAS goes down the columns: to it our matrices are their transposes, and C^T = op(B)^T op(A)^T.
cpa_status cpa_cuda_gemm(cpa_backend *be, cpa_mat c, cpa_mat a, bool ta, cpa_mat b, bool tb, cpa_real alpha,
                         cpa_real beta)
{
    cpa_cuda *cuda = (cpa_cuda *)be;
    if (c.rows == 0 || c.cols == 0) {
        return CPA_OK;
    }
    if ((ta ? a.rows : a.cols) == 0) { // the product is 0
        return cpa_cuda_scale(be, c, beta);
    }
    return a.bf16 || b.bf16 || c.bf16 ? multiply_halves(cuda, c, a, ta, b, tb, alpha, beta)
                                      : multiply_reals(cuda, c, a, ta, b, tb, alpha, beta);
}
