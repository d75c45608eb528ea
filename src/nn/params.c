// Owns: the parameter table and its arenas. Never interprets a tensor's name.
#include "cpa/nn/params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpa/base/rng.h"

cpa_status cpa_params_add(cpa_params *t, cpa_group group, int rows, int cols, int rank, cpa_init init, double bound,
                          int *id, const char *fmt, ...)
{
    cpa_status st = CPA_OK;
    char name[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    CPA_TRY(cpa_realloc((size_t)t->n + 1, sizeof *t->p, &t->p));
    cpa_param p = {.group = group, .rows = rows, .cols = cols, .rank = rank, .init = init, .bound = bound};
    CPA_TRY(cpa_strdup(name, &p.name));
    t->p[t->n] = p;
    *id = t->n++;
cleanup:
    return st;
}

cpa_status cpa_params_place(cpa_params *t, cpa_backend *be, bool training)
{
    cpa_status st = CPA_OK;
    t->be = be;
    int64_t at = 0;
    for (int g = 0; g < CPA_N_GROUPS; g++) {
        t->begin[g] = at;
        for (int i = 0; i < t->n; i++) {
            if (t->p[i].group == (cpa_group)g) {
                t->p[i].at = at;
                at += cpa_param_size(&t->p[i]);
            }
        }
    }
    t->begin[CPA_N_GROUPS] = at;
    t->n_value = at;
    t->n_trained = t->begin[CPA_GROUP_FROZEN];
    t->n_grad = at + (t->begin[CPA_N_GROUPS] - t->begin[CPA_GROUP_STAT_ADVERSARY]);
    CPA_TRY(cpa_op_alloc(be, (size_t)t->n_value * sizeof(cpa_real), (void **)&t->value));
    CPA_TRY(cpa_op_zero(be, t->value, (size_t)t->n_value * sizeof(cpa_real)));
    if (training) {
        CPA_TRY(cpa_op_alloc(be, (size_t)t->n_grad * sizeof(cpa_real), (void **)&t->grad));
        CPA_TRY(cpa_op_zero(be, t->grad, (size_t)t->n_grad * sizeof(cpa_real)));
        CPA_TRY(cpa_op_alloc(be, (size_t)t->n_trained * sizeof(cpa_real), (void **)&t->m));
        CPA_TRY(cpa_op_zero(be, t->m, (size_t)t->n_trained * sizeof(cpa_real)));
        CPA_TRY(cpa_op_alloc(be, (size_t)t->n_trained * sizeof(cpa_real), (void **)&t->v));
        CPA_TRY(cpa_op_zero(be, t->v, (size_t)t->n_trained * sizeof(cpa_real)));
        CPA_TRY(cpa_op_alloc(be, sizeof(double), (void **)&t->norm));
    }
cleanup:
    return st;
}

// A standard normal from two words (Box-Muller; the first is kept away from 0).
static double normal_of(uint32_t a, uint32_t b)
{
    double u = ((double)a + 0.5) * 0x1p-32, w = (double)b * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * w);
}

static cpa_real initial_value(const cpa_param *p, uint64_t seed, int id, int64_t e)
{
    if (p->init == CPA_INIT_ZERO || (p->init == CPA_INIT_NORMAL_PAD && e < (int64_t)p->bound * p->cols)) {
        return 0;
    }
    if (p->init == CPA_INIT_ONE) {
        return 1;
    }
    uint32_t ctr[4] = {(uint32_t)e, (uint32_t)(e >> 32), (uint32_t)id, 0}, w[4];
    cpa_philox(seed, CPA_STREAM_INIT, ctr, w);
    if (p->init == CPA_INIT_UNIFORM) {
        return (cpa_real)(float)((2.0 * cpa_unit(w[0]) - 1.0) * p->bound);
    }
    return (cpa_real)(float)normal_of(w[0], w[1]);
}

cpa_status cpa_params_init(cpa_params *t, uint64_t seed)
{
    cpa_status st = CPA_OK;
    cpa_real *host = NULL;
    for (int i = 0; i < t->n; i++) {
        int64_t n = cpa_param_size(&t->p[i]);
        if (t->p[i].init == CPA_INIT_GIVEN) {
            continue;
        }
        CPA_TRY(cpa_realloc((size_t)n, sizeof *host, &host));
        for (int64_t e = 0; e < n; e++) {
            host[e] = initial_value(&t->p[i], seed, i, e);
        }
        CPA_TRY(cpa_params_set(t, i, host));
    }
cleanup:
    cpa_free(&host);
    return st;
}

