// Owns: conformance of the variational latent: sample and divergence against their formulas in double, gradients against
// finite differences, the noise against the generator it is drawn from and against the normal law. Never another family's.
#include "../support/ops.h"

// ---- sample ----

typedef struct latent {
    int n;
    double *mean, *raw;
    const double *noise; // or NULL
    const double *dz;
    double kl_scale;
} latent;

static double std_of(const latent *s, int i)
{
    return sqrt(fmax(s->raw[i], 0) + log1p(exp(-fabs(s->raw[i]))) + 1e-4);
}

static double z_of(const latent *s, int i)
{
    return s->mean[i] + (s->noise != NULL ? std_of(s, i) * s->noise[i] : 0);
}

static double divergence_of(const latent *s)
{
    double kl = 0;
    for (int i = 0; i < s->n; i++) {
        double std = std_of(s, i);
        kl += 0.5 * (std * std + s->mean[i] * s->mean[i] - 1) - log(std);
    }
    return kl;
}

// What has the gradients dz by z and kl_scale by the divergence.
static double potential(void *arg)
{
    const latent *s = arg;
    double p = s->kl_scale * divergence_of(s);
    for (int i = 0; i < s->n; i++) {
        p += s->dz[i] * z_of(s, i);
    }
    return p;
}

static const int sizes[][2] = {{0, 3}, {1, 1}, {3, 7}, {17, 33}, {129, 257}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

// raw between -spread and spread.
static void sample_case(int rows, int cols, int pad, double spread, bool noisy)
{
    mat mean = put_uniform(rows, cols, pad, -2, 2), raw = put_uniform(rows, cols, 0, -spread, spread);
    mat noise = put_uniform(rows, cols, 2 * pad, -3, 3), z = put_nan(rows, cols, pad), std = put_nan(rows, cols, 0);
    cpa_dev_f64 *kl = new_sums(1);
    latent s = {.n = rows * cols, .mean = mean.h, .raw = raw.h, .noise = noisy ? noise.h : NULL};
    double want = divergence_of(&s);
    for (int i = 0; i < s.n; i++) {
        z.h[i] = z_of(&s, i);
        std.h[i] = std_of(&s, i);
    }
    OK(cpa_op_sample_latent(be, z.m, std.m, kl, mean.m, raw.m, noisy ? noise.m : CPA_NO_MAT));
    near("sample_latent", get(z), z.h, s.n, noisy ? tolerance : 0);
    near("sample_latent, std", get(std), std.h, s.n, tolerance);
    near("sample_latent, kl", get_sums(kl, 1), &want, 1, tolerance);
    drop(kl);
    DROP(mean, raw, noise, z, std);
}

static void case_sample_latent(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        sample_case(sizes[i][0], sizes[i][1], i, 4, i % 2);
        sample_case(sizes[i][0], sizes[i][1], i, 100, true);
    }
    // Where the two distributions meet, and beside it.
    double *at = host(2, sizeof *at), *none = host(2, sizeof *none);
    at[0] = log(expm1(1 - 1e-4));
    at[1] = at[0] + 1e-3;
    mat mean = put_values(1, 2, 0, none), raw = put_values(1, 2, 0, at), z = put_nan(1, 2, 0), std = put_nan(1, 2, 0);
    cpa_dev_f64 *kl = new_sums(1);
    latent s = {.n = 2, .mean = mean.h, .raw = raw.h};
    double want = divergence_of(&s);
    OK(cpa_op_sample_latent(be, z.m, std.m, kl, mean.m, raw.m, CPA_NO_MAT));
    near("sample_latent, kl near 0", get_sums(kl, 1), &want, 1, sizeof(cpa_real) == sizeof(float) ? 1e-3 : 1e-8);
    raw.m.data = cpa_real_at(raw.m.data, 1);
    mat bad = put_uniform(1, 1, 0, NAN, NAN);
    OK(cpa_op_sample_latent(be, cpa_mat_of(z.m.data, 1, 1), cpa_mat_of(std.m.data, 1, 1), kl,
                            cpa_mat_of(mean.m.data, 1, 1), bad.m, CPA_NO_MAT));
    assert_true(isnan(get_sums(kl, 1)[0]));
    raw.m.data = cpa_real_at(raw.m.data, -1);
    drop(kl);
    DROP(mean, raw, z, std, bad);
}

static void gradient_case(int rows, int cols, int pad, bool noisy, bool alias, double kl_scale)
{
    mat mean = put_uniform(rows, cols, pad, -2, 2), raw = put_uniform(rows, cols, 0, -4, 4);
    mat noise = put_uniform(rows, cols, 2 * pad, -3, 3), dz = put_uniform(rows, cols, pad, -1, 1);
    mat dmean = put_nan(rows, cols, pad), draw = put_nan(rows, cols, 1), z = put_nan(rows, cols, 0);
    mat std = put_nan(rows, cols, 0);
    cpa_dev_f64 *kl = new_sums(1);
    cpa_mat e = noisy ? noise.m : CPA_NO_MAT;
    latent s = {rows * cols, mean.h, raw.h, noisy ? noise.h : NULL, dz.h, (double)(cpa_real)kl_scale};
    double *by_mean = differences(potential, &s, s.mean, s.n, 1e-4);
    double *by_raw = differences(potential, &s, s.raw, s.n, 1e-4);
    OK(cpa_op_sample_latent(be, z.m, std.m, kl, mean.m, raw.m, e));
    OK(cpa_op_sample_latent_grad(be, alias ? dz.m : dmean.m, draw.m, dz.m, mean.m, raw.m, std.m, e,
                                 (cpa_real)kl_scale));
    near("sample_latent_grad, dmean", get(alias ? dz : dmean), by_mean, s.n, difference_tolerance);
    near("sample_latent_grad, draw", get(draw), by_raw, s.n, difference_tolerance);
    drop(kl);
    DROP(mean, raw, noise, dz, dmean, draw, z, std);
}

