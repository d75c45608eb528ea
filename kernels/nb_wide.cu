// Owns: the negative binomial likelihood with softmax means and its gradients where the threads of a wide block have a cell's genes in
// registers: what a thread adds up over cells stays there as well. Never zero inflation, or more genes (nb.cu).
#include "nb.h"

enum { MOST_GENES = 10 }; // of a thread

// What the compiler knows of a kernel: how logits are stored; whether thread t has genes t, t + CPA_WIDE, ... (`at_once` is 1), or two
// neighbours at 2 t, at 2 t + 2 CPA_WIDE, ... each (2), which it then reads and writes at once; and how many it has, of which only the last
// `at_once` may not be there.
typedef struct wide_kind {
    bool half;
    int at_once, own;
} wide_kind;

bool cpa_cuda_nb_is_wide(int n_genes)
{
    return n_genes <= MOST_GENES * CPA_WIDE;
}

// ---- functions that cost a device little ----

#ifdef CPA_DOUBLE

CPA_INLINED cpa_real exp_below(cpa_real z, cpa_real largest, bool half)
{
    (void)half;
    return cpa_exp(z - largest);
}

CPA_INLINED cpa_real inverse_of(cpa_real w)
{
    return 1 / w;
}

CPA_INLINED cpa_real log1p_of(cpa_real u, bool half)
{
    (void)half;
    return cpa_log1p(u);
}

#else

// exp(z - largest) for z <= largest, to 4 units in the last place; where logits are bfloat16, times the same 1 +- 1e-6 for a whole cell.
CPA_INLINED float exp_below(float z, float largest, bool half)
{
    const float log2_e = 1.44269504f, log2_e_ln2_low = 1.33717e-8f, ln2 = 0.693147181f;
    if (half) {
        return cpa_quick_exp2(fmaf(z, log2_e, -largest * log2_e));
    }
    const float x = z - largest, c = x < -100 ? -100 : x;
    // The product with log2(e), and what it is off by.
    const float y = c * log2_e, low = fmaf(c, log2_e, -y), e = cpa_quick_exp2(y);
    return fmaf(e, fmaf(low, ln2, c * log2_e_ln2_low), e);
}

CPA_INLINED float inverse_of(float w)
{
    return cpa_quick_inverse(w);
}

// log(1 + u) for u >= 0, to 4 units in the last place up to u = 1, then 2^-22; where logits are bfloat16, to 1e-6. By a polynomial (at
// Chebyshev's nodes) where the device's logarithm is too coarse.
CPA_INLINED float log1p_of(float u, bool half)
{
    const float far = cpa_quick_log2(1 + u) * 0.693147181f;
    float p;
    if (half) { // up to 1/4
        p = -0.0921675637f;
        p = fmaf(p, u, 0.181595549f);
        p = fmaf(p, u, -0.247756153f);
        p = fmaf(p, u, 0.333205998f);
        p = fmaf(p, u, -0.499997318f);
    } else {
        p = -0.00317605701f;
        p = fmaf(p, u, 0.0195425265f);
        p = fmaf(p, u, -0.0563736111f);
        p = fmaf(p, u, 0.105436236f);
        p = fmaf(p, u, -0.152696669f);
        p = fmaf(p, u, 0.196632743f);
        p = fmaf(p, u, -0.249516159f);
        p = fmaf(p, u, 0.333297104f);
        p = fmaf(p, u, -0.499998927f);
    }
    return u < (half ? 0.25f : 1.0f) ? fmaf(p * u, u, u) : far;
}

#endif

// log(x), of normal x > 0.
CPA_INLINED cpa_real log_of(cpa_real x, bool half)
{
#ifndef CPA_DOUBLE
    if (half) {
        return cpa_quick_log2(x) * 0.693147181f;
    }
#endif
    (void)half;
    return cpa_log(x);
}

// ---- one element, or two that lie side by side ----

typedef struct __attribute__((aligned(2 * sizeof(cpa_real)))) real_pair {
    cpa_real of[2];
} real_pair;

CPA_INLINED void get_reals(cpa_real *x, const cpa_real *from, int at_once)
{
    if (at_once == 2) {
        const real_pair pair = *(const real_pair *)(const void *)from;
        x[0] = pair.of[0];
        x[1] = pair.of[1];
    } else {
        x[0] = from[0];
    }
}