void cpa_params_fini(cpa_params *t)
{
    for (int i = 0; i < t->n; i++) {
        cpa_free(&t->p[i].name);
    }
    cpa_free(&t->p);
    void *memory[] = {t->value, t->grad, t->m, t->v, t->norm};
    for (int i = 0; i < 5; i++) {
        if (memory[i]) {
            cpa_op_release(t->be, memory[i]);
        }
    }
    *t = (cpa_params){0};
}

int cpa_params_find(const cpa_params *t, const char *name)
{
    for (int i = 0; i < t->n; i++) {
        if (strcmp(t->p[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

// dst [cols, rows] = transpose of src [rows, cols], by tiles that stay in cache
static void transpose(cpa_real *restrict dst, const cpa_real *restrict src, int rows, int cols)
{
    const int tile = 32;
    for (int r0 = 0; r0 < rows; r0 += tile) {
        int r1 = rows - r0 < tile ? rows : r0 + tile;
        for (int c0 = 0; c0 < cols; c0 += tile) {
            int c1 = cols - c0 < tile ? cols : c0 + tile;
            for (int r = r0; r < r1; r++) {
                for (int c = c0; c < c1; c++) {
                    dst[(int64_t)c * rows + r] = src[(int64_t)r * cols + c];
                }
            }
        }
    }
}

// From torch's layout to that of an arena, and back.
static void to_stored(const cpa_param *p, cpa_real *stored, const cpa_real *torch)
{
    if (p->transposed) {
        transpose(stored, torch, p->rows, p->cols);
    } else {
        memcpy(stored, torch, (size_t)cpa_param_size(p) * sizeof *torch);
    }
}

static void to_torch(const cpa_param *p, cpa_real *torch, const cpa_real *stored)
{
    if (p->transposed) {
        transpose(torch, stored, p->cols, p->rows);
    } else {
        memcpy(torch, stored, (size_t)cpa_param_size(p) * sizeof *torch);
    }
}

cpa_status cpa_params_set(cpa_params *t, int id, const cpa_real *torch)
{
    return cpa_params_put(t, t->value, id, torch);
}

void cpa_params_pack(const cpa_params *t, cpa_real *copy, int id, const cpa_real *torch)
{
    to_stored(&t->p[id], copy + t->p[id].at, torch);
}

void cpa_params_unpack(const cpa_params *t, const cpa_real *copy, int id, cpa_real *torch)
{
    to_torch(&t->p[id], torch, copy + t->p[id].at);
}

cpa_status cpa_params_put(const cpa_params *t, cpa_dev_real *arena, int id, const cpa_real *torch)
{
    cpa_status st = CPA_OK;
    const cpa_param *p = &t->p[id];
    cpa_real *turned = NULL;
    if (p->transposed) {
        CPA_TRY(cpa_alloc((size_t)cpa_param_size(p), sizeof *turned, &turned));
        to_stored(p, turned, torch);
    }
    CPA_TRY(cpa_op_upload(t->be, cpa_real_at(arena, p->at), turned ? turned : torch,
                          (size_t)cpa_param_size(p) * sizeof(cpa_real)));
cleanup:
    cpa_free(&turned);
    return st;
}

cpa_status cpa_params_get(const cpa_params *t, const cpa_dev_real *arena, int id, cpa_real *torch)
{
    cpa_status st = CPA_OK;
    const cpa_param *p = &t->p[id];
    cpa_real *turned = NULL;
    if (p->transposed) {
        CPA_TRY(cpa_alloc((size_t)cpa_param_size(p), sizeof *turned, &turned));
    }
    CPA_TRY(cpa_op_download(t->be, turned ? turned : torch, cpa_real_at(arena, p->at),
                            (size_t)cpa_param_size(p) * sizeof(cpa_real)));
    if (turned) {
        to_torch(p, torch, turned);
    }
cleanup:
    cpa_free(&turned);
    return st;
}

static cpa_mat view(const cpa_param *p, const cpa_dev_real *arena)
{
    const cpa_dev_real *at = cpa_real_at(arena, p->at);
    return p->transposed ? cpa_mat_of(at, p->cols, p->rows) : cpa_mat_of(at, p->rows, p->cols);
}

cpa_mat cpa_value(const cpa_params *t, int id)
{
    return view(&t->p[id], t->value);
}

cpa_mat cpa_grad(const cpa_params *t, int id)
{
    return view(&t->p[id], t->grad);
}

cpa_mat cpa_stat(const cpa_params *t, int id, bool inside_autoencoder)
{
    int64_t shift = inside_autoencoder ? t->begin[CPA_N_GROUPS] - t->begin[CPA_GROUP_STAT_ADVERSARY] : 0;
    return view(&t->p[id], cpa_real_at(t->grad, shift));
}
