// Owns: a stand-in for the part of cuBLAS that the cuda backend uses: products of matrices that go down the columns, as cuBLAS
// documents them, by plain loops in double. Must never be on the include path of anything but tests.
#ifndef CPA_TESTS_LOOPED_CUBLAS_V2_H
#define CPA_TESTS_LOOPED_CUBLAS_V2_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cuda_runtime_api.h"

typedef enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0 } cublasStatus_t;
typedef enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 } cublasOperation_t;
typedef enum libraryPropertyType { MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL } libraryPropertyType;
typedef struct cublasContext *cublasHandle_t;

enum { CUBLAS_TF32_TENSOR_OP_MATH = 3, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_ATOMICS_NOT_ALLOWED = 0 };
enum { CUBLAS_COMPUTE_32F = 68, CUBLAS_GEMM_DEFAULT = -1 };
typedef enum cudaDataType { CUDA_R_32F = 0, CUDA_R_16BF = 14 } cudaDataType;

static inline const char *cublasGetStatusString(cublasStatus_t status)
{
    (void)status;
    return "CUBLAS_STATUS_SUCCESS";
}

static inline cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value)
{
    (void)type;
    *value = 0;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasCreate(cublasHandle_t *handle)
{
    *handle = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasDestroy(cublasHandle_t handle)
{
    (void)handle;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    (void)handle;
    (void)stream;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *at, size_t bytes)
{
    (void)handle;
    (void)at;
    (void)bytes;
    return CUBLAS_STATUS_SUCCESS;
}

// Of the only handle that a test has at a time.
static int looped_math_mode = CUBLAS_PEDANTIC_MATH;

static inline cublasStatus_t cublasSetMathMode(cublasHandle_t handle, int mode)
{
    (void)handle;
    looped_math_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

// A factor of a product of floats as tensor cores take it: rounded to 10 bits behind the point.
static inline double looped_tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = x == x ? (bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFFU : bits;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

#define LOOPED_FACTOR(x)                                                                                               \
    (sizeof(x) == sizeof(float) && looped_math_mode == CUBLAS_TF32_TENSOR_OP_MATH ? looped_tf32((float)(x))            \
                                                                                  : (double)(x))

static inline cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, int mode)
{
    (void)handle;
    (void)mode;
    return CUBLAS_STATUS_SUCCESS;
}

// C[m, n] = alpha op(A)[m, k] op(B)[k, n] + beta C; element (i, j) of a matrix lies at i + j ld. C is not read when beta is 0.
#define LOOPED_GEMM(name, real)                                                                                        \
    static inline cublasStatus_t name(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, \
                                      int k, const real *alpha, const real *a, int lda, const real *b, int ldb,        \
                                      const real *beta, real *c, int ldc)                                              \
    {                                                                                                                  \
        (void)handle;                                                                                                  \
        const ptrdiff_t a_i = ta == CUBLAS_OP_N ? 1 : lda, a_l = ta == CUBLAS_OP_N ? lda : 1;                          \
        const ptrdiff_t b_l = tb == CUBLAS_OP_N ? 1 : ldb, b_j = tb == CUBLAS_OP_N ? ldb : 1;                          \
        for (int j = 0; j < n; j++) {                                                                                  \
            for (int i = 0; i < m; i++) {                                                                              \
                double sum = 0;                                                                                        \
                for (int l = 0; l < k; l++) {                                                                          \
                    sum += LOOPED_FACTOR(a[i * a_i + l * a_l]) * LOOPED_FACTOR(b[l * b_l + j * b_j]);                  \
                }                                                                                                      \
                real *to = &c[i + j * (ptrdiff_t)ldc];                                                                 \
                *to = (real)((double)*alpha * sum + (*beta == 0 ? 0 : (double)*beta * (double)*to));                   \
            }                                                                                                          \
        }                                                                                                              \
        return CUBLAS_STATUS_SUCCESS;                                                                                  \
    }

LOOPED_GEMM(cublasSgemm, float)
LOOPED_GEMM(cublasDgemm, double)

static inline double looped_get(const void *at, cudaDataType type, ptrdiff_t i)
{
    uint32_t bits;
    float x;
    if (type == CUDA_R_32F) {
        return (double)((const float *)at)[i];
    }
    bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static inline void looped_put(void *at, cudaDataType type, ptrdiff_t i, double value)
{
    const float x = (float)value;
    uint32_t bits;
    if (type == CUDA_R_32F) {
        ((float *)at)[i] = x;
        return;
    }
    memcpy(&bits, &x, sizeof bits);
    ((uint16_t *)at)[i] = (uint16_t)(x != x ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                          int n, int k, const void *alpha, const void *a, cudaDataType type_a, int lda,
                                          const void *b, cudaDataType type_b, int ldb, const void *beta, void *c,
                                          cudaDataType type_c, int ldc, int compute, int algorithm)
{
    const double scale = (double)*(const float *)alpha, keep = (double)*(const float *)beta;
    const ptrdiff_t a_i = ta == CUBLAS_OP_N ? 1 : lda, a_l = ta == CUBLAS_OP_N ? lda : 1;
    const ptrdiff_t b_l = tb == CUBLAS_OP_N ? 1 : ldb, b_j = tb == CUBLAS_OP_N ? ldb : 1;
    (void)handle;
    (void)compute;
    (void)algorithm;
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int l = 0; l < k; l++) {
                sum += looped_get(a, type_a, i * a_i + l * a_l) * looped_get(b, type_b, l * b_l + j * b_j);
            }
            const ptrdiff_t at = i + j * (ptrdiff_t)ldc;
            looped_put(c, type_c, at, scale * sum + (keep == 0 ? 0 : keep * looped_get(c, type_c, at)));
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

#endif
