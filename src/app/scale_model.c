// Owns: the model of what a step costs on any number of ranks: found from measured points, judged by them, and carried on beyond them.
// Never measures.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scale_impl.h"

// The least that is found for a message and a byte: a measurement that contradicts itself must not promise a free reduction.
static const double LEAST_LATENCY = 1e-8, LEAST_BYTE = 1e-13, LEAST_SECONDS = 1e-6;

static const char WANTS[] =
    "--model: wants LATENCY,BANDWIDTH,FLOPS (microseconds a message, GB/s and GFLOP/s of a rank), three "
    "numbers above 0 of which any may be empty, not '%s'";

cpa_status cpa_scale_parse(const char *text, cpa_scale_model *out)
{
    cpa_status st = CPA_OK;
    cpa_strings field = {0};
    double value[3] = {0};
    *out = (cpa_scale_model){0};
    if (text == NULL) {
        return CPA_OK;
    }
    CPA_TRY(cpa_strings_split(&field, text, ','));
    CPA_REQUIRE(field.n == 3, CPA_USAGE, WANTS, text);
    for (int i = 0; i < 3; i++) {
        const char *s = field.s[i];
        char *end = NULL;
        bool is_plain = strspn(s, "0123456789.eE+-") == strlen(s);
        value[i] = is_plain && *s != '\0' ? strtod(s, &end) : 0;
        bool is_number = end != NULL && *end == '\0' && isfinite(value[i]) && value[i] > 0;
        CPA_REQUIRE(*s == '\0' || is_number, CPA_USAGE, WANTS, text);
        out->is_given = out->is_given || is_number;
    }
    out->latency = 1e-6 * value[0];
    out->bandwidth = 1e9 * value[1];
    out->flops = 1e9 * value[2];
cleanup:
    cpa_strings_fini(&field);
    return st;
}

void cpa_scale_count(const cpa_params *t, int n_genes, double nnz, double flops[CPA_SCALE_KINDS])
{
    flops[CPA_SCALE_AUTOENCODER] = flops[CPA_SCALE_ADVERSARY] = 0;
    for (int i = 0; i < t->n; i++) {
        const cpa_param *p = &t->p[i];
        bool encoder = strncmp(p->name, "module/encoder", 14) == 0,
             decoder = strncmp(p->name, "module/decoder", 14) == 0;
        // A product takes two operations for each weight and cell; the first layer meets stored values alone.
        double once = 2.0 * (double)cpa_param_size(p) * (p->transposed ? nnz / n_genes : 1);
        if (p->rank != 2 || p->rows == 1 || p->cols == 1) {
            continue;
        }
        if (encoder) { // forward; and backward to the weights and, behind the first layer, to the input
            flops[CPA_SCALE_AUTOENCODER] += once * (p->transposed ? 2 : 3);
            flops[CPA_SCALE_ADVERSARY] += once;
        } else if (decoder) {
            flops[CPA_SCALE_AUTOENCODER] += once * 3;
        } else if (p->group == CPA_GROUP_ADVERSARY) { // the penalty on its gradient is as much again
            flops[CPA_SCALE_AUTOENCODER] += once * 2;
            flops[CPA_SCALE_ADVERSARY] += once * 6;
        }
    }
}

// ---- What a step does on some number of ranks

static double flops_of_cell(const cpa_scale_work *w)
{
    double sum = 0;
    for (int k = 0; k < CPA_SCALE_KINDS; k++) {
        sum += w->share[k] * w->flops[k];
    }
    return sum;
}

// Messages that a rank waits for in the sum of a step of a kind: of each part a slice from every other and a finished slice from every
// other, and the sums of all.
static double messages(const cpa_scale_work *w, int kind, int ranks)
{
    return ranks > 1 ? w->parts[kind] * 2 * (ranks - 1) + ceil(log2(ranks)) : 0;
}

// The most partial sums that a rank comes to: the fewest whole subtrees that its lanes make up.
static int partial_sums(int lanes, int ranks)
{
    int most = 0;
    for (int r = 0; r < ranks; r++) {
        int first, end, n = 0;
        cpa_lane_range(lanes, ranks, r, &first, &end);
        for (int lane = first; lane < end; n++) {
            int size = 1;
            while (lane % (2 * size) == 0 && lane + 2 * size <= end) {
                size *= 2;
            }
            lane += size;
        }
        most = n > most ? n : most;
    }
    return most;
}

// Bytes that a rank sends in the sum of a step of a kind.
static double bytes_sent(const cpa_scale_work *w, int kind, const cpa_scale_point *p)
{
    double others = p->ranks - 1, slices = 1 + partial_sums(p->lanes, p->ranks);
    return slices * others / p->ranks * w->bytes[kind] + others * w->told;
}

static double cells_of_rank(const cpa_scale_point *p, bool slowest)
{
    double lanes = (double)p->lanes / p->ranks;
    return (slowest ? ceil(lanes) : lanes) * p->batch;
}

