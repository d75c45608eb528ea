// Owns: stores of named tensors, and their files. Must never change a value that it keeps.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/platform/h5.h"
#include "golden.h"

static cpa_status push(store *s, const char *path, int rank, const int64_t *dim, tensor **out)
{
    cpa_status st = CPA_OK;
    tensor t = {.rank = rank, .n = 1};
    for (int i = 0; i < rank; i++) {
        t.dim[i] = dim[i];
        t.n *= dim[i];
    }
    CPA_TRY(cpa_realloc((size_t)s->n + 1, sizeof *s->t, &s->t));
    CPA_TRY(cpa_strdup(path, &t.path));
    CPA_TRY(cpa_alloc((size_t)t.n, sizeof *t.v, &t.v));
    s->t[s->n] = t;
    *out = &s->t[s->n++];
cleanup:
    return st;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const tensor *)a)->path, ((const tensor *)b)->path);
}

const tensor *store_find(const store *s, const char *fmt, ...)
{
    char path[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    tensor key = {.path = path};
    return s->n ? bsearch(&key, s->t, (size_t)s->n, sizeof *s->t, by_path) : NULL;
}

// Keeps the store sorted: what was added last moves to its place.
static void settle(store *s)
{
    tensor t = s->t[s->n - 1];
    int i = s->n - 1;
    for (; i > 0 && strcmp(s->t[i - 1].path, t.path) > 0; i--) {
        s->t[i] = s->t[i - 1];
    }
    s->t[i] = t;
}

cpa_status store_put_real(store *s, const char *path, int rank, const int64_t *dim, const cpa_real *v)
{
    cpa_status st = CPA_OK;
    tensor *t;
    CPA_TRY(push(s, path, rank, dim, &t));
    for (int64_t i = 0; i < t->n; i++) {
        t->v[i] = (float)v[i]; // as fixtures store it, so that equal values are equal after rounding
    }
    settle(s);
cleanup:
    return st;
}

cpa_status store_put_scalar(store *s, const char *path, double v)
{
    cpa_status st = CPA_OK;
    tensor *t;
    CPA_TRY(push(s, path, 0, NULL, &t));
    t->v[0] = v;
    settle(s);
cleanup:
    return st;
}

static cpa_status read_tensor(const cpa_h5 *f, const char *path, store *s)
{
    cpa_status st = CPA_OK;
    cpa_h5_info info;
    tensor *t;
    CPA_TRY(cpa_h5_describe(f, path, &info));
    if (info.class != CPA_H5_CLASS_INT && info.class != CPA_H5_CLASS_FLOAT) {
        return CPA_OK;
    }
    CPA_TRY(push(s, path, info.rank, info.shape, &t));
    CPA_TRY(cpa_h5_read_into(f, path, CPA_H5_F64, t->n, t->v));
    if (cpa_h5_has_attr(f, path, "module")) {
        CPA_TRY(cpa_h5_attr_string(f, path, "module", &t->module));
    }
cleanup:
    return st;
}

static cpa_status read_group(const cpa_h5 *f, const char *group, store *s)
{
    cpa_status st = CPA_OK;
    cpa_strings member = {0};
    char *path = NULL;
    CPA_TRY(cpa_h5_list(f, group, &member));
    for (int64_t i = 0; i < member.n; i++) {
        cpa_free(&path);
        CPA_TRY(cpa_sprintf(&path, "%s%s%s", group, group[0] ? "/" : "", member.s[i]));
        CPA_TRY(cpa_h5_kind_of(f, path) == CPA_H5_GROUP ? read_group(f, path, s) : read_tensor(f, path, s));
    }
cleanup:
    cpa_strings_fini(&member);
    cpa_free(&path);
    return st;
}

cpa_status store_read(const char *path, store *s)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_open(path, &f));
    CPA_TRY(read_group(f, "", s));
    if (s->n) {
        qsort(s->t, (size_t)s->n, sizeof *s->t, by_path);
    }
cleanup:
    cpa_h5_close(&f);
    return st;
}

static cpa_status write_tensor(cpa_h5 *f, const tensor *t)
{
    cpa_status st = CPA_OK;
    float *v = NULL;
    if (t->rank == 0) {
        return cpa_h5_write(f, t->path, CPA_H5_F64, 0, NULL, t->v, 0);
    }
    CPA_TRY(cpa_alloc((size_t)t->n, sizeof *v, &v));
    for (int64_t i = 0; i < t->n; i++) {
        v[i] = (float)t->v[i];
    }
    CPA_TRY(cpa_h5_write(f, t->path, CPA_H5_F32, t->rank, t->dim, v, 0));
cleanup:
    cpa_free(&v);
    return st;
}

cpa_status store_write(const char *path, const store *s)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_create(path, &f));
    for (int i = 0; i < s->n; i++) {
        CPA_TRY(write_tensor(f, &s->t[i]));
    }
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    return st;
}

void store_fini(store *s)
{
    for (int i = 0; i < s->n; i++) {
        cpa_free(&s->t[i].path);
        cpa_free(&s->t[i].module);
        cpa_free(&s->t[i].v);
    }
    cpa_free(&s->t);
    *s = (store){0};
}
