// Owns: the counting backend: what another one would take, without taking it. Never computes, never gives out memory that exists.
#include <string.h>

#include "backend_cpu_impl.h"
#include "backend_cpu_loss_impl.h"
#include "cpa/base/mem.h"

// Where its blocks pretend to begin: far from anything that is mapped, so that who touches one falls over at once.
static const uintptr_t NOWHERE = (uintptr_t)1 << 56;

enum { DEVICE_LINE = 512 }; // what blocks of a device are rounded up to

typedef struct block {
    uintptr_t at;
    long bytes; // that count
} block;

typedef struct counting {
    cpa_backend base;
    cpa_ops ops;
    block *block; // [n] that live
    int64_t n, room;
    uintptr_t next;
    size_t scratch, dense; // the latter for cells made dense on a device
} counting;

static counting *self_of(cpa_backend *be)
{
    return (counting *)(void *)be;
}

// Notes that an operation needs so much scratch, on the cpu or on a device; it is kept from one to the next.
static void need(cpa_backend *be, size_t on_cpu, size_t on_device)
{
    counting *c = self_of(be);
    size_t bytes = c->base.memory == CPA_MEMORY_DEVICE ? on_device : on_cpu;
    if (bytes > c->scratch) {
        cpa_memory_note(c->base.memory, (long)(bytes - c->scratch));
        c->scratch = bytes;
    }
}

// Notes that cells are made dense.
static void need_dense(cpa_backend *be, cpa_csr x)
{
    counting *c = self_of(be);
    size_t bytes = cpa_device_dense_room(x.rows, x.cols, be->precision == CPA_BF16);
    if (c->base.memory == CPA_MEMORY_DEVICE && bytes > c->dense) {
        cpa_memory_note(c->base.memory, (long)(bytes - c->dense));
        c->dense = bytes;
    }
}

static cpa_status counted_alloc(cpa_backend *be, size_t bytes, void **out)
{
    cpa_status st = CPA_OK;
    counting *c = self_of(be);
    size_t on_device = (bytes + DEVICE_LINE - 1) / DEVICE_LINE * DEVICE_LINE;
    block b = {.at = c->next,
               .bytes = (long)(c->base.memory == CPA_MEMORY_DEVICE ? on_device : cpa_cpu_block_bytes(bytes))};
    if (c->n == c->room) {
        CPA_TRY(cpa_realloc(2 * (size_t)c->room + 64, sizeof *c->block, &c->block));
        c->room = 2 * c->room + 64;
    }
    c->block[c->n++] = b;
    c->next += cpa_cpu_block_bytes(bytes);
    cpa_memory_note(c->base.memory, b.bytes);
    *out = (void *)b.at;
cleanup:
    return st;
}

static cpa_status counted_release(cpa_backend *be, void *ptr)
{
    counting *c = self_of(be);
    for (int64_t i = 0; i < c->n; i++) {
        if (c->block[i].at == (uintptr_t)ptr) {
            cpa_memory_note(c->base.memory, -c->block[i].bytes);
            c->block[i] = c->block[--c->n];
            return CPA_OK;
        }
    }
    return ptr == NULL ? CPA_OK : cpa_fail(CPA_INTERNAL, "the counting backend: %p is no block", ptr);
}

static cpa_status counted_download(cpa_backend *be, void *host, const void *dev, size_t bytes)
{
    if (bytes > 0) {
        memset(host, 0, bytes);
    }
    return cpa_shape_download(be, host, dev, bytes);
}

// Every other operation: its shapes are right, and that is all.
#define CPA_OP(name, params, args)                                                                                     \
    static cpa_status passed_##name params                                                                             \
    {                                                                                                                  \
        return cpa_shape_##name args;                                                                                  \
    }
#include "cpa/platform/ops.def"
#undef CPA_OP

