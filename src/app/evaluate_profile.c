// Owns: means and variances by gene of sets of cells. Never knows where a set of cells came from.
#include "cpa/app/profile.h"

#include <math.h>
#include <string.h>

static const double TEN_THOUSAND = 1e4, LEAST_SUM = 1e-9; // a cell without counts stays at zero

enum { STRIP = 64 }; // genes that a thread takes at a time

int cpa_profile_length(int n_genes)
{
    return 1 + 3 * n_genes;
}

cpa_status cpa_profile_init(cpa_profile *p, int n_genes)
{
    cpa_status st = CPA_OK;
    *p = (cpa_profile){.n_genes = n_genes};
    CPA_TRY(cpa_alloc((size_t)cpa_profile_length(n_genes), sizeof *p->v, &p->v));
    p->cp10k = p->v + 1;
    p->mean = p->cp10k + n_genes;
    p->m2 = p->mean + n_genes;
cleanup:
    return st;
}

void cpa_profile_fini(cpa_profile *p)
{
    cpa_free(&p->v);
    *p = (cpa_profile){0};
}

void cpa_profile_clear(cpa_profile *p)
{
    memset(p->v, 0, (size_t)cpa_profile_length(p->n_genes) * sizeof *p->v);
}

static double factor_of(double library, cpa_scale scale)
{
    return scale == CPA_SCALE_GIVEN ? 1 : TEN_THOUSAND / (library > LEAST_SUM ? library : LEAST_SUM);
}

static double on_scale(double count, double factor, cpa_scale scale)
{
    return scale == CPA_SCALE_LOG ? log1p(count * factor) : count;
}

// The genes [first, end) of cpa_profile_of_rows; row after row, so that the order of additions is fixed.
static void profile_strip(cpa_profile *p, const cpa_real *x, int n, const double *factor, cpa_scale scale, int first,
                          int end)
{
    double y[STRIP];
    for (int r = 0; r < n; r++) {
        const cpa_real *row = x + (int64_t)r * p->n_genes;
        for (int g = first; g < end; g++) {
            p->cp10k[g] += (double)row[g] * factor[r];
            p->mean[g] += on_scale((double)row[g], factor[r], scale);
        }
    }
    for (int g = first; g < end; g++) {
        p->cp10k[g] /= n;
        p->mean[g] /= n;
    }
    for (int r = 0; r < n; r++) {
        const cpa_real *row = x + (int64_t)r * p->n_genes;
        for (int g = first; g < end; g++) {
            y[g - first] = on_scale((double)row[g], factor[r], scale) - p->mean[g];
            p->m2[g] += y[g - first] * y[g - first];
        }
    }
}

cpa_status cpa_profile_of_rows(cpa_profile *p, const cpa_real *x, int n, cpa_scale scale)
{
    cpa_status st = CPA_OK;
    double *factor = NULL;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *factor, &factor));
#pragma omp parallel for
    for (int r = 0; r < n; r++) {
        double sum = 0;
        for (int g = 0; g < p->n_genes; g++) {
            sum += (double)x[(int64_t)r * p->n_genes + g];
        }
        factor[r] = factor_of(sum, scale);
    }
    cpa_profile_clear(p);
    p->v[0] = n;
#pragma omp parallel for
    for (int first = 0; first < p->n_genes; first += STRIP) {
        profile_strip(p, x, n, factor, scale, first, first + STRIP < p->n_genes ? first + STRIP : p->n_genes);
    }
cleanup:
    cpa_free(&factor);
    return st;
}

void cpa_profile_of_cells(cpa_profile *p, const cpa_cells *cells, const int64_t *cell, int64_t n, cpa_scale scale)
{
    cpa_profile_clear(p);
    if (n == 0) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        double factor = factor_of(cells->library[cell[i]], scale);
        for (int64_t k = cells->indptr[cell[i]]; k < cells->indptr[cell[i] + 1]; k++) {
            int64_t g = cells->gene16 ? (int64_t)cells->gene16[k] : (int64_t)cells->gene32[k];
            double count = cells->count16 ? (double)cells->count16[k] : (double)cells->count32[k];
            double y = on_scale(count, factor, scale);
            p->cp10k[g] += count * factor;
            p->mean[g] += y;
            p->m2[g] += y * y;
        }
    }
    p->v[0] = (double)n;
    for (int g = 0; g < p->n_genes; g++) {
        p->cp10k[g] /= (double)n;
        p->mean[g] /= (double)n;
        p->m2[g] = fmax(0, p->m2[g] - p->mean[g] * p->mean[g] * (double)n);
    }
}

void cpa_profile_merge(cpa_profile *p, const double *v)
{
    double na = p->v[0], nb = v[0], n = na + nb;
    if (nb <= 0) {
        return;
    }
    const double *cp10k = v + 1, *mean = cp10k + p->n_genes, *m2 = mean + p->n_genes;
    for (int g = 0; g < p->n_genes; g++) {
        double d = mean[g] - p->mean[g];
        p->cp10k[g] += (cp10k[g] - p->cp10k[g]) * (nb / n);
        p->mean[g] += d * (nb / n);
        p->m2[g] += m2[g] + d * d * (na * nb / n);
    }
    p->v[0] = n;
}

void cpa_profile_reweigh(cpa_profile *p, double weight)
{
    if (p->v[0] > 0) {
        for (int g = 0; g < p->n_genes; g++) {
            p->m2[g] *= weight / p->v[0];
        }
        p->v[0] = weight;
    }
}

void cpa_profile_variance(const cpa_profile *p, double *var)
{
    for (int g = 0; g < p->n_genes; g++) {
        var[g] = p->v[0] > 0 ? p->m2[g] / p->v[0] : 0;
    }
}

void cpa_profile_pseudobulk(const cpa_profile *p, cpa_scale scale, double *out)
{
    for (int g = 0; g < p->n_genes; g++) {
        out[g] = scale == CPA_SCALE_GIVEN ? p->cp10k[g] : log1p(p->cp10k[g]);
    }
}
