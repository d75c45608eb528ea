// Owns: KNN purity of labels, and of a small latent space, exact.
// Never approximates neighbours.
#include "validate_impl.h"

static double distance(const cpa_real *a, const cpa_real *b, int n)
{
    double d = 0;
    for (int i = 0; i < n; i++) {
        double t = (double)a[i] - (double)b[i];
        d += t * t;
    }
    return d;
}

// The k + 1 nearest cells of `i` in order of distance (ties: row order) into near; dist holds their distances.
static void nearest(const cpa_real *z, int n, int n_latent, int i, int k, int64_t *near, double *dist)
{
    int have = 0;
    for (int j = 0; j < n; j++) {
        double d = distance(z + (int64_t)i * n_latent, z + (int64_t)j * n_latent, n_latent);
        if (have == k + 1 && d >= dist[k]) {
            continue;
        }
        int at = have < k + 1 ? have++ : k;
        for (; at > 0 && dist[at - 1] > d; at--) {
            dist[at] = dist[at - 1];
            near[at] = near[at - 1];
        }
        dist[at] = d;
        near[at] = j;
    }
}

cpa_status cpa_purity_of(const int64_t *near, int n, int k, int stride, const int32_t *label, double *purity)
{
    cpa_status st = CPA_OK;
    double *sum = NULL, total = 0;
    int64_t *count = NULL;
    int32_t most = 0, labels = 0;
    for (int i = 0; i < n; i++) {
        most = label[i] > most ? label[i] : most;
    }
    CPA_TRY(cpa_alloc((size_t)most + 1, sizeof *sum, &sum));
    CPA_TRY(cpa_alloc((size_t)most + 1, sizeof *count, &count));
    for (int i = 0; i < n; i++) {
        int same = 0;
        for (int j = 0; j < k; j++) {
            int64_t other = near[(int64_t)i * stride + j];
            same += other >= 0 && label[other] == label[i];
        }
        sum[label[i]] += (double)same / k;
        count[label[i]]++;
    }
    for (int i = 0; i < n; i++) { // labels in the order in which they occur
        if (count[label[i]] > 0) {
            total += sum[label[i]] / (double)count[label[i]];
            labels++;
            count[label[i]] = 0;
        }
    }
    *purity = total / labels;
cleanup:
    cpa_free(&sum);
    cpa_free(&count);
    return st;
}

cpa_status cpa_knn_purity(const cpa_real *z, int n, int n_latent, int k, const int32_t *const *label, int n_sets,
                          double *purity)
{
    cpa_status st = CPA_OK;
    int64_t *near = NULL;
    double *dist = NULL;
    CPA_TRY(cpa_alloc((size_t)n * (size_t)(k + 1), sizeof *near, &near));
    CPA_TRY(cpa_alloc((size_t)n * (size_t)(k + 1), sizeof *dist, &dist));
#pragma omp parallel for schedule(static)
    for (int i = 0; i < n; i++) {
        nearest(z, n, n_latent, i, k, near + (int64_t)i * (k + 1), dist + (int64_t)i * (k + 1));
    }
    for (int s = 0; s < n_sets; s++) { // the first hit is the cell itself, or its double
        CPA_TRY(cpa_purity_of(near + 1, n, k, k + 1, label[s], &purity[s]));
    }
cleanup:
    cpa_free(&near);
    cpa_free(&dist);
    return st;
}