// The model's mean step, and what it is made of.
static cpa_scale_pass predict(const cpa_scale_study *s, const cpa_scale_point *p)
{
    const cpa_scale_model *m = &s->model;
    cpa_scale_pass out = {.update = m->update / m->flops};
    out.compute = cells_of_rank(p, true) * flops_of_cell(&s->work) / m->flops + out.update;
    for (int k = 0; k < CPA_SCALE_KINDS && p->ranks > 1; k++) {
        out.reduce_of[k] = messages(&s->work, k, p->ranks) * m->latency + bytes_sent(&s->work, k, p) / m->bandwidth;
        out.reduce += s->work.share[k] * out.reduce_of[k];
    }
    out.step = out.compute + out.reduce;
    return out;
}

// ---- Finding its numbers

// Operations a second, and of a step those that its update is worth, as means over the points.
static void fit_compute(cpa_scale_study *s)
{
    double second_of_flop = 0, update = 0;
    for (int i = 0; i < s->n_measured; i++) {
        const cpa_scale_point *p = &s->point[i];
        second_of_flop += (p->middle.compute - p->middle.update) / (cells_of_rank(p, false) * flops_of_cell(&s->work)) /
                          s->n_measured;
        update += p->middle.update / s->n_measured;
    }
    s->model.update = update / second_of_flop;
    s->model.flops = s->model.flops > 0 ? s->model.flops : 1 / second_of_flop;
}

// Sums of the weighted least squares of seconds = latency * messages + second of a byte * bytes.
typedef struct sums {
    double mm, mb, bb, my, by;
    int n;
} sums;

static sums add_up(const cpa_scale_study *s)
{
    sums a = {0};
    for (int i = 0; i < s->n_measured; i++) {
        const cpa_scale_point *p = &s->point[i];
        for (int k = 0; k < CPA_SCALE_KINDS && p->ranks > 1; k++) {
            if (s->work.share[k] > 0) { // weighted, so that relative errors count
                double y = p->middle.reduce_of[k], m = messages(&s->work, k, p->ranks), b = bytes_sent(&s->work, k, p);
                double weight = 1 / fmax(y, LEAST_SECONDS) / fmax(y, LEAST_SECONDS);
                a.mm += weight * m * m;
                a.mb += weight * m * b;
                a.bb += weight * b * b;
                a.my += weight * m * y;
                a.by += weight * b * y;
                a.n++;
            }
        }
    }
    return a;
}

static double misfit(const sums *a, double latency, double byte)
{
    return a->mm * latency * latency + 2 * a->mb * latency * byte + a->bb * byte * byte - 2 * a->my * latency -
           2 * a->by * byte;
}

// The best latency for a second of a byte, and the other way round.
static double best_latency(const sums *a, double byte)
{
    return fmax((a->my - a->mb * byte) / a->mm, LEAST_LATENCY);
}

static double best_byte(const sums *a, double latency)
{
    return fmax((a->by - a->mb * latency) / a->bb, LEAST_BYTE);
}

static void fit_reduce(cpa_scale_study *s)
{
    cpa_scale_model *m = &s->model;
    sums a = add_up(s);
    double latency = m->latency, byte = m->bandwidth > 0 ? 1 / m->bandwidth : 0, det = a.mm * a.bb - a.mb * a.mb;
    if (a.n == 0) {
        return;
    }
    if (latency > 0 || byte > 0) {
        byte = byte > 0 ? byte : best_byte(&a, latency);
        latency = latency > 0 ? latency : best_latency(&a, byte);
    } else {
        latency = det > 1e-9 * a.mm * a.bb ? (a.my * a.bb - a.by * a.mb) / det : 0;
        byte = det > 1e-9 * a.mm * a.bb ? (a.by * a.mm - a.my * a.mb) / det : 0;
        if (latency < LEAST_LATENCY || byte < LEAST_BYTE) { // the best on the border
            double byte_alone = best_byte(&a, LEAST_LATENCY), latency_alone = best_latency(&a, LEAST_BYTE);
            bool by_bytes = misfit(&a, LEAST_LATENCY, byte_alone) <= misfit(&a, latency_alone, LEAST_BYTE);
            latency = by_bytes ? LEAST_LATENCY : latency_alone;
            byte = by_bytes ? byte_alone : LEAST_BYTE;
        }
    }
    m->latency = latency;
    m->bandwidth = 1 / byte;
}

void cpa_scale_fit(cpa_scale_study *s)
{
    cpa_scale_model *m = &s->model;
    fit_compute(s);
    fit_reduce(s);
    m->is_known = m->latency > 0 && m->bandwidth > 0;
    for (int i = 0; i < s->n_measured; i++) {
        cpa_scale_point *p = &s->point[i];
        p->model = m->is_known ? predict(s, p).step : NAN;
        double error = fabs(p->model / p->middle.step - 1);
        m->mean_error += error / s->n_measured;
        m->worst_error = fmax(m->worst_error, error);
    }
}

// ---- Beyond what was measured

