// Owns: choosing cells of the data file: by split, by values, by name, by covariates. Never says what they are
// predicted as.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "cpa/base/text.h"
#include "predict_impl.h"

void cpa_cell_list_fini(cpa_cell_list *list)
{
    cpa_free(&list->cell);
    list->n = 0;
}

// The rows of `n` with a set flag.
static cpa_status list_flagged(const uint8_t *flag, int64_t n, cpa_cell_list *out)
{
    cpa_status st = CPA_OK;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        count += flag[i] != 0;
    }
    CPA_TRY(cpa_alloc((size_t)count, sizeof *out->cell, &out->cell));
    for (int64_t i = 0; i < n; i++) {
        if (flag[i]) {
            out->cell[out->n++] = i;
        }
    }
cleanup:
    return st;
}

cpa_status cpa_choose_all(const cpa_trained *t, cpa_cell_list *out)
{
    cpa_status st = CPA_OK;
    int64_t n = t->registry->n_cells;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *out->cell, &out->cell));
    for (int64_t i = 0; i < n; i++) {
        out->cell[i] = i;
    }
    out->n = n;
cleanup:
    return st;
}

// Under a random split: the names of the splits stand for themselves.
static void flag_random(const cpa_registry *r, const cpa_strings *value, uint8_t *flag)
{
    const char *name[] = {"", r->spec.train_split, r->spec.valid_split, r->spec.test_split};
    for (int64_t v = 0; v < value->n; v++) {
        for (int64_t i = 0; i < r->n_cells; i++) {
            flag[i] |= r->split[i] != CPA_SPLIT_NONE && strcmp(name[r->split[i]], value->s[v]) == 0;
        }
    }
}

// By the column's values, but cells that the run holds out otherwise go by the names of its test split.
static cpa_status flag_by_column(const cpa_trained *t, const cpa_strings *value, uint8_t *flag)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    cpa_factor split = {0};
    cpa_strings test = {0};
    bool tests_asked = false;
    CPA_TRY(cpa_strings_split(&test, r->spec.test_split, ','));
    for (int64_t k = 0; k < test.n; k++) {
        tests_asked = tests_asked || cpa_strings_find(value, test.s[k]) >= 0;
    }
    CPA_TRY(cpa_h5ad_factor(t->file, "obs", t->registry->spec.split_key, &split));
    for (int64_t i = 0; i < split.n; i++) {
        const char *name = split.code[i] >= 0 ? split.level.s[split.code[i]] : "";
        bool held_out = r->split[i] == CPA_SPLIT_TEST && cpa_strings_find(&test, name) < 0;
        flag[i] = held_out ? tests_asked : split.code[i] >= 0 && cpa_strings_find(value, name) >= 0;
    }
cleanup:
    cpa_strings_fini(&test);
    cpa_factor_fini(&split);
    return st;
}

cpa_status cpa_choose_split(const cpa_trained *t, const char *values, cpa_cell_list *out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    cpa_strings value = {0};
    uint8_t *flag = NULL;
    bool column = r->spec.split_key[0] != '\0';
    values = values ? values : r->spec.test_split;
    CPA_TRY(cpa_strings_split(&value, values, ','));
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *flag, &flag));
    if (column) {
        CPA_TRY(flag_by_column(t, &value, flag));
    } else {
        flag_random(r, &value, flag);
    }
    CPA_TRY(list_flagged(flag, r->n_cells, out));
    CPA_REQUIRE(out->n > 0, CPA_BAD_DATA,
                "%s: no cell has the value '%s' %s%s; name the held-out cells with --split or --test-split",
                cpa_h5ad_path(t->file), values,
                column ? "of obs/" : "under its random split (there is no column of splits)", r->spec.split_key);
cleanup:
    cpa_free(&flag);
    cpa_strings_fini(&value);
    return st;
}

