// Owns: small AnnData files without counts that are made of a few words, and the registries of them.
// Must never leave a file behind.
#ifndef CPA_TESTS_OBS_FILES_H
#define CPA_TESTS_OBS_FILES_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/base/log.h"
#include "cpa/base/text.h"
#include "cpa/data/h5ad_write.h"
#include "cpa/data/registry.h"

enum { MAX_COLUMNS = 8, MAX_LISTS = 4 };

// An obs column: values separated by commas, "?" where there is none, "!x" an unused category x.
typedef struct column {
    const char *name, *values;
} column;

// A file: columns, and lists of genes of uns/rank_genes_groups_cov, genes separated by commas. The genes are g0 to g39.
typedef struct table {
    column obs[MAX_COLUMNS];
    column lists[MAX_LISTS];
} table;

static char path[] = "/tmp/cpa_obs_XXXXXX";

static inline int set_up(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    close(fd);
    cpa_log_init(0, true);
    return fd < 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static inline cpa_factor factor_of(const char *values)
{
    cpa_factor f = {0};
    cpa_strings value = {0};
    assert_int_equal(cpa_strings_split(&value, values, ','), CPA_OK);
    assert_int_equal(cpa_alloc((size_t)value.n, sizeof *f.code, &f.code), CPA_OK);
    for (int64_t i = 0; i < value.n; i++) {
        const char *v = value.s[i];
        bool unused = v[0] == '!', missing = strcmp(v, "?") == 0;
        int64_t level = missing ? -1 : cpa_strings_find(&f.level, v + unused);
        if (level < 0 && !missing) {
            level = f.level.n;
            assert_int_equal(cpa_strings_add(&f.level, v + unused), CPA_OK);
        }
        if (!unused) {
            f.code[f.n++] = (int32_t)level;
        }
    }
    cpa_strings_fini(&value);
    return f;
}

static inline void names_of(const char *prefix, int64_t n, cpa_strings *out)
{
    for (int64_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%lld", prefix, (long long)i);
        assert_int_equal(cpa_strings_add(out, name), CPA_OK);
    }
}

static inline void write_table(const table *t)
{
    cpa_h5 *h5 = NULL;
    cpa_factor factor[MAX_COLUMNS];
    cpa_h5ad_column columns[MAX_COLUMNS];
    cpa_strings cells = {0}, genes = {0};
    int n = 0;
    for (; n < MAX_COLUMNS && t->obs[n].name != NULL; n++) {
        factor[n] = factor_of(t->obs[n].values);
        columns[n] = (cpa_h5ad_column){.name = t->obs[n].name, .factor = &factor[n]};
    }
    names_of("cell", factor[0].n, &cells);
    names_of("g", 40, &genes);
    assert_int_equal(cpa_h5_create(path, &h5), CPA_OK);
    assert_int_equal(cpa_h5ad_write_root(h5), CPA_OK);
    assert_int_equal(cpa_h5ad_write_frame(h5, "obs", &cells, columns, n), CPA_OK);
    assert_int_equal(cpa_h5ad_write_frame(h5, "var", &genes, NULL, 0), CPA_OK);
    assert_int_equal(cpa_h5ad_write_dict(h5, "uns"), CPA_OK);
    for (int l = 0; l < MAX_LISTS && t->lists[l].name != NULL; l++) {
        cpa_strings list = {0};
        char *where = NULL;
        assert_int_equal(cpa_strings_split(&list, t->lists[l].values, ','), CPA_OK);
        assert_int_equal(cpa_sprintf(&where, "uns/rank_genes_groups_cov/%s", t->lists[l].name), CPA_OK);
        assert_int_equal(cpa_h5ad_write_list(h5, where, &list), CPA_OK);
        cpa_free(&where);
        cpa_strings_fini(&list);
    }
    assert_int_equal(cpa_h5_finish(&h5), CPA_OK);
    cpa_strings_fini(&cells);
    cpa_strings_fini(&genes);
    while (n > 0) {
        cpa_factor_fini(&factor[--n]);
    }
}

// Writes the table and makes its registry; on failure *r is NULL and nothing is left behind.
static inline cpa_status registry_of(const table *t, const cpa_data_spec *spec, bool need_training, cpa_registry **r)
{
    cpa_h5ad *f = NULL;
    write_table(t);
    assert_int_equal(cpa_h5ad_open(path, &f), CPA_OK);
    long balance = cpa_alloc_balance();
    cpa_status st = cpa_registry_create(f, spec, need_training, r);
    if (st != CPA_OK) {
        assert_null(*r);
        assert_int_equal(cpa_alloc_balance(), balance);
    }
    cpa_h5ad_close(&f);
    return st;
}

#endif
