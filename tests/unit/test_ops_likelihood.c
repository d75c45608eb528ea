// Owns: conformance of the zero-inflated and the Gaussian likelihood: values against the defining formulas in double with
// the C library's lgamma, gradients against finite differences of them. Never another family's.
#include "../support/ops.h"

// What a loss may differ from its reference.
static const double loss_tolerance = sizeof(cpa_real) == sizeof(float) ? 1e-6 : 1e-12;

// Adds up |d|^2 / 3 of a gradient that is followed along a random direction, and the derivative by it.
static void follow(const double *d, int n, double *direction, double *along, double *size)
{
    for (int i = 0; i < n; i++) {
        direction[i] = uniform(-1, 1);
        *along += d[i] * direction[i];
        *size += d[i] * d[i] / 3;
    }
}

static void move(double *x, const double *direction, int n, double by)
{
    for (int i = 0; i < n; i++) {
        x[i] += by * direction[i];
    }
}

static double *scaled(double *d, int n, double by)
{
    for (int i = 0; i < n; i++) {
        d[i] *= by;
    }
    return d;
}

enum { MOST_GENES = 56001 };

// ---- zero-inflated negative binomial ----

enum { LOGITS, BIAS, PX_R, ZI, ZI_BIAS, ZINB_INPUTS };

typedef struct zinb {
    int rows, genes;
    double *in[ZINB_INPUTS];
    const double *x, *library; // dense counts
} zinb;

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static void means_of(const zinb *s, int b, double *mu)
{
    double top = -INFINITY, sum = 0;
    for (int g = 0; g < s->genes; g++) {
        mu[g] = s->in[LOGITS][b * s->genes + g] + s->in[BIAS][g];
        top = fmax(top, mu[g]);
    }
    for (int g = 0; g < s->genes; g++) {
        mu[g] = exp(mu[g] - top);
        sum += mu[g];
    }
    for (int g = 0; g < s->genes; g++) {
        mu[g] *= s->library[b] / sum;
    }
}

// Minus the log of the probability of a count, as scvi-tools writes it.
static double zinb_count(double x, double mu, double theta, double pi)
{
    const double eps = 1e-8, away = log(theta + mu + eps);
    double pi_theta = -pi + theta * (log(theta + eps) - away);
    if (x < eps) {
        return softplus(-pi) - softplus(pi_theta);
    }
    return softplus(-pi) - pi_theta - x * (log(mu + eps) - away) - lgamma(x + theta) + lgamma(theta) + lgamma(x + 1);
}

static double zinb_loss_of(void *arg)
{
    static double mu[MOST_GENES];
    const zinb *s = arg;
    double loss = 0;
    for (int b = 0; b < s->rows; b++) {
        means_of(s, b, mu);
        for (int g = 0; g < s->genes; g++) {
            double pi = s->in[ZI][b * s->genes + g] + s->in[ZI_BIAS][g];
            loss += zinb_count(s->x[b * s->genes + g], mu[g], exp(s->in[PX_R][g]), pi);
        }
    }
    return loss;
}

// A loss holds the difference of products with each count, which floats know to a few 1e-7 of themselves.
static void near_zinb(const char *what, double got, double want, const cells *c)
{
    double counts = 0;
    for (int b = 0; b < c->x.rows; b++) {
        counts += c->library[b];
    }
    if (!(fabs(got - want) <= loss_tolerance * (fabs(want) + counts))) {
        fail_msg("%s: %.9g, not %.9g", what, got, want);
    }
}

// Inputs on the backend and in double.
typedef struct zinb_case {
    zinb s;
    cells c;
    mat in[ZINB_INPUTS];
} zinb_case;

static int inputs(const zinb *s, int which)
{
    return which == LOGITS || which == ZI ? s->rows * s->genes : s->genes;
}