CPA_INLINED void put_reals(cpa_real *to, const cpa_real *x, int at_once)
{
    if (at_once == 2) {
        const real_pair pair = {{x[0], x[1]}};
        *(real_pair *)(void *)to = pair;
    } else {
        to[0] = x[0];
    }
}

CPA_INLINED void get_logits(cpa_real *x, cpa_mat z, wide_kind kind, int64_t at)
{
    if (!kind.half) {
        get_reals(x, cpa_reals(z.data) + at, kind.at_once);
    } else if (kind.at_once == 2) {
        const uint32_t pair = *(const uint32_t *)(const void *)((const uint16_t *)(uintptr_t)z.data + at);
        x[0] = cpa_from_bf16((uint16_t)(pair & 0xFFFF));
        x[1] = cpa_from_bf16((uint16_t)(pair >> 16));
    } else {
        x[0] = cpa_from_bf16(((const uint16_t *)(uintptr_t)z.data)[at]);
    }
}

CPA_INLINED void put_logits(cpa_mat z, wide_kind kind, int64_t at, const cpa_real *x)
{
    uint16_t *halves = (uint16_t *)(uintptr_t)z.data + at;
    if (!kind.half) {
        put_reals(cpa_reals(z.data) + at, x, kind.at_once);
    } else if (kind.at_once == 2) {
        *(uint32_t *)(void *)halves = cpa_quick_bf16s(x[0], x[1]);
    } else {
        halves[0] = (uint16_t)cpa_quick_bf16s(x[0], 0);
    }
}

// ---- a cell ----

// What its threads have for it, each for its genes.
typedef struct wide_genes {
    cpa_real *e, *slope; // exps; mu dl/dmu without counts
    cpa_real *dpx;       // over the block's cells, without counts
} wide_genes;

// What they share, [own * CPA_WIDE] each: exps, of which the slopes of counts take the place, no exp being below 0; and sums over the
// block's cells.
typedef struct wide_shared {
    cpa_real *row;
    cpa_real *dpx, *dbias; // of counts alone: their threads are others from cell to cell; of all
} wide_shared;

// The gene of thread t that k.e[i] is about, for i a multiple of at_once.
CPA_INLINED int gene_at(wide_kind kind, int i, int t)
{
    return i * CPA_WIDE + t * kind.at_once;
}

// What thread t reads of a cell before there is time to wait for it: its first count (0 if none) and gene, where its others are, and the
// cell's library.
typedef struct wide_cell {
    cpa_real count, library;
    int gene, next, end;
} wide_cell;

CPA_INLINED wide_cell read_cell(const nb_call *c, int b, int t)
{
    const int at = cpa_ints(c->x.indptr)[b] + t;
    wide_cell cell = {0, cpa_reals(c->x.library)[b], 0, at + CPA_WIDE, cpa_ints(c->x.indptr)[b + 1]};
    if (at < cell.end) {
        cell.count = cpa_reals(c->x.count)[at];
        cell.gene = cpa_ints(c->x.gene)[at];
    }
    return cell;
}

CPA_INLINED bool is_there(const nb_call *c, wide_kind kind, int i, int t)
{
    return i < kind.own - kind.at_once || gene_at(kind, i, t) < c->cut.n_genes;
}

// Has the logits of cell b under way, thread t some of them.
CPA_INLINED void expect_logits(const nb_call *c, wide_kind kind, int b, int t)
{
    enum { LINE = 128 }; // bytes
    const int64_t each = kind.half ? (int64_t)sizeof(uint16_t) : (int64_t)sizeof(cpa_real);
    const char *row = (const char *)(uintptr_t)c->logits.data + (int64_t)b * c->logits.ld * each;
    if (b < c->cut.rows && t * LINE < c->cut.n_genes * each) {
        cpa_expect(row + t * LINE);
    }
}

