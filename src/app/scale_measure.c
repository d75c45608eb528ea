// Owns: measuring one point of a scaling study: real steps of training on the first ranks, while the others sleep.
// Never prints, never judges.
#include "cpa/base/log.h"
#include "scale_impl.h"
#include "walk_impl.h"

enum { WARM_UP = 2 }; // cycles

// Seconds of one step on one rank.
typedef struct sample {
    double all, summing, updating;
} sample;

static cpa_status take_step(cpa_walk *w, cpa_step_result *result, sample *out)
{
    cpa_status st;
    double since = cpa_seconds();
    CPA_TRY(cpa_walk_step(w, result));
    *out = (sample){cpa_seconds() - since, result->summing, result->updating};
    cpa_comm_get_on();
cleanup:
    return st;
}

static int kind_of(const cpa_phase *phase)
{
    return phase->update_autoencoder ? CPA_SCALE_AUTOENCODER : CPA_SCALE_ADVERSARY;
}

// Notes what a step of this kind sends.
static void note_work(cpa_walk *w, const cpa_step_result *result, int n_steps, cpa_scale_work *work)
{
    cpa_range span[3];
    int n = cpa_optimizer_spans(cpa_model_params(w->run.model), &result->phase, span), kind = kind_of(&result->phase);
    work->bytes[kind] = 0;
    for (int i = 0; i < n; i++) {
        work->bytes[kind] += (double)span[i].length * sizeof(cpa_real);
    }
    work->parts[kind] = result->n_parts;
    work->share[kind] += 1.0 / n_steps;
}

// Adds one step of all ranks (`one`, n_steps apart) to the pass.
static void add_step(const sample *one, int n_steps, int ranks, int kind, cpa_scale_pass *p)
{
    double all = 0, compute = 0, update = 0, summing = 0, slowest = 0;
    for (int r = 0; r < ranks; r++) {
        const sample *s = &one[(int64_t)r * n_steps];
        double busy = s->all - s->summing;
        all += s->all / ranks;
        compute += busy / ranks;
        update += s->updating / ranks;
        summing += s->summing / ranks;
        slowest = busy > slowest ? busy : slowest;
    }
    double wait = slowest - compute < summing ? slowest - compute : summing;
    p->step += all;
    p->compute += compute;
    p->update += update;
    p->wait += wait;
    p->reduce += summing - wait;
    p->reduce_of[kind] += summing - wait;
}

// The mean step from all samples [ranks, n_steps].
static void digest(const sample *all, const int *kind, int n_steps, int ranks, cpa_scale_pass *p)
{
    int n_kind[CPA_SCALE_KINDS] = {0};
    double slowest = 0;
    *p = (cpa_scale_pass){0};
    for (int s = 0; s < n_steps; s++) {
        add_step(&all[s], n_steps, ranks, kind[s], p);
        n_kind[kind[s]]++;
    }
    for (int r = 0; r < ranks; r++) {
        double busy = 0;
        for (int s = 0; s < n_steps; s++) {
            busy += all[(int64_t)r * n_steps + s].all - all[(int64_t)r * n_steps + s].summing;
        }
        slowest = busy > slowest ? busy : slowest;
    }
    p->imbalance = slowest / p->compute - 1;
    for (int k = 0; k < CPA_SCALE_KINDS; k++) {
        p->reduce_of[k] /= n_kind[k] > 0 ? n_kind[k] : 1;
    }
    p->step /= n_steps;
    p->compute /= n_steps;
    p->update /= n_steps;
    p->wait /= n_steps;
    p->reduce /= n_steps;
}

static cpa_status time_steps(cpa_walk *w, int n_steps, sample *mine, int *kind, cpa_scale_work *work)
{
    cpa_status st = CPA_OK;
    cpa_step_result result;
    for (int i = 0; i < WARM_UP * cpa_walk_cycle(&w->run.options.train); i++) {
        CPA_TRY(take_step(w, &result, &mine[0]));
    }
    CPA_TRY(cpa_comm_barrier(w->run.comm));
    for (int i = 0; i < n_steps; i++) {
        CPA_TRY(take_step(w, &result, &mine[i]));
        kind[i] = kind_of(&result.phase);
        note_work(w, &result, n_steps, work);
    }
cleanup:
    return st;
}

// How many nodes these ranks are on. Collective.
static cpa_status count_nodes(cpa_comm *comm, int *out)
{
    int64_t first = cpa_comm_node_rank(comm) == 0;
    cpa_status st = cpa_comm_sum_i64(comm, &first, 1);
    *out = (int)first;
    return st;
}

// What the ranks of the point do. Collective over them.
static cpa_status measure(const cpa_train_run *base, cpa_comm *part, cpa_scale_point *p, int pass, int n_steps,
                          cpa_scale_work *work)
{
    cpa_status st;
    cpa_walk w = {0};
    sample *mine = NULL, *all = NULL;
    int *kind = NULL, ranks = p->ranks;
    size_t bytes = (size_t)n_steps * sizeof *mine;
    CPA_TRY(cpa_walk_begin(base, part, p->lanes, &w));
    st = cpa_alloc((size_t)n_steps, sizeof *mine, &mine);
    st = st == CPA_OK ? cpa_alloc((size_t)n_steps, sizeof *kind, &kind) : st;
    st = st == CPA_OK ? cpa_alloc((size_t)ranks * (size_t)n_steps, sizeof *all, &all) : st;
    CPA_TRY(cpa_comm_agree(part, st));
    *work = (cpa_scale_work){.told = (double)cpa_model_n_sums(w.run.model) * sizeof(double)};
    cpa_scale_count(cpa_model_params(w.run.model), w.run.registry->n_genes,
                    (double)cpa_feed_nnz(w.run.feed) / (double)w.run.registry->n_cells, work->flops);
    CPA_TRY(time_steps(&w, n_steps, mine, kind, work));
    CPA_TRY(cpa_comm_allgather(part, mine, all, bytes));
    CPA_TRY(count_nodes(part, &p->nodes));
    if (cpa_comm_rank(part) == 0) {
        digest(all, kind, n_steps, ranks, &p->pass[pass]);
    }
cleanup:
    cpa_free(&mine);
    cpa_free(&all);
    cpa_free(&kind);
    cpa_walk_end(&w);
    return st;
}

cpa_status cpa_scale_measure(const cpa_train_run *base, cpa_scale_point *p, int pass, int n_steps, cpa_scale_work *work)
{
    cpa_status st;
    cpa_comm *part = NULL;
    CPA_TRY(cpa_comm_part(base->comm, p->ranks, &part));
    cpa_comm_alone(base->comm); // rank 0 is in every part, and calls for all of it
    cpa_status mine = part != NULL ? measure(base, part, p, pass, n_steps, work) : CPA_OK;
    cpa_comm_destroy(&part);
    if (mine == CPA_LOST_PEER) { // then nobody can be waited for any more
        return mine;
    }
    CPA_TRY(cpa_comm_agree_rested(base->comm, mine));
cleanup:
    return st;
}
