// Owns: the rules by which a replay is judged. Knows nothing of the model; an implementation of its own of the published rules.
// Must never widen a bound.
//
// Bounds for float32 (x fixture, y replay, |.| the Euclidean norm of one tensor):
//   inference, evaluation  |x - y| <= 1e-5 |x|; results and validation metrics 1e-4
//   gradients              |x - y| <= 1e-4 |x| + 1e-6 L, L the largest gradient of the same update; null gradients (|x| < 1e-9 L): |y| <= 1e-6 L
//   rounded (products in tf32 or bfloat16): nothing but the losses among the results, 1e-2
//   parameters at the end  |(x - x0) - (y - x0)| <= 1e-3 |x - x0|; where some stored gradient is null no element moves more than steps * lr
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

enum {
    KIND_INFERENCE,
    KIND_RESULT,
    KIND_GRADIENT,
    KIND_NULL_GRADIENT,
    KIND_EVALUATION,
    KIND_PARAMETER,
    KIND_NULL_PARAMETER,
    KIND_STAYS,
    N_KINDS
};

static const char *const KIND[N_KINDS] = {"inference",  "result",     "gradients",       "null gradients",
                                          "evaluation", "parameters", "null parameters", "parameters that stay"};

typedef struct verdict {
    const fixture *f;
    const store *replay;
    double factor;
    bool rounded;
    int found, outside, missing;
    double worst[N_KINDS];
    char where[N_KINDS][400];
} verdict;

static double norm(const double *v, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        s += v[i] * v[i];
    }
    return sqrt(s);
}

static double distance(const tensor *x, const tensor *y)
{
    double s = 0;
    for (int64_t i = 0; i < x->n; i++) {
        s += (x->v[i] - y->v[i]) * (x->v[i] - y->v[i]);
    }
    return sqrt(s);
}

static bool all_finite(const tensor *x)
{
    for (int64_t i = 0; i < x->n; i++) {
        if (!isfinite(x->v[i])) {
            return false;
        }
    }
    return true;
}

static double bound(const verdict *w, double b)
{
    return fmax(b * w->factor, 1e-6);
}

static void judge(verdict *w, int kind, const char *name, double error, double limit)
{
    w->found++;
    if (!(error <= limit)) {
        if (w->outside++ < 8) {
            printf("FAIL %s: %.2e > %.0e\n", name, error, limit);
        }
    }
    if (error / limit > w->worst[kind] || !isfinite(error)) {
        w->worst[kind] = error / limit;
        snprintf(w->where[kind], sizeof w->where[kind], "%s", name);
    }
}

// The replay's tensor of the same path and size; counts it as missing when it is not there.
static const tensor *need(verdict *w, const tensor *x)
{
    const tensor *y = store_find(w->replay, "%s", x->path);
    if (y && y->n == x->n && y->rank == x->rank) {
        return y;
    }
    if (w->missing++ < 4) {
        printf("MISSING %s\n", x->path);
    }
    return NULL;
}

