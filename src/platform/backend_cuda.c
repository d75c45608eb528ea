// Owns: the cuda backend as an object: device, stream, table, memory, scratch. Computes nothing; the operations live in kernels/
// and backend_cuda_gemm.c. Never managed memory; waits in downloads alone, and where memory is given back.
#include "backend_cuda_impl.h"

#include <stdio.h>
#include <string.h>

#include "cpa/base/mem.h"

static const cpa_ops cuda_ops = {
#define CPA_OP(name, params, args) .name = cpa_cuda_##name,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

cpa_status cpa_cuda_judge(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return CPA_OK;
    }
    return cpa_fail(CPA_INTERNAL, "backend cuda: %s: %s", what, cudaGetErrorString(error));
}

cpa_status cpa_cuda_launched(const char *kernel)
{
    return cpa_cuda_judge(cudaGetLastError(), kernel);
}

static void fini(cpa_cuda *cuda)
{
    cpa_cuda_blas_destroy(cuda);
    if (cuda->scratch != NULL) {
        cudaFree(cuda->scratch);
        cpa_memory_note(CPA_MEMORY_DEVICE, -(long)cuda->scratch_bytes);
    }
    if (cuda->dense != NULL) {
        cudaFree(cuda->dense);
        cpa_memory_note(CPA_MEMORY_DEVICE, -(long)cuda->dense_bytes);
    }
    cpa_free(&cuda->block);
    cpa_cuda_ring_destroy(cuda);
    cpa_cuda_forget_marks(cuda);
    if (cuda->stream != NULL) {
        cudaStreamDestroy(cuda->stream);
    }
}

// What decides the bits of its results.
static cpa_status describe(cpa_cuda *cuda)
{
    struct cudaDeviceProp device;
    cpa_status st = cpa_cuda_judge(cudaGetDeviceProperties(&device, 0), "the properties of the device");
    if (st == CPA_OK) {
        snprintf(cuda->isa, sizeof cuda->isa, "%s, compute capability %d.%d, cuBLAS %d", device.name, device.major,
                 device.minor, cpa_cuda_blas_version());
        cuda->base.isa = cuda->isa;
    }
    return st;
}

static cpa_status destroy(cpa_backend *be)
{
    cpa_cuda *cuda = (cpa_cuda *)be;
    cpa_status st = cpa_cuda_judge(cudaStreamSynchronize(cuda->stream), "what was still under way");
    cpa_cuda_blas_destroy(cuda);
    long live = cuda->live;
    fini(cuda);
    cpa_free(&cuda);
    if (st == CPA_OK && live != 0) {
        st = cpa_fail(CPA_INTERNAL, "backend cuda: %ld blocks of memory were never released; report this bug", live);
    }
    return st;
}

static size_t free_bytes(cpa_backend *be)
{
    size_t available = 0, all = 0;
    (void)be;
    return cudaMemGetInfo(&available, &all) == cudaSuccess ? available : 0;
}

cpa_status cpa_backend_create_cuda(cpa_backend **out)
{
    int devices = 0;
    cudaError_t found = cudaGetDeviceCount(&devices);
    if (found != cudaSuccess || devices == 0) {
        return cpa_fail(CPA_CONFIG, "backend cuda: there is no GPU that could be used (%s); --backend cpu needs none",
                        found != cudaSuccess ? cudaGetErrorString(found) : "the driver knows of none");
    }
    cpa_cuda *cuda = NULL;
    cpa_status st;
    CPA_TRY(cpa_alloc(1, sizeof *cuda, &cuda));
    cuda->base = (cpa_backend){.ops = &cuda_ops, .name = "cuda", .memory = CPA_MEMORY_DEVICE, .destroy = destroy};
    cuda->base.free_bytes = free_bytes;
    cuda->base.recorder = &cpa_cuda_recorder;
    cuda->base.stamp = cpa_cuda_stamp;
    cuda->base.elapsed = cpa_cuda_elapsed;
    CPA_TRY(cpa_cuda_judge(cudaSetDevice(0), "the first of the visible devices"));
    CPA_TRY(describe(cuda));
    CPA_TRY(cpa_cuda_judge(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "a stream"));
    CPA_TRY(cpa_cuda_ring_create(cuda));
    CPA_TRY(cpa_cuda_blas_create(cuda));
    *out = &cuda->base;
cleanup:
    if (st != CPA_OK && cuda != NULL) {
        fini(cuda);
        cpa_free(&cuda);
    }
    return st;
}

static cpa_status device_memory(size_t bytes, void **out)
{
    cudaError_t error = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (error == cudaSuccess) {
        return CPA_OK;
    }
    (void)cudaGetLastError(); // or the next launch would be blamed for it
    return cpa_fail(CPA_INTERNAL, "backend cuda: %zu bytes of device memory could not be had: %s", bytes,
                    cudaGetErrorString(error));
}

