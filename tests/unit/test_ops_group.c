// Owns: conformance of linear layers that belong to groups of rows, and of the gate of doses: values against plain loops
// in double, gradients against finite differences of them. Never another family's.
#include "../support/ops.h"

// Rows, groups, inputs, outputs; the last have more rows than a block looks through at once.
static const int sizes[][4] = {{0, 2, 3, 4},    {1, 1, 2, 1},     {7, 2, 1, 5},    {31, 5, 4, 1},
                               {40, 3, 33, 31}, {256, 9, 64, 65}, {4200, 3, 9, 12}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

typedef struct layers {
    int rows, groups, in, out;
    int *ids;
    double *x, *w, *b, *up;
} layers;

static int *random_ids(int n, int groups)
{
    int *ids = host((size_t)n, sizeof *ids);
    for (int i = 0; i < n; i++) {
        ids[i] = uniform(0, 1) < 0.2 ? 0 : below(groups);
    }
    return ids;
}

static double output_of(const layers *s, int r, int h)
{
    int k = s->ids[r] * s->out + h;
    double y = s->b[k];
    for (int j = 0; j < s->in; j++) {
        y += s->w[k * s->in + j] * s->x[r * s->in + j];
    }
    return s->ids[r] == 0 ? 0 : y;
}

static double weighted_sum(void *arg)
{
    const layers *s = arg;
    double p = 0;
    for (int i = 0; i < s->rows * s->out; i++) {
        p += s->up[i] * output_of(s, i / s->out, i % s->out);
    }
    return p;
}

// The gradients as sums over the rows, for sizes where differences take too long.
static void sums_over_rows(const layers *s, double *dx, double *dw, double *db)
{
    for (int i = 0; i < s->rows * s->out; i++) {
        int r = i / s->out, k = s->ids[r] * s->out + i % s->out;
        for (int j = 0; j < s->in && s->ids[r] > 0; j++) {
            dw[k * s->in + j] += s->up[i] * s->x[r * s->in + j];
            dx[r * s->in + j] += s->up[i] * s->w[k * s->in + j];
        }
        db[k] += s->ids[r] > 0 ? s->up[i] : 0;
    }
}

static void layers_of(const int *size, bool gradient)
{
    layers s = {.rows = size[0], .groups = size[1], .in = size[2], .out = size[3]};
    int n_w = s.groups * s.out;
    s.ids = random_ids(s.rows, s.groups);
    cpa_dev_int *ids = put_ints(s.ids, s.rows);
    mat x = put_uniform(s.rows, s.in, 1, -1, 1), w = put_uniform(n_w, s.in, 2, -1, 1),
        b = put_uniform(1, n_w, 0, -1, 1);
    mat y = put_nan(s.rows, s.out, 3), up = put_uniform(s.rows, s.out, 1, -1, 1);
    mat dx = put_nan(s.rows, s.in, 2), dw = put_nan(n_w, s.in, 1), db = put_nan(1, n_w, 0);
    s.x = x.h;
    s.w = w.h;
    s.b = b.h;
    s.up = up.h;
    if (gradient) {
        int n[] = {s.rows * s.in, n_w * s.in, n_w};
        double *want[3], *at[] = {s.x, s.w, s.b};
        bool small = n[1] < 100;
        for (int k = 0; k < 3; k++) { // linear: any step will do
            want[k] = small ? differences(weighted_sum, &s, at[k], n[k], 0.5) : host((size_t)n[k], sizeof(double));
        }
        if (!small) {
            sums_over_rows(&s, want[0], want[1], want[2]);
        }
        OK(cpa_op_group_linear_grad(be, dx.m, dw.m, db.m, up.m, x.m, ids, w.m));
        near("group_linear_grad, dX", get(dx), want[0], n[0], tolerance);
        near("group_linear_grad, dW", get(dw), want[1], n[1], tolerance);
        near("group_linear_grad, db", get(db), want[2], n[2], tolerance);
        OK(cpa_op_group_linear_grad(be, CPA_NO_MAT, dw.m, db.m, up.m, x.m, ids, w.m));
        near("group_linear_grad without dX, dW", get(dw), want[1], n[1], tolerance);
    } else {
        double *want = host((size_t)(s.rows * s.out), sizeof *want);
        for (int i = 0; i < s.rows * s.out; i++) {
            want[i] = output_of(&s, i / s.out, i % s.out);
        }
        OK(cpa_op_group_linear(be, y.m, x.m, ids, w.m, b.m));
        near("group_linear", get(y), want, s.rows * s.out, tolerance);
    }
    drop(ids);
    DROP(x, w, b, y, up, dx, dw, db);
}

static void case_group_linear(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        layers_of(sizes[i], false);
    }
}

static void case_group_linear_grad(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        layers_of(sizes[i], true);
    }
}

typedef struct gate {
    int n;
    int *ids;
    double *a, *dose, *up;
} gate;

static double gated(const gate *s, int i)
{
    return s->ids[i] > 0 && s->dose[i] > 0 ? 1 / (1 + exp(-s->a[i])) : 0;
}

static double gate_sum(void *arg)
{
    const gate *s = arg;
    double p = 0;
    for (int i = 0; i < s->n; i++) {
        p += s->up[i] * gated(s, i);
    }
    return p;
}

static void gates_of(int rows, int m, bool gradient)
{
    gate s = {.n = rows * m, .ids = random_ids(rows * m, 5)};
    cpa_dev_int *ids = put_ints(s.ids, s.n);
    mat a = put_uniform(rows, m, 1, -4, 4), up = put_uniform(rows, m, 2, -1, 1), out = put_nan(rows, m, 1);
    double *doses = host((size_t)s.n, sizeof *doses);
    for (int i = 0; i < s.n; i++) {
        doses[i] = i % 4 == 3 ? 0 : uniform(0, 10);
    }
    mat dose = put_values(rows, m, 2, doses);
    s.a = a.h;
    s.dose = dose.h;
    s.up = up.h;
    if (gradient) {
        OK(cpa_op_dose_gate_grad(be, out.m, up.m, a.m, ids, dose.m));
        near("dose_gate_grad", get(out), differences(gate_sum, &s, s.a, s.n, 1e-5), s.n, difference_tolerance);
    } else {
        double *want = host((size_t)s.n, sizeof *want);
        for (int i = 0; i < s.n; i++) {
            want[i] = gated(&s, i);
        }
        OK(cpa_op_dose_gate(be, out.m, a.m, ids, dose.m));
        near("dose_gate", get(out), want, s.n, tolerance);
    }
    drop(ids);
    DROP(a, up, out, dose);
}

static void case_dose_gate(void)
{
    gates_of(0, 2, false);
    gates_of(37, 3, false);
}

static void case_dose_gate_grad(void)
{
    gates_of(0, 2, true);
    gates_of(37, 3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_GROUP(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
