// Owns: how kernels are written and launched in CUDA. tests/support/looped/launch.h says the same in C, for loops on the host.
// Must never be included but by kernel.h.
#ifndef CPA_KERNELS_LAUNCH_H
#define CPA_KERNELS_LAUNCH_H

#define CPA_KERNEL static __global__ void
#define CPA_DEVICE static __device__ inline

enum { CPA_THREADS = 256 }; // of a block

// The number of the calling thread.
CPA_DEVICE int64_t cpa_thread(void)
{
    return (int64_t)blockIdx.x * CPA_THREADS + threadIdx.x;
}

// x / y within two units in the last place, for y up to 2^126. Without the branch of an exact division, so that a loop's turns overlap.
CPA_DEVICE cpa_real cpa_over(cpa_real x, cpa_real y)
{
#ifdef CPA_DOUBLE
    return x / y;
#else
    return __fdividef(x, y);
#endif
}

// kernel(n, ...) on at least n threads, on the backend's stream; a cpa_status.
#define CPA_LAUNCH(be, kernel, n, ...)                                                                                 \
    ((n) <= 0 ? CPA_OK                                                                                                 \
              : (kernel<<<(unsigned)(((n) + CPA_THREADS - 1) / CPA_THREADS), CPA_THREADS, 0, cpa_cuda_stream(be)>>>(   \
                     (n), __VA_ARGS__),                                                                                \
                 cpa_cuda_launched(#kernel)))

// ---- kernels of blocks: the CPA_THREADS threads of a block work together ----

// The number of the calling block.
CPA_DEVICE int64_t cpa_block(void)
{
    return (int64_t)blockIdx.x;
}

// for (int t = 0; t < CPA_THREADS; t++), all at once, and what was left in memory by one is there for all afterwards. Every thread of the
// block has to come by; `continue` ends the turn of one t, and nothing else may leave it.
#define CPA_EACH(t) for (int t = (int)threadIdx.x, t##_more = 1; t##_more; t##_more = 0, __syncthreads())

// An array that the threads of a block share; and one whose size the launch says, in bytes (a multiple of 8).
#define CPA_SHARED(type, name, n) __shared__ type name[n]
#define CPA_SHARED_BY_LAUNCH(type, name)                                                                               \
    extern __shared__ double cpa_shared_by_launch[];                                                                   \
    type *name = (type *)cpa_shared_by_launch

// v[0] = the sum of v [CPA_THREADS], an array of the block, in a fixed order; the other elements are lost.
CPA_DEVICE void cpa_block_sum(double *v)
{
    const int t = (int)threadIdx.x;
    double sum = v[t];
    for (int by = 16; by > 0; by /= 2) {
        sum += __shfl_down_sync(0xFFFFFFFFu, sum, by);
    }
    __syncthreads();
    if (t % 32 == 0) {
        v[t / 32] = sum;
    }
    __syncthreads();
    if (t < 32) {
        sum = t < CPA_THREADS / 32 ? v[t] : 0;
        for (int by = CPA_THREADS / 64; by > 0; by /= 2) {
            sum += __shfl_down_sync(0xFFFFFFFFu, sum, by);
        }
        if (t == 0) {
            v[0] = sum;
        }
    }
    __syncthreads();
}

// v[0] = the largest of v [CPA_THREADS], likewise; NaN only if all are.
CPA_DEVICE void cpa_block_max(cpa_real *v)
{
    const int t = (int)threadIdx.x;
    for (int half = CPA_THREADS / 2; half > 0; half /= 2) {
        if (t < half && !(v[t] >= v[t + half])) {
            v[t] = v[t + half];
        }
        __syncthreads();
    }
}

// kernel(...) on so many blocks of so many threads.
#define CPA_LAUNCH_BLOCKS_OF(be, kernel, blocks, threads, shared, ...)                                                 \
    ((blocks) <= 0                                                                                                     \
         ? CPA_OK                                                                                                      \
         : ((shared) > 32 * 1024                                                                                       \
                ? (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared))       \
                : (void)0,                                                                                             \
            kernel<<<(unsigned)(blocks), (threads), (shared), cpa_cuda_stream(be)>>>(__VA_ARGS__),                     \
            cpa_cuda_launched(#kernel)))

// kernel(...) on so many blocks, with `shared` bytes for CPA_SHARED_BY_LAUNCH; a cpa_status. Beyond 48 KiB, its CPA_SHARED
// arrays of a few KiB included, a kernel has to ask; it may have 227.
#define CPA_LAUNCH_BLOCKS(be, kernel, blocks, shared, ...)                                                             \
    CPA_LAUNCH_BLOCKS_OF(be, kernel, blocks, CPA_THREADS, shared, __VA_ARGS__)

// ---- wide blocks: a thread keeps what is its own in registers, from one turn to the next ----

enum { CPA_WIDE = 512 }; // threads of a wide block

// Two blocks are to be at work on a processor.
#define CPA_KERNEL_WIDE static __global__ void __launch_bounds__(CPA_WIDE, 2)
#define CPA_LAUNCH_WIDE(be, kernel, blocks, shared, ...)                                                               \
    CPA_LAUNCH_BLOCKS_OF(be, kernel, blocks, CPA_WIDE, shared, __VA_ARGS__)

// As CPA_EACH; and for a turn that nobody waits for: what it leaves to other threads is there after the next cpa_wide_max or cpa_wide_sum.
#define CPA_EACH_WIDE(t) CPA_EACH(t)
#define CPA_EACH_ON(t) for (int t = (int)threadIdx.x, t##_more = 1; t##_more; t##_more = 0)

// n elements for every thread of a wide block, its own; those of thread t. Registers, if every index is known to the compiler.
#define CPA_OWN(type, name, n) type name[n]
#define CPA_OF(name, n, t) (name)

// For functions that take what a compiler is to know; for loops over an own array; and for what is rare enough to stay out of them.
#define CPA_INLINED static __device__ __forceinline__
#define CPA_UNROLL _Pragma("unroll")
#define CPA_NO_UNROLL _Pragma("unroll 1")
#define CPA_RARE static __device__ __noinline__

// The larger one; NaN only if both are.
CPA_INLINED cpa_real cpa_wide_larger(cpa_real a, cpa_real b)
{
#ifdef CPA_DOUBLE
    return fmax(a, b);
#else
    return fmaxf(a, b);
#endif
}

// The sum, or the largest (NaN only if all are), of one own element of every thread of a wide block, for all of them. room [CPA_WIDE / 32]
// is shared, and free again after the next of these calls, which needs another one. cpa_wide_sum begins in cpa_real.
CPA_INLINED double cpa_wide_warps(double part, double *room)
{
    const int t = (int)threadIdx.x;
    if (t % 32 == 0) {
        room[t / 32] = part;
    }
    __syncthreads();
    double sum = room[t % (CPA_WIDE / 32)];
    for (int by = CPA_WIDE / 64; by > 0; by /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, by);
    }
    return sum;
}

CPA_INLINED double cpa_wide_sum(const cpa_real *own, double *room)
{
    cpa_real part = own[0];
    for (int by = 16; by > 0; by /= 2) {
        part += __shfl_xor_sync(0xFFFFFFFFu, part, by);
    }
    return cpa_wide_warps((double)part, room);
}

CPA_INLINED double cpa_wide_total(const double *own, double *room)
{
    double part = own[0];
    for (int by = 16; by > 0; by /= 2) {
        part += __shfl_xor_sync(0xFFFFFFFFu, part, by);
    }
    return cpa_wide_warps(part, room);
}

CPA_INLINED cpa_real cpa_wide_max(const cpa_real *own, double *room)
{
    const int t = (int)threadIdx.x;
    cpa_real part = own[0], *parts = (cpa_real *)room;
    for (int by = 16; by > 0; by /= 2) {
        part = cpa_wide_larger(part, __shfl_xor_sync(0xFFFFFFFFu, part, by));
    }
    if (t % 32 == 0) {
        parts[t / 32] = part;
    }
    __syncthreads();
    part = parts[t % (CPA_WIDE / 32)];
    for (int by = CPA_WIDE / 64; by > 0; by /= 2) {
        part = cpa_wide_larger(part, __shfl_xor_sync(0xFFFFFFFFu, part, by));
    }
    return part;
}

// ---- what a device has instructions for, in float; results below 2^-126 are 0 ----

// 2^x and 1 / x (0 beyond 2^126) within 2 units in the last place; log2(x) for normal x within 2^-22, relative but around 1.
CPA_DEVICE float cpa_quick_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

CPA_DEVICE float cpa_quick_log2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

CPA_DEVICE float cpa_quick_inverse(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// What lies there will be read: a device brings it nearer meanwhile.
CPA_DEVICE void cpa_expect(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

// Two as cpa_to_bf16 has them, the first in the lower half.
CPA_DEVICE uint32_t cpa_quick_bf16s(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

#endif