// The most ranks measured under a law that are a power of two, and the point of one rank.
static const cpa_scale_point *find_last(const cpa_scale_study *s, bool weak, const cpa_scale_point **one)
{
    const cpa_scale_point *last = NULL;
    for (int i = 0; i < s->n_measured; i++) {
        const cpa_scale_point *p = &s->point[i];
        if (p->weak == weak && (p->ranks & (p->ranks - 1)) == 0) {
            *one = p->ranks == 1 ? p : *one;
            last = p;
        }
    }
    return last;
}

// A point under the law of `one`, false where there can be none: lanes that a run may not have, or of fewer cells than it needs.
static bool place(const cpa_scale_point *one, int ranks, cpa_scale_point *p)
{
    enum { MOST_LANES = 1 << 20, LEAST_CELLS = 3 };
    *p = (cpa_scale_point){
        .weak = one->weak, .predicted = true, .ranks = ranks, .lanes = one->lanes, .batch = one->batch};
    if (one->weak) {
        p->lanes = one->lanes <= MOST_LANES / ranks ? one->lanes * ranks : 0;
    } else if (ranks > one->lanes) { // the same cells in more and smaller lanes
        p->batch = (int)((int64_t)one->lanes * one->batch / ranks);
        p->lanes = ranks;
    }
    return p->lanes > 0 && p->batch >= LEAST_CELLS;
}

cpa_status cpa_scale_extrapolate(cpa_scale_study *s)
{
    cpa_status st = CPA_OK;
    for (int weak = 0; s->model.is_known && weak < 2; weak++) {
        const cpa_scale_point *one = NULL;
        cpa_scale_point p, first;
        int ranks = find_last(s, weak, &one)->ranks;
        first = *one;
        while ((ranks *= 2) <= CPA_SCALE_MOST && place(&first, ranks, &p)) {
            double cells = (double)p.lanes * p.batch / ((double)first.lanes * first.batch);
            p.middle = predict(s, &p);
            p.model = p.middle.step;
            p.p25 = p.p75 = NAN;
            p.speedup = cells * first.model / p.model;
            p.efficiency = p.speedup / ranks;
            CPA_TRY(cpa_realloc((size_t)s->n_points + 1, sizeof *s->point, &s->point));
            s->point[s->n_points++] = p;
        }
    }
cleanup:
    return st;
}

// ---- Medians

// A figure of a pass.
typedef struct figure {
    double value;
    const cpa_scale_pass *pass;
} figure;

static int by_value(const void *a, const void *b)
{
    double x = ((const figure *)a)->value, y = ((const figure *)b)->value;
    return (x > y) - (x < y);
}

// A quantile of v [n], which is put in order, between neighbours in proportion.
static double quantile(figure *v, int n, double q)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    double at = q * (n - 1);
    int low = (int)at, high = low + 1 < n ? low + 1 : low;
    return v[low].value + (at - low) * (v[high].value - v[low].value);
}

// The mean of two passes, so that its parts still make up its step.
static cpa_scale_pass mean(const cpa_scale_pass *a, const cpa_scale_pass *b)
{
    cpa_scale_pass out = {.step = (a->step + b->step) / 2,
                          .compute = (a->compute + b->compute) / 2,
                          .wait = (a->wait + b->wait) / 2,
                          .reduce = (a->reduce + b->reduce) / 2,
                          .update = (a->update + b->update) / 2,
                          .imbalance = (a->imbalance + b->imbalance) / 2};
    for (int k = 0; k < CPA_SCALE_KINDS; k++) {
        out.reduce_of[k] = (a->reduce_of[k] + b->reduce_of[k]) / 2;
    }
    return out;
}

static void summarise(const cpa_scale_study *s, const cpa_scale_point *one, cpa_scale_point *p)
{
    enum { MOST_PASSES = 1000 };
    figure v[MOST_PASSES];
    int n = s->n_passes;
    for (int i = 0; i < n; i++) {
        v[i] = (figure){p->pass[i].step, &p->pass[i]};
    }
    p->p25 = quantile(v, n, 0.25);
    p->p75 = quantile(v, n, 0.75);
    p->middle = mean(v[(n - 1) / 2].pass, v[n / 2].pass); // twice the same where the passes are odd
    for (int i = 0; i < n; i++) {
        v[i] = (figure){one->pass[i].step / p->pass[i].step, &p->pass[i]};
    }
    double cells = (double)p->lanes * p->batch / ((double)one->lanes * one->batch);
    p->speedup = cells * quantile(v, n, 0.5);
    p->efficiency = p->speedup / p->ranks;
}

void cpa_scale_summarise(cpa_scale_study *s)
{
    for (int i = 0; i < s->n_measured; i++) {
        const cpa_scale_point *one = NULL;
        find_last(s, s->point[i].weak, &one);
        summarise(s, one, &s->point[i]);
    }
}

void cpa_scale_fini(cpa_scale_study *s)
{
    for (int i = 0; i < s->n_points; i++) {
        cpa_free(&s->point[i].pass);
    }
    cpa_free(&s->point);
}
