// Owns: conformance of the doser and of embedding bags: values against plain loops in double, gradients against finite
// differences of them. Never another family's.
#include "../support/ops.h"

// Rows, components of a cell, perturbations, latent columns; the last are more ids than a block looks through, of few rows and of many.
static const int sizes[][4] = {{0, 2, 3, 4},     {1, 1, 2, 1},     {2, 3, 5, 31},   {31, 2, 4, 33},
                               {33, 1, 200, 64}, {128, 4, 9, 300}, {600, 3, 4, 33}, {2100, 2, 70, 5}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

typedef struct bag {
    int rows, m, n, cols;
    cpa_doser kind;
    int *ids;             // [rows * m]
    double *dose, *w, *c; // [rows * m], [n], [n]
    double *up;           // gradient that comes in
    double *e, *weight;   // [n * cols], [rows * m] or NULL
    int first;
} bag;

static int *random_ids(int rows, int m, int n)
{
    int *ids = host((size_t)rows * (size_t)m, sizeof *ids);
    for (int i = 0; i < rows * m; i++) {
        ids[i] = uniform(0, 1) < 0.2 ? 0 : below(n);
    }
    return ids;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double dose_effect(const bag *s, int i)
{
    int p = s->ids[i];
    if (p == 0 || s->kind == CPA_DOSER_LINEAR) {
        return p == 0 ? 0 : s->dose[i];
    }
    double x = s->kind == CPA_DOSER_LOGSIGM ? log1p(s->dose[i]) : s->dose[i];
    return sigmoid(s->w[p] * x + s->c[p]) - sigmoid(s->c[p]);
}

static double doser_sum(void *arg)
{
    const bag *s = arg;
    double p = 0;
    for (int i = 0; i < s->rows * s->m; i++) {
        p += s->up[i] * dose_effect(s, i);
    }
    return p;
}

static void doser_of(const int *size, cpa_doser kind, bool gradient)
{
    bag s = {.rows = size[0], .m = size[1], .n = size[2], .kind = kind};
    int n = s.rows * s.m;
    s.ids = random_ids(s.rows, s.m, s.n);
    cpa_dev_int *ids = put_ints(s.ids, n);
    mat dose = put_uniform(s.rows, s.m, 1, 0, kind == CPA_DOSER_SIGM ? 4 : 100), w = put_uniform(1, s.n, 0, -2, 2),
        c = put_uniform(1, s.n, 0, -2, 2);
    mat out = put_nan(s.rows, s.m, 2), up = put_uniform(s.rows, s.m, 0, -1, 1);
    mat dw = put_nan(1, s.n, 0), dc = put_nan(1, s.n, 0);
    s.dose = dose.h;
    s.w = w.h;
    s.c = c.h;
    s.up = up.h;
    if (gradient) {
        OK(cpa_op_doser_grad(be, dw.m, dc.m, up.m, ids, dose.m, w.m, c.m, kind));
        near("doser_grad, dw", get(dw), differences(doser_sum, &s, s.w, s.n, 1e-5), s.n, difference_tolerance);
        near("doser_grad, dc", get(dc), differences(doser_sum, &s, s.c, s.n, 1e-5), s.n, difference_tolerance);
    } else {
        double *want = host((size_t)n, sizeof *want);
        for (int i = 0; i < n; i++) {
            want[i] = dose_effect(&s, i);
        }
        OK(cpa_op_doser(be, out.m, ids, dose.m, w.m, c.m, kind));
        near("doser", get(out), want, n, tolerance);
    }
    drop(ids);
    DROP(dose, w, c, out, up, dw, dc);
}

static void case_doser(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        doser_of(sizes[i], CPA_DOSER_LOGSIGM, false);
        doser_of(sizes[i], CPA_DOSER_SIGM, false);
        doser_of(sizes[i], CPA_DOSER_LINEAR, false);
    }
}

static void case_doser_grad(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        doser_of(sizes[i], CPA_DOSER_LOGSIGM, true);
        doser_of(sizes[i], CPA_DOSER_SIGM, true);
        doser_of(sizes[i], CPA_DOSER_LINEAR, true);
    }
}

static double bag_weight(const bag *s, int i)
{
    return s->ids[i] < s->first ? 0 : s->weight != NULL ? s->weight[i] : 1;
}

// Adds the rows of the bag to z [rows * cols].
static void add_bag(const bag *s, double *z)
{
    for (int i = 0; i < s->rows * s->m; i++) {
        for (int j = 0; j < s->cols; j++) {
            z[i / s->m * s->cols + j] += bag_weight(s, i) * s->e[s->ids[i] * s->cols + j];
        }
    }
}

