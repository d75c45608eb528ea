// Owns: the figure of a scaling study, a hand-written SVG: throughput, efficiency, and the parts of a step. Never needs a font, a script or
// another file.
#include <math.h>
#include <stdio.h>

#include "scale_impl.h"

enum { WIDTH = 960, HEIGHT = 760, MARGIN = 70, PANEL_W = 370, PANEL_H = 270, BARS_Y = 440 };

static const char *const COLOUR[2] = {"#1f6fb2", "#c8553d"}; // strong, weak
static const char *const NAME[2] = {"strong", "weak"};

// A rectangle of the page and the values at its edges; `logs`: the logarithm is what is linear.
typedef struct panel {
    double x, y, left, right, bottom, top;
    bool logs;
} panel;

static double across(const panel *p, double ranks)
{
    return p->x + PANEL_W * log(ranks / p->left) / log(p->right / p->left);
}

static double up(const panel *p, double v)
{
    double part = p->logs ? log(v / p->bottom) / log(p->top / p->bottom) : (v - p->bottom) / (p->top - p->bottom);
    return p->y + PANEL_H * (1 - fmin(fmax(part, 0), 1));
}

static double throughput(const cpa_scale_point *p)
{
    return (double)p->lanes * p->batch / p->middle.step;
}

static double efficiency(const cpa_scale_point *p)
{
    return p->efficiency;
}

