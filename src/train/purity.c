// Owns: KNN purity of a latent space, exact.
// Never approximates neighbours.
#include <math.h>
#include <string.h>

#include "cpa/train/validate.h"

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
static void nearest(const cpa_real *z, int n, int n_latent, int i, int k, int *near, double *dist)
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

// Mean over labels of the mean score of the label's cells.
static double macro_mean(const double *score, const int32_t *label, int n, double *sum, int64_t *count)
{
    int32_t most = 0;
    for (int i = 0; i < n; i++) {
        sum[label[i]] = 0;
        count[label[i]] = 0;
        most = label[i] > most ? label[i] : most;
    }
    for (int i = 0; i < n; i++) {
        sum[label[i]] += score[i];
        count[label[i]]++;
    }
    double total = 0;
    int labels = 0;
    for (int i = 0; i < n; i++) {
        if (count[label[i]] > 0) {
            total += sum[label[i]] / (double)count[label[i]];
            labels++;
            count[label[i]] = 0;
        }
    }
    return total / labels;
}

cpa_status cpa_knn_purity(const cpa_real *z, int n, int n_latent, int k, const int32_t *const *label, int n_sets,
                          double *purity)
{
    cpa_status st = CPA_OK;
    int *near = NULL;
    double *dist = NULL, *score = NULL, *sum = NULL;
    int64_t *count = NULL;
    int32_t most = 0;
    for (int s = 0; s < n_sets; s++) {
        for (int i = 0; i < n; i++) {
            most = label[s][i] > most ? label[s][i] : most;
        }
    }
    CPA_TRY(cpa_alloc((size_t)n * (size_t)(k + 1), sizeof *near, &near));
    CPA_TRY(cpa_alloc((size_t)n * (size_t)(k + 1), sizeof *dist, &dist));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *score, &score));
    CPA_TRY(cpa_alloc((size_t)most + 1, sizeof *sum, &sum));
    CPA_TRY(cpa_alloc((size_t)most + 1, sizeof *count, &count));
#pragma omp parallel for schedule(static)
    for (int i = 0; i < n; i++) {
        nearest(z, n, n_latent, i, k, near + (int64_t)i * (k + 1), dist + (int64_t)i * (k + 1));
    }
    for (int s = 0; s < n_sets; s++) {
        for (int i = 0; i < n; i++) {
            int same = 0;
            for (int j = 1; j <= k; j++) {
                same += label[s][near[(int64_t)i * (k + 1) + j]] == label[s][i];
            }
            score[i] = (double)same / k;
        }
        purity[s] = macro_mean(score, label[s], n, sum, count);
    }
cleanup:
    cpa_free(&near);
    cpa_free(&dist);
    cpa_free(&score);
    cpa_free(&sum);
    cpa_free(&count);
    return st;
}
