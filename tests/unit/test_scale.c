// Owns: the tests of a scaling study's arithmetic: medians, the model of the cost, what is predicted and shown.
// Must never run a step.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/app/scale_impl.h"

static void near(double got, double want)
{
    if (!(fabs(got / want - 1) < 1e-6)) {
        fail_msg("%g, not %g", got, want);
    }
}

static const double LATENCY = 3e-6, BANDWIDTH = 4e9, FLOPS = 5e10, UPDATE = 2e-3;

static const cpa_scale_work work = {
    .flops = {17e6, 2e6}, .bytes = {12e6, 2e5}, .parts = {5, 2}, .share = {1.0 / 3, 2.0 / 3}, .told = 200};

// A pass whose step costs exactly what the model says, for lanes that the ranks share evenly.
static cpa_scale_pass exact(int ranks, int lanes, int batch)
{
    cpa_scale_pass p = {.update = UPDATE};
    p.compute =
        (double)lanes / ranks * batch * (work.flops[0] * work.share[0] + work.flops[1] * work.share[1]) / FLOPS +
        UPDATE;
    for (int k = 0; k < 2 && ranks > 1; k++) {
        double messages = work.parts[k] * 2 * (ranks - 1) + ceil(log2(ranks));
        p.reduce_of[k] =
            messages * LATENCY + (2.0 * (ranks - 1) / ranks * work.bytes[k] + (ranks - 1) * work.told) / BANDWIDTH;
        p.reduce += work.share[k] * p.reduce_of[k];
    }
    p.step = p.compute + p.reduce;
    return p;
}

// 1, 2 and 4 ranks, strong with 4 lanes, weak with one a rank; three passes, of which the second is the median.
static void make(cpa_scale_study *s)
{
    *s = (cpa_scale_study){.n_points = 6, .n_measured = 6, .n_passes = 3, .n_steps = 30, .threads = 1, .work = work};
    assert_int_equal(cpa_alloc(6, sizeof *s->point, &s->point), CPA_OK);
    for (int i = 0; i < 6; i++) {
        cpa_scale_point *p = &s->point[i];
        int ranks = 1 << i % 3;
        *p = (cpa_scale_point){.weak = i >= 3, .ranks = ranks, .nodes = 1, .lanes = i < 3 ? 4 : ranks, .batch = 100};
        assert_int_equal(cpa_alloc(3, sizeof *p->pass, &p->pass), CPA_OK);
        const double factor[] = {1.5, 1, 0.5};
        for (int k = 0; k < 3; k++) {
            p->pass[k] = exact(ranks, p->lanes, p->batch);
            p->pass[k].step *= factor[k];
        }
    }
    cpa_scale_summarise(s);
}

static void medians_are_paired(void **state)
{
    (void)state;
    cpa_scale_study s;
    make(&s);
    for (int i = 0; i < 6; i++) {
        const cpa_scale_point *p = &s.point[i], *one = &s.point[i < 3 ? 0 : 3];
        double step = exact(p->ranks, p->lanes, p->batch).step;
        near(p->middle.step, step);
        near(p->p25, 0.75 * step);
        near(p->p75, 1.25 * step);
        near(p->speedup, one->middle.step / step * p->lanes / one->lanes);
        near(p->efficiency * p->ranks, p->speedup);
    }
    // What slows all points of a pass down leaves the speedup alone.
    double before = s.point[2].speedup;
    for (int i = 0; i < 3; i++) {
        s.point[i].pass[1].step *= 7;
    }
    cpa_scale_summarise(&s);
    near(s.point[2].speedup, before);
    cpa_scale_fini(&s);
}

// Of an even number of passes the median is between the two in the middle, and so are the parts that make it up.
static void even_passes_have_a_middle(void **state)
{
    (void)state;
    cpa_scale_study s;
    make(&s);
    s.n_passes = 2;
    for (int i = 0; i < 6; i++) {
        cpa_scale_point *p = &s.point[i];
        p->pass[0].compute *= 1.5;
        p->pass[0].reduce *= 1.5;
    }
    cpa_scale_summarise(&s);
    for (int i = 0; i < 6; i++) {
        const cpa_scale_point *p = &s.point[i];
        near(p->middle.step, 1.25 * p->pass[1].step);
        near(p->middle.compute + p->middle.reduce, p->middle.step);
        assert_true(p->p25 < p->middle.step && p->middle.step < p->p75);
    }
    cpa_scale_fini(&s);
}