// Makes a block of `*room` bytes large enough; what it held is lost when it grows.
static cpa_status grow(cpa_cuda *cuda, void **block, size_t *room, size_t bytes)
{
    cpa_status st = CPA_OK;
    if (bytes > *room || *block == NULL) {
        if (*block != NULL) { // waits for those who still use it
            cuda->n_outgrown++;
            CPA_TRY(cpa_cuda_judge(cudaFree(*block), "the release of scratch"));
        }
        cpa_memory_note(CPA_MEMORY_DEVICE, -(long)*room);
        *block = NULL;
        *room = 0;
        CPA_TRY(device_memory(bytes, block));
        *room = bytes;
        cpa_memory_note(CPA_MEMORY_DEVICE, (long)bytes);
    }
cleanup:
    return st;
}

cpa_status cpa_cuda_scratch(cpa_backend *be, size_t bytes, void *out)
{
    cpa_cuda *cuda = (cpa_cuda *)be;
    cpa_status st = grow(cuda, &cuda->scratch, &cuda->scratch_bytes, bytes);
    memcpy(out, &cuda->scratch, sizeof cuda->scratch);
    return st;
}

cpa_status cpa_cuda_dense_room(cpa_backend *be, cpa_csr x, bool use_log1p, cpa_mat *out, bool *is_there)
{
    cpa_cuda *cuda = (cpa_cuda *)be;
    const bool half = cuda->base.precision == CPA_BF16;
    const cpa_dense_of of = {x, use_log1p, half}, *held = &cuda->dense_of;
    *is_there = held->x.indptr == x.indptr && held->x.gene == x.gene && held->x.count == x.count &&
                held->x.log1p == x.log1p && held->x.rows == x.rows && held->x.cols == x.cols && x.rows > 0 &&
                held->use_log1p == use_log1p && held->half == half;
    cpa_status st = grow(cuda, &cuda->dense, &cuda->dense_bytes, cpa_device_dense_room(x.rows, x.cols, half));
    *out = cpa_mat_of((const cpa_dev_real *)cuda->dense, x.rows, x.cols);
    out->bf16 = half;
    cuda->dense_of = of;
    if (st != CPA_OK) {
        cuda->dense_of.x.rows = 0;
    }
    return st;
}

void cpa_cuda_changed(cpa_cuda *cuda, const void *dev, size_t bytes)
{
    const cpa_csr *x = &cuda->dense_of.x;
    const void *of[] = {x->indptr, x->gene, x->count, x->log1p};
    for (int i = 0; i < 4; i++) {
        if ((uintptr_t)of[i] >= (uintptr_t)dev && (uintptr_t)of[i] < (uintptr_t)dev + bytes) {
            cuda->dense_of.x.rows = 0;
        }
    }
}

// The runtime does not say how large a block was.
struct cpa_cuda_block {
    void *at;
    long bytes;
};

cpa_status cpa_cuda_alloc(cpa_backend *be, size_t bytes, void **out)
{
    cpa_status st = CPA_OK;
    cpa_cuda *cuda = (cpa_cuda *)be;
    if (cuda->live == cuda->room) {
        CPA_TRY(cpa_realloc(2 * (size_t)cuda->room + 64, sizeof *cuda->block, &cuda->block));
        cuda->room = 2 * cuda->room + 64;
    }
    CPA_TRY(device_memory(bytes, out));
    cuda->block[cuda->live++] = (struct cpa_cuda_block){*out, (long)bytes};
    cpa_memory_note(CPA_MEMORY_DEVICE, (long)bytes);
cleanup:
    return st;
}

cpa_status cpa_cuda_release(cpa_backend *be, void *ptr)
{
    cpa_cuda *cuda = (cpa_cuda *)be;
    for (long i = 0; i < cuda->live; i++) {
        if (cuda->block[i].at == ptr) {
            cpa_cuda_changed(cuda, ptr, (size_t)cuda->block[i].bytes);
            cpa_memory_note(CPA_MEMORY_DEVICE, -cuda->block[i].bytes);
            cuda->block[i] = cuda->block[--cuda->live];
            break;
        }
    }
    return ptr == NULL ? CPA_OK : cpa_cuda_judge(cudaFree(ptr), "a release");
}

cpa_status cpa_cuda_download(cpa_backend *be, void *host, const void *dev, size_t bytes)
{
    cpa_status st = CPA_OK;
    if (bytes > 0) {
        CPA_TRY(cpa_cuda_judge(cudaMemcpyAsync(host, dev, bytes, cudaMemcpyDeviceToHost, cpa_cuda_stream(be)),
                               "a download"));
        CPA_TRY(cpa_cuda_judge(cudaStreamSynchronize(cpa_cuda_stream(be)), "an operation before a download"));
    }
cleanup:
    return st;
}

cpa_status cpa_cuda_zero(cpa_backend *be, void *dev, size_t bytes)
{
    return bytes == 0 ? CPA_OK : cpa_cuda_judge(cudaMemsetAsync(dev, 0, bytes, cpa_cuda_stream(be)), "zeroing");
}
