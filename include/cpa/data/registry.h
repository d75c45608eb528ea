// Owns: the meaning of cells: perturbations, doses, covariates, categories, splits, DEG lists. Work is done once per distinct
// (condition, dose) value, not per cell. Identical on every rank.
#ifndef CPA_DATA_REGISTRY_H
#define CPA_DATA_REGISTRY_H

#include <stdbool.h>

#include "cpa/data/h5ad.h"

enum { CPA_PAD = 0, CPA_CONTROL = 1 }; // perturbation ids: 0 is padding, 1 the control, then the others sorted

// How to read a file; part of the options, remembered by a run. NULL, 0 or an empty list: inferred. "" (in the list of
// covariates: one "") means none, so that a resolved spec leaves nothing to infer when another file is read with it.
typedef struct cpa_data_spec {
    char *perturbation_key; // default "condition" or "perturbation"
    char *control_group;    // default: the one of ctrl, control, CTRL, DMSO, vehicle, non-targeting, ... that is there
    char *dosage_key;       // default "dose" when there is such a column; else every dose is 1
    cpa_strings categorical_covariate_keys;       // default: see cpa_registry_create
    char *batch_key;                              // appended to the covariates, as upstream does
    char *layer;                                  // NULL: X; see cpa_h5ad_select
    char *genes;                                  // NULL: all; see cpa_h5ad_select. A model knows its genes by name
    char *split_key;                              // default "split" when there is such a column; else a random split
    char *train_split, *valid_split, *test_split; // default "train", "test", "ood"; several separated by commas
    double train_size;                            // of a random split, default 0.9
    cpa_strings holdout; // "column=value,column=value" each: cells with all of them are test cells, whatever
                         // the split says; "" holds nothing out
    char *deg_uns_key, *deg_uns_cat_key; // default "rank_genes_groups_cov" and "cov_cond" when both are there
    int max_comb_len;                    // 0: the longest combination there is
    int64_t seed;                        // of a random split
    bool compat_dose_order; // doses of combinations belong to the sorted components, as upstream pairs them
} cpa_data_spec;

/** Frees the strings. */
void cpa_data_spec_fini(cpa_data_spec *spec);

/** Deep copy into an empty spec. */
cpa_status cpa_data_spec_copy(const cpa_data_spec *spec, cpa_data_spec *out);

// A distinct pair of perturbation string and dose string.
typedef struct cpa_condition {
    char *name;      // "A+B", as in the file
    char *dose_text; // "1.0+0.5", as in the file
    int label;       // class of the perturbation adversary: one per distinct name
    int n;           // components
    int *pert;       // [n] ids, in the order of the name
    double *dose;    // [n] paired by position
    int64_t n_cells;
    bool is_control; // the control alone
} cpa_condition;

typedef struct cpa_covariate {
    char *name;
    cpa_strings value; // sorted
    uint16_t *code;    // [n_cells]
} cpa_covariate;

// Genes in the order of a list; -1 for one that the file does not have.
typedef struct cpa_gene_list {
    int32_t *gene; // [n]
    int64_t n;
} cpa_gene_list;

typedef enum cpa_split { CPA_SPLIT_NONE, CPA_SPLIT_TRAIN, CPA_SPLIT_VALID, CPA_SPLIT_TEST } cpa_split;

typedef struct cpa_registry {
    cpa_data_spec spec; // resolved: nothing left to infer
    int64_t n_cells;
    int32_t n_genes;
    cpa_strings pert;     // [0] "<PAD>", [1] control, then the others sorted
    cpa_strings label;    // names of the adversary's classes, sorted
    double *label_weight; // [label.n] (n_cells / cells of the class) - 1, over all cells unless set otherwise
    int n_conditions;
    cpa_condition *condition;
    int32_t *condition_of; // [n_cells]
    int n_covs;            // batch_key last, if any
    cpa_covariate *cov;
    int max_comb_len;
    int64_t n_reordered;   // cells whose doses pairing by position and pairing with the sorted components tell apart
    int n_categories;      // distinct (batch, covariates, perturbation string) among the cells, as upstream's CPA_cat
    cpa_strings category;  // "batch_cov_pert"
    int32_t *category_of;  // [n_cells]
    uint32_t **deg;        // [n_categories] bitset of (n_genes+31)/32 words, or NULL: no list, all genes
    cpa_gene_list *deg_list; // [n_categories] the listed genes in order (empty: none)
    uint8_t *split;        // [n_cells] cpa_split
    int64_t n_train, n_valid, n_test;
} cpa_registry;

/** Reads the columns and builds the tables; everything wrong in the metadata is reported at once (BAD_DATA, a line each,
 *  with names and numbers of cells): missing columns, unknown control, unparsable, negative or non-finite doses, doses that do not
 *  match the components, the same component twice, more components than max_comb_len, missing values, an empty training split,
 *  no control cell, split values that do not occur, groups to hold out that do not occur. USAGE: a holdout that is not of its form.
 *
 *  Left-out covariates are inferred: none of the spec's own columns, but a categorical `deg_uns_cat_key` of the form
 *  "<covariate>_<condition>" names its column; else "cell_type" if there; else none. What was inferred is said with cpa_info.
 *  `need_training`: also object to what only training needs. Not collective; every rank builds the same. */
cpa_status cpa_registry_create(cpa_h5ad *f, const cpa_data_spec *spec, bool need_training, cpa_registry **out);

/** (cells / cells of the class) - 1 of every class into weight[label.n], counted over all cells, as upstream, or over those that
 *  train; a class without such cells gets 0. */
cpa_status cpa_registry_class_weights(const cpa_registry *r, bool train_only, double *weight);

/** Frees it and sets *r to NULL; NULL-safe. */
void cpa_registry_destroy(cpa_registry **r);

/** Parses "A+B" with doses "1+0.5" (NULL: all 1) against `perts` ([0] padding, [1] control). Ids and doses into pert[max], dose[max],
 *  *n components. BAD_DATA: unknown component (lists near names), doses that do not parse or do not match, too many components. */
cpa_status cpa_condition_parse(const cpa_strings *perts, const char *name, const char *dose, int max, int *pert,
                               double *dose_out, int *n);

#endif
