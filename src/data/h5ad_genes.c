// Owns: which genes of the counts are read: by a column, by a list in a file, by names. Must never guess at a name.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "h5ad_impl.h"

typedef struct named_gene {
    const char *name;
    int32_t at;
} named_gene;

static int by_name(const void *a, const void *b)
{
    const named_gene *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->at < y->at ? -1 : x->at > y->at;
}

static int is_name(const void *key, const void *gene)
{
    return strcmp(key, ((const named_gene *)gene)->name);
}

void cpa_part_choose_all(cpa_part *f)
{
    if (f->genes != NULL && --f->genes->n_users == 0) {
        cpa_free(&f->genes->chosen);
        cpa_free(&f->genes->place);
        cpa_free(&f->genes);
    }
    f->genes = NULL;
    f->n_genes = f->n_stored;
}

cpa_status cpa_part_choose(cpa_part *f, int32_t **chosen, int64_t n, const char *whose)
{
    cpa_status st;
    cpa_part_choose_all(f);
    CPA_TRY(cpa_alloc(1, sizeof *f->genes, &f->genes));
    cpa_gene_map *map = f->genes;
    map->n_users = 1;
    CPA_TRY(cpa_alloc((size_t)f->n_stored, sizeof *map->place, &map->place));
    for (int64_t g = 0; g < f->n_stored; g++) {
        map->place[g] = -1;
    }
    for (int64_t k = 0; k < n; k++) {
        CPA_REQUIRE(map->place[(*chosen)[k]] < 0, CPA_BAD_DATA, "%s: names a gene twice (gene %d of %s); name it once",
                    whose, (*chosen)[k], f->path);
        map->place[(*chosen)[k]] = (int32_t)k;
    }
    map->chosen = *chosen;
    map->n_genes = f->n_genes = n;
    *chosen = NULL;
cleanup:
    if (st != CPA_OK) {
        cpa_part_choose_all(f);
    }
    return st;
}

void cpa_part_select_as(cpa_part *f, const cpa_part *other)
{
    cpa_part_choose_all(f);
    f->genes = other->genes;
    f->n_genes = other->n_genes;
    if (f->genes != NULL) {
        f->genes->n_users++;
    }
}

// Where each name is among the genes. `list` says where the names come from.
static cpa_status find_names(cpa_part *f, const cpa_strings *names, const char *list, int32_t *chosen)
{
    cpa_status st;
    cpa_strings all = {0};
    named_gene *gene = NULL;
    int64_t n_missing = 0, first = 0;
    CPA_TRY(cpa_part_index(f, "var", &all));
    CPA_TRY(cpa_alloc((size_t)all.n, sizeof *gene, &gene));
    for (int64_t g = 0; g < all.n; g++) {
        gene[g] = (named_gene){all.s[g], (int32_t)g};
    }
    qsort(gene, (size_t)all.n, sizeof *gene, by_name);
    for (int64_t k = names->n - 1; k >= 0; k--) {
        const named_gene *found = bsearch(names->s[k], gene, (size_t)all.n, sizeof *gene, is_name);
        if (found == NULL) {
            n_missing++;
            first = k;
            continue;
        }
        bool twice = (found > gene && strcmp(found[-1].name, found->name) == 0) ||
                     (found < gene + all.n - 1 && strcmp(found[1].name, found->name) == 0);
        CPA_REQUIRE(!twice, CPA_BAD_DATA, "%s: %s has the gene '%s' more than once, so it cannot be chosen by name",
                    f->path, f->var, found->name);
        chosen[k] = found->at;
    }
    CPA_REQUIRE(n_missing == 0, CPA_BAD_DATA, "%s: %s lacks %lld of the %lld genes of %s, the first is '%s'", f->path,
                f->var, (long long)n_missing, (long long)names->n, list, n_missing > 0 ? names->s[first] : "");
cleanup:
    cpa_free(&gene);
    cpa_strings_fini(&all);
    return st;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

static cpa_status choose_by_column(cpa_part *f, const char *column)
{
    cpa_status st;
    cpa_factor factor = {0};
    int32_t *chosen = NULL;
    int64_t n = 0;
    CPA_TRY(cpa_part_factor(f, "var", column, &factor));
    CPA_TRY(cpa_alloc((size_t)f->n_stored, sizeof *chosen, &chosen));
    for (int64_t l = 0; l < factor.level.n; l++) {
        const char *level = factor.level.s[l];
        CPA_REQUIRE(strcmp(level, "True") == 0 || strcmp(level, "False") == 0, CPA_BAD_DATA,
                    "%s: %s/%s holds '%s'; --genes needs a column of booleans, or a file with a gene on each line",
                    f->path, f->var, column, level);
    }
    for (int64_t g = 0; g < factor.n; g++) {
        chosen[n] = (int32_t)g;
        n += factor.code[g] >= 0 && strcmp(factor.level.s[factor.code[g]], "True") == 0;
    }
    CPA_REQUIRE(n > 0, CPA_BAD_DATA, "%s: %s/%s is true for no gene", f->path, f->var, column);
    CPA_TRY(cpa_part_choose(f, &chosen, n, f->path));
cleanup:
    cpa_free(&chosen);
    cpa_factor_fini(&factor);
    return st;
}

cpa_status cpa_h5ad_read_lines(const char *path, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "r");
    CPA_REQUIRE(file != NULL || errno != ENOENT, CPA_NO_INPUT, "%s: no such file", path);
    CPA_REQUIRE(file != NULL, CPA_IO, "%s: cannot be read: %s", path, strerror(errno));
    for (int64_t number = 0; cpa_text_line(file, &line, &room, &number);) {
        char *begin = line + strspn(line, " \t\r\n"), *end = begin + strlen(begin);
        while (end > begin && strchr(" \t\r\n", end[-1]) != NULL) {
            *--end = '\0';
        }
        if (*begin != '\0') {
            CPA_TRY(cpa_strings_add(out, begin));
        }
    }
    CPA_REQUIRE(!ferror(file), CPA_IO, "%s: cannot be read: %s", path, strerror(errno));
cleanup:
    free(line);
    if (file != NULL) {
        fclose(file);
    }
    return st;
}

