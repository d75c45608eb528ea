// Owns: the mark of small functions that host and device share. Never depends on another header.
#ifndef CPA_BASE_INLINE_H
#define CPA_BASE_INLINE_H

// In CUDA files such a function is compiled for both sides.
#ifdef __CUDACC__
#define CPA_INLINE static __host__ __device__ inline
#else
#define CPA_INLINE static inline
#endif

#endif
