// Owns: KNN purity of labels: of one batch, and of the first cells among all that come in batches.
// Never approximates neighbours.
#include "cpa/train/purity.h"

#include <string.h>

#include "cpa/base/mem.h"
#include "cpa/train/neighbours.h"

enum {
    NEIGHBOURS = 30,
    QUERY_BLOCK = 512, // queries that are searched at once: in large blocks fewer cells must be looked at
};

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

// Purity of a set of labels for the cells 0 .. n-1, whose k neighbours are near[i * stride ...]; label: of all cells that may be near.
static cpa_status purity_of(const int64_t *near, int n, int k, int stride, const int32_t *label, double *purity)
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
        CPA_TRY(purity_of(near + 1, n, k, k + 1, label[s], &purity[s]));
    }
cleanup:
    cpa_free(&near);
    cpa_free(&dist);
    return st;
}

struct cpa_purity {
    cpa_comm *comm; // borrowed
    int64_t n;
    int n_queries, n_latent, k;
    size_t words;    // of the queries, in 64 bits
    cpa_real *query; // [n_queries, n_latent]
    cpa_neighbours *neighbours;
};

cpa_status cpa_purity_create(cpa_comm *comm, cpa_backend *be, int64_t n, int n_queries, int n_latent, int max_batch,
                             cpa_purity **out)
{
    cpa_status st = CPA_OK;
    cpa_purity *p = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *p, &p));
    *p = (cpa_purity){.comm = comm, .n = n, .n_queries = n_queries, .n_latent = n_latent};
    p->k = n - 1 < NEIGHBOURS ? (int)n - 1 : NEIGHBOURS;
    p->words = ((size_t)n_queries * (size_t)n_latent * sizeof *p->query + 7) / 8;
    CPA_TRY(cpa_alloc(p->words, 8, &p->query));
    CPA_TRY(cpa_neighbours_create(be, n_queries, n_latent, p->k, max_batch > QUERY_BLOCK ? max_batch : QUERY_BLOCK,
                                  &p->neighbours));
    *out = p;
    p = NULL;
cleanup:
    cpa_purity_destroy(&p);
    return st;
}

void cpa_purity_destroy(cpa_purity **p)
{
    if (*p) {
        cpa_neighbours_destroy(&(*p)->neighbours);
        cpa_free(&(*p)->query);
        cpa_free(p);
    }
}

void cpa_purity_begin(cpa_purity *p)
{
    memset(p->query, 0, p->words * 8);
}

cpa_status cpa_purity_take(cpa_purity *p, int64_t first, int n, const cpa_real *z)
{
    if (first >= p->n_queries) {
        return cpa_neighbours_add(p->neighbours, first, n, z);
    }
    memcpy(p->query + first * p->n_latent, z, (size_t)n * (size_t)p->n_latent * sizeof *z);
    return CPA_OK;
}

// This rank's share of the queries, which every rank has now.
static cpa_status search_queries(cpa_purity *p)
{
    cpa_status st = CPA_OK;
    int64_t rank = cpa_comm_rank(p->comm), ranks = cpa_comm_size(p->comm);
    int64_t end = p->n_queries * (rank + 1) / ranks;
    for (int64_t first = p->n_queries * rank / ranks; first < end; first += QUERY_BLOCK) {
        int n = end - first < QUERY_BLOCK ? (int)(end - first) : QUERY_BLOCK;
        CPA_TRY(cpa_neighbours_add(p->neighbours, first, n, p->query + first * p->n_latent));
    }
cleanup:
    return st;
}

cpa_status cpa_purity_share(cpa_purity *p)
{
    cpa_status st = CPA_OK;
    // A cell is 0 on all ranks but one, so the sum of the bits as integers is that rank's bits.
    CPA_TRY(cpa_comm_sum_i64(p->comm, (int64_t *)(void *)p->query, (int)p->words));
    st = cpa_neighbours_begin(p->neighbours, p->query);
    CPA_TRY(cpa_comm_agree(p->comm, st == CPA_OK ? search_queries(p) : st));
cleanup:
    return st;
}

cpa_status cpa_purity_score(cpa_purity *p, int32_t *const *label, int n_sets, double *sum)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_neighbours_merge(p->neighbours, p->comm));
    *sum = 0;
    for (int i = 0; st == CPA_OK && i < n_sets; i++) {
        double one;
        st = purity_of(cpa_neighbours_found(p->neighbours), p->n_queries, p->k, p->k, label[i], &one);
        *sum += one;
    }
    CPA_TRY(cpa_comm_agree(p->comm, st));
cleanup:
    return st;
}
