// Owns: the negative binomial likelihood with softmax means and its gradients where the threads of a wide block have a cell's genes in
// registers: what a thread adds up over cells stays there as well. Never zero inflation, or more genes (nb.cu).
#include "nb.h"

enum { MOST_GENES = 10, FEW_GENES = 4 }; // of a thread: t, t + CPA_WIDE, ...

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

CPA_INLINED cpa_real larger(cpa_real a, cpa_real b)
{
#ifdef CPA_DOUBLE
    return fmax(a, b);
#else
    return fmaxf(a, b);
#endif
}

CPA_INLINED void put_as(cpa_mat m, bool half, int64_t at, cpa_real x)
{
    if (half) {
        ((uint16_t *)(uintptr_t)m.data)[at] = cpa_quick_bf16(x);
    } else {
        cpa_reals(m.data)[at] = x;
    }
}

// ---- a cell ----

// What its threads have for it: `own` genes each.
typedef struct wide_genes {
    cpa_real *e, *slope; // exps; mu dl/dmu without counts
    cpa_real *dpx;       // over the block's cells, without counts
    cpa_real *dbias;     // likewise, with them
} wide_genes;

// Thread t's logits, into k.e; the largest.
CPA_INLINED cpa_real read_logits(const nb_call *c, wide_genes k, bool half, int own, int b, int t)
{
    const int n = c->cut.n_genes;
    const int64_t at = (int64_t)b * c->logits.ld;
    const cpa_mat z = cpa_as(c->logits, half);
    cpa_real largest = -INFINITY;
    CPA_UNROLL
    for (int i = 0; i < own; i++) {
        const int j = t + i * CPA_WIDE;
        k.e[i] = j < n ? cpa_get(z, at + j) + cpa_reals(c->bias.data)[j] : -INFINITY;
        largest = larger(largest, k.e[i]);
    }
    return largest;
}

// Their exps, beside the largest of the cell's, into k.e and row; the sum.
CPA_INLINED cpa_real take_exps(wide_genes k, cpa_real *row, bool half, int own, cpa_real largest, int t)
{
    cpa_real sum = 0;
    CPA_UNROLL
    for (int i = 0; i < own; i++) {
        k.e[i] = row[t + i * CPA_WIDE] = exp_below(k.e[i], largest, half);
        sum += k.e[i];
    }
    return sum;
}

// Thread t's genes with counts, from the exps in row; their loss, and in *slope their slopes, beside what they had without counts. In row
// they leave their slope, or 0 if it is; no exp is below that.
CPA_INLINED cpa_real counted_genes(const nb_call *c, cpa_real *row, cpa_real *dpx, cpa_real to_mean, int b, int t,
                                   cpa_real *slope)
{
    const int *gene = cpa_ints(c->x.gene), end = cpa_ints(c->x.indptr)[b + 1];
    cpa_real loss = 0;
    for (int i = cpa_ints(c->x.indptr)[b] + t; i < end; i += CPA_WIDE) {
        const cpa_real x = cpa_reals(c->x.count)[i];
        const int j = gene[i];
        if (x > 0) { // zeros may be stored
            const cpa_real theta = c->genes.theta[j], inverse = c->genes.inverse[j];
            const cpa_real mu = to_mean * row[j], u = mu * inverse, s = cpa_over(u, 1 + u), near = mu + CPA_NB_EPS;
            cpa_real terms, e;
            nb_count_terms(&c->genes, c->cut.n_genes, j, x, &terms, &e);
            loss -= x * (cpa_log(near) - cpa_log1p(u)) + terms;
            row[j] = -x * cpa_over(theta * s, near);
            *slope += row[j];
            // 1 - (1 - s) theta / t, in a form without cancellation
            dpx[j] += e - x * (CPA_NB_EPS * inverse + theta * inverse * s);
        }
    }
    return loss;
}

// All of thread t's genes, as if they had no counts; their loss, and in *slope their slopes.
CPA_INLINED cpa_real all_genes(const nb_call *c, wide_genes k, bool half, int own, cpa_real to_mean, int t,
                               cpa_real *slope)
{
    const int n = c->cut.n_genes;
    cpa_real loss = 0;
    CPA_UNROLL
    for (int i = 0; i < own; i++) {
        const int j = t + i * CPA_WIDE;
        const cpa_real theta = j < n ? c->genes.theta[j] : 0, inverse = j < n ? c->genes.inverse[j] : 0;
        const cpa_real u = to_mean * k.e[i] * inverse, m = theta * (u * inverse_of(1 + u));
        const cpa_real l = theta * log1p_of(u, half);
        k.slope[i] = m;
        k.dpx[i] += l - theta * inverse * m;
        loss += l;
        *slope += m;
    }
    return loss;
}

// The gradient by thread t's logits, from its slopes and what is to be taken from them for every exp.
CPA_INLINED void put_gradient(const nb_call *c, wide_genes k, bool half, int own, const cpa_real *row, cpa_real pull,
                              int b, int t)
{
    const int64_t at = (int64_t)b * c->logits.ld;
    CPA_UNROLL
    for (int i = 0; i < own; i++) {
        const int j = t + i * CPA_WIDE;
        const cpa_real left = row[j], d = k.slope[i] + (left < 0 ? left : 0) - pull * k.e[i];
        k.dbias[i] += d;
        if (j < c->cut.n_genes) {
            put_as(c->logits, half, at + j, c->scale * d);
        }
    }
}

