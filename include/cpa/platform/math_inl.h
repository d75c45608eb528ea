// Owns: the scalar formulas that every backend shares: exp and log that vectorise, sigmoid and softplus, the
// gamma functions, the terms of counts, focal loss, Adam. Never touches memory beyond its arguments.
#ifndef CPA_PLATFORM_MATH_INL_H
#define CPA_PLATFORM_MATH_INL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cpa/base/inline.h"
#include "cpa/base/types.h"

#define CPA_NB_EPS ((cpa_real)1e-8)

#ifdef CPA_DOUBLE

CPA_INLINE double cpa_exp(double x)
{
    return exp(x);
}

CPA_INLINE double cpa_exp_both(double x, double *less_1)
{
    *less_1 = expm1(x);
    return exp(x);
}

CPA_INLINE double cpa_log(double x)
{
    return log(x);
}

CPA_INLINE double cpa_log1p(double u)
{
    return log1p(u);
}

CPA_INLINE double cpa_sqrt(double x)
{
    return sqrt(x);
}

#else

// Polynomials after Moshier's Cephes. They are here, and not calls of the C library, because a loop around them
// vectorises on any instruction set, and because their bits do not change with the library.

CPA_INLINE uint32_t cpa_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CPA_INLINE float cpa_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// Adding it leaves the nearest integer in the low bits.
static const float cpa_round = 0x1.8p23f;

// exp(x - n log(2)) - 1 for the integer n nearest to x / log(2).
CPA_INLINE float cpa_exp_core(float x, float n)
{
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r;
}

/** exp(x), within 2 units in the last place; below 2^-125 it is 0. NaN stays NaN. */
CPA_INLINE float cpa_exp(float x)
{
    float c = x < -87.0f ? -87.0f : x;
    c = c > 88.8f ? 88.8f : c;
    float t = c * 1.44269504088896341f + cpa_round;
    float p = cpa_exp_core(c, t - cpa_round) + 1.0f;
    // 2^n as 2 * 2^(n-1), so that n = 128 needs no special case.
    float y = (p + p) * cpa_from_bits((cpa_bits(t) - cpa_bits(cpa_round) + 126u) << 23);
    y = x < -86.6f ? 0.0f : y;
    return x > 88.72283f ? INFINITY : y;
}

/** exp(x) and in *less_1 exp(x) - 1, for x <= 0, each within 2 units in the last place, also where x is tiny. At least
 *  exp(-87); NaN stays NaN. */
CPA_INLINE float cpa_exp_both(float x, float *less_1)
{
    float c = x < -87.0f ? -87.0f : x;
    float t = c * 1.44269504088896341f + cpa_round;
    float power = cpa_from_bits((cpa_bits(t) - cpa_bits(cpa_round) + 127u) << 23);
    float p = cpa_exp_core(c, t - cpa_round);
    *less_1 = power * p + (power - 1.0f);
    return power * p + power;
}

// log(1 + f) for sqrt(1/2) <= 1 + f < sqrt(2), plus e log(2).
CPA_INLINE float cpa_log_core(float f, float e)
{
    float z = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * z - e * 2.12194440e-4f - 0.5f * z;
    return f + p + e * 0.693359375f;
}

// The exponent of x > 0 that leaves a fraction in [sqrt(1/2), sqrt(2)).
CPA_INLINE int32_t cpa_exponent(float x)
{
    return (int32_t)(cpa_bits(x) - 0x3f3504f3u) >> 23;
}

/** log(x), within 2 units in the last place; x is 0 or normal. NaN below 0. */
CPA_INLINE float cpa_log(float x)
{
    int32_t e = cpa_exponent(x);
    float m = cpa_from_bits(cpa_bits(x) - ((uint32_t)e << 23));
    float y = cpa_log_core(m - 1.0f, (float)e);
    y = x == 0.0f ? -INFINITY : y;
    y = x < 0.0f ? NAN : y;
    return x < INFINITY ? y : x;
}

