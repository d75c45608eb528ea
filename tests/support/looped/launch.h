// Owns: kernels as C: a launch is a loop over blocks and threads on the host, in either direction.
// Must never give a thread what another one left: no shared memory, no order to rely on.
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

#endif