// Thread t's logits, into k.e; the largest.
CPA_INLINED cpa_real read_logits(const nb_call *c, wide_kind kind, wide_genes k, int b, int t)
{
    const int64_t at = (int64_t)b * c->logits.ld + gene_at(kind, 0, t);
    const cpa_real *biases = c->genes.bias + gene_at(kind, 0, t);
    cpa_real largest = -INFINITY;
    CPA_UNROLL
    for (int i = 0; i < kind.own; i += kind.at_once) {
        cpa_real z[2] = {-INFINITY, -INFINITY}, bias[2] = {0, 0};
        if (is_there(c, kind, i, t)) {
            get_logits(z, c->logits, kind, at + i * CPA_WIDE);
            get_reals(bias, biases + i * CPA_WIDE, kind.at_once);
        }
        CPA_UNROLL
        for (int s = 0; s < kind.at_once; s++) {
            k.e[i + s] = z[s] + bias[s];
            largest = cpa_wide_larger(largest, k.e[i + s]);
        }
    }
    return largest;
}

// Their exps, beside the largest of the cell's, into k.e and row; the sum.
CPA_INLINED cpa_real take_exps(wide_kind kind, wide_genes k, cpa_real *row, cpa_real largest, int t)
{
    cpa_real sum = 0;
    CPA_UNROLL
    for (int i = 0; i < kind.own; i += kind.at_once) {
        CPA_UNROLL
        for (int s = 0; s < kind.at_once; s++) {
            k.e[i + s] = exp_below(k.e[i + s], largest, kind.half);
            sum += k.e[i + s];
        }
        put_reals(row + gene_at(kind, i, t), k.e + i, kind.at_once);
    }
    return sum;
}

// A count x > 0 of gene j: its loss and slope, beside what the gene has without it; the latter takes the place of the exp.
CPA_INLINED cpa_real count_of(const nb_call *c, bool half, wide_shared v, cpa_real to_mean, int j, cpa_real x)
{
    const cpa_real theta = c->genes.theta[j], inverse = c->genes.inverse[j];
    const cpa_real mu = to_mean * v.row[j], u = mu * inverse, near = mu + CPA_NB_EPS, by = inverse_of(1 + u),
                   s = u * by;
    cpa_real terms, e;
    nb_count_terms(&c->genes, c->cut.n_genes, j, x, &terms, &e);
    v.row[j] = -x * (theta * s * inverse_of(near));
    // 1 - (1 - s) theta / t, in a form without cancellation
    v.dpx[j] += e - x * (CPA_NB_EPS * inverse + theta * inverse * s);
    return -(x * log_of(near * by, half) + terms);
}

// A thread's counts of a cell: their loss, and in *slopes their slopes.
CPA_INLINED cpa_real counts_of(const nb_call *c, bool half, wide_shared v, cpa_real to_mean, wide_cell cell,
                               cpa_real *slopes)
{
    cpa_real x = cell.count, loss = 0;
    int j = cell.gene;
    CPA_NO_UNROLL
    for (int next = cell.next;; next += CPA_WIDE) {
        if (x > 0) { // zeros may be stored
            loss += count_of(c, half, v, to_mean, j, x);
            *slopes += v.row[j];
        }
        if (next >= cell.end) {
            return loss;
        }
        x = cpa_reals(c->x.count)[next];
        j = cpa_ints(c->x.gene)[next];
    }
}

// All of thread t's genes, as if they had no counts: their loss, and in *slopes their slopes.
CPA_INLINED cpa_real without_counts(const nb_call *c, wide_kind kind, wide_genes k, cpa_real to_mean, int t,
                                    cpa_real *slopes)
{
    const cpa_real *thetas = c->genes.theta + gene_at(kind, 0, t), *inverses = c->genes.inverse + gene_at(kind, 0, t);
    cpa_real loss = 0;
    CPA_UNROLL
    for (int i = 0; i < kind.own; i += kind.at_once) {
        cpa_real theta[2] = {0, 0}, inverse[2] = {0, 0};
        if (is_there(c, kind, i, t)) {
            get_reals(theta, thetas + i * CPA_WIDE, kind.at_once);
            get_reals(inverse, inverses + i * CPA_WIDE, kind.at_once);
        }
        CPA_UNROLL
        for (int s = 0; s < kind.at_once; s++) {
            const cpa_real u = to_mean * k.e[i + s] * inverse[s], m = theta[s] * (u * inverse_of(1 + u));
            const cpa_real l = theta[s] * log1p_of(u, kind.half);
            k.slope[i + s] = m;
            k.dpx[i + s] += l - theta[s] * inverse[s] * m;
            loss += l;
            *slopes += m;
        }
    }
    return loss;
}