// px_r in [lo, hi), inflation logits in [-inflation, inflation).
static zinb_case make(int rows, int genes, double lo, double hi, double inflation, int pad)
{
    zinb_case t = {.c = put_cells(rows, genes, 0.25, pad > 0)};
    t.in[LOGITS] = put_stored(rows, genes, pad, -3, 3);
    t.in[BIAS] = put_uniform(1, genes, 0, -1, 1);
    t.in[PX_R] = put_uniform(1, genes, 0, lo, hi);
    t.in[ZI] = put_stored(rows, genes, 2 * pad, -inflation, inflation);
    t.in[ZI_BIAS] = put_uniform(1, genes, 0, -1, 1);
    t.s = (zinb){.rows = rows, .genes = genes, .x = t.c.dense, .library = t.c.library};
    for (int i = 0; i < ZINB_INPUTS; i++) {
        t.s.in[i] = t.in[i].h;
    }
    return t;
}

static void drop_case(zinb_case *t)
{
    drop_cells(t->c);
    for (int i = 0; i < ZINB_INPUTS; i++) {
        drop(t->in[i].m.data);
    }
}

// The operation; d[i] are the gradients by the inputs.
static double *zinb_gradients(zinb_case *t, double scale, double **d)
{
    mat dbias = put_nan(1, t->s.genes, 0), dpx_r = put_nan(1, t->s.genes, 0), dzi_bias = put_nan(1, t->s.genes, 0);
    cpa_dev_f64 *sum = new_sums(1);
    OK(cpa_op_zinb_loss(be, sum, t->in[LOGITS].m, dpx_r.m, dbias.m, t->in[ZI].m, dzi_bias.m, t->in[BIAS].m,
                        t->in[ZI_BIAS].m, t->in[PX_R].m, t->c.x, (cpa_real)scale));
    d[LOGITS] = get(t->in[LOGITS]);
    d[BIAS] = get(dbias);
    d[PX_R] = get(dpx_r);
    d[ZI] = get(t->in[ZI]);
    d[ZI_BIAS] = get(dzi_bias);
    double *loss = get_sums(sum, 1);
    drop(sum);
    DROP(dbias, dpx_r, dzi_bias);
    return loss;
}

// Every element of every gradient, at small sizes. Where theta is tiny or huge the reference loses digits, and the
// operation's floats some: hence wider tolerances there.
static void zinb_elementwise(int rows, int genes, double lo, double hi, double inflation, int pad)
{
    const char *names[] = {"d logits", "d bias", "d px_r", "d zi", "d zi_bias"};
    const double scale = 0.25, tol = (lo < -2 || hi > 2 ? 10 : 1) * difference_tolerance;
    zinb_case t = make(rows, genes, lo, hi, inflation, pad);
    double want = zinb_loss_of(&t.s), *reference[ZINB_INPUTS], *d[ZINB_INPUTS];
    for (int i = 0; i < ZINB_INPUTS; i++) {
        int n = inputs(&t.s, i);
        reference[i] = scaled(differences(zinb_loss_of, &t.s, t.s.in[i], n, 1e-4), n, scale);
    }
    near_zinb("zinb_loss", zinb_gradients(&t, scale, d)[0], want, &t.c);
    for (int i = 0; i < ZINB_INPUTS; i++) {
        near(names[i], d[i], reference[i], inputs(&t.s, i), i == LOGITS || i == ZI ? stored(tol) : tol);
    }
    drop_case(&t);
}

// The derivative along a direction through all inputs, at any size.
static void zinb_directional(int rows, int genes)
{
    zinb_case t = make(rows, genes, -2, 3, 4, 0);
    double want = zinb_loss_of(&t.s), along = 0, size = 0, *d[ZINB_INPUTS], *direction[ZINB_INPUTS], at[2];
    near("zinb_loss, large", zinb_gradients(&t, 1, d), &want, 1, loss_tolerance);
    for (int i = 0; i < ZINB_INPUTS; i++) {
        direction[i] = host((size_t)inputs(&t.s, i), sizeof(double));
        follow(d[i], inputs(&t.s, i), direction[i], &along, &size);
    }
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < ZINB_INPUTS; i++) {
            move(t.s.in[i], direction[i], inputs(&t.s, i), side == 0 ? 1e-5 : -2e-5);
        }
        at[side] = zinb_loss_of(&t.s);
    }
    assert_true(fabs((at[0] - at[1]) / 2e-5 - along) <= 1e-5 * sqrt(size));
    drop_case(&t);
}