// Clears the flags of cells without the value; `where` is "column=value".
static cpa_status keep_where(const cpa_trained *t, const char *where, uint8_t *flag)
{
    cpa_status st = CPA_OK;
    cpa_factor factor = {0};
    char *column = NULL;
    const char *equals = strchr(where, '=');
    CPA_REQUIRE(equals && equals > where, CPA_USAGE, "--where %s: write COLUMN=VALUE", where);
    CPA_TRY(cpa_sprintf(&column, "%.*s", (int)(equals - where), where));
    CPA_TRY(cpa_h5ad_factor(t->file, "obs", column, &factor));
    int64_t level = cpa_strings_find(&factor.level, equals + 1);
    CPA_REQUIRE(level >= 0, CPA_BAD_DATA, "%s: no cell has the value '%s' of obs/%s (--where %s)",
                cpa_h5ad_path(t->file), equals + 1, column, where);
    for (int64_t i = 0; i < factor.n; i++) {
        flag[i] = flag[i] && factor.code[i] == level;
    }
cleanup:
    cpa_free(&column);
    cpa_factor_fini(&factor);
    return st;
}

cpa_status cpa_choose_controls(const cpa_trained *t, const cpa_strings *where, cpa_cell_list *out)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    uint8_t *flag = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *flag, &flag));
    for (int64_t i = 0; i < r->n_cells; i++) {
        flag[i] = r->condition[r->condition_of[i]].is_control;
    }
    for (int64_t w = 0; w < where->n; w++) {
        CPA_TRY(keep_where(t, where->s[w], flag));
    }
    CPA_TRY(list_flagged(flag, r->n_cells, out));
    CPA_REQUIRE(out->n > 0, CPA_BAD_DATA, "%s: no control cell ('%s' of obs/%s)%s", cpa_h5ad_path(t->file),
                r->spec.control_group, r->spec.perturbation_key, where->n ? " has all the values of --where" : "");
cleanup:
    cpa_free(&flag);
    return st;
}

typedef struct named_cell {
    const char *name; // borrowed
    int64_t row;
} named_cell;

static int compare_names(const void *x, const void *y)
{
    const named_cell *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order ? order : (a->row > b->row) - (a->row < b->row);
}

static bool is_number(const char *s)
{
    return *s != '\0' && strspn(s, "0123456789") == strlen(s);
}

static cpa_status sort_names(const cpa_strings *name, named_cell **out)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_alloc((size_t)name->n, sizeof **out, out));
    for (int64_t i = 0; i < name->n; i++) {
        (*out)[i] = (named_cell){name->s[i], i};
    }
    qsort(*out, (size_t)name->n, sizeof **out, compare_names);
cleanup:
    return st;
}