static void the_model_is_found(void **state)
{
    (void)state;
    cpa_scale_study s;
    make(&s);
    cpa_scale_fit(&s);
    assert_true(s.model.is_known);
    near(s.model.latency, LATENCY);
    near(s.model.bandwidth, BANDWIDTH);
    near(s.model.flops, FLOPS);
    near(s.model.update, UPDATE * FLOPS);
    assert_true(s.model.worst_error < 1e-6 && s.model.mean_error < 1e-6);
    cpa_scale_fini(&s);

    // With a bandwidth that is twice as high the model is too fast, and says by how much.
    make(&s);
    s.model = (cpa_scale_model){.latency = LATENCY, .bandwidth = 2 * BANDWIDTH, .is_given = true};
    cpa_scale_fit(&s);
    near(s.model.bandwidth, 2 * BANDWIDTH);
    assert_true(s.model.worst_error > s.model.mean_error && s.model.mean_error > 0);
    near(s.model.worst_error, 1 - s.point[2].model / s.point[2].middle.step);
    cpa_scale_fini(&s);

    // A larger message that took less time makes no message free.
    make(&s);
    for (int i = 0; i < 6; i++) {
        s.point[i].middle.reduce_of[CPA_SCALE_AUTOENCODER] = 1e-9;
    }
    cpa_scale_fit(&s);
    assert_true(s.model.latency > 0 && isfinite(s.model.bandwidth) && s.model.bandwidth > 0);
    cpa_scale_fini(&s);
}

static void one_rank_tells_nothing_of_others(void **state)
{
    (void)state;
    cpa_scale_study s;
    make(&s);
    for (int i = 1; i < 6; i++) {
        s.point[i].ranks = 1;
    }
    cpa_scale_fit(&s);
    assert_false(s.model.is_known);
    assert_true(isnan(s.point[0].model));
    assert_int_equal(cpa_scale_extrapolate(&s), CPA_OK);
    assert_int_equal(s.n_points, 6);
    cpa_scale_fini(&s);
}

static void curves_go_on(void **state)
{
    (void)state;
    cpa_scale_study s;
    cpa_text csv = {0}, page = {0}, figure = {0};
    int most[2] = {0};
    make(&s);
    cpa_scale_fit(&s);
    assert_int_equal(cpa_scale_extrapolate(&s), CPA_OK);
    for (int i = 6; i < s.n_points; i++) {
        const cpa_scale_point *p = &s.point[i];
        most[p->weak] = p->ranks;
        assert_true(p->predicted && p->pass == NULL);
        near(p->middle.step, exact(p->ranks, p->lanes, p->batch).step);
        assert_true(p->weak ? p->lanes == p->ranks && p->batch == 100
                            : p->batch == 400 / p->lanes && p->lanes == p->ranks);
    }
    assert_int_equal(most[0], 128); // then a lane would have fewer than 3 cells
    assert_int_equal(most[1], CPA_SCALE_MOST);
    assert_int_equal(cpa_scale_csv(&s, &csv), CPA_OK);
    assert_int_equal(cpa_scale_page(&s, &page), CPA_OK);
    assert_int_equal(cpa_scale_figure(&s, &figure), CPA_OK);
    int rows = 0;
    for (const char *c = cpa_text_str(&csv); *c != '\0'; c++) {
        rows += *c == '\n';
    }
    assert_int_equal(rows, s.n_points + 1);
    assert_non_null(strstr(cpa_text_str(&page), "| 128 (predicted) | 128 x 3 |"));
    assert_non_null(strstr(cpa_text_str(&page),
                           "Model (from the measurements): latency 3 us a message, bandwidth 4 GB/s, 50 GFLOP/s"));
    assert_null(strstr(cpa_text_str(&figure), "nan"));
    cpa_text_fini(&csv);
    cpa_text_fini(&page);
    cpa_text_fini(&figure);
    cpa_scale_fini(&s);
}

static void numbers_are_read(void **state)
{
    (void)state;
    cpa_scale_model m;
    assert_int_equal(cpa_scale_parse(NULL, &m), CPA_OK);
    assert_false(m.is_given);
    assert_int_equal(cpa_scale_parse("1.5,2e1,", &m), CPA_OK);
    near(m.latency, 1.5e-6);
    near(m.bandwidth, 20e9);
    assert_true(m.flops == 0 && m.is_given);
    const char *const bad[] = {"", "1,2", "1,2,3,4", "1,0,3", "-1,,", "1e400,,", "0x1,,", "nan,,", "1 2,,"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(cpa_scale_parse(bad[i], &m), CPA_USAGE);
        assert_non_null(strstr(cpa_message(), bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians_are_paired), cmocka_unit_test(even_passes_have_a_middle),
        cmocka_unit_test(the_model_is_found), cmocka_unit_test(one_rank_tells_nothing_of_others),
        cmocka_unit_test(curves_go_on),       cmocka_unit_test(numbers_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