// Ends the block: its loss, and its sums over cells.
CPA_INLINED void leave_sums(const nb_call *c, wide_genes k, int own, const cpa_real *counted, double loss, int t)
{
    const int n = c->cut.n_genes;
    cpa_real *out = c->cut.sums + cpa_block() * 2 * n;
    CPA_UNROLL
    for (int i = 0; i < own; i++) {
        const int j = t + i * CPA_WIDE;
        if (j < n) {
            out[j] = k.dpx[i] + counted[j];
            out[n + j] = k.dbias[i];
        }
    }
    if (t == 0) {
        c->cut.loss[cpa_block()] = loss;
    }
}

#define GENES_OF(t) ((wide_genes){CPA_OF(e, own, t), CPA_OF(slope, own, t), CPA_OF(dpx, own, t), CPA_OF(dbias, own, t)})

// The cells of a block. `counted`, the part of the genes with counts in the sums over cells, is shared as row is: their threads are others
// from cell to cell.
CPA_INLINED void cells_of_block(const nb_call *c, cpa_real *row, bool half, int own)
{
    enum { ROOM = CPA_WIDE / 32 };
    cpa_real *counted = row + own * CPA_WIDE;
    CPA_OWN(cpa_real, e, MOST_GENES);
    CPA_OWN(cpa_real, slope, MOST_GENES);
    CPA_OWN(cpa_real, dpx, MOST_GENES);
    CPA_OWN(cpa_real, dbias, MOST_GENES);
    CPA_OWN(cpa_real, part, 1);
    CPA_OWN(double, losses, 1);
    CPA_SHARED(double, room, 3 * ROOM);
    CPA_EACH_WIDE(t)
    {
        wide_genes k = GENES_OF(t);
        CPA_OF(losses, 1, t)[0] = 0;
        CPA_UNROLL
        for (int i = 0; i < own; i++) {
            k.dpx[i] = k.dbias[i] = counted[t + i * CPA_WIDE] = 0;
        }
    }
    for (int b = (int)cpa_block(); b < c->cut.rows; b += c->cut.blocks) {
        CPA_EACH_ON(t)
        {
            CPA_OF(part, 1, t)[0] = read_logits(c, GENES_OF(t), half, own, b, t);
        }
        const cpa_real largest = cpa_wide_max(part, room);
        CPA_EACH_ON(t)
        {
            CPA_OF(part, 1, t)[0] = take_exps(GENES_OF(t), row, half, own, largest, t);
        }
        const cpa_real inverse = inverse_of((cpa_real)cpa_wide_sum(part, room + ROOM));
        const cpa_real to_mean = cpa_reals(c->x.library)[b] * inverse;
        CPA_EACH_ON(t)
        {
            cpa_real slopes = 0;
            const cpa_real loss = counted_genes(c, row, counted, to_mean, b, t, &slopes);
            CPA_OF(losses, 1, t)[0] += (double)(loss + all_genes(c, GENES_OF(t), half, own, to_mean, t, &slopes));
            CPA_OF(part, 1, t)[0] = slopes;
        }
        const cpa_real pull = (cpa_real)cpa_wide_sum(part, room + 2 * ROOM) * inverse;
        CPA_EACH_ON(t)
        {
            put_gradient(c, GENES_OF(t), half, own, row, pull, b, t);
        }
    }
    const double loss = cpa_wide_total(losses, room);
    CPA_EACH_ON(t)
    {
        leave_sums(c, GENES_OF(t), own, counted, loss, t);
    }
}

#define WIDE_KERNEL(name, half, own)                                                                                   \
    CPA_KERNEL_WIDE name(nb_call c)                                                                                    \
    {                                                                                                                  \
        CPA_SHARED_BY_LAUNCH(cpa_real, row);                                                                           \
        cells_of_block(&c, row, half, own);                                                                            \
    }

WIDE_KERNEL(nb_loss_wide, false, MOST_GENES)
WIDE_KERNEL(nb_loss_wide_half, true, MOST_GENES)
WIDE_KERNEL(nb_loss_few, false, FEW_GENES)
WIDE_KERNEL(nb_loss_few_half, true, FEW_GENES)

#define SHARED(own) (2 * (size_t)(own)*CPA_WIDE * sizeof(cpa_real))

cpa_status cpa_cuda_nb_wide(cpa_backend *be, nb_call c)
{
    const int blocks = c.cut.blocks;
    if (c.cut.n_genes <= FEW_GENES * CPA_WIDE) {
        return c.logits.bf16 ? CPA_LAUNCH_WIDE(be, nb_loss_few_half, blocks, SHARED(FEW_GENES), c)
                             : CPA_LAUNCH_WIDE(be, nb_loss_few, blocks, SHARED(FEW_GENES), c);
    }
    return c.logits.bf16 ? CPA_LAUNCH_WIDE(be, nb_loss_wide_half, blocks, SHARED(MOST_GENES), c)
                         : CPA_LAUNCH_WIDE(be, nb_loss_wide, blocks, SHARED(MOST_GENES), c);
}
