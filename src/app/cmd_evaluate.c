// Owns: the command `evaluate`. Never computes: it opens, plans, has groups scored and writes what came of it.
#include <stdio.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "evaluate_impl.h"

static cpa_status make_plan(const cpa_trained *t, const cpa_options *o, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_contexts_create(t->registry, &plan->contexts));
    CPA_TRY(cpa_choose_split(t, o->split, &plan->list));
    CPA_TRY(cpa_plan_held_out(t, &plan->list, plan));
cleanup:
    return st;
}

// Rank 0 only.
static cpa_status show(const cpa_options *o, const cpa_group_scores *g, int64_t n, cpa_scale scale)
{
    cpa_status st = CPA_OK;
    cpa_text csv = {0}, table = {0};
    CPA_TRY(cpa_scores_csv(g, n, &csv));
    CPA_TRY(cpa_scores_table(g, n, scale, &table));
    CPA_TRY(cpa_output_write(o->out, cpa_text_str(&csv), csv.n));
    fputs(cpa_text_str(&table), stdout);
    cpa_info("%s: scores of %lld held-out groups", o->out, (long long)n);
cleanup:
    cpa_text_fini(&csv);
    cpa_text_fini(&table);
    return st;
}

cpa_status cpa_cmd_evaluate(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_trained t = {0};
    cpa_plan plan = {0};
    cpa_group_scores *g = NULL;
    int64_t n;
    CPA_TRY(cpa_comm_agree(comm, cpa_output_check(o->out)));
    CPA_TRY(cpa_trained_open(comm, o, (cpa_trained_needs){.splits = true, .degs = true}, &t));
    CPA_TRY(cpa_comm_agree(comm, make_plan(&t, o, &plan)));
    cpa_comm_phase("scoring");
    CPA_TRY(cpa_evaluate_groups(&t, &plan, &plan.list, &g, &n));
    CPA_TRY(cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? show(o, g, n, cpa_trained_scale(&t)) : CPA_OK));
cleanup:
    cpa_free(&g);
    cpa_plan_fini(&plan);
    cpa_trained_close(&t);
    return st;
}