static bool begins(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

// The largest gradient norm of the update that `path` ("step_SS/update_I/grad/...") belongs to.
static double largest_of_update(const verdict *w, const char *path)
{
    size_t n = (size_t)(strstr(path, "/grad/") - path);
    double big = 0;
    for (int i = 0; i < w->f->s.n; i++) {
        const tensor *t = &w->f->s.t[i];
        if (strncmp(t->path, path, n) == 0 && begins(t->path + n, "/grad/")) {
            big = fmax(big, norm(t->v, t->n));
        }
    }
    return big;
}

static bool is_gradient(const tensor *t)
{
    return begins(t->path, "step_") && strstr(t->path, "/update_") && strstr(t->path, "/grad/");
}

// Whether some stored gradient of this parameter is null.
static bool has_null_gradient(const verdict *w, const char *name)
{
    for (int i = 0; i < w->f->s.n; i++) {
        const tensor *t = &w->f->s.t[i];
        if (is_gradient(t) && strcmp(strstr(t->path, "/grad/") + 6, name) == 0 &&
            norm(t->v, t->n) < 1e-9 * largest_of_update(w, t->path)) {
            return true;
        }
    }
    return false;
}

static void judge_gradient(verdict *w, const tensor *x)
{
    const tensor *y = need(w, x);
    if (!y) {
        return;
    }
    double big = largest_of_update(w, x->path), size = norm(x->v, x->n);
    if (size < 1e-9 * big) {
        judge(w, KIND_NULL_GRADIENT, x->path, norm(y->v, y->n) / big, 1e-6);
    } else {
        judge(w, KIND_GRADIENT, x->path, fmax(distance(x, y) - bound(w, 1e-6) * big, 0) / size, bound(w, 1e-4));
    }
}

static void judge_value(verdict *w, int kind, const tensor *x, double limit)
{
    const tensor *y = all_finite(x) ? need(w, x) : NULL;
    if (y) {
        judge(w, kind, x->path, distance(x, y) / fmax(norm(x->v, x->n), 1e-6), bound(w, limit));
    }
}

// Learning rate of the optimizer that owns a parameter.
static double rate_of(const verdict *w, const char *name)
{
    const cpa_train_config *c = &w->f->train;
    if (!begins(name, "module/")) {
        return c->adv_lr;
    }
    return strstr(name, "dosers") ? c->doser_lr : c->lr;
}

static void judge_parameter(verdict *w, const tensor *x, const char *name)
{
    const tensor *x0 = store_find(&w->f->s, "initial/%s", name), *y = need(w, x);
    if (!y || !x0) {
        return;
    }
    double moved = distance(x, x0), most = 0;
    for (int64_t i = 0; i < y->n; i++) {
        most = fmax(most, fabs(y->v[i] - x0->v[i]));
    }
    if (has_null_gradient(w, name)) {
        judge(w, KIND_NULL_PARAMETER, name, most, w->f->n_steps * rate_of(w, name) * 1.01);
    } else if (moved == 0) {
        judge(w, KIND_STAYS, name, distance(y, x0), 1e-12);
    } else {
        judge(w, KIND_PARAMETER, name, distance(x, y) / moved, bound(w, 1e-3));
    }
}

static bool in_step(const char *path, int step, const char *part)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "step_%02d/%s/", step, part);
    return begins(path, prefix);
}

// Of a result: not a score, nor a penalty, which hang on the side of 0 that a unit of a small batch is on.
static bool is_loss(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    return begins(name, "recon") || begins(name, "adv") || begins(name, "KL");
}

static void judge_tensor(verdict *w, const tensor *x)
{
    static const int steps[] = {0, 1, 3, 6};
    char last[64];
    snprintf(last, sizeof last, "step_%02d/after/", w->f->n_steps - 1);
    for (int i = 0; i < 4; i++) {
        if (w->rounded) {
            if (in_step(x->path, steps[i], "result") && is_loss(x->path)) {
                judge_value(w, KIND_RESULT, x, 1e-2);
            }
        } else if (in_step(x->path, steps[i], "inference")) {
            judge_value(w, KIND_INFERENCE, x, 1e-5);
        } else if (in_step(x->path, steps[i], "result")) {
            judge_value(w, KIND_RESULT, x, 1e-4);
        }
    }
    if (w->rounded) {
        return;
    }
    if (is_gradient(x) && (begins(x->path, "step_00/") || begins(x->path, "step_01/") || begins(x->path, "step_03/"))) {
        judge_gradient(w, x);
    } else if (begins(x->path, "evaluation/")) {
        judge_value(w, KIND_EVALUATION, x, begins(x->path, "evaluation/validation") ? 1e-4 : 1e-5);
    } else if (begins(x->path, last) && !ends(x->path, "num_batches_tracked")) {
        judge_parameter(w, x, x->path + strlen(last));
    }
}

bool golden_judge(const fixture *f, const store *replay, bool tight, bool rounded)
{
    verdict w = {.f = f, .replay = replay, .factor = tight ? 0.01 : 1, .rounded = rounded};
    for (int i = 0; i < f->s.n; i++) {
        judge_tensor(&w, &f->s.t[i]);
    }
    for (int k = 0; k < N_KINDS; k++) {
        if (w.where[k][0]) {
            printf("%-22s worst at %6.1f %% of the bound: %s\n", KIND[k], 100 * w.worst[k], w.where[k]);
        }
    }
    bool ok = w.outside == 0 && w.missing == 0 && w.found > 0;
    printf("%s: %d quantities, %d outside, %d missing\n", ok ? "ok" : "FAILED", w.found, w.outside, w.missing);
    return ok;
}
