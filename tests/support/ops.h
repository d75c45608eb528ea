// Owns: the harness of the operations' conformance tests: matrices on a backend beside their values in double, and the
// list of which file tests which operation. Never computes a result that is under test.
//
// A case runs on `cpu` with one thread, on `cpu` with two and on `check`; whatever it downloads must have the same bits
// in all three. And it runs twice on the kernels of a device (on_kernels.h): both times the same bits, close to the same references.
#ifndef CPA_TESTS_SUPPORT_OPS_H
#define CPA_TESTS_SUPPORT_OPS_H

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/base/mem.h"
#include "cpa/base/rng.h"
#include "cpa/platform/backend.h"
#include "on_kernels.h"

// Every operation of ops.def is in one of these lists (test_ops_memory.c does not compile otherwise), and
// test_ops_<list>.c has the function case_<operation>.
#define OPS_MEMORY(X) X(alloc) X(release) X(upload) X(download) X(zero)
#define OPS_DENSE(X)                                                                                                   \
    X(gemm) X(add_row) X(col_sum) X(axpby) X(broadcast_row) X(log1p) X(square_sum_scale) X(nonfinite) X(clip) X(adam)
#define OPS_SPARSE(X) X(sparse_linear) X(sparse_linear_grad) X(csr_expand)
#define OPS_CELLS(X) X(take_cells)
#define OPS_NORM(X)                                                                                                    \
    X(batch_norm)                                                                                                      \
    X(batch_norm_sums)                                                                                                 \
    X(batch_norm_grad)                                                                                                 \
    X(batch_norm_grad_sums) X(batch_norm_grad2) X(batch_norm_grad2_sums) X(batch_norm_eval) X(dropout_mask)
#define OPS_LAYER(X) X(layer_norm) X(layer_norm_grad) X(layer_norm_grad2) X(activate) X(activate_grad)
#define OPS_EMBED(X) X(doser) X(doser_grad) X(bag_add) X(bag_grad)
#define OPS_GROUP(X) X(group_linear) X(group_linear_grad) X(dose_gate) X(dose_gate_grad)
#define OPS_LOSS(X) X(nb_loss) X(nb_mean_loss) X(softmax_scale) X(cross_entropy)
#define OPS_LIKELIHOOD(X) X(zinb_loss) X(zinb_mean_loss) X(zinb_thin) X(gauss_loss) X(gauss_mean_loss)
#define OPS_LATENT(X) X(sample_latent) X(sample_latent_grad) X(normal_noise)
#define OPS_SCORE(X) X(argmax) X(group_r2) X(group_moments)

// What a result may differ from its reference, relative to the reference's norm.
#ifdef CPA_DOUBLE
static const double tolerance = 1e-12;
#else
static const double tolerance = 2e-6;
#endif
// The same where the reference is a finite difference in double.
static const double difference_tolerance = sizeof(cpa_real) == sizeof(float) ? 1e-5 : 1e-7;

static cpa_backend *be; // what the case runs on
static bool on_kernels; // whether those are a device's: only they take bfloat16
static bool in_bf16;    // whether put_stored puts that; no case begins so
static uint64_t digest; // of all bits downloaded by the case
static uint64_t drawn;  // random numbers used by the case

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != CPA_OK) {                                                                                        \
            fail_msg("%s: %s", #call, cpa_message());                                                                  \
        }                                                                                                              \
    } while (0)

// ---- host numbers ----

static void *owned[4096]; // memory of the case
static int n_owned;

static inline void *host(size_t n, size_t size)
{
    void *p = calloc(n > 0 ? n : 1, size);
    assert_non_null(p);
    assert_true(n_owned < (int)(sizeof owned / sizeof *owned));
    owned[n_owned++] = p;
    return p;
}

static inline double uniform(double lo, double hi)
{
    uint32_t w[4];
    cpa_philox(5, CPA_STREAM_INIT, (const uint32_t[4]){(uint32_t)drawn++, 0, 0, 0}, w);
    return lo + (hi - lo) * (double)cpa_unit(w[0]);
}

static inline int below(int n)
{
    return (int)(uniform(0, 1) * n);
}

// The number as the backend holds it. By way of a volatile, because gcc 12 at -O3 drops a conversion to float and back
// in unrolled loops.
static inline double rounded(double x)
{
    volatile cpa_real r = (cpa_real)x;
    return (double)r;
}

// ---- matrices ----

// A matrix on the backend, and the values that were put there.
typedef struct mat {
    cpa_mat m;
    double *h; // [rows * cols]
} mat;

static const cpa_real gap = 7; // between the rows of a matrix with a leading dimension of its own

static inline mat put_values(int rows, int cols, int pad, double *h)
{
    int ld = cols + pad;
    size_t n = (size_t)rows * (size_t)ld;
    cpa_real *raw = host(n, sizeof *raw);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < ld; j++) {
            raw[(size_t)i * (size_t)ld + (size_t)j] = j < cols ? (cpa_real)h[i * cols + j] : gap;
        }
    }
    for (int i = 0; i < rows * cols; i++) {
        h[i] = rounded(h[i]);
    }
    void *dev;
    OK(cpa_op_alloc(be, n * sizeof *raw, &dev));
    OK(cpa_op_upload(be, dev, raw, n * sizeof *raw));
    return (mat){{dev, rows, cols, ld, false}, h};
}

