// Owns: backends by name, and the entry points cpa_op_*: shape check, then dispatch. Computes nothing and knows no
// backend from inside.
#include "cpa/platform/range.h"
#include "profile_impl.h"

#include <string.h>

cpa_status cpa_backend_create(const char *name, cpa_backend **out)
{
    *out = NULL;
#define X(known)                                                                                                       \
    if (strcmp(name, #known) == 0) {                                                                                   \
        return cpa_backend_create_##known(out);                                                                        \
    }
    CPA_BACKEND_LIST(X)
#undef X
#define X(known) " " #known
    return cpa_fail(CPA_USAGE, "unknown backend '%s'; this build has:" CPA_BACKEND_LIST(X), name);
#undef X
}

cpa_status cpa_backend_destroy(cpa_backend **be)
{
    cpa_status st = *be != NULL ? (*be)->destroy(*be) : CPA_OK;
    *be = NULL;
    return st;
}

cpa_status cpa_precision_of(const char *name, cpa_precision *out)
{
    static const char *const names[] = {"fp32", "tf32", "bf16"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (cpa_precision)i;
            return CPA_OK;
        }
    }
    return cpa_fail(CPA_USAGE, "precision '%s' is none of fp32, tf32, bf16", name);
}

cpa_status cpa_backend_set_precision(cpa_backend *be, cpa_precision precision)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(precision == CPA_FP32 || sizeof(cpa_real) == sizeof(float), CPA_CONFIG,
                "--precision tf32 and bf16 are not for a build in double precision");
    CPA_REQUIRE(
        precision == CPA_FP32 || be->memory == CPA_MEMORY_DEVICE, CPA_CONFIG,
        "--precision tf32 and bf16 are for --backend cuda (of a build with cmake --preset cuda); the %s backend "
        "computes in fp32",
        be->name);
    be->precision = precision;
cleanup:
    return st;
}

cpa_precision cpa_backend_precision(const cpa_backend *be)
{
    return be->precision;
}

const char *cpa_backend_name(const cpa_backend *be)
{
    return be->name;
}

cpa_memory cpa_backend_memory(const cpa_backend *be)
{
    return be->memory;
}

const char *cpa_backend_isa(const cpa_backend *be)
{
    return be->isa;
}

bool cpa_backend_can_record(const cpa_backend *be)
{
    return be->recorder != NULL && be->profile == NULL;
}

cpa_status cpa_backend_record(cpa_backend *be)
{
    return be->recorder->begin(be);
}

cpa_status cpa_backend_recorded(cpa_backend *be, cpa_recording **out)
{
    *out = NULL;
    return be->recorder->end(be, out);
}

bool cpa_backend_holds(const cpa_backend *be, const cpa_recording *r)
{
    return be->recorder->holds(be, r);
}

cpa_status cpa_backend_replay(cpa_backend *be, const cpa_recording *r)
{
    return CPA_IN_RANGE("repeated operations", be->recorder->replay(be, r));
}

void cpa_backend_forget(cpa_backend *be, cpa_recording **r)
{
    if (*r != NULL) {
        be->recorder->forget(*r);
    }
    *r = NULL;
}

size_t cpa_backend_free_bytes(cpa_backend *be)
{
    return be->free_bytes != NULL ? be->free_bytes(be) : SIZE_MAX;
}

cpa_real *cpa_backend_host(const cpa_backend *be, const cpa_dev_real *array)
{
    return be->is_host ? (cpa_real *)(uintptr_t)array : NULL;
}

// Bytes of an argument, by its type.
static double mat_bytes(const void *p)
{
    const cpa_mat *m = p;
    return m->data == NULL ? 0 : (double)m->rows * m->cols * (m->bf16 ? 2 : (double)sizeof(cpa_real));
}

static double csr_bytes(const void *p)
{
    const cpa_csr *x = p;
    return (double)x->nnz * (sizeof(int) + sizeof(cpa_real));
}

static double no_bytes(const void *p)
{
    (void)p;
    return 0;
}

#define BYTES(x) _Generic((x), cpa_mat : mat_bytes, cpa_csr : csr_bytes, default : no_bytes)(&(x))
#define SUM_1(x) BYTES(x)
#define SUM_2(x, ...) BYTES(x) + SUM_1(__VA_ARGS__)
#define SUM_3(x, ...) BYTES(x) + SUM_2(__VA_ARGS__)
#define SUM_4(x, ...) BYTES(x) + SUM_3(__VA_ARGS__)
#define SUM_5(x, ...) BYTES(x) + SUM_4(__VA_ARGS__)
#define SUM_6(x, ...) BYTES(x) + SUM_5(__VA_ARGS__)
#define SUM_7(x, ...) BYTES(x) + SUM_6(__VA_ARGS__)
#define SUM_8(x, ...) BYTES(x) + SUM_7(__VA_ARGS__)
#define SUM_9(x, ...) BYTES(x) + SUM_8(__VA_ARGS__)
#define SUM_10(x, ...) BYTES(x) + SUM_9(__VA_ARGS__)
#define SUM_11(x, ...) BYTES(x) + SUM_10(__VA_ARGS__)
#define SUM_12(x, ...) BYTES(x) + SUM_11(__VA_ARGS__)
#define SUM_13(x, ...) BYTES(x) + SUM_12(__VA_ARGS__)
#define SUM_14(x, ...) BYTES(x) + SUM_13(__VA_ARGS__)
#define PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, n, sum, ...) sum
#define SUM_OF(...)                                                                                                    \
    (PICK(__VA_ARGS__, SUM_14, SUM_13, SUM_12, SUM_11, SUM_10, SUM_9, SUM_8, SUM_7, SUM_6, SUM_5, SUM_4, SUM_3, SUM_2, \
          SUM_1, 0)(__VA_ARGS__))

// An operation between two stamps.
#define TIMED(name, args, bytes)                                                                                       \
    cpa_status st_ = cpa_profile_enter(be->profile, CPA_OP_##name, bytes);                                             \
    st_ = st_ == CPA_OK ? CPA_IN_RANGE(#name, be->ops->name args) : st_;                                               \
    return st_ == CPA_OK ? cpa_profile_leave(be->profile) : st_

#define CPA_OP(name, params, args)                                                                                     \
    cpa_status cpa_op_##name params                                                                                    \
    {                                                                                                                  \
        cpa_status st = cpa_shape_##name args;                                                                         \
        if (st == CPA_OK && be->profile != NULL) {                                                                     \
            TIMED(name, args, SUM_OF args);                                                                            \
        }                                                                                                              \
        return st == CPA_OK ? CPA_IN_RANGE(#name, be->ops->name args) : st;                                            \
    }
#include "cpa/platform/ops.def"
#undef CPA_OP
