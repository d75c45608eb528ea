// Owns: exact search for nearest neighbours by blocks of products. Never approximates.
#include "cpa/train/neighbours.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "cpa/base/mem.h"

enum {
    MERGED_AT_ONCE = 256, // queries
    BISECTIONS = 10,
    LANES = 16, // sums that a distance is added up in
};

struct cpa_neighbours {
    cpa_backend *be; // borrowed
    int n_queries, n_latent, k, max_block;
    cpa_real *query;                 // [n_queries, n_latent]
    double *norm, *other_norm;       // Euclidean, of queries and of the block's cells
    cpa_dev_real *memory;            // owned: the three below
    cpa_mat queries, block, product; // [n_queries, n_latent], [max_block, n_latent], [n_queries, max_block]
    double *bounds;                  // [threads, 2, max_block]
    cpa_real *dot;                   // [n_queries, max_block]
    double *distance;                // [n_queries, k] squared, ascending; INFINITY where there is no cell yet
    int64_t *cell;                   // [n_queries, k]
    double *all_distance;            // of some queries on all ranks
    int64_t *all_cell;
};

static int64_t lay_out(cpa_neighbours *s, const cpa_dev_real *arena)
{
    int64_t used = 0;
    s->queries = cpa_mat_take(arena, &used, s->n_queries, s->n_latent);
    s->block = cpa_mat_take(arena, &used, s->max_block, s->n_latent);
    s->product = cpa_mat_take(arena, &used, s->n_queries, s->max_block);
    return used;
}

cpa_status cpa_neighbours_create(cpa_backend *be, int n_queries, int n_latent, int k, int max_block,
                                 cpa_neighbours **out)
{
    cpa_status st = CPA_OK;
    cpa_neighbours *s = NULL;
    size_t n = (size_t)n_queries;
    CPA_TRY(cpa_alloc(1, sizeof *s, &s));
    *s = (cpa_neighbours){.be = be, .n_queries = n_queries, .n_latent = n_latent, .k = k, .max_block = max_block};
    CPA_TRY(cpa_op_alloc(be, (size_t)lay_out(s, NULL) * sizeof(cpa_real), (void **)&s->memory));
    lay_out(s, s->memory);
    CPA_TRY(cpa_alloc(n * (size_t)n_latent, sizeof *s->query, &s->query));
    CPA_TRY(cpa_alloc(n, sizeof *s->norm, &s->norm));
    CPA_TRY(cpa_alloc((size_t)max_block, sizeof *s->other_norm, &s->other_norm));
    CPA_TRY(cpa_alloc(n * (size_t)max_block, sizeof *s->dot, &s->dot));
    CPA_TRY(cpa_alloc((size_t)omp_get_max_threads() * 2 * (size_t)max_block, sizeof *s->bounds, &s->bounds));
    CPA_TRY(cpa_alloc(n * (size_t)k, sizeof *s->distance, &s->distance));
    CPA_TRY(cpa_alloc(n * (size_t)k, sizeof *s->cell, &s->cell));
    *out = s;
    s = NULL;
cleanup:
    cpa_neighbours_destroy(&s);
    return st;
}

void cpa_neighbours_destroy(cpa_neighbours **s)
{
    if (*s) {
        if ((*s)->memory) {
            cpa_op_release((*s)->be, (*s)->memory);
        }
        void *memory[] = {(*s)->query,    (*s)->norm, (*s)->other_norm,   (*s)->dot,     (*s)->bounds,
                          (*s)->distance, (*s)->cell, (*s)->all_distance, (*s)->all_cell};
        for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
            cpa_free(&memory[i]);
        }
        cpa_free(s);
    }
}

static double norm_of(const cpa_real *x, int n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

static double distance_of(const cpa_real *x, const cpa_real *y, int n)
{
    double lane[LANES] = {0}, sum = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
#pragma omp simd
        for (int j = 0; j < LANES; j++) {
            double d = (double)x[i + j] - (double)y[i + j];
            lane[j] += d * d;
        }
    }
    for (; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        sum += d * d;
    }
    for (int j = 0; j < LANES; j++) {
        sum += lane[j];
    }
    return sum;
}

