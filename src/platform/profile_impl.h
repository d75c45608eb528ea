// Owns: what the entry points of operations tell a profile. Never included outside src/platform/backend.c and profile.c.
#ifndef CPA_PLATFORM_PROFILE_IMPL_H
#define CPA_PLATFORM_PROFILE_IMPL_H

#include "backend_impl.h"
#include "cpa/platform/profile.h"

// The operations, numbered.
enum {
#define CPA_OP(name, params, args) CPA_OP_##name,
#include "cpa/platform/ops.def"
#undef CPA_OP
    CPA_N_OPS
};

/** An operation begins and ends. */
cpa_status cpa_profile_enter(cpa_profile *p, int op, double bytes);
cpa_status cpa_profile_leave(cpa_profile *p);

#endif
