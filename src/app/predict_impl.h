// Owns: what the files of predict and evaluate share: which cells, as what, in which order. Never included outside
// src/app.
#ifndef CPA_APP_PREDICT_IMPL_H
#define CPA_APP_PREDICT_IMPL_H

#include "cpa/app/trained.h"

// Rows of the data file, in order; repeats allowed.
typedef struct cpa_cell_list {
    int64_t n;
    int64_t *cell;
} cpa_cell_list;

/** Frees it. */
void cpa_cell_list_fini(cpa_cell_list *list);

/** Every cell. */
cpa_status cpa_choose_all(const cpa_trained *t, cpa_cell_list *out);

/** The cells whose value of the split column is one of `values` (separated by commas), or, under a random split,
 *  which are in the split of that name. NULL: those of test_split. BAD_DATA when there is none. */
cpa_status cpa_choose_split(const cpa_trained *t, const char *values, cpa_cell_list *out);

/** The control cells that have all the values "column=value" of `where`. USAGE: no '='. BAD_DATA: no such column, no
 *  such cell. */
cpa_status cpa_choose_controls(const cpa_trained *t, const cpa_strings *where, cpa_cell_list *out);

/** The cells that a file names, a row number (from 0) or a cell's name a line, in its order. NO_INPUT, BAD_DATA with
 *  the line. */
cpa_status cpa_choose_named(const cpa_trained *t, const char *path, cpa_cell_list *out);

/** The cells of --cells, else those of --split, else all. */
cpa_status cpa_choose_asked(const cpa_trained *t, const cpa_options *o, cpa_cell_list *out);

// Combinations of covariate values, numbered, and the control cells of each.
typedef struct cpa_contexts {
    int n;
    int32_t *of;            // [cells of the file]
    cpa_cell_list *control; // [n]
} cpa_contexts;

/** Numbers them and sorts the control cells, of any split, into them. */
cpa_status cpa_contexts_create(const cpa_registry *r, cpa_contexts *out);

/** Frees it. */
void cpa_contexts_fini(cpa_contexts *contexts);

// What is predicted as what, in the order of the output.
typedef struct cpa_plan {
    const char *mode; // static: "reconstruct", "held-out", "perturbation", "grid"
    int64_t n;
    cpa_target *target;
    int64_t *first; // [n+1] rows of the output before each target
    cpa_contexts contexts;
    cpa_cell_list list; // cells that are not a context's controls
} cpa_plan;

/** CONFIG when options of predict contradict each other. */
cpa_status cpa_plan_check_options(const cpa_options *o);

/** Makes the plan that the options ask for. BAD_DATA: what the model does not know, no cell left; USAGE: a malformed
 *  --set or --where. The same on all ranks; rank-local. */
cpa_status cpa_plan_create(const cpa_trained *t, const cpa_options *o, cpa_plan *plan);

/** The held-out groups alone, into a plan that has its contexts: a target per group and condition in the order of the
 *  categories; groups without control cells of the same covariates are warned about and left out. `chosen`: the cells
 *  that are held out. Leaves `first` alone. */
cpa_status cpa_plan_held_out(const cpa_trained *t, const cpa_cell_list *chosen, cpa_plan *plan);

/** Frees it; safe on a zeroed one. */
void cpa_plan_fini(cpa_plan *plan);

/** Adds a target, which the plan takes over (also on failure). */
cpa_status cpa_plan_add(cpa_plan *plan, cpa_target *target);

/** Fills plan->first once all targets are there. */
cpa_status cpa_plan_number_rows(cpa_plan *plan);

/** Reads conditions from a CSV file with the columns perturbation, dose (may be missing or empty) and covariates
 *  (empty: the cell's own) and adds a target for each, on the plan's list. */
cpa_status cpa_plan_add_grid(const cpa_trained *t, const char *path, cpa_plan *plan);

/** The target of output row `row`, and its cell. */
const cpa_target *cpa_plan_row(const cpa_plan *plan, int64_t row, int64_t *cell);

/** Whether --library is a word that is known or a number above 0. USAGE. */
cpa_status cpa_library_check_option(const char *library);

/** Gives every target of the plan the counts that --library asks for. BAD_DATA names the conditions without training cells,
 *  which have no mean. CONFIG: the model is gauss. */
cpa_status cpa_library_set(const cpa_trained *t, const char *library, cpa_plan *plan);

/** A digest of all that the numbers of the plan depend on: model, data, decoding, cells and what they are predicted as. Not of the
 *  number of ranks; the same on all of them. */
uint64_t cpa_plan_digest(const cpa_trained *t, const cpa_plan *plan);

// What a row of the output is about, in words.
typedef struct cpa_labels {
    int n_covs;
    char **cov_name; // [n_covs] columns
    cpa_factor pert, dose, group, *cov;
    cpa_strings index, source;
    int64_t *n_cells; // of `mean`, else NULL
} cpa_labels;

/** Labels of all rows (`by_cell`) or of all targets. */
cpa_status cpa_labels_create(const cpa_trained *t, const cpa_plan *plan, bool by_cell, cpa_labels *out);

/** Adds the row number to names that occur more than once. */
cpa_status cpa_labels_make_unique(cpa_strings *index);

/** Frees them. */
void cpa_labels_fini(cpa_labels *labels);

/** Whether the file of the options could be written at all. CONFIG: it is the data file; NO_INPUT: no such folder.
 *  Rank-local. */
cpa_status cpa_predict_check_place(const cpa_options *o);

/** Runs the plan and writes the file of the options: beside its place, then renamed; goes on with one that a killed command has left.
 *  Collective. */
cpa_status cpa_predict_write(cpa_trained *t, const cpa_options *o, const cpa_plan *plan);

#endif
