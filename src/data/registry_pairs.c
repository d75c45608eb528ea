// Owns: columns as integers: used and sorted levels, distinct pairs, searches in lists of names. One pass over the cells
// each. Never knows what a column means.
#include <stdlib.h>
#include <string.h>

#include "registry_impl.h"

static int compare_strings(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

void cpa_strings_sort_unique(cpa_strings *list)
{
    if (list->n == 0) {
        return;
    }
    qsort(list->s, (size_t)list->n, sizeof *list->s, compare_strings);
    int64_t n = 1;
    for (int64_t i = 1; i < list->n; i++) {
        if (strcmp(list->s[i], list->s[n - 1]) == 0) {
            cpa_free(&list->s[i]);
        } else {
            list->s[n++] = list->s[i];
        }
    }
    list->n = n;
}

int64_t cpa_sorted_find(const cpa_strings *list, int64_t first, const char *s)
{
    int64_t low = first, high = list->n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (strcmp(list->s[mid], s) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < list->n && strcmp(list->s[low], s) == 0 ? low : -1;
}

cpa_status cpa_text_add_near(cpa_text *t, const cpa_strings *list, int64_t first, const char *s)
{
    enum { NEAR = 3 };
    int64_t best[NEAR];
    int distance[NEAR], n = 0;
    for (int64_t i = first; i < list->n; i++) {
        int d = cpa_text_distance(s, list->s[i]);
        int k = n < NEAR ? n++ : NEAR;
        for (; k > 0 && distance[k - 1] > d; k--) {
            if (k < NEAR) {
                distance[k] = distance[k - 1];
                best[k] = best[k - 1];
            }
        }
        if (k < NEAR) {
            distance[k] = d;
            best[k] = i;
        }
    }
    cpa_status st = CPA_OK;
    for (int k = 0; k < n; k++) {
        CPA_TRY(cpa_text_add(t, "%s'%s'", k > 0 ? ", " : "", list->s[best[k]]));
    }
cleanup:
    return st;
}

typedef struct level_order {
    const char *name;
    int32_t level;
} level_order;

static int compare_levels(const void *x, const void *y)
{
    return strcmp(((const level_order *)x)->name, ((const level_order *)y)->name);
}

cpa_status cpa_factor_normalise(cpa_factor *factor, int64_t *n_dropped)
{
    cpa_status st;
    int64_t n_levels = factor->level.n, n_used = 0;
    int32_t *to = NULL; // [n_levels] new code, or -1
    level_order *order = NULL;
    cpa_strings level = {0};
    CPA_TRY(cpa_alloc((size_t)n_levels, sizeof *to, &to));
    CPA_TRY(cpa_alloc((size_t)n_levels, sizeof *order, &order));
    for (int64_t i = 0; i < factor->n; i++) {
        if (factor->code[i] >= 0) {
            to[factor->code[i]] = 1;
        }
    }
    for (int64_t l = 0; l < n_levels; l++) {
        if (to[l] == 1) {
            order[n_used++] = (level_order){factor->level.s[l], (int32_t)l};
        }
    }
    qsort(order, (size_t)n_used, sizeof *order, compare_levels);
    for (int64_t k = 0; k < n_used; k++) {
        if (k == 0 || strcmp(order[k].name, order[k - 1].name) != 0) {
            CPA_TRY(cpa_strings_add(&level, order[k].name));
        }
        to[order[k].level] = (int32_t)(level.n - 1);
    }
    for (int64_t i = 0; i < factor->n; i++) {
        factor->code[i] = factor->code[i] >= 0 ? to[factor->code[i]] : -1;
    }
    *n_dropped = n_levels - n_used;
    cpa_strings_fini(&factor->level);
    factor->level = level;
    level = (cpa_strings){0};
cleanup:
    cpa_strings_fini(&level);
    cpa_free(&order);
    cpa_free(&to);
    return st;
}

// An open-addressing table from pairs to the order in which they were met.
typedef struct pair_table {
    size_t cap; // a power of two, more than twice the number of pairs
    uint64_t *key;
    int32_t *id; // -1: empty
} pair_table;

static size_t slot_of(const pair_table *t, uint64_t key)
{
    size_t at = (size_t)((key ^ key >> 29) * 0x9E3779B97F4A7C15u >> 20) & (t->cap - 1);
    while (t->id[at] >= 0 && t->key[at] != key) {
        at = (at + 1) & (t->cap - 1);
    }
    return at;
}

static cpa_status table_alloc(pair_table *t, size_t cap)
{
    cpa_status st;
    t->cap = cap;
    CPA_TRY(cpa_alloc(cap, sizeof *t->key, &t->key));
    CPA_TRY(cpa_alloc(cap, sizeof *t->id, &t->id));
    memset(t->id, 0xff, cap * sizeof *t->id);
cleanup:
    return st;
}

static void table_fini(pair_table *t)
{
    cpa_free(&t->key);
    cpa_free(&t->id);
}

static cpa_status table_grow(pair_table *t)
{
    cpa_status st;
    pair_table bigger = {0};
    CPA_TRY(table_alloc(&bigger, 2 * t->cap));
    for (size_t i = 0; i < t->cap; i++) {
        if (t->id[i] >= 0) {
            size_t at = slot_of(&bigger, t->key[i]);
            bigger.key[at] = t->key[i];
            bigger.id[at] = t->id[i];
        }
    }
    table_fini(t);
    *t = bigger;
    bigger = (pair_table){0};
cleanup:
    table_fini(&bigger);
    return st;
}

typedef struct met_pair {
    uint64_t key;
    int32_t id;
} met_pair;

static int compare_pairs(const void *x, const void *y)
{
    uint64_t a = ((const met_pair *)x)->key, b = ((const met_pair *)y)->key;
    return (a > b) - (a < b);
}

// Numbers the pairs in the order in which cells meet them: of[i], and the table.
static cpa_status meet_pairs(const int32_t *a, const int32_t *b, int64_t n, pair_table *t, int32_t *of, int32_t *n_met)
{
    cpa_status st;
    int32_t met = 0;
    CPA_TRY(table_alloc(t, 1024));
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = (uint64_t)(uint32_t)a[i] << 32 | (b != NULL ? (uint32_t)b[i] : 0);
        size_t at = slot_of(t, key);
        if (t->id[at] < 0) {
            t->key[at] = key;
            t->id[at] = met++;
            of[i] = met - 1;
            if (2 * (size_t)met >= t->cap) {
                CPA_TRY(table_grow(t));
            }
        } else {
            of[i] = t->id[at];
        }
    }
    *n_met = met;
cleanup:
    return st;
}

cpa_status cpa_pairs_create(const int32_t *a, const int32_t *b, int64_t n, cpa_pairs *out)
{
    cpa_status st;
    pair_table t = {0};
    met_pair *met = NULL;
    int32_t *rank = NULL;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *out->of, &out->of));
    CPA_TRY(meet_pairs(a, b, n, &t, out->of, &out->n));
    size_t n_pairs = (size_t)out->n;
    CPA_TRY(cpa_alloc(n_pairs, sizeof *met, &met));
    CPA_TRY(cpa_alloc(n_pairs, sizeof *rank, &rank));
    CPA_TRY(cpa_alloc(n_pairs, sizeof *out->a, &out->a));
    CPA_TRY(cpa_alloc(n_pairs, sizeof *out->b, &out->b));
    CPA_TRY(cpa_alloc(n_pairs, sizeof *out->count, &out->count));
    CPA_TRY(cpa_alloc(n_pairs, sizeof *out->first, &out->first));
    for (size_t i = 0; i < t.cap; i++) {
        if (t.id[i] >= 0) {
            met[t.id[i]] = (met_pair){t.key[i], t.id[i]};
        }
    }
    qsort(met, n_pairs, sizeof *met, compare_pairs);
    for (int32_t k = 0; k < out->n; k++) {
        rank[met[k].id] = k;
        out->a[k] = (int32_t)(met[k].key >> 32);
        out->b[k] = (int32_t)(uint32_t)met[k].key;
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        int32_t k = rank[out->of[i]];
        out->of[i] = k;
        out->count[k]++;
        out->first[k] = i;
    }
cleanup:
    cpa_free(&rank);
    cpa_free(&met);
    table_fini(&t);
    if (st != CPA_OK) {
        cpa_pairs_fini(out);
    }
    return st;
}

void cpa_pairs_fini(cpa_pairs *p)
{
    cpa_free(&p->a);
    cpa_free(&p->b);
    cpa_free(&p->count);
    cpa_free(&p->first);
    cpa_free(&p->of);
    p->n = 0;
}