// One cell with a count in its second gene alone: mean 1e6 in the first, where the count is 0, and inflation pi there.
// Neither e^-L nor e^pi is a float then, and the loss is.
static void zinb_far(double pi, double px_r)
{
    double *z = host(2, sizeof *z), *none = host(2, sizeof *none), *r = host(2, sizeof *r), *i = host(2, sizeof *i);
    double count = 1e6, library = 1e6, d_reference[2], *d[ZINB_INPUTS];
    z[0] = 30;
    r[0] = r[1] = px_r;
    i[0] = pi;
    zinb_case t = {.s = {1, 2, {z, none, r, i, none}, (double[]){0, 1e6}, &library}};
    const int indptr[] = {0, 1}, gene[] = {1};
    mat counts = put_values(1, 1, 0, &count), libraries = put_values(1, 1, 0, &library);
    t.in[LOGITS] = put_values(1, 2, 0, z);
    t.in[BIAS] = put_values(1, 2, 0, none);
    t.in[PX_R] = put_values(1, 2, 0, r);
    t.in[ZI] = put_values(1, 2, 0, i);
    t.in[ZI_BIAS] = put_values(1, 2, 0, none);
    t.c.x = (cpa_csr){1, 2, 1, put_ints(indptr, 2), put_ints(gene, 1), counts.m.data, counts.m.data, libraries.m.data};
    double want = zinb_loss_of(&t.s), *numeric = differences(zinb_loss_of, &t.s, i, 2, 1e-4);
    double away = log(exp(px_r) + 1e6) - px_r, v = pi + exp(px_r) * away;
    d_reference[0] = -1 / (1 + exp(-v)) / (1 + exp(pi)); // what is left of it at such an L
    d_reference[1] = numeric[1];
    near("zinb_loss, far", zinb_gradients(&t, 1, d), &want, 1, loss_tolerance);
    assert_true(fabs(d[ZI][0] - d_reference[0]) <= 1e-4 * fabs(d_reference[0]) + 1e-20);
    assert_true(fabs(d[ZI][1] - d_reference[1]) <= 1e-4);
    DROP(counts, libraries);
    drop(t.c.x.indptr);
    drop(t.c.x.gene);
    for (int k = 0; k < ZINB_INPUTS; k++) {
        drop(t.in[k].m.data);
    }
}

// A NaN anywhere shows in the loss, and so does what makes one in its formula.
static void zinb_spoilt(int which, double by, bool where_counted)
{
    zinb_case t = make(3, 40, -1, 1, 2, 0);
    double *d[ZINB_INPUTS], *h = t.in[which].h;
    int n = inputs(&t.s, which), at = n - 1;
    while (where_counted && t.s.x[at] == 0) {
        at--;
    }
    h[at] = by;
    drop(t.in[which].m.data);
    t.in[which] = put_values(n / 40, 40, 0, h);
    assert_true(isnan(zinb_gradients(&t, 1, d)[0]));
    drop_case(&t);
}

static void case_zinb_loss(void)
{
    const int sizes[][2] = {{0, 5}, {1, 2}, {2, 33}, {3, 31}, {33, 9}, {17, 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zinb_elementwise(sizes[i][0], sizes[i][1], -2, 2, 3, (int)i);
    }
    zinb_elementwise(4, 30, 5, 9, 3, 0);    // nearly Poisson
    zinb_elementwise(4, 30, -12, -6, 3, 1); // very dispersed
    zinb_elementwise(4, 30, -2, 2, 30, 0);  // inflation certain, or impossible
    zinb_elementwise(4, 30, -2, 2, 300, 0);
    zinb_directional(33, 700);
    zinb_directional(128, 1999);
    // More cells than blocks of a device; more than its blocks take where they are few; genes beyond what its blocks share.
    zinb_directional(300, 40);
    zinb_directional(17000, 9);
    zinb_directional(2, 6001);
    zinb_directional(2, 28001);
    zinb_far(-100, 2.5); // L = 139
    zinb_far(-200, 2.5);
    zinb_far(-139, 2.5);
    zinb_far(100, 2.5);
    for (int i = 0; i < ZINB_INPUTS; i++) {
        zinb_spoilt(i, NAN, false);
    }
    zinb_spoilt(ZI, NAN, true);
    zinb_spoilt(ZI, -INFINITY, false);
    zinb_spoilt(ZI, -INFINITY, true);
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < sizeof sizes / sizeof *sizes; i++) {
        zinb_elementwise(sizes[i][0], sizes[i][1], -2, 2, 3, (int)i);
    }
    in_bf16 = false;
}

