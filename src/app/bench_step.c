// Owns: the command `bench step`: seconds of a step by kind, and of every operation in it, beside the rate at which memory is copied.
// Never trains to an end: the model is forgotten.
#include <stdio.h>
#include <stdlib.h>

#include "bench_impl.h"
#include "cpa/base/log.h"
#include "cpa/platform/profile.h"
#include "walk_impl.h"

enum { WARM_UP = 6, KINDS = 2, COPIED = 1 << 26, COPIES = 10 };

static const char *const kind_name[KINDS] = {"autoencoder", "adversaries"};

// What was measured of a kind of steps.
typedef struct kind_time {
    int64_t steps, cells;
    double seconds;
} kind_time;

static int kind_of(const cpa_step_result *result)
{
    return !result->phase.update_autoencoder;
}

// Steps one by one, each to its end.
static cpa_status time_kinds(cpa_walk *w, int n, kind_time t[KINDS])
{
    cpa_status st = CPA_OK;
    cpa_step_result result;
    for (int i = 0; i < n; i++) {
        double since = cpa_seconds();
        CPA_TRY(cpa_walk_step(w, &result));
        kind_time *k = &t[kind_of(&result)];
        k->seconds += cpa_seconds() - since;
        k->steps++;
        k->cells += result.n_cells;
    }
cleanup:
    return st;
}

// Bytes a second at which the backend copies a large matrix, read and written.
static cpa_status copy_rate(cpa_backend *be, double *rate)
{
    cpa_status st;
    void *from = NULL, *to = NULL;
    double last;
    CPA_TRY(cpa_op_alloc(be, COPIED * sizeof(cpa_real), &from));
    CPA_TRY(cpa_op_alloc(be, COPIED * sizeof(cpa_real), &to));
    CPA_TRY(cpa_op_zero(be, from, COPIED * sizeof(cpa_real)));
    const cpa_mat a = cpa_mat_of(from, 1, COPIED), b = cpa_mat_of(to, 1, COPIED);
    double since = 0;
    for (int i = 0; i <= COPIES; i++) {
        CPA_TRY(cpa_op_axpby(be, b, 1, a, 0));
        if (i == 0) { // the first one touches the memory
            CPA_TRY(cpa_op_download(be, &last, to, sizeof last));
            since = cpa_seconds();
        }
    }
    CPA_TRY(cpa_op_download(be, &last, to, sizeof last));
    *rate = 2.0 * COPIES * COPIED * sizeof(cpa_real) / (cpa_seconds() - since);
cleanup:
    if (from != NULL) {
        cpa_op_release(be, from);
    }
    if (to != NULL) {
        cpa_op_release(be, to);
    }
    return st;
}

// An operation in the steps of each kind.
typedef struct operation {
    const char *name;
    cpa_profile_row of[KINDS];
    double seconds; // of all
} operation;

typedef struct operations {
    operation *op; // [n] owned
    int n;
    int64_t steps[KINDS];
} operations;

// One step, its operations added to those of its kind.
static cpa_status profile_step(cpa_walk *w, operations *all)
{
    cpa_status st;
    cpa_profile *p = NULL;
    const cpa_profile_row *row;
    cpa_step_result result;
    CPA_TRY(cpa_profile_begin(w->run.be, &p));
    CPA_TRY(cpa_walk_step(w, &result));
    CPA_TRY(cpa_profile_end(p, &row, &all->n));
    if (all->op == NULL) {
        CPA_TRY(cpa_alloc((size_t)all->n, sizeof *all->op, &all->op));
    }
    int kind = kind_of(&result);
    all->steps[kind]++;
    for (int i = 0; i < all->n; i++) {
        cpa_profile_row *sum = &all->op[i].of[kind];
        all->op[i].name = row[i].op;
        all->op[i].seconds += row[i].seconds;
        sum->calls += row[i].calls;
        sum->seconds += row[i].seconds;
        sum->bytes += row[i].bytes;
    }
cleanup:
    cpa_profile_destroy(&p);
    return st;
}