// The gradient by thread t's logits, from its slopes and what is to be taken from them for every exp.
CPA_INLINED void put_gradient(const nb_call *c, wide_kind kind, wide_genes k, wide_shared v, cpa_real pull, int b,
                              int t)
{
    const int64_t at = (int64_t)b * c->logits.ld + gene_at(kind, 0, t);
    CPA_UNROLL
    for (int i = 0; i < kind.own; i += kind.at_once) {
        const int j = gene_at(kind, i, t);
        cpa_real left[2], dbias[2], d[2];
        get_reals(left, v.row + j, kind.at_once);
        get_reals(dbias, v.dbias + j, kind.at_once);
        CPA_UNROLL
        for (int s = 0; s < kind.at_once; s++) {
            d[s] = k.slope[i + s] + (left[s] < 0 ? left[s] : 0) - pull * k.e[i + s];
            dbias[s] += d[s];
            d[s] *= c->scale;
        }
        put_reals(v.dbias + j, dbias, kind.at_once);
        if (is_there(c, kind, i, t)) {
            put_logits(c->logits, kind, at + i * CPA_WIDE, d);
        }
    }
}

// Ends the block: its loss, and its sums over cells.
CPA_INLINED void leave_sums(const nb_call *c, wide_kind kind, wide_genes k, wide_shared v, double loss, int t)
{
    const int n = c->cut.n_genes;
    cpa_real *out = c->cut.sums + cpa_block() * 2 * n;
    CPA_UNROLL
    for (int i = 0; i < kind.own; i += kind.at_once) {
        CPA_UNROLL
        for (int s = 0; s < kind.at_once; s++) {
            const int j = gene_at(kind, i, t) + s;
            if (is_there(c, kind, i, t)) {
                out[j] = k.dpx[i + s] + v.dpx[j];
                out[n + j] = v.dbias[j];
            }
        }
    }
    if (t == 0) {
        c->cut.loss[cpa_block()] = loss;
    }
}

#define GENES_OF(t) ((wide_genes){CPA_OF(e, MOST_GENES, t), CPA_OF(slope, MOST_GENES, t), CPA_OF(dpx, MOST_GENES, t)})

// The cells of a block.
CPA_INLINED void cells_of_block(const nb_call *c, wide_kind kind, cpa_real *shared)
{
    enum { ROOM = CPA_WIDE / 32 };
    const int n = kind.own * CPA_WIDE;
    const wide_shared v = {shared, shared + n, shared + 2 * n};
    CPA_OWN(cpa_real, e, MOST_GENES);
    CPA_OWN(cpa_real, slope, MOST_GENES);
    CPA_OWN(cpa_real, dpx, MOST_GENES);
    CPA_OWN(cpa_real, part, 1);
    CPA_OWN(wide_cell, cell, 1);
    CPA_OWN(double, losses, 1);
    CPA_SHARED(double, room, 3 * ROOM);
    CPA_EACH_WIDE(t)
    {
        wide_genes k = GENES_OF(t);
        CPA_OF(losses, 1, t)[0] = 0;
        CPA_UNROLL
        for (int i = 0; i < kind.own; i++) {
            k.dpx[i] = v.dpx[t + i * CPA_WIDE] = v.dbias[t + i * CPA_WIDE] = 0; // before all have come by
        }
    }
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        CPA_EACH_ON(t)
        {
            CPA_OF(cell, 1, t)[0] = read_cell(c, b, t);
            CPA_OF(part, 1, t)[0] = read_logits(c, kind, GENES_OF(t), b, t);
        }
        const cpa_real largest = cpa_wide_max(part, room);
        CPA_EACH_ON(t)
        {
            CPA_OF(part, 1, t)[0] = take_exps(kind, GENES_OF(t), v.row, largest, t);
        }
        const cpa_real inverse = inverse_of((cpa_real)cpa_wide_sum(part, room + ROOM));
        CPA_EACH_ON(t)
        {
            const cpa_real to_mean = CPA_OF(cell, 1, t)[0].library * inverse;
            cpa_real slopes = 0;
            expect_logits(c, kind, b + c->cut.blocks, t);
            cpa_real loss = counts_of(c, kind.half, v, to_mean, CPA_OF(cell, 1, t)[0], &slopes);
            loss += without_counts(c, kind, GENES_OF(t), to_mean, t, &slopes);
            CPA_OF(losses, 1, t)[0] += (double)loss;
            CPA_OF(part, 1, t)[0] = slopes;
        }
        const cpa_real pull = (cpa_real)cpa_wide_sum(part, room + 2 * ROOM) * inverse;
        CPA_EACH_ON(t)
        {
            put_gradient(c, kind, GENES_OF(t), v, pull, b, t);
        }
    }
    const double loss = cpa_wide_total(losses, room);
    CPA_EACH_ON(t)
    {
        leave_sums(c, kind, GENES_OF(t), v, loss, t);
    }
}

