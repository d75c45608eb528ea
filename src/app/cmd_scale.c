// Owns: the command `scale`: which points, in which order, and what is written. Never measures a step itself.
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <unistd.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "scale_impl.h"
#include "walk_impl.h"

// Where results go, on rank 0.
typedef struct place {
    bool is_made;
    char *table, *figure;
} place;

static int power_of_two_from(int n)
{
    int p = 1;
    while (p < n) {
        p *= 2;
    }
    return p;
}

// Whether the user said how many lanes a step has.
static bool lanes_are_given(const cpa_options *o)
{
    return o->source[cpa_option_find("lanes")] > CPA_SOURCE_SEMANTICS;
}

static cpa_status add_point(cpa_scale_study *s, bool weak, int ranks, int lanes, int batch)
{
    cpa_status st;
    cpa_scale_point *p;
    CPA_TRY(cpa_realloc((size_t)s->n_points + 1, sizeof *s->point, &s->point));
    p = &s->point[s->n_points];
    *p = (cpa_scale_point){.weak = weak, .ranks = ranks, .lanes = lanes, .batch = batch, .model = NAN};
    s->n_measured = ++s->n_points;
    CPA_TRY(cpa_alloc((size_t)s->n_passes, sizeof *p->pass, &p->pass));
cleanup:
    return st;
}

// 1, 2, 4, ... ranks and, under the strong law, all of them. Both laws meet at the largest power of two.
static cpa_status plan(cpa_scale_study *s, const cpa_options *o, int ranks)
{
    cpa_status st = CPA_OK;
    int lanes = lanes_are_given(o) ? o->train.lanes : power_of_two_from(ranks), batch = o->train.batch_size;
    int most = power_of_two_from(ranks + 1) / 2, cycle = cpa_walk_cycle(&o->train);
    CPA_REQUIRE(ranks <= lanes, CPA_USAGE,
                "%d ranks are more than the %d lane%s of a step; give at least --lanes %d, or none", ranks, lanes,
                lanes == 1 ? "" : "s", power_of_two_from(ranks));
    s->n_passes = o->scale.repeats;
    s->n_steps = (o->scale.steps + cycle - 1) / cycle * cycle;
    s->threads = omp_get_max_threads();
    for (int n = 1; n <= most; n *= 2) {
        CPA_TRY(add_point(s, false, n, lanes, batch));
    }
    if (most < ranks) {
        CPA_TRY(add_point(s, false, ranks, lanes, batch));
    }
    for (int n = 1; n <= most; n *= 2) {
        CPA_TRY(add_point(s, true, n, lanes / most * n, batch));
    }
cleanup:
    return st;
}

// Makes the folder.
static cpa_status begin(const cpa_options *o, place *at)
{
    cpa_status st;
    CPA_TRY(cpa_sprintf(&at->table, "%s/scaling.csv", o->out));
    CPA_TRY(cpa_sprintf(&at->figure, "%s/scaling.svg", o->out));
    CPA_TRY(cpa_output_folder(o->out));
    at->is_made = true;
cleanup:
    return st;
}

static void end(const cpa_options *o, place *at, bool keep)
{
    if (at->is_made && !keep) {
        unlink(at->table);
        unlink(at->figure);
        rmdir(o->out);
    }
    cpa_free(&at->table);
    cpa_free(&at->figure);
}

// Every pass goes through all points, so that a machine that grows slower meanwhile does so for all of them.
static cpa_status measure(const cpa_train_run *base, cpa_scale_study *s)
{
    cpa_status st = CPA_OK;
    cpa_comm_phase("measuring");
    for (int pass = 0; pass < s->n_passes; pass++) {
        for (int i = 0; i < s->n_points; i++) {
            cpa_scale_point *p = &s->point[i];
            CPA_TRY(cpa_scale_measure(base, p, pass, s->n_steps, &s->work));
            cpa_progress(false, "pass %d/%d: %s scaling, %d rank%s: %.2f ms a step", pass + 1, s->n_passes,
                         p->weak ? "weak" : "strong", p->ranks, p->ranks == 1 ? "" : "s", 1e3 * p->pass[pass].step);
        }
    }
cleanup:
    return st;
}

// Rank 0's work: from what was measured to the two files and the page.
static cpa_status report(const cpa_options *o, cpa_scale_study *s, const place *at)
{
    cpa_status st;
    cpa_text csv = {0}, svg = {0}, page = {0};
    cpa_scale_summarise(s);
    cpa_scale_fit(s);
    CPA_TRY(cpa_scale_extrapolate(s));
    CPA_TRY(cpa_scale_csv(s, &csv));
    CPA_TRY(cpa_scale_figure(s, &svg));
    CPA_TRY(cpa_scale_page(s, &page));
    CPA_TRY(cpa_output_write(at->table, cpa_text_str(&csv), csv.n));
    CPA_TRY(cpa_output_write(at->figure, cpa_text_str(&svg), svg.n));
    fputs(cpa_text_str(&page), stdout);
    cpa_info("%s: scaling.csv and scaling.svg", o->out);
cleanup:
    cpa_text_fini(&csv);
    cpa_text_fini(&svg);
    cpa_text_fini(&page);
    return st;
}

cpa_status cpa_cmd_scale(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    cpa_scale_study study = {0};
    cpa_train_run base = {.comm = comm};
    place at = {0};
    bool is_first = cpa_comm_rank(comm) == 0;
    CPA_TRY(cpa_comm_agree(comm, cpa_scale_parse(o->scale.model, &study.model)));
    CPA_TRY(cpa_comm_agree(comm, plan(&study, o, cpa_comm_size(comm))));
    CPA_TRY(cpa_comm_agree(comm, is_first ? begin(o, &at) : CPA_OK));
    CPA_TRY(cpa_walk_read(&base, o, study.point[0].lanes));
    CPA_TRY(cpa_train_describe_binding(comm));
    CPA_TRY(measure(&base, &study));
    CPA_TRY(cpa_comm_agree(comm, is_first ? report(o, &study, &at) : CPA_OK));
cleanup:
    cpa_train_tear_down(&base, false);
    end(o, &at, st == CPA_OK);
    cpa_scale_fini(&study);
    return st;
}
