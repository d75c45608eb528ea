// Owns: conformance of the losses: values against the defining formulas in double with the C library's lgamma,
// gradients against finite differences of them. Never another family's.
#include "../support/ops.h"

// What a loss may differ from its reference.
static const double loss_tolerance = sizeof(cpa_real) == sizeof(float) ? 1e-6 : 1e-12;

// ---- negative binomial ----

typedef struct nb {
    int rows, genes;
    double *logits, *bias, *px_r;            // inputs
    const double *x, *library;               // dense counts
    double *along, *along_bias, *along_px_r; // a direction
    double step;
} nb;

static const double nb_eps = 1e-8;

enum { MOST_GENES = 56001 };

// mu of one cell; `step` along the direction.
static void means_of(const nb *s, int b, double step, double *mu)
{
    double top = -INFINITY, sum = 0;
    for (int g = 0; g < s->genes; g++) {
        int at = b * s->genes + g;
        mu[g] = s->logits[at] + s->bias[g] + (step == 0 ? 0 : step * (s->along[at] + s->along_bias[g]));
        top = fmax(top, mu[g]);
    }
    for (int g = 0; g < s->genes; g++) {
        sum += exp(mu[g] - top);
    }
    for (int g = 0; g < s->genes; g++) {
        mu[g] = s->library[b] * exp(mu[g] - top) / sum;
    }
}

static double nb_loss_at(const nb *s, double step)
{
    static double mu[MOST_GENES];
    double loss = 0;
    for (int b = 0; b < s->rows; b++) {
        means_of(s, b, step, mu);
        for (int g = 0; g < s->genes; g++) {
            double x = s->x[b * s->genes + g], theta = exp(s->px_r[g] + (step == 0 ? 0 : step * s->along_px_r[g]));
            double away = log(theta + mu[g] + nb_eps);
            loss -= theta * (log(theta + nb_eps) - away) + x * (log(mu[g] + nb_eps) - away) + lgamma(x + theta) -
                    lgamma(theta) - lgamma(x + 1);
        }
    }
    return loss;
}

static double nb_loss_of(void *arg)
{
    return nb_loss_at(arg, 0);
}

// Inputs on the backend and in double. px_r in [lo, hi).
typedef struct nb_case {
    nb s;
    cells c;
    mat logits, bias, px_r;
} nb_case;

static nb_case make(int rows, int genes, double lo, double hi, bool fractions, int pad)
{
    nb_case t = {.c = put_cells(rows, genes, 0.25, fractions)};
    t.logits = put_stored(rows, genes, pad, -3, 3);
    t.bias = put_uniform(1, genes, 0, -1, 1);
    t.px_r = put_uniform(1, genes, 0, lo, hi);
    t.s = (nb){.rows = rows, .genes = genes, .logits = t.logits.h, .bias = t.bias.h, .px_r = t.px_r.h};
    t.s.x = t.c.dense;
    t.s.library = t.c.library;
    return t;
}

static void drop_case(nb_case *t)
{
    drop_cells(t->c);
    DROP(t->logits, t->bias, t->px_r);
}

// Every element of every gradient, at small sizes. A single count of thousands is a good part of such a loss, and
// a float product with it is known to a few 1e-7 of itself: hence ten times the tolerance for the sum. Where theta is
// tiny or huge the reference loses digits, and the operation's floats some: hence wider tolerances there.
static void nb_elementwise(int rows, int genes, double lo, double hi, bool fractions, int pad)
{
    const double scale = 0.25, difference_tol = (lo < -2 || hi > 2 ? 10 : 1) * difference_tolerance;
    nb_case t = make(rows, genes, lo, hi, fractions, pad);
    mat dpx_r = put_nan(1, genes, 0), dbias = put_nan(1, genes, 0);
    cpa_dev_f64 *sum = new_sums(1);
    double want = nb_loss_of(&t.s);
    int n = rows * genes;
    double *d = differences(nb_loss_of, &t.s, t.s.logits, n, 1e-4);
    double *d_px_r = differences(nb_loss_of, &t.s, t.s.px_r, genes, 1e-4);
    double *d_bias = differences(nb_loss_of, &t.s, t.s.bias, genes, 1e-4);
    for (int i = 0; i < n; i++) {
        d[i] *= scale;
    }
    for (int g = 0; g < genes; g++) {
        d_px_r[g] *= scale;
        d_bias[g] *= scale;
    }
    OK(cpa_op_nb_loss(be, sum, t.logits.m, dpx_r.m, dbias.m, t.bias.m, t.px_r.m, t.c.x, (cpa_real)scale));
    near("nb_loss", get_sums(sum, 1), &want, 1, 10 * loss_tolerance);
    near("nb_loss, d logits", get(t.logits), d, n, stored(difference_tol));
    near("nb_loss, d px_r", get(dpx_r), d_px_r, genes, difference_tol);
    near("nb_loss, d bias", get(dbias), d_bias, genes, difference_tol);
    drop(sum);
    DROP(dpx_r, dbias);
    drop_case(&t);
}