cpa_status cpa_neighbours_begin(cpa_neighbours *s, const cpa_real *z)
{
    size_t n = (size_t)s->n_queries * (size_t)s->n_latent;
    memcpy(s->query, z, n * sizeof *z);
    for (int q = 0; q < s->n_queries; q++) {
        s->norm[q] = norm_of(z + (int64_t)q * s->n_latent, s->n_latent);
    }
    for (int64_t i = 0; i < (int64_t)s->n_queries * s->k; i++) {
        s->distance[i] = INFINITY;
        s->cell[i] = -1;
    }
    return cpa_op_upload(s->be, s->queries.data, z, n * sizeof *z);
}

// Puts a cell among the neighbours of a query if it belongs there. Keeps the order by distance, then by number.
static void insert(double *distance, int64_t *cell, int k, double d, int64_t id)
{
    int at = k;
    for (; at > 0 && (d < distance[at - 1] || (d == distance[at - 1] && id < cell[at - 1])); at--) {
        if (at < k) {
            distance[at] = distance[at - 1];
            cell[at] = cell[at - 1];
        }
    }
    if (at < k) {
        distance[at] = d;
        cell[at] = id;
    }
}

static int count_up_to(const double *v, int n, double limit)
{
    int count = 0;
#pragma omp simd reduction(+ : count)
    for (int i = 0; i < n; i++) {
        count += v[i] <= limit;
    }
    return count;
}

