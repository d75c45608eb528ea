// Owns: the command `predict`. Never computes: it opens, plans and writes through the files predict_*.
#include <string.h>

#include "cpa/app/commands.h"
#include "predict_impl.h"

cpa_status cpa_cmd_predict(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_trained t = {0};
    cpa_plan plan = {0};
    bool by_split = !o->perturbation && !o->grid && (!o->reconstruct || o->split);
    CPA_TRY(cpa_comm_agree(comm, cpa_plan_check_options(o)));
    CPA_TRY(cpa_comm_agree(comm, cpa_predict_check_place(o)));
    bool splits = by_split || strcmp(o->library, "condition-mean") == 0; // a mean over training cells
    CPA_TRY(cpa_trained_open(comm, o, (cpa_trained_needs){.splits = splits}, &t));
    CPA_TRY(cpa_comm_agree(comm, cpa_plan_create(&t, o, &plan)));
    CPA_TRY(cpa_predict_write(&t, o, &plan));
cleanup:
    cpa_plan_fini(&plan);
    cpa_trained_close(&t);
    return st;
}