// ---- kernels, for every number of a thread's genes ----

#define WIDE_KERNEL(name, half, at_once, own)                                                                          \
    CPA_KERNEL_WIDE name(nb_call c)                                                                                    \
    {                                                                                                                  \
        const wide_kind kind = {half, at_once, own};                                                                   \
        CPA_SHARED_BY_LAUNCH(cpa_real, shared);                                                                        \
        cells_of_block(&c, kind, shared);                                                                              \
    }

#define WIDE_KERNELS(at_once, own)                                                                                     \
    WIDE_KERNEL(nb_loss_##at_once##_##own, false, at_once, own)                                                        \
    WIDE_KERNEL(nb_loss_half_##at_once##_##own, true, at_once, own)                                                    \
    static cpa_status launch_##at_once##_##own(cpa_backend *be, nb_call c)                                             \
    {                                                                                                                  \
        const size_t shared = (size_t)3 * own * CPA_WIDE * sizeof(cpa_real);                                           \
        return c.logits.bf16 ? CPA_LAUNCH_WIDE(be, nb_loss_half_##at_once##_##own, c.cut.blocks, shared, c)            \
                             : CPA_LAUNCH_WIDE(be, nb_loss_##at_once##_##own, c.cut.blocks, shared, c);                \
    }

WIDE_KERNELS(1, 1)
WIDE_KERNELS(1, 2)
WIDE_KERNELS(1, 3)
WIDE_KERNELS(1, 4)
WIDE_KERNELS(1, 5)
WIDE_KERNELS(1, 6)
WIDE_KERNELS(1, 7)
WIDE_KERNELS(1, 8)
WIDE_KERNELS(1, 9)
WIDE_KERNELS(1, 10)
WIDE_KERNELS(2, 2)
WIDE_KERNELS(2, 4)
WIDE_KERNELS(2, 6)
WIDE_KERNELS(2, 8)
WIDE_KERNELS(2, 10)

// Whether neighbours may be read at once: no row of the logits, and no table of genes, begins in the middle of two.
static bool in_pairs(const nb_call *c)
{
    const uintptr_t two_logits = c->logits.bf16 ? 2 * sizeof(uint16_t) : 2 * sizeof(cpa_real);
    return c->cut.n_genes % 2 == 0 && c->logits.ld % 2 == 0 && (uintptr_t)c->logits.data % two_logits == 0 &&
           (uintptr_t)c->genes.theta % sizeof(real_pair) == 0;
}

cpa_status cpa_cuda_nb_wide(cpa_backend *be, nb_call c)
{
    static cpa_status (*const single[])(cpa_backend *, nb_call) = {
        launch_1_1, launch_1_2, launch_1_3, launch_1_4, launch_1_5,
        launch_1_6, launch_1_7, launch_1_8, launch_1_9, launch_1_10,
    };
    static cpa_status (*const paired[])(cpa_backend *, nb_call) = {
        launch_2_2, launch_2_4, launch_2_6, launch_2_8, launch_2_10,
    };
    const int last = (c.cut.n_genes - 1) / CPA_WIDE;
    return in_pairs(&c) ? paired[last / 2](be, c) : single[last](be, c);
}
