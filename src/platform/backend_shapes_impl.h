// Owns: what the shape checks are written with. Never included outside src/platform/backend_shapes*.c.
#ifndef CPA_PLATFORM_BACKEND_SHAPES_IMPL_H
#define CPA_PLATFORM_BACKEND_SHAPES_IMPL_H

#include "backend_impl.h"

// Every check takes its operation's parameters; many of them, scalars above all, have nothing to check.
#pragma GCC diagnostic ignored "-Wunused-parameter"

// The operation's name, from the name of its check.
#define OP (__func__ + sizeof "cpa_shape_" - 1)

/** `m` must be [rows, cols]; it may be without data when `optional`, and when it has no elements. */
cpa_status cpa_fit(const char *op, const char *what, cpa_mat m, int rows, int cols, bool optional);

/** `p` must not be NULL when it is needed. */
cpa_status cpa_there(const char *op, const char *what, const void *p, bool needed);

/** The cells must be [rows, cols], with their libraries when those are used. */
cpa_status cpa_fit_csr(const char *op, cpa_csr x, int rows, int cols, bool library);

/** The matrix, said to be of cpa_reals where the backend takes bfloat16, too. */
static inline cpa_mat cpa_as_real(const cpa_backend *be, cpa_mat m)
{
    m.bf16 = m.bf16 && be->memory != CPA_MEMORY_DEVICE;
    return m;
}

#define FIT(m, rows, cols) CPA_TRY(cpa_fit(OP, #m, m, rows, cols, false))
#define FIT_OR_NONE(m, rows, cols) CPA_TRY(cpa_fit(OP, #m, m, rows, cols, true))
// The same of a matrix that a device may have in bfloat16.
#define FIT_HALF(m, rows, cols) CPA_TRY(cpa_fit(OP, #m, cpa_as_real(be, m), rows, cols, false))
#define THERE(p, needed) CPA_TRY(cpa_there(OP, #p, p, needed))
#define SENSIBLE(cond, ...) CPA_REQUIRE(cond, CPA_INTERNAL, "operation %s: " #cond " does not hold for " __VA_ARGS__)
#define POOLED(n, needs_own)                                                                                           \
    SENSIBLE(pooled.all == NULL || (pooled.rows >= (n) && (pooled.own != NULL || !(needs_own))), "%d of %lld rows",    \
             OP, n, (long long)pooled.rows)
#define FIT_CELLS(x, rows, cols, library) CPA_TRY(cpa_fit_csr(OP, x, rows, cols, library))

#endif
