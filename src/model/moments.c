// Owns: exact sums of values and predictions by group, and what they say. Never scores.
#include "cpa/model/moments.h"

#include <math.h>

#include "cpa/platform/math_inl.h"
#include "model_impl.h"

// Sums of one kind are [n_groups, 2, n_genes]: values, squares. The first kind is on the scale of the R2 metrics, the second
// counts (for zinb those that are not left out), or (predicted by gauss) variances.
enum { SCALED, COUNTS, N_KINDS };

// How values of a kind become integers.
typedef struct rounding {
    double limit, scale, scale2;
} rounding;

struct cpa_moments {
    cpa_model *m; // borrowed
    int n_groups;
    int64_t stride; // from one kind to the next
    cpa_dev_i64 *sums;
    cpa_dev_int *group; // [max_cells]
    cpa_real *px_r;     // [n_genes] logarithms of the dispersions, not for gauss
    double *over;       // [n_genes] 1 + 1 / dispersion
    rounding scaled, counts, variances;
};

// Values up to `limit` of `most` cells, rounded as finely as their sums can bear.
static rounding round_up_to(double limit, int64_t most)
{
    double room = fmin(0x1p51, 0x1p62 / (double)most);
    return (rounding){limit, exp2(floor(log2(room / limit))), exp2(floor(log2(room / (limit * limit))))};
}

cpa_status cpa_moments_create(cpa_model *m, int n_groups, int64_t most, double largest, cpa_moments **out)
{
    cpa_status st = CPA_OK;
    cpa_moments *mo = NULL;
    double limit = 4 * fmax(largest, 1);
    CPA_TRY(cpa_alloc(1, sizeof *mo, &mo));
    mo->m = m;
    mo->n_groups = n_groups;
    mo->stride = 2 * (int64_t)n_groups * m->shape.n_genes;
    mo->counts = round_up_to(limit, most);
    mo->scaled = m->likelihood == CPA_GAUSS ? mo->counts : round_up_to(log1p(limit), most);
    mo->variances = round_up_to(limit * limit, most);
    CPA_TRY(cpa_op_alloc(m->be, (size_t)(N_KINDS * mo->stride) * sizeof(int64_t), (void **)&mo->sums));
    CPA_TRY(cpa_op_alloc(m->be, (size_t)m->shape.max_cells * 4, (void **)&mo->group));
    CPA_TRY(cpa_alloc((size_t)m->shape.n_genes, sizeof *mo->px_r, &mo->px_r));
    CPA_TRY(cpa_alloc((size_t)m->shape.n_genes, sizeof *mo->over, &mo->over));
    CPA_TRY(cpa_moments_clear(mo));
    *out = mo;
    mo = NULL;
cleanup:
    cpa_moments_destroy(&mo);
    return st;
}

void cpa_moments_destroy(cpa_moments **mo)
{
    if (*mo) {
        if ((*mo)->sums) {
            cpa_op_release((*mo)->m->be, (*mo)->sums);
        }
        if ((*mo)->group) {
            cpa_op_release((*mo)->m->be, (*mo)->group);
        }
        cpa_free(&(*mo)->px_r);
        cpa_free(&(*mo)->over);
        cpa_free(mo);
    }
}

cpa_status cpa_moments_clear(cpa_moments *mo)
{
    cpa_status st = CPA_OK;
    cpa_model *m = mo->m;
    CPA_TRY(cpa_op_zero(m->be, mo->sums, (size_t)(N_KINDS * mo->stride) * sizeof(int64_t)));
    if (m->likelihood != CPA_GAUSS) {
        CPA_TRY(cpa_params_get(&m->t, m->t.value, m->px_r, mo->px_r));
        for (int g = 0; g < m->shape.n_genes; g++) {
            mo->over[g] = 1 + exp(-(double)mo->px_r[g]);
        }
    }
cleanup:
    return st;
}

// Adds the rows of `a`, weighted by what zero inflation leaves of them where zi is given.
static cpa_status add(cpa_moments *mo, int kind, cpa_mat a, cpa_mat zi, cpa_mat zi_bias, rounding r)
{
    return cpa_op_group_moments(mo->m->be, cpa_i64_at(mo->sums, kind * mo->stride), a, mo->group, mo->n_groups, zi,
                                zi_bias, r.limit, r.scale, r.scale2);
}

cpa_status cpa_moments_add_real(cpa_moments *mo, const cpa_batch *batch, const int32_t *group)
{
    cpa_status st = CPA_OK;
    cpa_model *m = mo->m;
    CPA_TRY(cpa_model_load(m, batch));
    cpa_mat x = cpa_mat_head(m->target, m->n);
    CPA_TRY(cpa_op_upload(m->be, mo->group, group, (size_t)m->n * 4));
    CPA_TRY(cpa_op_csr_expand(m->be, x, m->batch.x, m->likelihood != CPA_GAUSS));
    CPA_TRY(add(mo, SCALED, x, CPA_NO_MAT, CPA_NO_MAT, mo->scaled));
    CPA_TRY(cpa_op_csr_expand(m->be, x, m->batch.x, false));
    CPA_TRY(add(mo, COUNTS, x, CPA_NO_MAT, CPA_NO_MAT, mo->counts));
cleanup:
    return st;
}