/** log(1 + u) for u >= 0, within 2 units in the last place, also where u is tiny. NaN and infinity stay. */
CPA_INLINE float cpa_log1p(float u)
{
    float w = 1.0f + u;
    int32_t e = cpa_exponent(w);
    float m = cpa_from_bits(cpa_bits(w) - ((uint32_t)e << 23));
    // What rounding took from w, in units of m.
    float lost = (u - (w - 1.0f)) * cpa_from_bits((uint32_t)(127 - e) << 23);
    float f = e == 0 ? u : (m - 1.0f) + lost;
    float y = cpa_log_core(f, (float)e);
    return u < INFINITY ? y : u;
}

CPA_INLINE float cpa_sqrt(float x)
{
    return sqrtf(x);
}

#endif

/** sigmoid(x) without overflow. */
CPA_INLINE double cpa_sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

// ---- logits ----

/** sigmoid(x) without overflow, in a form that vectorises. NaN stays NaN. */
CPA_INLINE cpa_real cpa_logistic(cpa_real x)
{
    cpa_real e = cpa_exp(x < 0 ? x : -x), d = 1 / (1 + e);
    return x < 0 ? e * d : d;
}

/** log(1 + exp(x)) without overflow, in a form that vectorises. NaN stays NaN. */
CPA_INLINE cpa_real cpa_softplus(cpa_real x)
{
    return (x > 0 ? x : 0) + cpa_log1p(cpa_exp(x < 0 ? x : -x));
}

// ---- gamma functions ----

/** lgamma(z) - [(z - 1/2) log z - z + log(2 pi) / 2] for z >= 15, to full precision. */
CPA_INLINE cpa_real cpa_lgamma_tail(cpa_real z)
{
    const cpa_real c1 = (cpa_real)(1.0 / 12), c3 = (cpa_real)(1.0 / 360), c5 = (cpa_real)(1.0 / 1260);
    const cpa_real c7 = (cpa_real)(1.0 / 1680), c9 = (cpa_real)(1.0 / 1188);
    cpa_real i = 1 / z, s = i * i;
    return i * (c1 - s * (c3 - s * (c5 - s * (c7 - s * c9))));
}

/** log(z) - digamma(z) for z >= 15, to full precision. */
CPA_INLINE cpa_real cpa_digamma_tail(cpa_real z)
{
    const cpa_real c2 = (cpa_real)(1.0 / 12), c4 = (cpa_real)(1.0 / 120), c6 = (cpa_real)(1.0 / 252);
    const cpa_real c8 = (cpa_real)(1.0 / 240), c10 = (cpa_real)(1.0 / 132);
    cpa_real i = 1 / z, s = i * i;
    return i * (cpa_real)0.5 + s * (c2 - s * (c4 - s * (c6 - s * (c8 - s * c10))));
}

/** lgamma(z), z > 0, in double: shifted up to where the series holds. */
CPA_INLINE double cpa_lgamma(double z)
{
    const double half_log_2pi = 0.91893853320467274178;
    double product = 1;
    while (z < 15) {
        product *= z;
        z += 1;
    }
    double i = 1 / z, s = i * i;
    double tail = i * (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s * (1.0 / 1680 - s * (1.0 / 1188)))));
    return (z - 0.5) * log(z) - z + half_log_2pi + tail - log(product);
}

/** Digamma, z > 0, in double. */
CPA_INLINE double cpa_digamma(double z)
{
    double shift = 0;
    while (z < 15) {
        shift += 1 / z;
        z += 1;
    }
    double i = 1 / z, s = i * i;
    double tail = s * (1.0 / 12 - s * (1.0 / 120 - s * (1.0 / 252 - s * (1.0 / 240 - s * (1.0 / 132)))));
    return log(z) - 0.5 * i - tail - shift;
}

// ---- negative binomial ----