static int longer(const void *a, const void *b)
{
    const double x = ((const operation *)a)->seconds, y = ((const operation *)b)->seconds;
    return (x < y) - (x > y);
}

static void print_operations(operations *all, double rate)
{
    double sum[KINDS] = {0};
    qsort(all->op, (size_t)all->n, sizeof *all->op, longer);
    printf("\n%-22s", "operation");
    for (int k = 0; k < KINDS; k++) {
        printf(" | %-11s %6s %10s %8s %7s", kind_name[k], "calls", "us", "GB/s", "of copy");
    }
    printf("\n");
    for (int i = 0; i < all->n && all->op[i].seconds > 0; i++) {
        printf("%-22s", all->op[i].name);
        for (int k = 0; k < KINDS; k++) {
            const cpa_profile_row *r = &all->op[i].of[k];
            const double steps = all->steps[k] > 0 ? (double)all->steps[k] : 1;
            const double speed = r->seconds > 0 ? r->bytes / r->seconds : 0;
            sum[k] += r->seconds / steps;
            printf(" | %-11s %6.1f %10.2f %8.1f %6.1f%%", "", (double)r->calls / steps, 1e6 * r->seconds / steps,
                   1e-9 * speed, 100 * speed / rate);
        }
        printf("\n");
    }
    printf("%-22s | %-11s %6s %10.2f %8s %7s | %-11s %6s %10.2f\n", "together", "", "", 1e6 * sum[0], "", "", "", "",
           1e6 * sum[1]);
}

// The operations of steps, each timed by itself: what they take apart is more than what they take together.
static cpa_status profile(cpa_walk *w, int n, double rate)
{
    cpa_status st = CPA_OK;
    operations all = {0};
    for (int i = 0; i < n; i++) {
        CPA_TRY(profile_step(w, &all));
    }
    print_operations(&all, rate);
cleanup:
    cpa_free(&all.op);
    return st;
}

static cpa_status measure(cpa_walk *w, const cpa_options *o)
{
    cpa_status st;
    kind_time t[KINDS] = {0}, all = {0};
    double rate;
    CPA_TRY(time_kinds(w, WARM_UP * cpa_walk_cycle(&o->train), t));
    t[0] = t[1] = (kind_time){0};
    CPA_TRY(time_kinds(w, o->scale.steps, t));
    printf("%-14s %8s %12s %14s\n", "step", "steps", "ms", "cells/s");
    for (int k = 0; k < KINDS; k++) {
        if (t[k].steps > 0) {
            printf("%-14s %8lld %12.4f %14.0f\n", kind_name[k], (long long)t[k].steps,
                   1e3 * t[k].seconds / (double)t[k].steps, (double)t[k].cells / t[k].seconds);
        }
        all = (kind_time){all.steps + t[k].steps, all.cells + t[k].cells, all.seconds + t[k].seconds};
    }
    printf("%-14s %8lld %12.4f %14.0f\n", "both", (long long)all.steps, 1e3 * all.seconds / (double)all.steps,
           (double)all.cells / all.seconds);
    CPA_TRY(copy_rate(w->run.be, &rate));
    printf("memory is copied at %.1f GB/s (read and written), backend %s, %s\n", 1e-9 * rate,
           cpa_backend_name(w->run.be), cpa_backend_isa(w->run.be));
    CPA_TRY(profile(w, o->scale.steps, rate));
cleanup:
    return st;
}

cpa_status cpa_bench_step(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    cpa_train_run base = {.comm = comm};
    cpa_walk w = {0};
    CPA_REQUIRE(cpa_comm_size(comm) == 1, CPA_USAGE, "bench step measures one rank; scale measures several");
    CPA_TRY(cpa_walk_read(&base, o, o->train.lanes));
    CPA_TRY(cpa_walk_begin(&base, comm, o->train.lanes, &w));
    CPA_TRY(measure(&w, o));
cleanup:
    cpa_walk_end(&w);
    cpa_train_tear_down(&base, false);
    return st;
}