// A number not far above the one that `wanted` of v[n] do not exceed; `high` must be one that they do not. Counting is cheap, sorting
// is not.
static double bisect(const double *v, int n, int wanted, double high)
{
    double low = 0, top = 0;
#pragma omp simd reduction(max : top)
    for (int i = 0; i < n; i++) {
        top = v[i] > top ? v[i] : top;
    }
    high = top < high ? top : high;
    for (int step = 0; step < BISECTIONS; step++) {
        double middle = 0.5 * (low + high);
        if (count_up_to(v, n, middle) >= wanted) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return high;
}

// Bounds of the squared distances of query q to the cells of a block. A product of n terms is off by at most n units of rounding of
// |x| |y| in whatever order it was summed, the rest of the formula by some units of double. What is no number bounds nothing.
static void bound(const cpa_neighbours *s, int q, int n, double *restrict least, double *restrict most)
{
    const double unit = sizeof(cpa_real) == sizeof(float) ? FLT_EPSILON : DBL_EPSILON;
    const double terms = s->n_latent + 8, own = s->norm[q];
    const cpa_real *restrict dot = s->dot + (int64_t)q * n;
    const double *restrict norm = s->other_norm;
#pragma omp simd
    for (int i = 0; i < n; i++) {
        double other = norm[i], apart = own - other;
        double about = apart * apart + 2 * (own * other - (double)dot[i]);
        double slack = terms * (2 * unit * own * other + 4 * DBL_EPSILON * (own * own + other * other));
        double low = about - slack, high = about + slack;
        least[i] = low <= INFINITY ? low : -INFINITY;
        most[i] = high <= INFINITY ? high : INFINITY;
    }
}

// One query against a block. Only cells that may be nearer than the k-th found so far, and than the k-th of the block, are looked at.
static void search(cpa_neighbours *s, int q, int64_t first, int n, const cpa_real *z)
{
    const cpa_real *query = s->query + (int64_t)q * s->n_latent;
    double *distance = s->distance + (int64_t)q * s->k,
           *least = s->bounds + 2 * omp_get_thread_num() * (int64_t)s->max_block;
    double *most = least + s->max_block, far = distance[s->k - 1];
    int64_t *cell = s->cell + (int64_t)q * s->k;
    bound(s, q, n, least, most);
    if (count_up_to(most, n, far) > s->k) { // one of them may be the query itself
        far = bisect(most, n, s->k + 1, far);
    }
    for (int i = 0; i < n; i++) {
        if (least[i] <= far && least[i] <= distance[s->k - 1] && first + i != q) {
            insert(distance, cell, s->k, distance_of(query, z + (int64_t)i * s->n_latent, s->n_latent), first + i);
        }
    }
}

// The products of all queries with a block, in full precision whatever the backend's: that is what `bound` reckons with.
static cpa_status multiply(cpa_neighbours *s, cpa_mat product, cpa_mat block)
{
    const cpa_precision precision = cpa_backend_precision(s->be);
    cpa_status st = cpa_backend_set_precision(s->be, CPA_FP32);
    st = st == CPA_OK ? cpa_op_gemm(s->be, product, s->queries, false, block, true, 1, 0) : st;
    const cpa_status back = cpa_backend_set_precision(s->be, precision);
    return st == CPA_OK ? back : st;
}

cpa_status cpa_neighbours_add(cpa_neighbours *s, int64_t first, int n, const cpa_real *z)
{
    cpa_status st = CPA_OK;
    cpa_mat block = cpa_mat_head(s->block, n), product = cpa_mat_of(s->product.data, s->n_queries, n);
    CPA_TRY(cpa_op_upload(s->be, block.data, z, (size_t)n * (size_t)s->n_latent * sizeof *z));
    CPA_TRY(multiply(s, product, block));
    CPA_TRY(cpa_op_download(s->be, s->dot, product.data, (size_t)s->n_queries * (size_t)n * sizeof *s->dot));
    for (int i = 0; i < n; i++) {
        s->other_norm[i] = norm_of(z + (int64_t)i * s->n_latent, s->n_latent);
    }
#pragma omp parallel for schedule(static)
    for (int q = 0; q < s->n_queries; q++) {
        search(s, q, first, n, z);
    }
cleanup:
    return st;
}

static cpa_status make_room(cpa_neighbours *s, int ranks)
{
    cpa_status st = CPA_OK;
    size_t n = (size_t)ranks * MERGED_AT_ONCE * (size_t)s->k;
    if (!s->all_cell) {
        CPA_TRY(cpa_alloc(n, sizeof *s->all_distance, &s->all_distance));
        CPA_TRY(cpa_alloc(n, sizeof *s->all_cell, &s->all_cell));
    }
cleanup:
    return st;
}

cpa_status cpa_neighbours_merge(cpa_neighbours *s, cpa_comm *comm)
{
    cpa_status st = CPA_OK;
    int ranks = cpa_comm_size(comm), rank = cpa_comm_rank(comm);
    if (ranks == 1) {
        return CPA_OK;
    }
    CPA_TRY(cpa_comm_agree(comm, make_room(s, ranks)));
    for (int q = 0; q < s->n_queries; q += MERGED_AT_ONCE) {
        int64_t n = s->n_queries - q < MERGED_AT_ONCE ? s->n_queries - q : MERGED_AT_ONCE;
        double *distance = s->distance + (int64_t)q * s->k;
        int64_t *cell = s->cell + (int64_t)q * s->k;
        n *= s->k;
        CPA_TRY(cpa_comm_allgather(comm, distance, s->all_distance, (size_t)n * sizeof *distance));
        CPA_TRY(cpa_comm_allgather(comm, cell, s->all_cell, (size_t)n * sizeof *cell));
        for (int64_t i = 0; i < n * ranks; i++) {
            if (i / n != rank && s->all_cell[i] >= 0) {
                int64_t at = i % n / s->k * s->k;
                insert(distance + at, cell + at, s->k, s->all_distance[i], s->all_cell[i]);
            }
        }
    }
cleanup:
    return st;
}

const int64_t *cpa_neighbours_found(const cpa_neighbours *s)
{
    return s->cell;
}