cpa_status cpa_moments_add_predicted(cpa_moments *mo, const int32_t *group)
{
    cpa_status st = CPA_OK;
    cpa_model *m = mo->m;
    cpa_mat scaled = cpa_mat_head(m->means, m->n), counts = cpa_mat_head(m->logits, m->n);
    cpa_mat second = cpa_mat_head(m->head2, m->n), none = CPA_NO_MAT;
    CPA_TRY(cpa_op_upload(m->be, mo->group, group, (size_t)m->n * 4));
    CPA_TRY(add(mo, SCALED, scaled, none, none, mo->scaled));
    switch (m->likelihood) {
    case CPA_NB:
        CPA_TRY(add(mo, COUNTS, counts, none, none, mo->counts));
        break;
    case CPA_ZINB:
        CPA_TRY(add(mo, COUNTS, counts, second, cpa_value(&m->t, m->head2_bias), mo->counts));
        break;
    case CPA_GAUSS:
        CPA_TRY(add(mo, COUNTS, second, none, none, mo->variances));
        break;
    }
cleanup:
    return st;
}

cpa_status cpa_moments_sums(cpa_moments *mo, int group, int64_t *sums)
{
    cpa_status st = CPA_OK;
    int64_t n = 2 * (int64_t)mo->m->shape.n_genes;
    for (int kind = 0; kind < N_KINDS; kind++) {
        const cpa_dev_i64 *from = cpa_i64_at(mo->sums, kind * mo->stride + group * n);
        CPA_TRY(cpa_op_download(mo->m->be, sums + kind * n, from, (size_t)n * sizeof *sums));
    }
cleanup:
    return st;
}

// Means and mean squares of one kind of sums.
typedef struct moments_of {
    const int64_t *sums;
    double unit, unit2; // of a sum
    int genes;
} moments_of;

static moments_of kind_of(const cpa_moments *mo, const int64_t *sums, int kind, rounding r, int64_t n)
{
    int genes = mo->m->shape.n_genes;
    return (moments_of){sums + 2 * (int64_t)kind * genes, 1 / r.scale / (double)n, 1 / r.scale2 / (double)n, genes};
}

static inline double mean_of(moments_of k, int g)
{
    return (double)k.sums[g] * k.unit;
}

static inline double square_of(moments_of k, int g)
{
    return (double)k.sums[k.genes + g] * k.unit2;
}

// Of all cells; rounding may leave that of a constant below 0.
static inline double variance_of(moments_of k, int g)
{
    double mean = mean_of(k, g), v = square_of(k, g) - mean * mean;
    return v > 0 ? v : 0;
}

static double unbiased(int64_t n)
{
    return n > 1 ? (double)n / (double)(n - 1) : NAN;
}

static void take_logarithms(double *v, int n)
{
#pragma omp simd
    for (int g = 0; g < n; g++) {
        v[g] = (double)cpa_log1p((cpa_real)v[g]);
    }
}

void cpa_moments_real(const cpa_moments *mo, const int64_t *sums, int64_t n, cpa_moment_view view)
{
    const moments_of scaled = kind_of(mo, sums, SCALED, mo->scaled, n),
                     counts = kind_of(mo, sums, COUNTS, mo->counts, n);
    const double factor = unbiased(n);
    for (int g = 0; g < scaled.genes; g++) {
        view.mean[g] = mean_of(scaled, g);
        view.var[g] = factor * variance_of(scaled, g);
        view.total[g] = factor * variance_of(counts, g);
    }
    if (mo->m->likelihood != CPA_GAUSS) {
        take_logarithms(view.total, scaled.genes);
    }
}

void cpa_moments_predicted(const cpa_moments *mo, const int64_t *sums, int64_t n, cpa_moment_view view)
{
    const bool gauss = mo->m->likelihood == CPA_GAUSS;
    const moments_of scaled = kind_of(mo, sums, SCALED, mo->scaled, n);
    const moments_of counts = kind_of(mo, sums, COUNTS, gauss ? mo->variances : mo->counts, n);
    const double factor = unbiased(n);
    for (int g = 0; gauss && g < scaled.genes; g++) {
        view.mean[g] = mean_of(scaled, g);
        view.var[g] = mean_of(counts, g);
        view.total[g] = view.var[g] + variance_of(scaled, g);
    }
    if (gauss) {
        return;
    }
    for (int g = 0; g < scaled.genes; g++) {
        // A count has the mean square mu + mu^2 (1 + 1 / theta), thinned by the zero inflation as its mean is.
        double mean = mean_of(counts, g), v = mean + square_of(counts, g) * mo->over[g] - mean * mean;
        view.mean[g] = mean_of(scaled, g);
        view.var[g] = factor * variance_of(scaled, g);
        view.total[g] = v > 0 ? v : 0;
    }
    take_logarithms(view.total, scaled.genes);
}