// The derivative along a direction through all inputs, at any size.
static void nb_directional(int rows, int genes)
{
    nb_case t = make(rows, genes, -2, 3, false, 0);
    mat dpx_r = put_nan(1, genes, 0), dbias = put_nan(1, genes, 0);
    cpa_dev_f64 *sum = new_sums(1);
    int n = rows * genes;
    double want = nb_loss_of(&t.s), along = 0, size = 0;
    OK(cpa_op_nb_loss(be, sum, t.logits.m, dpx_r.m, dbias.m, t.bias.m, t.px_r.m, t.c.x, 1));
    double *d = get(t.logits), *d_px_r = get(dpx_r), *d_bias = get(dbias);
    t.s.along = host((size_t)n, sizeof(double));
    t.s.along_bias = host((size_t)genes, sizeof(double));
    t.s.along_px_r = host((size_t)genes, sizeof(double));
    for (int i = 0; i < n; i++) {
        t.s.along[i] = uniform(-1, 1);
        along += d[i] * t.s.along[i];
        size += d[i] * d[i] / 3;
    }
    for (int g = 0; g < genes; g++) {
        t.s.along_bias[g] = uniform(-1, 1);
        t.s.along_px_r[g] = uniform(-1, 1);
        along += d_bias[g] * t.s.along_bias[g] + d_px_r[g] * t.s.along_px_r[g];
        size += (d_bias[g] * d_bias[g] + d_px_r[g] * d_px_r[g]) / 3;
    }
    double difference = (nb_loss_at(&t.s, 1e-5) - nb_loss_at(&t.s, -1e-5)) / 2e-5;
    near("nb_loss, large", get_sums(sum, 1), &want, 1, in_bf16 ? 1e-5 : loss_tolerance);
    assert_true(fabs(difference - along) <= (in_bf16 ? 1e-2 : 1e-5) * sqrt(size));
    drop(sum);
    DROP(dpx_r, dbias);
    drop_case(&t);
}

static void case_nb_loss(void)
{
    const int sizes[][2] = {{1, 2}, {2, 33}, {3, 31}, {33, 9}, {17, 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        nb_elementwise(sizes[i][0], sizes[i][1], -2, 2, i % 2, 3);
    }
    nb_elementwise(4, 30, 5, 9, false, 2);   // nearly Poisson
    nb_elementwise(4, 30, -12, -6, true, 2); // very dispersed
    nb_directional(33, 700);
    nb_directional(128, 1999);
    // More cells than blocks of a device; more than its blocks take where they are few; genes beyond what its blocks share.
    nb_directional(300, 40);
    nb_directional(17000, 9);
    nb_directional(3, 5003);
    nb_directional(2, 9001);
    nb_directional(2, 28001);
    // No cell at all: nothing but zeros come out.
    nb_elementwise(0, 5, -1, 1, false, 3);
    // Genes of a device's thread: one more, or two; the last that its registers take, and those beyond.
    static const int edges[] = {512, 513, 1024, 1026, 1537, 2561, 3074, 3585, 4097, 4098, 5000, 5119, 5120, 5121};
    for (size_t i = 0; on_kernels && i < sizeof edges / sizeof *edges; i++) {
        nb_directional(3, edges[i]);
    }
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < sizeof sizes / sizeof *sizes; i++) {
        nb_elementwise(sizes[i][0], sizes[i][1], -2, 2, i % 2, 3);
        nb_elementwise(sizes[i][0], sizes[i][1], -2, 2, i % 2, 4);
    }
    for (size_t i = 0; in_bf16 && i < sizeof edges / sizeof *edges; i++) {
        nb_directional(3, edges[i]);
    }
    in_bf16 = false;
}