// With t = theta + eps, u = mu / t and s = u / (1 + u) = mu / (theta + mu + eps), a gene of a cell has
//   loss        = theta log1p(u)                       - [x (log(mu + eps) - log1p(u)) + T(x)]
//   mu dl/dmu   = theta s                              - x theta s / (mu + eps)
//   dl/dpx_r    = theta (log1p(u) - theta s / t)       - x (1 - (1 - s) theta / t) + E(x)
// where the right-hand parts are there only for x > 0, and
//   T(x) = lgamma(x + theta) - lgamma(theta) - lgamma(x + 1) - x log t
//        = sum over i < x of log((theta + i) / (t (i + 1)))
//   E(x) = x - theta (digamma(x + theta) - digamma(theta))
//        = sum over i < x of i / (theta + i).
// The sums are for small counts, and Stirling's series goes on from their end; nothing cancels, however large theta is.
enum { CPA_NB_TABLE = 16, CPA_NB_LAST = CPA_NB_TABLE - 1 }; // counts 0 .. 15 are small

/** T(i + 1) - T(i) = log((theta + i) / (t (i + 1))), as log1p((i - eps) / t) - log(i + 1); inverse = 1 / t. */
CPA_INLINE cpa_real cpa_nb_next_term(cpa_real i, cpa_real inverse)
{
    return cpa_log1p((i - CPA_NB_EPS) * inverse) - cpa_log(i + 1);
}

/** Adds to T and E of CPA_NB_LAST what a count x above has more, by the differences of Stirling's series: with z = LAST + theta and
 *  d = x - LAST, lgamma(z + d) - lgamma(z) = (z + d - 1/2) log1p(d / z) + d log z - d + tails; likewise lgamma(x + 1).
 *  step = cpa_nb_next_term(CPA_NB_LAST, ...). */
CPA_INLINE void cpa_nb_large_terms(cpa_real x, cpa_real theta, cpa_real step, cpa_real *t, cpa_real *e)
{
    const cpa_real one = CPA_NB_TABLE, half = (cpa_real)0.5;
    cpa_real d = x - CPA_NB_LAST, z = CPA_NB_LAST + theta, up = cpa_log1p(d / z);
    *t += d * step + (z + d - half) * up - (one + d - half) * cpa_log1p(d / one) +
          (cpa_lgamma_tail(z + d) - cpa_lgamma_tail(z)) - (cpa_lgamma_tail(one + d) - cpa_lgamma_tail(one));
    *e += d - theta * (up - (cpa_digamma_tail(z + d) - cpa_digamma_tail(z)));
}

/** T and E of a count that is not an integer, from their definition. */
CPA_INLINE void cpa_nb_fraction_terms(double x, double theta, double inverse, cpa_real *t, cpa_real *e)
{
    *t = (cpa_real)(cpa_lgamma(x + theta) - cpa_lgamma(theta) - cpa_lgamma(x + 1) + x * log(inverse));
    *e = (cpa_real)(x - theta * (cpa_digamma(x + theta) - cpa_digamma(theta)));
}

// ---- Cross-entropy ----

/** Focal loss of a class with logit `at` below the largest, of the softmax with exps that sum up to `sum`. *pull is minus the
 *  derivative by the log of its probability; 1 without focus. */
CPA_INLINE double cpa_focal_loss(double at, double exp_at, double sum, double gamma, double *pull)
{
    const double loss = log(sum) - at;
    if (gamma == 0) {
        *pull = 1;
        return loss;
    }
    const double rest = (sum - exp_at) / sum, p = exp_at / sum;
    const double focus = pow(rest, gamma), steep = rest > 0 ? loss / rest : 1; // at p = 1 the limit
    *pull = focus * (1 + gamma * p * steep);
    return focus * loss;
}

// ---- Adam ----

/** One element of torch.optim.Adam: step = lr / bias1, root2 = sqrt(bias2). */
CPA_INLINE void cpa_adam(cpa_real *p, cpa_real *m, cpa_real *v, cpa_real g, cpa_real step, cpa_real root2,
                         cpa_real decay)
{
    g += decay * *p;
    cpa_real m1 = (cpa_real)0.9 * *m + (cpa_real)(1 - 0.9) * g;
    cpa_real v1 = (cpa_real)0.999 * *v + (cpa_real)(1 - 0.999) * (g * g);
    *m = m1;
    *v = v1;
    *p -= step * (m1 / (cpa_sqrt(v1) / root2 + (cpa_real)1e-8));
}

#endif
