// Owns: which backends run the kernels of a device in this build: a device where the build has one, else loops on the host in either
// direction (support/looped). Never says whether there is a device.
#ifndef CPA_TESTS_SUPPORT_ON_KERNELS_H
#define CPA_TESTS_SUPPORT_ON_KERNELS_H

#ifdef CPA_CUDA
#define ON_KERNELS "cuda"
#define ON_KERNELS_AGAIN "cuda"
#else
#define ON_KERNELS "kernels"
#define ON_KERNELS_AGAIN "kernels_backwards"
#endif

#endif