static cpa_status choose_by_file(cpa_part *f, const char *path)
{
    cpa_status st;
    cpa_strings names = {0};
    int32_t *chosen = NULL;
    CPA_TRY(cpa_h5ad_read_lines(path, &names));
    CPA_REQUIRE(names.n > 0, CPA_BAD_DATA, "%s: names no gene; write one on each line", path);
    CPA_TRY(cpa_alloc((size_t)names.n, sizeof *chosen, &chosen));
    CPA_TRY(find_names(f, &names, path, chosen));
    qsort(chosen, (size_t)names.n, sizeof *chosen, ascending);
    CPA_TRY(cpa_part_choose(f, &chosen, names.n, path));
cleanup:
    cpa_free(&chosen);
    cpa_strings_fini(&names);
    return st;
}

static cpa_status choose_nothing(cpa_part *f, const char *genes)
{
    cpa_strings columns = {0};
    cpa_text names = {0};
    cpa_status st;
    CPA_TRY(cpa_part_columns(f, "var", &columns));
    CPA_TRY(cpa_h5ad_add_names(&names, &columns, genes));
    st = cpa_fail(CPA_BAD_DATA, "%s: --genes '%s' is neither a file nor a column of %s, whose columns are %s", f->path,
                  genes, f->var, cpa_text_str(&names));
cleanup:
    cpa_text_fini(&names);
    cpa_strings_fini(&columns);
    return st;
}

cpa_status cpa_part_select(cpa_part *f, const char *genes)
{
    cpa_status st = CPA_OK;
    struct stat info;
    if (genes == NULL) {
        goto cleanup;
    }
    CPA_TRY(cpa_part_has_column(f, "var", genes) ? choose_by_column(f, genes)
            : stat(genes, &info) == 0            ? choose_by_file(f, genes)
                                                 : choose_nothing(f, genes));
cleanup:
    return st;
}

cpa_status cpa_part_select_names(cpa_part *f, const cpa_strings *names, const char *whose)
{
    cpa_status st;
    int32_t *chosen = NULL;
    cpa_part_choose_all(f);
    CPA_TRY(cpa_alloc((size_t)names->n, sizeof *chosen, &chosen));
    CPA_TRY(find_names(f, names, whose, chosen));
    CPA_TRY(cpa_part_choose(f, &chosen, names->n, whose));
cleanup:
    cpa_free(&chosen);
    return st;
}