static void zinb_mean(int rows, int genes, int pad)
{
    zinb_case t = make(rows, genes, -2, 3, 4, pad);
    cpa_dev_f64 *sum = new_sums(1);
    double want = zinb_loss_of(&t.s), *mu = host((size_t)rows * (size_t)genes, sizeof *mu);
    for (int b = 0; b < rows; b++) {
        means_of(&t.s, b, mu + b * genes);
    }
    OK(cpa_op_zinb_mean_loss(be, sum, t.in[LOGITS].m, t.in[ZI].m, t.in[BIAS].m, t.in[ZI_BIAS].m, t.in[PX_R].m, t.c.x));
    near_zinb("zinb_mean_loss", get_sums(sum, 1)[0], want, &t.c);
    near("zinb_mean_loss, mu", get(t.in[LOGITS]), mu, rows * genes, stored(tolerance));
    near("zinb_mean_loss, zi", get(t.in[ZI]), t.s.in[ZI], rows * genes, 0);
    drop(sum);
    drop_case(&t);
}

// Few and many cells and genes; of the last two there are more cells than blocks of a device, and more genes than its blocks share.
static const int mean_sizes[][2] = {{0, 5}, {1, 2}, {2, 33}, {31, 129}, {128, 1999}, {1100, 3}, {2, 56001}};

// Runs a case of those at every size, and on kernels some of them in bfloat16.
static void at_mean_sizes(void (*run)(int rows, int genes, int pad))
{
    for (size_t i = 0; i < sizeof mean_sizes / sizeof *mean_sizes; i++) {
        run(mean_sizes[i][0], mean_sizes[i][1], (int)i);
    }
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < 4; i++) {
        run(mean_sizes[i][0], mean_sizes[i][1], (int)i);
    }
    in_bf16 = false;
}

static void case_zinb_mean_loss(void)
{
    at_mean_sizes(zinb_mean);
}

static void thinned(int rows, int genes, int pad)
{
    mat mu = put_stored(rows, genes, 0, 0, 9), zi = put_stored(rows, genes, pad, -30, 30);
    mat bias = put_uniform(1, genes, 0, -1, 1);
    double *want = host((size_t)rows * (size_t)genes, sizeof *want);
    for (int j = 0; j < rows * genes; j++) {
        want[j] = mu.h[j] / (1 + exp(zi.h[j] + bias.h[j % genes]));
    }
    OK(cpa_op_zinb_thin(be, mu.m, zi.m, bias.m));
    near("zinb_thin", get(mu), want, rows * genes, stored(tolerance));
    DROP(mu, zi, bias);
}

static void case_zinb_thin(void)
{
    at_mean_sizes(thinned);
    // Certain and impossible inflation, and what is not a number.
    mat mu = put_uniform(1, 3, 0, 2, 2), zi = put_values(1, 3, 0, (double[3]){1e4, -1e4, NAN});
    mat bias = put_uniform(1, 3, 0, 0, 0);
    OK(cpa_op_zinb_thin(be, mu.m, zi.m, bias.m));
    const double *got = get(mu);
    assert_true(got[0] == 0 && got[1] == 2 && isnan(got[2]));
    DROP(mu, zi, bias);
}

// ---- Gaussian ----