static const cpa_ops passed_ops = {
#define CPA_OP(name, params, args) .name = passed_##name,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

// ---- Operations whose scratch can be the largest

static cpa_status sparse_linear(cpa_backend *be, cpa_mat y, cpa_csr x, cpa_mat wt, bool use_log1p)
{
    need(be, cpa_cpu_sparse_scratch(y.rows, y.cols), 0);
    need_dense(be, x);
    return passed_sparse_linear(be, y, x, wt, use_log1p);
}

static cpa_status sparse_linear_grad(cpa_backend *be, cpa_mat dwt, cpa_csr x, cpa_mat dy, bool use_log1p)
{
    need(be, cpa_cpu_sparse_scratch(x.rows, dwt.cols), 0);
    need_dense(be, x);
    return passed_sparse_linear_grad(be, dwt, x, dy, use_log1p);
}

static cpa_status group_r2(cpa_backend *be, cpa_dev_f64 *r2, cpa_mat p, cpa_mat pv, cpa_mat t, const cpa_dev_int *order,
                           const cpa_dev_int *offsets, int n_groups, const cpa_dev_int *gene_mask, int mask_words)
{
    need(be, cpa_cpu_group_r2_scratch(p.cols, n_groups), 0);
    return passed_group_r2(be, r2, p, pv, t, order, offsets, n_groups, gene_mask, mask_words);
}

static cpa_status nb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                          cpa_mat bias, cpa_mat px_r, cpa_csr x, cpa_real scale)
{
    need(be, cpa_cpu_nb_scratch(logits.rows, logits.cols, 0), cpa_device_nb_scratch(logits.rows, logits.cols, false));
    return passed_nb_loss(be, loss_sum, logits, dpx_r, dbias, bias, px_r, x, scale);
}

static cpa_status zinb_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat logits, cpa_mat dpx_r, cpa_mat dbias,
                            cpa_mat zi, cpa_mat dzi_bias, cpa_mat bias, cpa_mat zi_bias, cpa_mat px_r, cpa_csr x,
                            cpa_real scale)
{
    need(be, cpa_cpu_nb_scratch(logits.rows, logits.cols, CPA_NB_MORE),
         cpa_device_nb_scratch(logits.rows, logits.cols, true));
    return passed_zinb_loss(be, loss_sum, logits, dpx_r, dbias, zi, dzi_bias, bias, zi_bias, px_r, x, scale);
}

static cpa_status gauss_loss(cpa_backend *be, cpa_dev_f64 *loss_sum, cpa_mat mean, cpa_mat raw, cpa_mat dmean_bias,
                             cpa_mat draw_bias, cpa_mat mean_bias, cpa_mat raw_bias, cpa_csr x, cpa_real scale)
{
    need(be, cpa_cpu_gauss_scratch(mean.rows, mean.cols), cpa_device_gauss_scratch(mean.rows, mean.cols));
    return passed_gauss_loss(be, loss_sum, mean, raw, dmean_bias, draw_bias, mean_bias, raw_bias, x, scale);
}

// ---- The object

static cpa_status destroy(cpa_backend *be)
{
    counting *c = self_of(be);
    int64_t left = c->n;
    cpa_memory_note(c->base.memory, -(long)(c->scratch + c->dense));
    cpa_memory_note(c->base.memory, c->base.memory == CPA_MEMORY_DEVICE ? -(long)CPA_CUDA_WORKSPACE : 0);
    for (int64_t i = 0; i < left; i++) {
        cpa_memory_note(c->base.memory, -c->block[i].bytes);
    }
    cpa_free(&c->block);
    cpa_free(&c);
    return left == 0 ? CPA_OK
                     : cpa_fail(CPA_INTERNAL, "the counting backend: %lld blocks were never released", (long long)left);
}

cpa_status cpa_backend_create_counting(const char *of, cpa_backend **out)
{
    cpa_status st;
    counting *c = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    c->base = (cpa_backend){
        .ops = &c->ops, .name = "counting", .isa = "none", .is_host = strcmp(of, "cpu") == 0, .destroy = destroy};
    c->base.memory = strcmp(of, "cuda") == 0 ? CPA_MEMORY_DEVICE : CPA_MEMORY_HOST;
    cpa_memory_note(c->base.memory, c->base.memory == CPA_MEMORY_DEVICE ? (long)CPA_CUDA_WORKSPACE : 0);
    c->next = NOWHERE;
    c->ops = passed_ops;
    c->ops.alloc = counted_alloc;
    c->ops.release = counted_release;
    c->ops.download = counted_download;
    c->ops.sparse_linear = sparse_linear;
    c->ops.sparse_linear_grad = sparse_linear_grad;
    c->ops.group_r2 = group_r2;
    c->ops.nb_loss = nb_loss;
    c->ops.zinb_loss = zinb_loss;
    c->ops.gauss_loss = gauss_loss;
    *out = &c->base;
cleanup:
    return st;
}

size_t cpa_backend_counted_scratch(const cpa_backend *be)
{
    const counting *c = (const counting *)(const void *)be;
    return c->scratch + c->dense;
}
