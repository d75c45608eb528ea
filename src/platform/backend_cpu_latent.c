// Owns: the Gaussian latent state of the variational model on the CPU: its noise, its sample, its divergence from the
// standard normal. Never a draw that depends on anything but seed and counter.
#include "backend_cpu_impl.h"

#include <math.h>

#include "cpa/base/rng.h"
#include "cpa/platform/math_inl.h"

// Added to every variance.
static const cpa_real floor_var = (cpa_real)1e-4;

// Sum over a cell's latent of KL(N(mean, std) || N(0, 1)); in double, because at variance 1 almost nothing is left.
static double divergence(const cpa_real *mean, const cpa_real *std, int n)
{
    double sum = 0;
    for (int j = 0; j < n; j++) {
        double m = (double)mean[j], var = (double)std[j] * (double)std[j];
        sum += 0.5 * (m * m + var - 1 - log(var));
    }
    return sum;
}

cpa_status cpa_cpu_sample_latent(cpa_backend *be, cpa_mat z, cpa_mat std, cpa_dev_f64 *kl_sum, cpa_mat mean,
                                 cpa_mat raw, cpa_mat noise)
{
    double *kl;
    cpa_status st = cpa_cpu_scratch(be, (size_t)mean.rows * sizeof *kl, &kl);
    if (st != CPA_OK) {
        return st;
    }
#pragma omp parallel for schedule(static) if (cpa_parallel(mean))
    for (int b = 0; b < mean.rows; b++) {
        const cpa_real *m = cpa_row(mean, b), *r = cpa_row(raw, b);
        cpa_real *s = cpa_row(std, b), *to = cpa_row(z, b);
#pragma omp simd
        for (int j = 0; j < mean.cols; j++) {
            s[j] = cpa_sqrt(cpa_softplus(r[j]) + floor_var);
        }
        kl[b] = divergence(m, s, mean.cols);
        const cpa_real *e = noise.data != NULL ? cpa_row(noise, b) : NULL;
#pragma omp simd
        for (int j = 0; j < mean.cols; j++) {
            to[j] = e != NULL ? m[j] + s[j] * e[j] : m[j];
        }
    }
    double sum = 0;
    for (int b = 0; b < mean.rows; b++) {
        sum += kl[b];
    }
    cpa_f64s(kl_sum)[0] = sum;
    return CPA_OK;
}

cpa_status cpa_cpu_sample_latent_grad(cpa_backend *be, cpa_mat dmean, cpa_mat draw, cpa_mat dz, cpa_mat mean,
                                      cpa_mat raw, cpa_mat std, cpa_mat noise, cpa_real kl_scale)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(mean))
    for (int b = 0; b < mean.rows; b++) {
        const cpa_real *d = cpa_row(dz, b), *m = cpa_row(mean, b), *r = cpa_row(raw, b), *s = cpa_row(std, b);
        const cpa_real *e = noise.data != NULL ? cpa_row(noise, b) : NULL;
        cpa_real *to_mean = cpa_row(dmean, b), *to_raw = cpa_row(draw, b);
#pragma omp simd
        for (int j = 0; j < mean.cols; j++) {
            cpa_real up = d[j], inverse = 1 / s[j];
            // std - 1 / std, as a product that keeps its digits at std 1.
            cpa_real dstd = kl_scale * ((s[j] - 1) * (s[j] + 1) * inverse);
            dstd += e != NULL ? up * e[j] : 0;
            to_raw[j] = dstd * (cpa_real)0.5 * inverse * cpa_logistic(r[j]);
            to_mean[j] = up + kl_scale * m[j];
        }
    }
    return CPA_OK;
}

// Two standard normals by Box and Muller: the first two words are the radius, with 64 bits of tail, the others the angle.
static void normal_pair(const uint32_t word[4], double pair[2])
{
    double u = ((double)((uint64_t)word[0] << 32 | word[1]) + 0.5) * 0x1p-64;
    double angle = (double)((uint64_t)word[2] << 32 | word[3]) * (0x1p-64 * 6.28318530717958647693);
    double radius = sqrt(-2 * log(u));
    pair[0] = radius * cos(angle);
    pair[1] = radius * sin(angle);
}

cpa_status cpa_cpu_normal_noise(cpa_backend *be, cpa_mat noise, const cpa_dev_int *cell, uint64_t seed,
                                cpa_number epoch, uint32_t layer)
{
    (void)be;
#pragma omp parallel for schedule(static) if (cpa_parallel(noise))
    for (int b = 0; b < noise.rows; b++) {
        cpa_real *to = cpa_row(noise, b);
        for (int l = 0; l < noise.cols; l += 2) {
            uint32_t word[4];
            double pair[2];
            cpa_philox(seed, CPA_STREAM_NOISE,
                       (const uint32_t[4]){(uint32_t)cpa_ints(cell)[b], (uint32_t)epoch.value, layer, (uint32_t)l / 2},
                       word);
            normal_pair(word, pair);
            to[l] = (cpa_real)pair[0];
            if (l + 1 < noise.cols) {
                to[l + 1] = (cpa_real)pair[1];
            }
        }
    }
    return CPA_OK;
}
