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

// kernel(n, ...) on at least n threads, on the backend's stream; a cpa_status.
#define CPA_LAUNCH(be, kernel, n, ...)                                                                                 \
    ((n) <= 0 ? CPA_OK                                                                                                 \
              : (kernel<<<(unsigned)(((n) + CPA_THREADS - 1) / CPA_THREADS), CPA_THREADS, 0, cpa_cuda_stream(be)>>>(   \
                     (n), __VA_ARGS__),                                                                                \
                 cpa_cuda_launched(#kernel)))

#endif