static void nb_mean(int rows, int genes, bool fractions, int pad)
{
    nb_case t = make(rows, genes, -2, 3, fractions, pad);
    cpa_dev_f64 *sum = new_sums(1);
    double want = nb_loss_of(&t.s), *mu = host((size_t)rows * (size_t)genes, sizeof *mu);
    for (int b = 0; b < rows; b++) {
        means_of(&t.s, b, 0, mu + b * genes);
    }
    OK(cpa_op_nb_mean_loss(be, sum, t.logits.m, t.bias.m, t.px_r.m, t.c.x));
    near("nb_mean_loss", get_sums(sum, 1), &want, 1, rows < 10 ? 10 * loss_tolerance : loss_tolerance);
    near("nb_mean_loss, mu", get(t.logits), mu, rows * genes, stored(tolerance));
    drop(sum);
    drop_case(&t);
}

// Few and many cells and genes; of the last two there are more cells than blocks of a device, and more genes than its blocks share.
static const int mean_sizes[][2] = {{0, 5}, {1, 2}, {2, 33}, {31, 129}, {128, 1999}, {1100, 3}, {2, 56001}};

static void case_nb_mean_loss(void)
{
    for (size_t i = 0; i < sizeof mean_sizes / sizeof *mean_sizes; i++) {
        nb_mean(mean_sizes[i][0], mean_sizes[i][1], i % 2, (int)i);
    }
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < 4; i++) {
        nb_mean(mean_sizes[i][0], mean_sizes[i][1], i % 2, (int)i);
    }
    in_bf16 = false;
}

static void scaled_softmax(int rows, int genes, int pad)
{
    mat z = put_stored(rows, genes, pad, -60, 60), bias = put_uniform(1, genes, 0, -1, 1);
    mat library = put_uniform(1, rows, 0, 0, 1e4);
    nb s = {.rows = rows, .genes = genes, .logits = z.h, .bias = bias.h, .library = library.h};
    double *mu = host((size_t)rows * (size_t)genes, sizeof *mu);
    for (int b = 0; b < rows; b++) {
        means_of(&s, b, 0, mu + b * genes);
    }
    OK(cpa_op_softmax_scale(be, z.m, bias.m, library.m));
    near("softmax_scale", get(z), mu, rows * genes, stored(5 * tolerance)); // logits of 60 are known to 4e-6
    DROP(z, bias, library);
}

static void case_softmax_scale(void)
{
    for (size_t i = 0; i < sizeof mean_sizes / sizeof *mean_sizes; i++) {
        scaled_softmax(mean_sizes[i][0], mean_sizes[i][1], (int)i);
    }
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < 4; i++) {
        scaled_softmax(mean_sizes[i][0], mean_sizes[i][1], (int)i);
    }
    in_bf16 = false;
    mat z = put_uniform(2, 3, 0, NAN, NAN), bias = put_uniform(1, 3, 0, 0, 0), library = put_uniform(1, 2, 0, 1, 2);
    OK(cpa_op_softmax_scale(be, z.m, bias.m, library.m));
    assert_true(isnan(get(z)[0]));
    DROP(z, bias, library);
}

// ---- cross-entropy ----

typedef struct classes {
    int rows, n;
    double *logits;
    const double *weight;      // or NULL
    const int *label, *label2; // the latter or NULL
    double mix, gamma;
} classes;

static double cross_entropy_of(void *arg)
{
    const classes *s = arg;
    double loss = 0;
    for (int b = 0; b < s->rows; b++) {
        const double *z = s->logits + b * s->n;
        double top = -INFINITY, sum = 0;
        for (int j = 0; j < s->n; j++) {
            top = fmax(top, z[j]);
        }
        for (int j = 0; j < s->n; j++) {
            sum += exp(z[j] - top);
        }
        for (int i = 0; i < 2; i++) {
            const int *label = i == 0 ? s->label : s->label2;
            if (label != NULL) {
                double log_p = z[label[b]] - top - log(sum), weight = s->weight != NULL ? s->weight[label[b]] : 1;
                loss -= (i == 0 ? s->mix : 1 - s->mix) * weight * pow(1 - exp(log_p), s->gamma) * log_p;
            }
        }
    }
    return loss;
}