// Uniform numbers in [lo, hi).
static inline mat put_uniform(int rows, int cols, int pad, double lo, double hi)
{
    double *h = host((size_t)rows * (size_t)cols, sizeof *h);
    for (int i = 0; i < rows * cols; i++) {
        h[i] = uniform(lo, hi);
    }
    return put_values(rows, cols, pad, h);
}

// What bfloat16 may be off by, relative to what it stands for.
static const double bf16_tolerance = 1.0 / 256;

static inline double from_bf16(uint16_t h)
{
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return (double)f;
}

// Rounded to even; x is a number.
static inline uint16_t to_bf16(double x)
{
    const float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

// Uniform numbers in [lo, hi), held in bfloat16.
static inline mat put_bf16(int rows, int cols, int pad, double lo, double hi)
{
    const int ld = cols + pad;
    const size_t n = (size_t)rows * (size_t)ld;
    uint16_t *raw = host(n, sizeof *raw);
    double *h = host((size_t)rows * (size_t)cols, sizeof *h);
    for (size_t i = 0; i < n; i++) {
        raw[i] = to_bf16((int)(i % (size_t)ld) < cols ? uniform(lo, hi) : (double)gap);
        if ((int)(i % (size_t)ld) < cols) {
            h[i / (size_t)ld * (size_t)cols + i % (size_t)ld] = from_bf16(raw[i]);
        }
    }
    void *dev;
    OK(cpa_op_alloc(be, n * sizeof *raw, &dev));
    OK(cpa_op_upload(be, dev, raw, n * sizeof *raw));
    return (mat){{dev, rows, cols, ld, true}, h};
}

// Uniform numbers in what the case stores them in at the moment; an operation's results there may be off by so much.
static inline mat put_stored(int rows, int cols, int pad, double lo, double hi)
{
    return in_bf16 ? put_bf16(rows, cols, pad, lo, hi) : put_uniform(rows, cols, pad, lo, hi);
}

static inline double stored(double tol)
{
    return in_bf16 ? tol + bf16_tolerance : tol;
}

// NaN everywhere: what an operation overwrites.
static inline mat put_nan(int rows, int cols, int pad)
{
    return put_uniform(rows, cols, pad, NAN, NAN);
}

// The values now; the gaps must be untouched.
static inline double *get(mat a)
{
    size_t ld = (size_t)a.m.ld, n = (size_t)a.m.rows * ld, size = a.m.bf16 ? sizeof(uint16_t) : sizeof(cpa_real);
    void *raw = host(n, size);
    double *h = host((size_t)a.m.rows * (size_t)a.m.cols, sizeof *h);
    OK(cpa_op_download(be, raw, a.m.data, n * size));
    for (size_t i = 0; i < n; i++) {
        const double x = a.m.bf16 ? from_bf16(((uint16_t *)raw)[i]) : (double)((cpa_real *)raw)[i];
        if ((int)(i % ld) < a.m.cols) {
            h[i / ld * (size_t)a.m.cols + i % ld] = x;
        } else {
            assert_true(x == (double)gap);
        }
    }
    for (size_t i = 0; i < n * size; i++) {
        digest = (digest ^ ((const unsigned char *)raw)[i]) * 0x100000001b3u;
    }
    return h;
}

static inline cpa_dev_int *put_ints(const int *h, int n)
{
    void *dev;
    OK(cpa_op_alloc(be, (size_t)n * sizeof *h, &dev));
    OK(cpa_op_upload(be, dev, h, (size_t)n * sizeof *h));
    return dev;
}

static inline cpa_dev_f64 *new_sums(int n)
{
    void *dev;
    OK(cpa_op_alloc(be, (size_t)n * sizeof(double), &dev));
    return dev;
}

static inline double *get_sums(const cpa_dev_f64 *dev, int n)
{
    double *h = host((size_t)n, sizeof *h);
    OK(cpa_op_download(be, h, dev, (size_t)n * sizeof *h));
    for (size_t i = 0; i < (size_t)n * sizeof *h; i++) {
        digest = (digest ^ ((const unsigned char *)h)[i]) * 0x100000001b3u;
    }
    return h;
}

static inline void drop(const void *dev)
{
    OK(cpa_op_release(be, (void *)(uintptr_t)dev));
}

#define DROP(...)                                                                                                      \
    do {                                                                                                               \
        const mat all[] = {__VA_ARGS__};                                                                               \
        for (size_t i_ = 0; i_ < sizeof all / sizeof *all; i_++) {                                                     \
            drop(all[i_].m.data);                                                                                      \
        }                                                                                                              \
    } while (0)

// ---- cells ----

typedef struct cells {
    cpa_csr x;
    int *indptr, *gene;
    double *count, *log1p, *library;
    double *dense, *dense_log1p; // [rows * cols]
} cells;

// Random counts, `density` of them stored; row 0 is empty, the last column too. Some counts are large, some 0, some genes come a second
// time with a 0, and when `fractions` some are no integers.
static inline cells put_cells(int rows, int cols, double density, bool fractions)
{
    cells c = {.indptr = host((size_t)rows + 1, sizeof(int))};
    size_t n = (size_t)rows * (size_t)cols, room = 2 * n;
    c.gene = host(room, sizeof(int));
    c.count = host(room, sizeof(double));
    c.log1p = host(room, sizeof(double));
    c.library = host((size_t)rows, sizeof(double));
    c.dense = host(n, sizeof(double));
    c.dense_log1p = host(n, sizeof(double));
    int nnz = 0;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols - 1 && i > 0; j++) {
            if (uniform(0, 1) >= density) {
                continue;
            }
            double kind = uniform(0, 1);
            double x = kind < 0.7 ? 1 + below(4) : kind < 0.9 ? 5 + below(20) : kind < 0.98 ? below(3000) : 0;
            x += fractions && kind < 0.3 ? uniform(0.1, 0.9) : 0;
            x = rounded(x);
            c.gene[nnz] = j;
            c.count[nnz] = x;
            c.log1p[nnz] = rounded(log1p(x));
            c.dense[(size_t)i * (size_t)cols + (size_t)j] = x;
            c.dense_log1p[(size_t)i * (size_t)cols + (size_t)j] = c.log1p[nnz];
            c.library[i] += x;
            nnz++;
            if (kind > 0.5 && kind < 0.55) { // what is left of a duplicate that was added up
                c.gene[nnz++] = j;
            }
        }
        c.indptr[i + 1] = nnz;
    }
    mat count = put_values(1, nnz, 0, c.count), log = put_values(1, nnz, 0, c.log1p);
    mat library = put_values(1, rows, 0, c.library);
    c.x = (cpa_csr){rows,         cols,       nnz,           put_ints(c.indptr, rows + 1), put_ints(c.gene, nnz),
                    count.m.data, log.m.data, library.m.data};
    return c;
}