static void bag_of(const int *size, bool gradient, bool weighted, int first)
{
    bag s = {.rows = size[0], .m = size[1], .n = size[2], .cols = size[3], .first = first};
    s.ids = random_ids(s.rows, s.m, s.n);
    cpa_dev_int *ids = put_ints(s.ids, s.rows * s.m);
    mat e = put_uniform(s.n, s.cols, 2, -1, 1), weight = put_uniform(s.rows, s.m, 1, -1, 1);
    mat z = put_uniform(s.rows, s.cols, 1, -1, 1), de = put_nan(s.n, s.cols, 3), dweight = put_nan(s.rows, s.m, 1);
    s.e = e.h;
    s.weight = weighted ? weight.h : NULL;
    cpa_mat given = weighted ? weight.m : CPA_NO_MAT;
    if (gradient) { // z serves as the gradient that comes in
        double *want = host((size_t)s.n * (size_t)s.cols, sizeof *want);
        double *want_weight = host((size_t)s.rows * (size_t)s.m, sizeof *want_weight);
        for (int i = 0; i < s.rows * s.m; i++) {
            for (int j = 0; j < s.cols; j++) {
                double up = z.h[i / s.m * s.cols + j];
                want[s.ids[i] * s.cols + j] += bag_weight(&s, i) * up;
                want_weight[i] += s.ids[i] >= first ? up * e.h[s.ids[i] * s.cols + j] : 0;
            }
        }
        OK(cpa_op_bag_grad(be, de.m, weighted ? dweight.m : CPA_NO_MAT, z.m, e.m, ids, s.m, given, first));
        near("bag_grad, dE", get(de), want, s.n * s.cols, tolerance);
        if (weighted) {
            near("bag_grad, dweight", get(dweight), want_weight, s.rows * s.m, tolerance);
        }
    } else {
        add_bag(&s, z.h);
        OK(cpa_op_bag_add(be, z.m, e.m, ids, s.m, given, first));
        near("bag_add", get(z), z.h, s.rows * s.cols, tolerance);
    }
    drop(ids);
    DROP(e, weight, z, de, dweight);
}

static void case_bag_add(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        bag_of(sizes[i], false, true, 1);
        bag_of(sizes[i], false, false, 0);
    }
}

enum { SMALL_ROWS = 5, SMALL_COLS = 3 };

static double bag_sum(void *arg)
{
    const bag *s = arg;
    double z[SMALL_ROWS * SMALL_COLS] = {0}, p = 0;
    add_bag(s, z);
    for (int i = 0; i < s->rows * s->cols; i++) {
        p += s->up[i] * z[i];
    }
    return p;
}

// The gradients as finite differences, at a size where that is quick.
static void bag_differences(void)
{
    bag s = {.rows = SMALL_ROWS, .m = 2, .n = 4, .cols = SMALL_COLS, .first = 1};
    s.ids = random_ids(s.rows, s.m, s.n);
    cpa_dev_int *ids = put_ints(s.ids, s.rows * s.m);
    mat e = put_uniform(s.n, s.cols, 0, -1, 1), weight = put_uniform(s.rows, s.m, 0, -1, 1);
    mat up = put_uniform(s.rows, s.cols, 0, -1, 1), de = put_nan(s.n, s.cols, 0), dweight = put_nan(s.rows, s.m, 0);
    s.e = e.h;
    s.weight = weight.h;
    s.up = up.h;
    OK(cpa_op_bag_grad(be, de.m, dweight.m, up.m, e.m, ids, s.m, weight.m, s.first));
    int n = s.n * s.cols, n_weight = s.rows * s.m;
    near("bag_grad, dE", get(de), differences(bag_sum, &s, s.e, n, 0.5), n, tolerance); // linear: any step will do
    near("bag_grad, dweight", get(dweight), differences(bag_sum, &s, s.weight, n_weight, 0.5), n_weight, tolerance);
    drop(ids);
    DROP(e, weight, up, de, dweight);
}

static void case_bag_grad(void)
{
    const int many[] = {1030, 4, 1030, 2}; // the longest chunks
    bag_differences();
    bag_of(many, true, true, 1);
    for (int i = 0; i < N_SIZES; i++) {
        bag_of(sizes[i], true, true, 1);
        bag_of(sizes[i], true, false, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_EMBED(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
