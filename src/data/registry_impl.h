// Owns: what the files of the registry share while it is built. Never included outside src/data/registry*.c.
#ifndef CPA_DATA_REGISTRY_IMPL_H
#define CPA_DATA_REGISTRY_IMPL_H

#include "cpa/base/text.h"
#include "cpa/data/registry.h"

// The distinct pairs of two codes, sorted by (a, b); a missing code (-1) sorts last.
typedef struct cpa_pairs {
    int32_t n;
    int32_t *a, *b; // [n]
    int64_t *count; // [n] cells
    int64_t *first; // [n] row of the first cell
    int32_t *of;    // [n_cells] the pair of a cell
} cpa_pairs;

// A registry in the making. A factor whose `code` is NULL was not read: there is no such column, or it is a problem
// already noted. Factors have only used, sorted, distinct levels.
typedef struct cpa_registry_build {
    cpa_h5ad *f;
    const char *path; // borrowed
    cpa_registry *r;
    bool need_training;
    cpa_strings columns; // of obs
    cpa_problems problems;
    cpa_factor pert, dose, split, deg;
} cpa_registry_build;

/** Finds the distinct pairs (a[i], b[i]) of n cells; b NULL stands for zeros. */
cpa_status cpa_pairs_create(const int32_t *a, const int32_t *b, int64_t n, cpa_pairs *out);

/** Frees what is left in it. */
void cpa_pairs_fini(cpa_pairs *p);

/** Drops levels that no cell has, sorts the others (bytes), merges equal ones; *n_dropped levels had no cells. */
cpa_status cpa_factor_normalise(cpa_factor *factor, int64_t *n_dropped);

/** Reads an obs column as a normalised factor; a column that is missing or unreadable becomes a problem and leaves `out`
 *  empty; so do cells without a value, unless `may_miss`. Says how many unused categories were dropped. */
cpa_status cpa_registry_column(cpa_registry_build *b, const char *column, bool may_miss, cpa_factor *out);

/** Position of `s` in the sorted pieces [first, n) of the list, -1 if it is not there. */
int64_t cpa_sorted_find(const cpa_strings *list, int64_t first, const char *s);

/** Sorts (bytes) and drops repetitions. */
void cpa_strings_sort_unique(cpa_strings *list);

/** Appends up to three names of list[first..n) that look most like `s`, nearest first, to the text. */
cpa_status cpa_text_add_near(cpa_text *t, const cpa_strings *list, int64_t first, const char *s);

/** Completes the keys of the spec from the columns and uns members that are there. */
cpa_status cpa_registry_infer_keys(cpa_registry_build *b);

/** Chooses the control (needs b->pert); no control cell is a problem. */
cpa_status cpa_registry_infer_control(cpa_registry_build *b);

/** Chooses the covariates when the spec leaves them out (needs b->pert; reads b->deg when it must). */
cpa_status cpa_registry_infer_covariates(cpa_registry_build *b);

/** Builds pert, max_comb_len, condition and condition_of. Needs b->pert, b->dose. */
cpa_status cpa_registry_conditions(cpa_registry_build *b);

/** Builds split and its counts. Needs b->split, or a spec without split_key. */
cpa_status cpa_registry_split(cpa_registry_build *b);

/** Builds deg and deg_list. Needs b->deg and the categories. */
cpa_status cpa_registry_deg(cpa_registry_build *b);

#endif
