// Owns: the command `plan`: what training would take, before it takes anything. Never reads the cells, but for a look at the first, and
// never trains.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpa/app/commands.h"
#include "cpa/base/log.h"
#include "plan_impl.h"

// The threads of a rank. That this machine has more cores than a rank will have is no reason to ask for them all.
static void set_threads(cpa_outlook *p)
{
    if (p->o->threads > 0 || getenv("OMP_NUM_THREADS") != NULL) {
        p->threads = omp_get_max_threads();
        p->threads_from = p->o->threads > 0 ? "--threads" : "OMP_NUM_THREADS";
    } else {
        p->threads = omp_get_num_procs() / p->per_node > 1 ? omp_get_num_procs() / p->per_node : 1;
        p->threads_from = "the cores of this machine by the ranks of a node; say --threads where nodes are others";
    }
}

// The ranks that are planned for. More of them than lanes is refused as in training.
static cpa_status set_ranks(cpa_outlook *p, int running)
{
    cpa_status st = CPA_OK;
    const cpa_options *o = p->o;
    p->n_ranks = o->plan.ranks > 0 ? o->plan.ranks : running;
    p->per_node = o->plan.per_node > 0 && o->plan.per_node < p->n_ranks ? o->plan.per_node : p->n_ranks;
    p->n_nodes = (p->n_ranks + p->per_node - 1) / p->per_node;
    set_threads(p);
    CPA_REQUIRE(
        p->n_ranks <= o->train.lanes, CPA_USAGE,
        "%d ranks are more than the %d lane%s of a step; plan for --ranks %d, or with as many --lanes, which is "
        "another model",
        p->n_ranks, o->train.lanes, o->train.lanes == 1 ? "" : "s", o->train.lanes);
cleanup:
    return st;
}

// Columns of the cells and where their values begin, once for all that is planned. Collective.
static cpa_status read_data(cpa_outlook *p, cpa_comm *comm)
{
    cpa_status st;
    size_t high;
    cpa_rss(&p->start, &high);
    p->data.comm = comm;
    long before = cpa_memory_bytes(CPA_MEMORY_HOST);
    CPA_TRY(cpa_train_take_options(&p->data, p->o));
    CPA_TRY(cpa_train_read(&p->data));
    p->columns = cpa_memory_bytes(CPA_MEMORY_HOST) - before;
    CPA_TRY(cpa_matrix_open(comm, p->data.file, p->data.registry->spec.layer, &p->matrix));
cleanup:
    return st;
}

static cpa_status find_needs(cpa_outlook *p)
{
    cpa_status st;
    int batch = p->o->train.batch_size;
    cpa_log_init(0, true); // what training says of the cells would come again for every size that is tried
    omp_set_num_threads(p->threads);
    CPA_TRY(cpa_outlook_need(p, 0, batch, "cpu", NULL, &p->host[0]));
    p->data.options.memory = (int64_t)p->host[0].allowed; // from now on, and in the job: what is free changes
    CPA_TRY(cpa_outlook_need(p, p->n_ranks - 1, batch, "cpu", NULL, &p->host[1]));
    CPA_TRY(cpa_outlook_need(p, 0, batch, "cuda", NULL, &p->device));
    if (p->o->plan.fit > 0) {
        CPA_TRY(cpa_outlook_fit(p, "cpu", (size_t)p->o->plan.fit, &p->fit));
    }
    if (p->o->plan.fit_device > 0) {
        CPA_TRY(cpa_outlook_fit(p, "cuda", (size_t)p->o->plan.fit_device, &p->fit_device));
    }
cleanup:
    return st;
}

// Rank 0's work.
static cpa_status report(cpa_outlook *p)
{
    cpa_status st;
    cpa_text text = {0};
    CPA_TRY(cpa_matrix_sample(p->matrix));
    CPA_TRY(find_needs(p));
    CPA_TRY(p->o->json ? cpa_outlook_json(p, &text) : cpa_outlook_page(p, &text));
    fputs(cpa_text_str(&text), stdout);
cleanup:
    cpa_text_fini(&text);
    return st;
}

cpa_status cpa_cmd_plan(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    cpa_outlook p = {.o = o};
    CPA_TRY(cpa_comm_agree(comm, set_ranks(&p, cpa_comm_size(comm))));
    CPA_TRY(read_data(&p, comm));
    cpa_comm_phase("planning");
    CPA_TRY(cpa_comm_agree_rested(comm, cpa_comm_alone(comm) ? report(&p) : CPA_OK));
cleanup:
    cpa_matrix_close(&p.matrix);
    cpa_train_tear_down(&p.data, false);
    return st;
}