enum { MEAN, RAW, MEAN_BIAS, RAW_BIAS, GAUSS_INPUTS };

typedef struct gauss {
    int rows, genes;
    double *in[GAUSS_INPUTS];
    const double *x;
} gauss;

static double variance(const gauss *s, int b, int g)
{
    return exp(s->in[RAW][b * s->genes + g] + s->in[RAW_BIAS][g]) + 1e-4;
}

static double location(const gauss *s, int b, int g)
{
    return s->in[MEAN][b * s->genes + g] + s->in[MEAN_BIAS][g];
}

static double gauss_loss_of(void *arg)
{
    const gauss *s = arg;
    double loss = 0;
    for (int b = 0; b < s->rows; b++) {
        for (int g = 0; g < s->genes; g++) {
            double std = sqrt(variance(s, b, g)), away = (s->x[b * s->genes + g] - location(s, b, g)) / std;
            loss += away * away / 2 + log(std) + log(2 * 3.14159265358979323846) / 2;
        }
    }
    return loss;
}

typedef struct gauss_case {
    gauss s;
    cells c;
    mat in[GAUSS_INPUTS];
} gauss_case;

static int gauss_inputs(const gauss *s, int which)
{
    return which == MEAN || which == RAW ? s->rows * s->genes : s->genes;
}

// raw in [lo, hi).
static gauss_case make_gauss(int rows, int genes, double lo, double hi, int pad)
{
    gauss_case t = {.c = put_cells(rows, genes, 0.25, true)};
    t.in[MEAN] = put_stored(rows, genes, pad, -2, 5);
    t.in[RAW] = put_stored(rows, genes, 2 * pad, lo, hi);
    t.in[MEAN_BIAS] = put_uniform(1, genes, 0, -1, 1);
    t.in[RAW_BIAS] = put_uniform(1, genes, 0, -1, 1);
    t.s = (gauss){.rows = rows, .genes = genes, .x = t.c.dense};
    for (int i = 0; i < GAUSS_INPUTS; i++) {
        t.s.in[i] = t.in[i].h;
    }
    return t;
}

static void drop_gauss(gauss_case *t)
{
    drop_cells(t->c);
    DROP(t->in[MEAN], t->in[RAW], t->in[MEAN_BIAS], t->in[RAW_BIAS]);
}

static double *gauss_gradients(gauss_case *t, double scale, double **d)
{
    mat dmean_bias = put_nan(1, t->s.genes, 0), draw_bias = put_nan(1, t->s.genes, 0);
    cpa_dev_f64 *sum = new_sums(1);
    OK(cpa_op_gauss_loss(be, sum, t->in[MEAN].m, t->in[RAW].m, dmean_bias.m, draw_bias.m, t->in[MEAN_BIAS].m,
                         t->in[RAW_BIAS].m, t->c.x, (cpa_real)scale));
    d[MEAN] = get(t->in[MEAN]);
    d[RAW] = get(t->in[RAW]);
    d[MEAN_BIAS] = get(dmean_bias);
    d[RAW_BIAS] = get(draw_bias);
    double *loss = get_sums(sum, 1);
    drop(sum);
    DROP(dmean_bias, draw_bias);
    return loss;
}

static void gauss_elementwise(int rows, int genes, double lo, double hi, int pad)
{
    const char *names[] = {"d mean", "d raw", "d mean_bias", "d raw_bias"};
    const double scale = 0.25;
    gauss_case t = make_gauss(rows, genes, lo, hi, pad);
    double want = gauss_loss_of(&t.s), *reference[GAUSS_INPUTS], *d[GAUSS_INPUTS];
    for (int i = 0; i < GAUSS_INPUTS; i++) {
        int n = gauss_inputs(&t.s, i);
        reference[i] = scaled(differences(gauss_loss_of, &t.s, t.s.in[i], n, 1e-4), n, scale);
    }
    near("gauss_loss", gauss_gradients(&t, scale, d), &want, 1, loss_tolerance);
    for (int i = 0; i < GAUSS_INPUTS; i++) {
        near(names[i], d[i], reference[i], gauss_inputs(&t.s, i),
             i == MEAN || i == RAW ? stored(difference_tolerance) : difference_tolerance);
    }
    drop_gauss(&t);
}