static void case_sample_latent_grad(void)
{
    for (int i = 0; i < N_SIZES - 1; i++) {
        gradient_case(sizes[i][0], sizes[i][1], i, true, i % 2, 0.7);
        gradient_case(sizes[i][0], sizes[i][1], 0, false, i % 2 == 0, 1.3);
        gradient_case(sizes[i][0], sizes[i][1], 1, true, true, 0);
    }
    // Large enough for threads; the differences are those of each element alone.
    const int rows = 129, cols = 257;
    mat mean = put_uniform(rows, cols, 0, -2, 2), raw = put_uniform(rows, cols, 3, -4, 4);
    mat noise = put_uniform(rows, cols, 0, -3, 3), dz = put_uniform(rows, cols, 0, -1, 1);
    mat std = put_nan(rows, cols, 0), z = put_nan(rows, cols, 0), draw = put_nan(rows, cols, 0);
    cpa_dev_f64 *kl = new_sums(1);
    double *by_raw = host((size_t)(rows * cols), sizeof *by_raw);
    for (int i = 0; i < rows * cols; i++) {
        latent s = {1, mean.h + i, raw.h + i, noise.h + i, dz.h + i, 0.25};
        double at = raw.h[i];
        raw.h[i] = at + 1e-4;
        by_raw[i] = potential(&s);
        raw.h[i] = at - 1e-4;
        by_raw[i] = (by_raw[i] - potential(&s)) / 2e-4;
        raw.h[i] = at;
    }
    OK(cpa_op_sample_latent(be, z.m, std.m, kl, mean.m, raw.m, noise.m));
    OK(cpa_op_sample_latent_grad(be, dz.m, draw.m, dz.m, mean.m, raw.m, std.m, noise.m, (cpa_real)0.25));
    near("sample_latent_grad, large", get(draw), by_raw, rows * cols, difference_tolerance);
    drop(kl);
    DROP(mean, raw, noise, dz, std, z, draw);
}

// ---- noise ----

static const uint64_t seed = 0x123456789abcdef0u;

static double normal(int cell, uint32_t epoch, uint32_t layer, int l)
{
    uint32_t w[4];
    cpa_philox(seed, CPA_STREAM_NOISE, (const uint32_t[4]){(uint32_t)cell, epoch, layer, (uint32_t)l / 2}, w);
    double u = ldexp((double)w[0], -32) + ldexp((double)w[1] + 0.5, -64);
    double angle = 2 * 3.14159265358979323846 * (ldexp((double)w[2], -32) + ldexp((double)w[3], -64));
    return sqrt(-2 * log(u)) * (l % 2 == 0 ? cos(angle) : sin(angle));
}

static void noise_case(int rows, int cols, int pad, uint32_t epoch, uint32_t layer)
{
    int *cell = host((size_t)rows, sizeof *cell);
    for (int b = 0; b < rows; b++) {
        cell[b] = below(1 << 20);
    }
    cpa_dev_int *ids = put_ints(cell, rows);
    mat noise = put_nan(rows, cols, pad);
    for (int i = 0; i < rows * cols; i++) {
        noise.h[i] = normal(cell[i / cols], epoch, layer, i % cols);
    }
    OK(cpa_op_normal_noise(be, noise.m, ids, seed, cpa_number_of(epoch), layer));
    near("normal_noise", get(noise), noise.h, rows * cols, tolerance);
    drop(ids);
    DROP(noise);
}

// Moments of a million draws, and how neighbours go together, within five standard errors of the normal law.
static void noise_law(void)
{
    const int rows = 4000, cols = 250, n = rows * cols;
    int *cell = host((size_t)rows, sizeof *cell);
    for (int b = 0; b < rows; b++) {
        cell[b] = b;
    }
    cpa_dev_int *ids = put_ints(cell, rows);
    mat noise = put_nan(rows, cols, 0);
    OK(cpa_op_normal_noise(be, noise.m, ids, seed, cpa_number_of(3), 1));
    const double *x = get(noise);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, along = 0, across = 0;
    int tail = 0;
    for (int i = 0; i < n; i++) {
        m1 += x[i] / n;
        m2 += x[i] * x[i] / n;
        m3 += x[i] * x[i] * x[i] / n;
        m4 += x[i] * x[i] * x[i] * x[i] / n;
        along += i > 0 ? x[i] * x[i - 1] / n : 0;
        across += i >= cols ? x[i] * x[i - cols] / n : 0;
        tail += fabs(x[i]) > 3;
    }
    const double five = 5 / sqrt(n);
    assert_true(fabs(m1) < five && fabs(m2 - 1) < five * sqrt(2) && fabs(m3) < five * sqrt(15));
    assert_true(fabs(m4 - 3) < five * sqrt(96));
    assert_true(fabs(along) < five && fabs(across) < five);
    assert_true(fabs(tail - 0.0026998 * n) < 5 * sqrt(0.0027 * n));
    drop(ids);
    DROP(noise);
}

static void case_normal_noise(void)
{
    for (int i = 0; i < N_SIZES; i++) {
        noise_case(sizes[i][0], sizes[i][1], i, (uint32_t)i, 0);
        noise_case(sizes[i][0], sizes[i][1], 0, 7, 4 + (uint32_t)i);
    }
    noise_law();
}

int main(void)
{
    const struct CMUnitTest tests[] = {OPS_LATENT(OP_CASE)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