// First position whose name is not below `name`.
static int64_t lower_bound(const named_cell *sorted, int64_t n, const char *name)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (strcmp(sorted[mid].name, name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

// The row that a line stands for. A number is a row number, whatever cells are called.
static cpa_status row_of(const named_cell *sorted, int64_t n, const char *path, int64_t line, const char *text,
                         int64_t *row)
{
    cpa_status st = CPA_OK;
    if (is_number(text)) {
        errno = 0;
        long long number = strtoll(text, NULL, 10);
        CPA_REQUIRE(errno == 0 && number < n, CPA_BAD_DATA,
                    "%s, line %lld: there is no row %s; the data have the rows 0 to %lld", path, (long long)line, text,
                    (long long)n - 1);
        *row = number;
        return CPA_OK;
    }
    int64_t at = lower_bound(sorted, n, text);
    CPA_REQUIRE(at < n && strcmp(sorted[at].name, text) == 0, CPA_BAD_DATA, "%s, line %lld: no cell is called '%s'",
                path, (long long)line, text);
    CPA_REQUIRE(at + 1 >= n || strcmp(sorted[at + 1].name, text) != 0, CPA_BAD_DATA,
                "%s, line %lld: the cells in rows %lld and %lld are both called '%s'; give the row number", path,
                (long long)line, (long long)sorted[at].row, (long long)sorted[at + 1].row, text);
    *row = sorted[at].row;
cleanup:
    return st;
}

static void trim(char *s)
{
    size_t n = strlen(s), lead = strspn(s, " \t");
    while (n > 0 && isspace((unsigned char)s[n - 1])) {
        s[--n] = '\0';
    }
    if (lead > 0 && lead <= n) {
        memmove(s, s + lead, n - lead + 1);
    }
}

// Reads the lines into out->cell, growing by doubling; *numbers counts lines that are row numbers.
static cpa_status read_lines(FILE *file, const char *path, const named_cell *sorted, int64_t n, cpa_cell_list *out,
                             int64_t *numbers)
{
    cpa_status st = CPA_OK;
    char *text = NULL;
    size_t room = 0;
    int64_t cap = 0;
    for (int64_t line = 0; cpa_text_line(file, &text, &room, &line);) {
        trim(text);
        if (text[0] == '\0') {
            continue;
        }
        if (out->n == cap) {
            cap = cap > 0 ? 2 * cap : 1024;
            CPA_TRY(cpa_realloc((size_t)cap, sizeof *out->cell, &out->cell));
        }
        CPA_TRY(row_of(sorted, n, path, line, text, &out->cell[out->n]));
        out->n++;
        *numbers += is_number(text);
    }
cleanup:
    free(text);
    return st;
}

cpa_status cpa_choose_named(const cpa_trained *t, const char *path, cpa_cell_list *out)
{
    cpa_status st = CPA_OK;
    cpa_strings name = {0};
    named_cell *sorted = NULL;
    int64_t numbers = 0;
    FILE *file = fopen(path, "r");
    CPA_REQUIRE(file, CPA_NO_INPUT, "cannot read '%s' (--cells): %s", path, strerror(errno));
    CPA_TRY(cpa_h5ad_index(t->file, "obs", &name));
    CPA_TRY(sort_names(&name, &sorted));
    CPA_TRY(read_lines(file, path, sorted, name.n, out, &numbers));
    CPA_REQUIRE(out->n > 0, CPA_BAD_DATA, "%s names no cell; write a row number or a name a line", path);
    bool numeric_names = false;
    for (int64_t i = 0; i < name.n && !numeric_names; i++) {
        numeric_names = is_number(name.s[i]) && strtoll(name.s[i], NULL, 10) != i;
    }
    if (numbers > 0 && numeric_names) {
        cpa_warn("%s: numbers are taken as row numbers, although cells of %s have numbers for names", path,
                 cpa_h5ad_path(t->file));
    }
cleanup:
    if (file) {
        fclose(file);
    }
    cpa_free(&sorted);
    cpa_strings_fini(&name);
    return st;
}

cpa_status cpa_choose_asked(const cpa_trained *t, const cpa_options *o, cpa_cell_list *out)
{
    return o->cells   ? cpa_choose_named(t, o->cells, out)
           : o->split ? cpa_choose_split(t, o->split, out)
                      : cpa_choose_all(t, out);
}

// Renumbers of[n] = of * size + code by first appearance; *n_contexts becomes how many there are.
static cpa_status extend_contexts(int32_t *of, int64_t n, const cpa_covariate *cov, int *n_contexts)
{
    cpa_status st = CPA_OK;
    int32_t *number = NULL, next = 0;
    int64_t size = cov->value.n;
    CPA_TRY(cpa_alloc((size_t)*n_contexts * (size_t)size, sizeof *number, &number));
    for (int64_t i = 0; i < n; i++) {
        int32_t *at = &number[of[i] * size + cov->code[i]];
        if (*at == 0) {
            *at = ++next;
        }
        of[i] = *at - 1;
    }
    *n_contexts = next;
cleanup:
    cpa_free(&number);
    return st;
}

cpa_status cpa_contexts_create(const cpa_registry *r, cpa_contexts *out)
{
    cpa_status st = CPA_OK;
    *out = (cpa_contexts){.n = 1};
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *out->of, &out->of));
    for (int c = 0; c < r->n_covs; c++) {
        CPA_TRY(extend_contexts(out->of, r->n_cells, &r->cov[c], &out->n));
    }
    CPA_TRY(cpa_alloc((size_t)out->n, sizeof *out->control, &out->control));
    for (int pass = 0; pass < 2; pass++) { // count, then list
        for (int64_t i = 0; i < r->n_cells; i++) {
            cpa_cell_list *list = &out->control[out->of[i]];
            if (r->condition[r->condition_of[i]].is_control) {
                if (pass == 1) {
                    list->cell[list->n] = i;
                }
                list->n++;
            }
        }
        for (int c = 0; pass == 0 && c < out->n; c++) {
            CPA_TRY(cpa_alloc((size_t)out->control[c].n, sizeof(int64_t), &out->control[c].cell));
            out->control[c].n = 0;
        }
    }
cleanup:
    if (st != CPA_OK) {
        cpa_contexts_fini(out);
    }
    return st;
}

void cpa_contexts_fini(cpa_contexts *contexts)
{
    for (int c = 0; contexts->control && c < contexts->n; c++) {
        cpa_cell_list_fini(&contexts->control[c]);
    }
    cpa_free(&contexts->control);
    cpa_free(&contexts->of);
    contexts->n = 0;
}
