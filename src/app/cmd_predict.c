// Owns: the command `predict`. Never computes: it opens, plans and writes through the files predict_*.
#include <string.h>

#include "cpa/app/commands.h"
#include "predict_impl.h"

// Whether cells are looked at in other orders than that of the rows.
static bool needs_all(const cpa_options *o)
{
    return strcmp(o->output, "mean") == 0 || strcmp(o->library, "condition-mean") == 0;
}

static cpa_status check_memory(const cpa_options *o)
{
    return o->memory == 0 || !needs_all(o)
               ? CPA_OK
               : cpa_fail(
                     CPA_CONFIG,
                     "--output mean and --library condition-mean need all cells in memory, whatever --memory allows; "
                     "leave --memory out");
}

cpa_status cpa_cmd_predict(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_trained t = {0};
    cpa_plan plan = {0};
    bool by_split = !o->perturbation && !o->grid && (!o->reconstruct || o->split);
    CPA_TRY(cpa_comm_agree(comm, cpa_plan_check_options(o)));
    CPA_TRY(cpa_comm_agree(comm, cpa_predict_check_place(o)));
    CPA_TRY(cpa_comm_agree(comm, check_memory(o)));
    bool splits = by_split || strcmp(o->library, "condition-mean") == 0; // a mean over training cells
    CPA_TRY(cpa_trained_open(comm, o, (cpa_trained_needs){.splits = splits, .listed = !needs_all(o)}, &t));
    CPA_TRY(cpa_comm_agree(comm, cpa_plan_create(&t, o, &plan)));
    CPA_TRY(cpa_predict_write(&t, o, &plan));
cleanup:
    cpa_plan_fini(&plan);
    cpa_trained_close(&t);
    return st;
}
