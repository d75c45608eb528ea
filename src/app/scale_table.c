// Owns: how a scaling study is shown as text: the rows of scaling.csv, the page on standard output. Never computes a figure of it.
#include <math.h>

#include "scale_impl.h"

static const char *law(bool weak)
{
    return weak ? "weak" : "strong";
}

static double cells_per_second(const cpa_scale_point *p)
{
    return (double)p->lanes * p->batch / p->middle.step;
}

// ",value", or "," where there is none.
static cpa_status add_value(cpa_text *out, double x)
{
    return isfinite(x) ? cpa_text_add(out, ",%.6g", x) : cpa_text_add(out, ",");
}

static cpa_status add_row(const cpa_scale_study *s, const cpa_scale_point *p, cpa_text *out)
{
    cpa_status st;
    const cpa_scale_pass *m = &p->middle;
    CPA_TRY(
        cpa_text_add(out, "%s,%s,%d,%d,", law(p->weak), p->predicted ? "predicted" : "measured", p->ranks, s->threads));
    CPA_TRY(p->predicted ? CPA_OK : cpa_text_add(out, "%d", p->nodes));
    CPA_TRY(cpa_text_add(out, ",%d,%d", p->lanes, p->batch));
    const double value[] = {1e3 * m->step,
                            1e3 * p->p25,
                            1e3 * p->p75,
                            cells_per_second(p),
                            p->speedup,
                            p->efficiency,
                            1e3 * m->compute,
                            1e3 * m->reduce,
                            p->predicted ? NAN : 1e3 * m->wait,
                            p->predicted ? NAN : m->imbalance,
                            1e3 * p->model};
    for (size_t i = 0; i < sizeof value / sizeof value[0]; i++) {
        CPA_TRY(add_value(out, value[i]));
    }
    CPA_TRY(cpa_text_add(out, "\n"));
cleanup:
    return st;
}

// Those of one law, measured points before predicted ones.
static cpa_status add_rows(const cpa_scale_study *s, bool weak, cpa_text *out,
                           cpa_status (*add)(const cpa_scale_study *, const cpa_scale_point *, cpa_text *))
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < s->n_points; i++) {
        if (s->point[i].weak == weak) {
            CPA_TRY(add(s, &s->point[i], out));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_scale_csv(const cpa_scale_study *s, cpa_text *out)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(
        out, "mode,source,ranks,threads,nodes,lanes,batch,step_ms,p25_ms,p75_ms,cells_per_s,speedup,efficiency,"
             "compute_ms,reduce_ms,wait_ms,imbalance,model_ms\n"));
    CPA_TRY(add_rows(s, false, out, add_row));
    CPA_TRY(add_rows(s, true, out, add_row));
cleanup:
    return st;
}

// " 1.23 |", or " |" where there is no number.
static cpa_status add_cell(cpa_text *out, double x, int digits, const char *unit)
{
    return isfinite(x) ? cpa_text_add(out, " %.*f%s |", digits, x, unit) : cpa_text_add(out, " |");
}

static cpa_status add_line(const cpa_scale_study *s, const cpa_scale_point *p, cpa_text *out)
{
    (void)s;
    cpa_status st;
    const cpa_scale_pass *m = &p->middle;
    CPA_TRY(cpa_text_add(out, "| %d%s | %d x %d |", p->ranks, p->predicted ? " (predicted)" : "", p->lanes, p->batch));
    CPA_TRY(add_cell(out, 1e3 * m->step, 2, ""));
    CPA_TRY(p->predicted ? cpa_text_add(out, " |") : cpa_text_add(out, " %.2f - %.2f |", 1e3 * p->p25, 1e3 * p->p75));
    CPA_TRY(add_cell(out, cells_per_second(p), 0, ""));
    CPA_TRY(add_cell(out, p->speedup, 2, ""));
    CPA_TRY(add_cell(out, 100 * p->efficiency, 1, " %"));
    CPA_TRY(add_cell(out, 1e3 * m->compute, 2, ""));
    CPA_TRY(add_cell(out, 1e3 * m->reduce, 2, ""));
    CPA_TRY(add_cell(out, p->predicted ? NAN : 1e3 * m->wait, 2, ""));
    CPA_TRY(add_cell(out, p->predicted ? NAN : 100 * m->imbalance, 1, " %"));
    CPA_TRY(add_cell(out, 1e3 * p->model, 2, ""));
    CPA_TRY(cpa_text_add(out, "\n"));
cleanup:
    return st;
}

static cpa_status add_table(const cpa_scale_study *s, bool weak, cpa_text *out)
{
    cpa_status st;
    const cpa_scale_point *one = s->point;
    CPA_TRY(cpa_text_add(out,
                         weak ? "\n## Weak scaling: the same cells a rank and step\n\n"
                              : "\n## Strong scaling: %d cells a step, however many ranks\n\n",
                         one->lanes * one->batch));
    CPA_TRY(cpa_text_add(
        out, "| ranks | lanes | step, ms | quartiles | cells/s | speedup | efficiency | compute, ms | reduce, "
             "ms | wait, ms | imbalance | model, ms |\n"
             "|---|---|---|---|---|---|---|---|---|---|---|---|\n"));
    CPA_TRY(add_rows(s, weak, out, add_line));
cleanup:
    return st;
}

static cpa_status add_model(const cpa_scale_study *s, cpa_text *out)
{
    cpa_status st;
    const cpa_scale_model *m = &s->model;
    if (!m->is_known) {
        return cpa_text_add(
            out, "\nNo model: one rank alone does not tell what the sum over ranks costs; measure on two or more, or "
                 "give --model LATENCY,BANDWIDTH,\n");
    }
    CPA_TRY(cpa_text_add(out,
                         "\nModel (%s): latency %.3g us a message, bandwidth %.3g GB/s, %.3g GFLOP/s a rank, %.3g ms a "
                         "step for the update\n",
                         m->is_given ? "as given, the rest from the measurements" : "from the measurements",
                         1e6 * m->latency, 1e-9 * m->bandwidth, 1e-9 * m->flops, 1e3 * m->update / m->flops));
    CPA_TRY(cpa_text_add(
        out, "Model error: step times of the %d measured points are off by %.1f %% on average, %.1f %% at most\n",
        s->n_measured, 100 * m->mean_error, 100 * m->worst_error));
cleanup:
    return st;
}

cpa_status cpa_scale_page(const cpa_scale_study *s, cpa_text *out)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(out, "# Scaling\n\nMedians of %d pass%s of %d steps each; %d thread%s a rank.\n", s->n_passes,
                         s->n_passes == 1 ? "" : "es", s->n_steps, s->threads, s->threads == 1 ? "" : "s"));
    CPA_TRY(add_table(s, false, out));
    CPA_TRY(add_table(s, true, out));
    CPA_TRY(add_model(s, out));
cleanup:
    return st;
}