static int *draw_labels(int rows, int n)
{
    int *label = host((size_t)rows, sizeof *label);
    for (int b = 0; b < rows; b++) {
        label[b] = below(n);
    }
    return label;
}

static void cross_entropy_case(int rows, int n, bool weighted, int pad, bool mixed, double gamma)
{
    const double scale = 0.5;
    mat z = put_uniform(rows, n, pad, -4, 4), weight = put_uniform(1, n, 0, 0.1, 3);
    cpa_dev_f64 *sum = new_sums(1);
    classes s = {rows, n, z.h, weighted ? weight.h : NULL, draw_labels(rows, n), NULL, mixed ? 0.375 : 1, gamma};
    s.label2 = mixed ? draw_labels(rows, n) : NULL;
    cpa_dev_int *labels = put_ints(s.label, rows), *labels2 = mixed ? put_ints(s.label2, rows) : NULL;
    double want = cross_entropy_of(&s), *d = differences(cross_entropy_of, &s, s.logits, rows * n, 1e-5);
    for (int i = 0; i < rows * n; i++) {
        d[i] *= scale;
    }
    OK(cpa_op_cross_entropy(be, sum, z.m, labels, labels2, (cpa_real)s.mix, weighted ? weight.m : CPA_NO_MAT,
                            (cpa_real)gamma, cpa_number_of((double)(cpa_real)scale)));
    near("cross_entropy", get_sums(sum, 1), &want, 1, loss_tolerance);
    if (n > 1) { // of one class, all is 0
        near("cross_entropy, d logits", get(z), d, rows * n, difference_tolerance);
    }
    drop(labels);
    drop(labels2);
    drop(sum);
    DROP(z, weight);
}

// A class as good as certain: with little focus the textbook's derivative is infinity times 0.
static void certain_class(double gamma)
{
    const double rest = exp(-12), want = pow(rest / (1 + rest), gamma) * log1p(rest);
    mat z = put_values(3, 2, 0, memcpy(host(6, sizeof(double)), (double[]){12, 0, 200, 0, NAN, 0}, 6 * sizeof(double)));
    const int label[] = {0, 0, 0};
    cpa_dev_int *labels = put_ints(label, 3);
    cpa_dev_f64 *sum = new_sums(1);
    OK(cpa_op_cross_entropy(be, sum, cpa_mat_head(z.m, 2), labels, NULL, 1, CPA_NO_MAT, (cpa_real)gamma,
                            cpa_number_of(1)));
    near("cross_entropy, certain", get_sums(sum, 1), &want, 1, 1e-6);
    const double *d = get(z);
    double h = 1e-4, up = exp(-12 - h), down = exp(-12 + h);
    double by_other = (pow(down / (1 + down), gamma) * log1p(down) - pow(up / (1 + up), gamma) * log1p(up)) / (2 * h);
    near("cross_entropy, certain, d", d + 1, &by_other, 1, 1e-5);
    assert_true(d[2] == 0 && d[3] == 0);
    z.m.data = cpa_real_at(z.m.data, 4);
    OK(cpa_op_cross_entropy(be, sum, cpa_mat_head(z.m, 1), labels, NULL, 1, CPA_NO_MAT, (cpa_real)gamma,
                            cpa_number_of(1)));
    assert_true(isnan(get_sums(sum, 1)[0]));
    drop(labels);
    drop(sum);
    drop(cpa_real_at(z.m.data, -4));
}

static void case_cross_entropy(void)
{
    const double gammas[] = {0, 2, 0.5};
    for (int i = 0; i < 6; i++) {
        cross_entropy_case(0, 3, false, 0, i % 2, gammas[i / 2]);
        cross_entropy_case(1, 1, false, 0, i % 2, gammas[i / 2]);
        cross_entropy_case(2, 2, true, 1, i % 2, gammas[i / 2]);
        cross_entropy_case(31, 5, false, 2, i % 2, gammas[i / 2]);
        cross_entropy_case(33, 31, true, 0, i % 2, gammas[i / 2]);
        cross_entropy_case(40, 40, true, 1, i % 2, gammas[i / 2]);
    }
    cross_entropy_case(9, 100, true, 3, true, 2);
    certain_class(2);
    certain_class(0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_LOSS(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
