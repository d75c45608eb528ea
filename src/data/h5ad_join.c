// Owns: which genes several files have in common, and where each file keeps them. Must never guess at a name: genes are the same
// where their names are.
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "h5ad_impl.h"

// What bringing the genes together takes.
typedef struct joining {
    cpa_h5ad *f;
    cpa_strings stored, wanted;   // the first file's genes: all; those that it has selected
    bool *is_kept;                // [wanted] all files so far have it
    bool *is_alike;               // [files] its genes are the first file's, in the same order
    int64_t n_kept, fewest, most; // kept; genes of the smallest and of the largest file
} joining;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Keeps of the wanted genes those that a file has.
static cpa_status look_at_file(joining *j, int k)
{
    cpa_status st;
    cpa_part *p;
    cpa_strings gene = {0};
    CPA_TRY(cpa_h5ad_part(j->f, k, &p));
    CPA_TRY(cpa_part_index(p, "var", &gene));
    j->fewest = gene.n < j->fewest ? gene.n : j->fewest;
    j->most = gene.n > j->most ? gene.n : j->most;
    j->is_alike[k] = cpa_strings_equal(&gene, &j->stored);
    if (!j->is_alike[k]) {
        qsort(gene.s, (size_t)gene.n, sizeof *gene.s, by_text);
        for (int64_t g = 0; g < j->wanted.n; g++) {
            bool there = bsearch(&j->wanted.s[g], gene.s, (size_t)gene.n, sizeof *gene.s, by_text) != NULL;
            j->n_kept -= j->is_kept[g] && !there;
            j->is_kept[g] = j->is_kept[g] && there;
        }
    }
cleanup:
    cpa_strings_fini(&gene);
    return st;
}

static cpa_status begin(joining *j)
{
    cpa_status st;
    cpa_part *first;
    CPA_TRY(cpa_h5ad_part(j->f, 0, &first));
    cpa_part whole = *first; // as if nothing was selected; borrows what it holds
    whole.genes = NULL;
    CPA_TRY(cpa_part_index(&whole, "var", &j->stored));
    CPA_TRY(cpa_part_index(first, "var", &j->wanted));
    CPA_TRY(cpa_alloc((size_t)j->wanted.n, sizeof *j->is_kept, &j->is_kept));
    CPA_TRY(cpa_alloc((size_t)j->f->n_parts, sizeof *j->is_alike, &j->is_alike));
    memset(j->is_kept, true, (size_t)j->wanted.n * sizeof *j->is_kept);
    j->n_kept = j->fewest = j->most = j->wanted.n;
cleanup:
    return st;
}

// Leaves of the wanted genes those that are kept, in the first file, too.
static cpa_status narrow(joining *j)
{
    cpa_status st = CPA_OK;
    cpa_part *first = &j->f->part[0];
    cpa_strings kept = {0};
    int32_t *chosen = NULL;
    CPA_TRY(cpa_alloc((size_t)j->n_kept, sizeof *chosen, &chosen));
    for (int64_t g = 0; g < j->wanted.n; g++) {
        if (j->is_kept[g]) {
            chosen[kept.n] = first->genes != NULL ? first->genes->chosen[g] : (int32_t)g;
            CPA_TRY(cpa_strings_add(&kept, j->wanted.s[g]));
        }
    }
    CPA_TRY(cpa_part_choose(first, &chosen, kept.n, first->path));
    cpa_strings_fini(&j->wanted);
    j->wanted = kept;
    kept = (cpa_strings){0};
cleanup:
    cpa_free(&chosen);
    cpa_strings_fini(&kept);
    return st;
}

// The other files' selections.
static cpa_status select_in_others(joining *j)
{
    cpa_status st = CPA_OK;
    cpa_h5ad *f = j->f;
    cpa_part *p;
    for (int k = 1; k < f->n_parts; k++) {
        if (j->is_alike[k]) {
            cpa_part_select_as(&f->part[k], &f->part[0]);
            continue;
        }
        CPA_TRY(cpa_h5ad_part(f, k, &p));
        CPA_TRY(cpa_part_select_names(p, &j->wanted, f->part[0].path));
        cpa_h5ad_share_genes(f, k);
    }
cleanup:
    return st;
}

static void say(const joining *j, int64_t n_wanted)
{
    const cpa_h5ad *f = j->f;
    if (j->n_kept < n_wanted || j->n_kept < j->fewest || j->most > j->fewest) {
        cpa_info("%s: %d files with %lld cells; of their genes (%lld to %lld) %lld are used, which all of them have",
                 f->path, f->n_parts, (long long)f->n_cells, (long long)j->fewest, (long long)j->most,
                 (long long)j->n_kept);
    } else {
        cpa_info("%s: %d files with %lld cells and the same %lld genes", f->path, f->n_parts, (long long)f->n_cells,
                 (long long)j->n_kept);
    }
}

cpa_status cpa_h5ad_join_genes(cpa_h5ad *f, bool all)
{
    cpa_status st = CPA_OK;
    joining j = {.f = f};
    if (f->n_parts == 1) {
        goto cleanup;
    }
    CPA_TRY(begin(&j));
    for (int k = 1; k < f->n_parts; k++) {
        CPA_TRY(look_at_file(&j, k));
    }
    int64_t n_wanted = j.wanted.n, least = j.fewest;
    CPA_REQUIRE(
        all || (j.n_kept > 0 && 2 * j.n_kept >= least), CPA_BAD_DATA,
        "%s: its files have %lld genes in common, fewer than half of the %lld of the smallest one; do they name genes "
        "in the same way (var)?",
        f->path, (long long)j.n_kept, (long long)least);
    if (!all && j.n_kept < n_wanted) {
        CPA_TRY(narrow(&j));
    }
    CPA_TRY(select_in_others(&j));
    say(&j, n_wanted);
cleanup:
    f->n_genes = f->part[0].n_genes;
    cpa_strings_fini(&j.stored);
    cpa_strings_fini(&j.wanted);
    cpa_free(&j.is_kept);
    cpa_free(&j.is_alike);
    return st;
}

void cpa_h5ad_share_genes(cpa_h5ad *f, int k)
{
    cpa_part *p = &f->part[k];
    for (int i = 0; i < k; i++) {
        const cpa_part *q = &f->part[i];
        if (q->genes != NULL && q->genes != p->genes && q->n_stored == p->n_stored && q->n_genes == p->n_genes &&
            memcmp(q->genes->place, p->genes->place, (size_t)p->n_stored * sizeof *p->genes->place) == 0) {
            cpa_part_select_as(p, q);
            return;
        }
    }
}