static cpa_status add_words(cpa_text *out, double x, double y, const char *anchor, const char *text)
{
    return cpa_text_add(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

static cpa_status add_stroke(cpa_text *out, double x1, double y1, double x2, double y2, const char *colour,
                             const char *more)
{
    return cpa_text_add(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"%s/>\n", x1, y1, x2,
                        y2, colour, more);
}

// Frame, title, and the ranks below.
static cpa_status add_frame(const panel *p, const char *title, cpa_text *out)
{
    cpa_status st;
    char label[32];
    CPA_TRY(cpa_text_add(out,
                         "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#444\"/>\n",
                         p->x, p->y, PANEL_W, PANEL_H));
    CPA_TRY(add_words(out, p->x + PANEL_W / 2.0, p->y - 12, "middle", title));
    int step = log2(p->right / p->left) > 7 ? 4 : 2;
    for (double ranks = 1; ranks <= p->right; ranks *= step) {
        snprintf(label, sizeof label, "%.0f", ranks);
        CPA_TRY(add_stroke(out, across(p, ranks), p->y, across(p, ranks), p->y + PANEL_H, "#ddd", ""));
        CPA_TRY(add_words(out, across(p, ranks), p->y + PANEL_H + 16, "middle", label));
    }
    CPA_TRY(add_words(out, p->x + PANEL_W / 2.0, p->y + PANEL_H + 34, "middle", "ranks"));
cleanup:
    return st;
}

// A mark on the left edge and a line from it.
static cpa_status add_mark(const panel *p, double v, const char *label, cpa_text *out)
{
    cpa_status st;
    CPA_TRY(add_stroke(out, p->x, up(p, v), p->x + PANEL_W, up(p, v), "#ddd", ""));
    CPA_TRY(add_words(out, p->x - 6, up(p, v) + 4, "end", label));
cleanup:
    return st;
}

// The curve of one law: what was measured as dots on a line, what is predicted as a broken one that goes on from the last dot.
static cpa_status add_curve(const cpa_scale_study *s, const panel *p, bool weak,
                            double (*value)(const cpa_scale_point *), cpa_text *out)
{
    cpa_status st = CPA_OK;
    const cpa_scale_point *before = NULL;
    for (int i = 0; i < s->n_points; i++) {
        const cpa_scale_point *q = &s->point[i];
        if (q->weak != weak) {
            continue;
        }
        double x = across(p, q->ranks), y = up(p, value(q));
        if (before != NULL) {
            CPA_TRY(add_stroke(out, across(p, before->ranks), up(p, value(before)), x, y, COLOUR[weak],
                               q->predicted ? " stroke-width=\"2\" stroke-dasharray=\"6 4\"" : " stroke-width=\"2\""));
        }
        if (!q->predicted) {
            CPA_TRY(cpa_text_add(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x, y, COLOUR[weak]));
        }
        before = q;
    }
cleanup:
    return st;
}

static cpa_status add_throughput(const cpa_scale_study *s, panel p, cpa_text *out)
{
    cpa_status st;
    char label[32];
    double least = INFINITY, most = 0;
    for (int i = 0; i < s->n_points; i++) {
        least = fmin(least, throughput(&s->point[i]));
        most = fmax(most, throughput(&s->point[i]));
    }
    p.logs = true;
    p.bottom = pow(10, floor(log10(least)));
    p.top = pow(10, ceil(log10(most * 1.01)));
    CPA_TRY(add_frame(&p, "cells a second (thin: ideal)", out));
    for (double v = p.bottom; v <= p.top * 1.001; v *= 10) {
        snprintf(label, sizeof label, "%.0f", v);
        CPA_TRY(add_mark(&p, v, label, out));
    }
    for (int i = 0; i < s->n_measured; i++) {
        const cpa_scale_point *one = &s->point[i];
        if (one->ranks == 1) {
            double end = fmin(p.right, p.top / throughput(one));
            CPA_TRY(add_stroke(out, across(&p, 1), up(&p, throughput(one)), across(&p, end),
                               up(&p, throughput(one) * end), COLOUR[one->weak], " stroke-opacity=\"0.4\""));
        }
    }
    CPA_TRY(add_curve(s, &p, false, throughput, out));
    CPA_TRY(add_curve(s, &p, true, throughput, out));
cleanup:
    return st;
}

static cpa_status add_efficiency(const cpa_scale_study *s, panel p, cpa_text *out)
{
    cpa_status st;
    char label[32];
    p.bottom = 0;
    p.top = 1.2;
    CPA_TRY(add_frame(&p, "efficiency", out));
    for (int i = 0; i <= 5; i++) {
        snprintf(label, sizeof label, "%d %%", 20 * i);
        CPA_TRY(add_mark(&p, 0.2 * i, label, out));
    }
    CPA_TRY(add_curve(s, &p, false, efficiency, out));
    CPA_TRY(add_curve(s, &p, true, efficiency, out));
cleanup:
    return st;
}

// A measured point's step as one bar: compute, reduce, wait.
static cpa_status add_bar(const cpa_scale_point *p, double x, double width, double scale, cpa_text *out)
{
    static const char *const fill[] = {"#4c9f70", "#e0a03e", "#9e2a2b"};
    const double part[] = {p->middle.compute, p->middle.reduce, p->middle.wait};
    cpa_status st = CPA_OK;
    char label[64];
    double y = BARS_Y + PANEL_H;
    for (int i = 0; i < 3; i++) {
        double height = part[i] * scale;
        y -= height;
        CPA_TRY(cpa_text_add(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y,
                             width, height, fill[i]));
    }
    snprintf(label, sizeof label, "%.3g", 1e3 * p->middle.step);
    CPA_TRY(add_words(out, x + width / 2, y - 4, "middle", label));
    snprintf(label, sizeof label, "%d", p->ranks);
    CPA_TRY(add_words(out, x + width / 2, BARS_Y + PANEL_H + 16, "middle", label));
cleanup:
    return st;
}

static cpa_status add_bars(const cpa_scale_study *s, bool weak, double x, cpa_text *out)
{
    cpa_status st;
    char title[96];
    double most = 0;
    int n = 0, at = 0;
    for (int i = 0; i < s->n_measured; i++) {
        n += s->point[i].weak == weak;
        most = s->point[i].weak == weak ? fmax(most, s->point[i].middle.step) : most;
    }
    snprintf(title, sizeof title, "a step, ms (%s): compute (green), reduce (yellow), wait (red)", NAME[weak]);
    CPA_TRY(add_words(out, x + PANEL_W / 2.0, BARS_Y - 12, "middle", title));
    CPA_TRY(add_stroke(out, x, BARS_Y + PANEL_H, x + PANEL_W, BARS_Y + PANEL_H, "#444", ""));
    CPA_TRY(add_words(out, x + PANEL_W / 2.0, BARS_Y + PANEL_H + 34, "middle", "ranks"));
    for (int i = 0; i < s->n_measured; i++) {
        if (s->point[i].weak == weak) {
            double room = (double)PANEL_W / n;
            CPA_TRY(add_bar(&s->point[i], x + (at + 0.15) * room, 0.7 * room, 0.9 * PANEL_H / most, out));
            at++;
        }
    }
cleanup:
    return st;
}

cpa_status cpa_scale_figure(const cpa_scale_study *s, cpa_text *out)
{
    cpa_status st;
    double right = 2;
    for (int i = 0; i < s->n_points; i++) {
        right = fmax(right, s->point[i].ranks);
    }
    const double second = MARGIN + PANEL_W + 1.2 * MARGIN;
    const panel first = {.x = MARGIN, .y = 60, .left = 1, .right = right};
    panel next = first;
    next.x = second;
    CPA_TRY(cpa_text_add(out,
                         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                         "font-family=\"sans-serif\" font-size=\"12\">\n<title>Scaling</title>\n"
                         "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
                         WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT));
    for (int weak = 0; weak < 2; weak++) {
        double x = MARGIN + (PANEL_W + 1.2 * MARGIN) * weak;
        CPA_TRY(add_stroke(out, x, 20, x + 30, 20, COLOUR[weak], " stroke-width=\"2\""));
        CPA_TRY(cpa_text_add(out, "<text x=\"%.1f\" y=\"24\">%s scaling (broken: predicted by the model)</text>\n",
                             x + 38, NAME[weak]));
    }
    CPA_TRY(add_throughput(s, first, out));
    CPA_TRY(add_efficiency(s, next, out));
    CPA_TRY(add_bars(s, false, MARGIN, out));
    CPA_TRY(add_bars(s, true, second, out));
    CPA_TRY(cpa_text_add(out, "</svg>\n"));
cleanup:
    return st;
}