static inline void drop_cells(cells c)
{
    drop(c.x.indptr);
    drop(c.x.gene);
    drop(c.x.count);
    drop(c.x.log1p);
    drop(c.x.library);
}

// ---- judging ----

// |got - want| <= tol |want| (Euclidean), and no NaN.
static inline void near(const char *what, const double *got, const double *want, int n, double tol)
{
    double norm = 0, off = 0;
    for (int i = 0; i < n; i++) {
        norm += want[i] * want[i];
        off += (got[i] - want[i]) * (got[i] - want[i]);
    }
    if (!(sqrt(off) <= tol * sqrt(norm) + 1e-300)) {
        for (int i = 0; i < n; i++) {
            if (!(fabs(got[i] - want[i]) <= tol * sqrt(norm))) {
                print_error("%s: element %d of %d is %.17g, not %.17g\n", what, i, n, got[i], want[i]);
                break;
            }
        }
        fail_msg("%s: off by %g of %g", what, sqrt(off), sqrt(norm));
    }
}

// d f / d x[i] for all i, by central differences in double; x is left as it was.
static inline double *differences(double (*f)(void *), void *arg, double *x, int n, double h)
{
    double *d = host((size_t)n, sizeof *d);
    for (int i = 0; i < n; i++) {
        double at = x[i];
        x[i] = at + h;
        double up = f(arg);
        x[i] = at - h;
        double down = f(arg);
        x[i] = at;
        d[i] = (up - down) / (2 * h);
    }
    return d;
}

// ---- running ----

typedef void (*op_case)(void);

static inline uint64_t run_on(const char *backend, int threads, op_case run)
{
    digest = 0xcbf29ce484222325u;
    drawn = 0;
    omp_set_num_threads(threads);
    on_kernels = strcmp(backend, ON_KERNELS) == 0 || strcmp(backend, ON_KERNELS_AGAIN) == 0;
    in_bf16 = false;
    OK(cpa_backend_create(backend, &be));
    run();
    for (int i = 0; i < n_owned; i++) {
        free(owned[i]);
    }
    n_owned = 0;
    OK(cpa_backend_destroy(&be));
    return digest;
}

static inline void run_case(void **state)
{
    op_case run = *(op_case *)*state;
    long balance = cpa_alloc_balance();
    uint64_t one = run_on("cpu", 1, run), two = run_on("cpu", 2, run), check = run_on("check", 2, run);
    assert_true(one == two);
    assert_true(two == check);
    uint64_t once = run_on(ON_KERNELS, 1, run), again = run_on(ON_KERNELS_AGAIN, 1, run);
    assert_true(once == again);
    assert_int_equal(cpa_alloc_balance(), balance);
}

// One line of a cmocka table.
#define OP_CASE(op) {#op, run_case, NULL, NULL, &(op_case){case_##op}},

#endif
