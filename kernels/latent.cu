// Owns: the Gaussian latent state of the variational model on the device: its noise, its sample, its divergence from the standard
// normal. Never a draw that depends on anything but seed and counter.
#include "kernel.h"

// Added to every variance.
static const cpa_real floor_var = (cpa_real)1e-4;

// Of a block: cells, and threads of a cell.
enum { LANES = 32, CELLS = CPA_THREADS / LANES };

// What a call looks at.
typedef struct sample_call {
    cpa_mat z, std, mean, raw, noise;
} sample_call;

// One element, and its share of KL(N(mean, std) || N(0, 1)); in double, because at variance 1 almost nothing is left.
CPA_DEVICE double sample_one(sample_call c, int b, int l)
{
    const cpa_real s = cpa_sqrt(cpa_softplus(cpa_row(c.raw, b)[l]) + floor_var), m = cpa_row(c.mean, b)[l];
    const double var = (double)s * (double)s;
    cpa_row(c.std, b)[l] = s;
    cpa_row(c.z, b)[l] = c.noise.data != NULL ? m + s * cpa_row(c.noise, b)[l] : m;
    return 0.5 * ((double)m * (double)m + var - 1 - log(var));
}

CPA_KERNEL sample(double *kl, sample_call c)
{
    CPA_SHARED(double, v, CPA_THREADS);
    CPA_EACH(t)
    {
        const int64_t b = cpa_block() * CELLS + t / LANES;
        double sum = 0;
        for (int l = t % LANES; b < c.z.rows && l < c.z.cols; l += LANES) {
            sum += sample_one(c, (int)b, l);
        }
        v[t] = sum;
    }
    CPA_EACH(t)
    {
        const int64_t b = cpa_block() * CELLS + t / LANES;
        if (t % LANES == 0 && b < c.z.rows) {
            double sum = 0;
            for (int i = 0; i < LANES; i++) {
                sum += v[t + i];
            }
            kl[b] = sum;
        }
    }
}

cpa_status cpa_cuda_sample_latent(cpa_backend *be, cpa_mat z, cpa_mat std, cpa_dev_f64 *kl_sum, cpa_mat mean,
                                  cpa_mat raw, cpa_mat noise)
{
    double *kl;
    const sample_call c = {z, std, mean, raw, noise};
    CPA_STEP(cpa_cuda_scratch(be, (size_t)mean.rows * sizeof *kl, &kl));
    CPA_STEP(CPA_LAUNCH_BLOCKS(be, sample, ((int64_t)mean.rows + CELLS - 1) / CELLS, 0, kl, c));
    return cpa_cuda_sum(be, kl_sum, kl, mean.rows);
}

CPA_KERNEL sample_grad(int64_t n, cpa_mat dmean, cpa_mat draw, cpa_mat dz, cpa_mat mean, cpa_mat raw, cpa_mat std,
                       cpa_mat noise, cpa_real kl_scale)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int b = cpa_row_of(dz, i), l = cpa_col_of(dz, i);
    const cpa_real up = cpa_row(dz, b)[l], s = cpa_row(std, b)[l], inverse = 1 / s;
    // std - 1 / std, as a product that keeps its digits at std 1.
    cpa_real dstd = kl_scale * ((s - 1) * (s + 1) * inverse);
    dstd += noise.data != NULL ? up * cpa_row(noise, b)[l] : 0;
    cpa_row(draw, b)[l] = dstd * (cpa_real)0.5 * inverse * cpa_logistic(cpa_row(raw, b)[l]);
    cpa_row(dmean, b)[l] = up + kl_scale * cpa_row(mean, b)[l];
}

cpa_status cpa_cuda_sample_latent_grad(cpa_backend *be, cpa_mat dmean, cpa_mat draw, cpa_mat dz, cpa_mat mean,
                                       cpa_mat raw, cpa_mat std, cpa_mat noise, cpa_real kl_scale)
{
    return CPA_LAUNCH(be, sample_grad, cpa_elements(dz), dmean, draw, dz, mean, raw, std, noise, kl_scale);
}

// Two standard normals by Box and Muller: the first two words are the radius, with 64 bits of tail, the others the angle.
CPA_DEVICE void normal_pair(const uint32_t word[4], double pair[2])
{
    const double u = ((double)((uint64_t)word[0] << 32 | word[1]) + 0.5) * 0x1p-64;
    const double angle = (double)((uint64_t)word[2] << 32 | word[3]) * (0x1p-64 * 6.28318530717958647693);
    const double radius = sqrt(-2 * log(u));
    pair[0] = radius * cos(angle);
    pair[1] = radius * sin(angle);
}

// A thread for two columns of a row, which share a draw.
CPA_KERNEL normal_noise(int64_t n, cpa_mat noise, const cpa_dev_int *cell, uint64_t seed, cpa_number epoch,
                        uint32_t layer)
{
    const int64_t i = cpa_thread();
    if (i >= n) {
        return;
    }
    const int pairs = (noise.cols + 1) / 2, row = (int)(i / pairs), l = (int)(i % pairs);
    const uint32_t counter[4] = {(uint32_t)cpa_ints(cell)[row], (uint32_t)cpa_value_of(epoch), layer, (uint32_t)l};
    uint32_t word[4];
    double pair[2];
    cpa_philox(seed, CPA_STREAM_NOISE, counter, word);
    normal_pair(word, pair);
    cpa_row(noise, row)[2 * l] = (cpa_real)pair[0];
    if (2 * l + 1 < noise.cols) {
        cpa_row(noise, row)[2 * l + 1] = (cpa_real)pair[1];
    }
}

cpa_status cpa_cuda_normal_noise(cpa_backend *be, cpa_mat noise, const cpa_dev_int *cell, uint64_t seed,
                                 cpa_number epoch, uint32_t layer)
{
    return CPA_LAUNCH(be, normal_noise, (int64_t)noise.rows * ((noise.cols + 1) / 2), noise, cell, seed, epoch, layer);
}
