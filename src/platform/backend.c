// Owns: backends by name, and the entry points cpa_op_*: shape check, then dispatch. Computes nothing and knows no
// backend from inside.
#include "backend_impl.h"

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

cpa_real *cpa_backend_host(const cpa_backend *be, const cpa_dev_real *array)
{
    return be->is_host ? (cpa_real *)(uintptr_t)array : NULL;
}

#define CPA_OP(name, params, args)                                                                                     \
    cpa_status cpa_op_##name params                                                                                    \
    {                                                                                                                  \
        cpa_status st = cpa_shape_##name args;                                                                         \
        return st == CPA_OK ? be->ops->name args : st;                                                                 \
    }
#include "cpa/platform/ops.def"
#undef CPA_OP
