// Owns: the lists of differential genes of the categories, as lists and as bitsets over the genes. Never ranks genes itself.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "registry_impl.h"

typedef struct named_gene {
    const char *name; // borrowed
    int32_t gene;
} named_gene;

static int compare_genes(const void *x, const void *y)
{
    const named_gene *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : (a->gene > b->gene) - (a->gene < b->gene);
}

// The first gene of that name, -1 if there is none.
static int32_t find_gene(const named_gene *gene, int32_t n, const char *name)
{
    int32_t low = 0, high = n;
    while (low < high) {
        int32_t mid = low + (high - low) / 2;
        if (strcmp(gene[mid].name, name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && strcmp(gene[low].name, name) == 0 ? gene[low].gene : -1;
}

// What is known of the lists of one value of the column.
typedef struct deg_entry {
    bool read;
    cpa_gene_list list;
    uint32_t *bits; // NULL: no list
    int64_t n_unknown;
} deg_entry;

static cpa_status read_entry(const cpa_registry_build *b, const char *value, const named_gene *gene, deg_entry *e)
{
    cpa_status st;
    cpa_strings name = {0};
    int32_t n_genes = b->r->n_genes;
    e->read = true;
    CPA_TRY(cpa_h5ad_uns_list(b->f, b->r->spec.deg_uns_key, value, &name));
    if (name.n == 0) {
        goto cleanup;
    }
    CPA_TRY(cpa_alloc(((size_t)n_genes + 31) / 32, sizeof *e->bits, &e->bits));
    CPA_TRY(cpa_alloc((size_t)name.n, sizeof *e->list.gene, &e->list.gene));
    e->list.n = name.n;
    for (int64_t i = 0; i < name.n; i++) {
        int32_t g = find_gene(gene, n_genes, name.s[i]);
        e->list.gene[i] = g;
        if (g >= 0) {
            e->bits[g / 32] |= 1u << (g % 32);
        } else {
            e->n_unknown++;
        }
    }
    if (e->n_unknown == e->list.n) { // a score over no gene at all would mean nothing: as if there were no list
        cpa_free(&e->bits);
    }
cleanup:
    cpa_strings_fini(&name);
    return st;
}

// The value of the column in the first cell of every category (-1: none), and how many categories have several.
static cpa_status first_values(const cpa_registry_build *b, int32_t *value, int *n_several)
{
    cpa_status st;
    cpa_pairs pairs = {0};
    int64_t *first = NULL;
    *n_several = 0;
    CPA_TRY(cpa_alloc((size_t)b->r->n_categories, sizeof *first, &first));
    CPA_TRY(cpa_pairs_create(b->r->category_of, b->deg.code, b->r->n_cells, &pairs));
    for (int32_t k = 0; k < pairs.n; k++) { // sorted by category
        int32_t category = pairs.a[k];
        bool again = k > 0 && pairs.a[k - 1] == category;
        *n_several += again && (k < 2 || pairs.a[k - 2] != category);
        if (!again || pairs.first[k] < first[category]) {
            first[category] = pairs.first[k];
            value[category] = pairs.b[k];
        }
    }
cleanup:
    cpa_free(&first);
    cpa_pairs_fini(&pairs);
    return st;
}

static void sort_genes(const cpa_strings *name, named_gene *gene)
{
    for (int32_t g = 0; g < name->n; g++) {
        gene[g] = (named_gene){name->s[g], g};
    }
    qsort(gene, (size_t)name->n, sizeof *gene, compare_genes);
}

static cpa_status fill_lists(cpa_registry_build *b, const int32_t *value, const named_gene *gene, deg_entry *entry)
{
    cpa_status st = CPA_OK;
    cpa_registry *r = b->r;
    size_t n_words = ((size_t)r->n_genes + 31) / 32;
    for (int c = 0; c < r->n_categories; c++) {
        if (value[c] < 0) {
            continue;
        }
        deg_entry *e = &entry[value[c]];
        if (!e->read) {
            CPA_TRY(read_entry(b, b->deg.level.s[value[c]], gene, e));
        }
        if (e->bits != NULL) {
            cpa_gene_list *list = &r->deg_list[c];
            CPA_TRY(cpa_alloc((size_t)e->list.n, sizeof *list->gene, &list->gene));
            memcpy(list->gene, e->list.gene, (size_t)e->list.n * sizeof *list->gene);
            list->n = e->list.n;
            CPA_TRY(cpa_alloc(n_words, sizeof *r->deg[c], &r->deg[c]));
            memcpy(r->deg[c], e->bits, n_words * sizeof *r->deg[c]);
        }
    }
cleanup:
    return st;
}

static void say_surprises(const cpa_registry_build *b, const deg_entry *entry, int n_several)
{
    const cpa_data_spec *spec = &b->r->spec;
    int64_t n_unknown = 0, n_listed = 0;
    for (int64_t l = 0; l < b->deg.level.n; l++) {
        n_unknown += entry[l].n_unknown;
        n_listed += entry[l].list.n;
    }
    if (n_unknown > 0) {
        cpa_warn("uns/%s: %lld of %lld listed genes are not in the file; they are left out", spec->deg_uns_key,
                 (long long)n_unknown, (long long)n_listed);
    }
    if (n_several > 0) {
        cpa_warn("obs/%s: %d of %d categories have cells with different values; the first cell's list is used",
                 spec->deg_uns_cat_key, n_several, b->r->n_categories);
    }
}

cpa_status cpa_registry_deg(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    cpa_strings name = {0};
    named_gene *gene = NULL;
    deg_entry *entry = NULL;
    int32_t *value = NULL;
    int n_several;
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *r->deg, &r->deg));
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *r->deg_list, &r->deg_list));
    if (b->deg.code == NULL) {
        goto cleanup;
    }
    CPA_TRY(cpa_alloc((size_t)b->deg.level.n, sizeof *entry, &entry));
    CPA_TRY(cpa_alloc((size_t)r->n_categories, sizeof *value, &value));
    CPA_TRY(first_values(b, value, &n_several));
    CPA_TRY(cpa_h5ad_index(b->f, "var", &name));
    CPA_TRY(cpa_alloc((size_t)name.n, sizeof *gene, &gene));
    sort_genes(&name, gene);
    CPA_TRY(fill_lists(b, value, gene, entry));
    say_surprises(b, entry, n_several);
cleanup:
    for (int64_t l = 0; entry != NULL && l < b->deg.level.n; l++) {
        cpa_free(&entry[l].list.gene);
        cpa_free(&entry[l].bits);
    }
    cpa_free(&value);
    cpa_free(&entry);
    cpa_free(&gene);
    cpa_strings_fini(&name);
    return st;
}