static void gauss_directional(int rows, int genes)
{
    gauss_case t = make_gauss(rows, genes, -1, 6, 0);
    double want = gauss_loss_of(&t.s), along = 0, size = 0, *d[GAUSS_INPUTS], *direction[GAUSS_INPUTS], at[2];
    near("gauss_loss, large", gauss_gradients(&t, 1, d), &want, 1, loss_tolerance);
    for (int i = 0; i < GAUSS_INPUTS; i++) {
        direction[i] = host((size_t)gauss_inputs(&t.s, i), sizeof(double));
        follow(d[i], gauss_inputs(&t.s, i), direction[i], &along, &size);
    }
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < GAUSS_INPUTS; i++) {
            move(t.s.in[i], direction[i], gauss_inputs(&t.s, i), side == 0 ? 1e-5 : -2e-5);
        }
        at[side] = gauss_loss_of(&t.s);
    }
    assert_true(fabs((at[0] - at[1]) / 2e-5 - along) <= 1e-5 * sqrt(size));
    drop_gauss(&t);
}

static void gauss_nan(int which)
{
    gauss_case t = make_gauss(3, 40, -1, 1, 0);
    double *d[GAUSS_INPUTS], *h = t.in[which].h;
    int n = gauss_inputs(&t.s, which);
    h[n - 1] = NAN;
    drop(t.in[which].m.data);
    t.in[which] = put_values(n / 40, 40, 0, h);
    assert_true(isnan(gauss_gradients(&t, 1, d)[0]));
    drop_gauss(&t);
}

static void case_gauss_loss(void)
{
    const int sizes[][2] = {{0, 5}, {1, 2}, {2, 33}, {3, 31}, {33, 9}, {17, 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gauss_elementwise(sizes[i][0], sizes[i][1], -2, 3, (int)i);
    }
    gauss_elementwise(4, 30, -15, -8, 0); // variances at their floor
    gauss_elementwise(4, 30, 4, 8, 1);
    gauss_directional(33, 700);
    gauss_directional(128, 1999);
    gauss_directional(300, 40);
    gauss_directional(17000, 9);
    gauss_directional(2, 9001);
    gauss_directional(2, 56001);
    for (int i = 0; i < GAUSS_INPUTS; i++) {
        gauss_nan(i);
    }
    in_bf16 = on_kernels;
    for (size_t i = 0; in_bf16 && i < sizeof sizes / sizeof *sizes; i++) {
        gauss_elementwise(sizes[i][0], sizes[i][1], -2, 3, (int)i);
    }
    in_bf16 = false;
}

static void gauss_mean(int rows, int genes, int pad)
{
    gauss_case t = make_gauss(rows, genes, -12, 6, pad);
    cpa_dev_f64 *sum = new_sums(1);
    size_t n = (size_t)rows * (size_t)genes;
    double want = gauss_loss_of(&t.s), *loc = host(n, sizeof *loc), *var = host(n, sizeof *var);
    for (int b = 0; b < rows; b++) {
        for (int g = 0; g < genes; g++) {
            loc[b * genes + g] = location(&t.s, b, g);
            var[b * genes + g] = variance(&t.s, b, g);
        }
    }
    OK(cpa_op_gauss_mean_loss(be, sum, t.in[MEAN].m, t.in[RAW].m, t.in[MEAN_BIAS].m, t.in[RAW_BIAS].m, t.c.x));
    near("gauss_mean_loss", get_sums(sum, 1), &want, 1, loss_tolerance);
    near("gauss_mean_loss, loc", get(t.in[MEAN]), loc, (int)n, stored(tolerance));
    near("gauss_mean_loss, var", get(t.in[RAW]), var, (int)n, stored(tolerance));
    drop(sum);
    drop_gauss(&t);
}

static void case_gauss_mean_loss(void)
{
    at_mean_sizes(gauss_mean);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_LIKELIHOOD(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
