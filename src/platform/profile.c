// Owns: stamps before and after every operation, on the clock of the host or on the stream of the device, and adding them up.
// Never waits for the device but where it has no more stamps.
#include "profile_impl.h"

#include "cpa/base/log.h"

enum { MOST = 2048 }; // operations whose stamps are kept until they are read

struct cpa_profile {
    cpa_backend *be;
    cpa_profile_row row[CPA_N_OPS];
    int op[MOST], n; // operations that wait to be read
    double begun[MOST], ended[MOST];
};

static const char *const name_of[] = {
#define CPA_OP(name, params, args) #name,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

static cpa_status stamp(cpa_profile *p, int i, double *on_host)
{
    *on_host = cpa_seconds();
    return p->be->stamp != NULL ? p->be->stamp(p->be, i) : CPA_OK;
}

static cpa_status read_stamps(cpa_profile *p)
{
    cpa_status st = CPA_OK;
    for (int k = 0; k < p->n; k++) {
        double seconds = p->ended[k] - p->begun[k];
        CPA_TRY(p->be->elapsed != NULL ? p->be->elapsed(p->be, 2 * k, 2 * k + 1, &seconds) : CPA_OK);
        p->row[p->op[k]].seconds += seconds;
    }
    p->n = 0;
cleanup:
    return st;
}

cpa_status cpa_profile_enter(cpa_profile *p, int op, double bytes)
{
    cpa_status st = CPA_OK;
    if (p->n == MOST) {
        CPA_TRY(read_stamps(p));
    }
    p->row[op].calls++;
    p->row[op].bytes += bytes;
    p->op[p->n] = op;
    CPA_TRY(stamp(p, 2 * p->n, &p->begun[p->n]));
cleanup:
    return st;
}

cpa_status cpa_profile_leave(cpa_profile *p)
{
    cpa_status st = stamp(p, 2 * p->n + 1, &p->ended[p->n]);
    p->n++;
    return st;
}

cpa_status cpa_profile_begin(cpa_backend *be, cpa_profile **out)
{
    cpa_status st;
    CPA_TRY(cpa_alloc(1, sizeof **out, out));
    (*out)->be = be;
    for (int i = 0; i < CPA_N_OPS; i++) {
        (*out)->row[i].op = name_of[i];
    }
    be->profile = *out;
cleanup:
    return st;
}

cpa_status cpa_profile_end(cpa_profile *p, const cpa_profile_row **rows, int *n)
{
    p->be->profile = NULL;
    *rows = p->row;
    *n = CPA_N_OPS;
    return read_stamps(p);
}

void cpa_profile_destroy(cpa_profile **p)
{
    if (*p != NULL) {
        (*p)->be->profile = NULL;
    }
    cpa_free(p);
}
