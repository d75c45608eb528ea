// Owns: kernels as C: a launch is a loop over blocks and threads on the host, in either direction.
// Must never give a thread what another one left but by the block's own means (CPA_EACH): no order to rely on.
#ifndef CPA_KERNELS_LAUNCH_H
#define CPA_KERNELS_LAUNCH_H

#include "looped.h"

#define CPA_KERNEL static void
#define CPA_DEVICE static inline

enum { CPA_THREADS = 256 }; // of a block

CPA_DEVICE int64_t cpa_thread(void)
{
    return cpa_looped_thread;
}

CPA_DEVICE cpa_real cpa_over(cpa_real x, cpa_real y)
{
    return x / y;
}

// Threads beyond n run as well, as they do in the last block of a device.
#define CPA_LAUNCH(be, kernel, n, ...)                                                                                 \
    __extension__({                                                                                                    \
        (void)(be);                                                                                                    \
        const int64_t threads_ = ((n) + CPA_THREADS - 1) / CPA_THREADS * CPA_THREADS;                                  \
        for (int64_t i_ = 0; i_ < threads_; i_++) {                                                                    \
            cpa_looped_thread = cpa_looped_backwards ? threads_ - 1 - i_ : i_;                                         \
            kernel((n), __VA_ARGS__);                                                                                  \
        }                                                                                                              \
        cpa_cuda_launched(#kernel);                                                                                    \
    })

// ---- kernels of blocks ----

CPA_DEVICE int64_t cpa_block(void)
{
    return cpa_looped_block;
}

// Turns of so many threads.
#define CPA_EACH_OF(t, threads)                                                                                        \
    for (int t##_turn = 0, t = cpa_looped_backwards ? (threads)-1 : 0; t##_turn < (threads);                           \
         t##_turn++, t += cpa_looped_backwards ? -1 : 1)

#define CPA_EACH(t) CPA_EACH_OF(t, CPA_THREADS)

// Garbage at first: NaN.
#define CPA_SHARED(type, name, n)                                                                                      \
    type name[n];                                                                                                      \
    memset(name, 0xFF, sizeof name)
#define CPA_SHARED_BY_LAUNCH(type, name) type *name = (type *)(void *)cpa_looped_shared

CPA_DEVICE void cpa_block_sum(double *v)
{
    double sum = 0;
    for (int t = 0; t < CPA_THREADS; t++) {
        sum += v[t];
    }
    v[0] = sum;
}

CPA_DEVICE void cpa_block_max(cpa_real *v)
{
    for (int t = 1; t < CPA_THREADS; t++) {
        v[0] = v[0] >= v[t] ? v[0] : v[t];
    }
}

enum { CPA_LOOPED_SHARED = 152 * 1024 }; // an A100 has 163 KiB for a block, its own arrays included

// The launch's memory is as large as it says, so that the sanitizers see who goes beyond it, and NaN at first for every block. What no
// device has is refused.
#define CPA_LAUNCH_BLOCKS(be, kernel, blocks, shared, ...)                                                             \
    __extension__({                                                                                                    \
        (void)(be);                                                                                                    \
        const int64_t blocks_ = (size_t)(shared) <= CPA_LOOPED_SHARED ? (blocks) : 0;                                  \
        cpa_looped_shared = malloc((size_t)(shared) + 1);                                                              \
        for (int64_t i_ = 0; i_ < blocks_; i_++) {                                                                     \
            memset(cpa_looped_shared, 0xFF, (size_t)(shared));                                                         \
            cpa_looped_block = cpa_looped_backwards ? blocks_ - 1 - i_ : i_;                                           \
            kernel(__VA_ARGS__);                                                                                       \
        }                                                                                                              \
        free(cpa_looped_shared);                                                                                       \
        cpa_cuda_judge((size_t)(shared) <= CPA_LOOPED_SHARED ? cudaSuccess : (cudaError_t)1, #kernel);                 \
    })

// ---- wide blocks ----

enum { CPA_WIDE = 512 }; // threads of a wide block

#define CPA_KERNEL_WIDE static void
#define CPA_LAUNCH_WIDE(be, kernel, blocks, shared, ...) CPA_LAUNCH_BLOCKS(be, kernel, blocks, shared, __VA_ARGS__)
#define CPA_EACH_WIDE(t) CPA_EACH_OF(t, CPA_WIDE)
#define CPA_EACH_ON(t) CPA_EACH_OF(t, CPA_WIDE)

// Garbage at first: NaN.
#define CPA_OWN(type, name, n)                                                                                         \
    type name[CPA_WIDE * (n)];                                                                                         \
    memset(name, 0xFF, sizeof name)
#define CPA_OF(name, n, t) ((name) + (t) * (n))

#define CPA_INLINED static inline
#define CPA_UNROLL
#define CPA_NO_UNROLL
#define CPA_RARE static

CPA_INLINED double cpa_wide_sum(const cpa_real *own, double *room)
{
    double sum = 0;
    for (int t = 0; t < CPA_WIDE; t++) {
        sum += (double)own[t];
    }
    room[0] = sum;
    return sum;
}

CPA_INLINED double cpa_wide_total(const double *own, double *room)
{
    double sum = 0;
    for (int t = 0; t < CPA_WIDE; t++) {
        sum += own[t];
    }
    room[0] = sum;
    return sum;
}

CPA_INLINED cpa_real cpa_wide_larger(cpa_real a, cpa_real b)
{
    return a >= b || b != b ? a : b;
}

CPA_INLINED cpa_real cpa_wide_max(const cpa_real *own, double *room)
{
    cpa_real largest = own[0];
    for (int t = 1; t < CPA_WIDE; t++) {
        largest = cpa_wide_larger(largest, own[t]);
    }
    room[0] = (double)largest;
    return largest;
}

CPA_DEVICE float cpa_quick_exp2(float x)
{
    return exp2f(x);
}

CPA_DEVICE float cpa_quick_log2(float x)
{
    return log2f(x);
}

CPA_DEVICE float cpa_quick_inverse(float x)
{
    return 1 / x;
}

CPA_DEVICE void cpa_expect(const void *at)
{
    (void)at;
}

#define cpa_quick_bf16s(low, high) ((uint32_t)cpa_to_bf16(low) | (uint32_t)cpa_to_bf16(high) << 16)

#endif
