// Owns: the command `convert`: which file, and where it goes. Never reads or writes one itself.
#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/data/convert.h"

// Rank 0's work.
static cpa_status convert(const cpa_options *o)
{
    cpa_status st;
    char *temporary = NULL;
    double started = cpa_seconds();
    CPA_TRY(cpa_output_begin_new(o->path_b, &temporary));
    CPA_TRY(cpa_convert(o->path, temporary, o->gzip));
    CPA_TRY(cpa_output_commit(temporary, o->path_b));
    cpa_info("%s: written in %.1f s", o->path_b, cpa_seconds() - started);
cleanup:
    if (st != CPA_OK) {
        cpa_output_discard(temporary);
    }
    cpa_free(&temporary);
    return st;
}

cpa_status cpa_cmd_convert(cpa_comm *comm, const cpa_options *o)
{
    cpa_comm_phase("converting");
    return cpa_comm_agree_rested(comm, cpa_comm_alone(comm) ? convert(o) : CPA_OK);
}
