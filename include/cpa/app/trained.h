// Owns: a trained model at work on a data file: both opened, matched name by name, and cells run through it as what
// is asked. What it computes for a cell depends on the block that the cell is in, never on ranks.
#ifndef CPA_APP_TRAINED_H
#define CPA_APP_TRAINED_H

#include "cpa/app/options.h"
#include "cpa/app/profile.h"
#include "cpa/data/feed.h"
#include "cpa/train/modelfile.h"

enum { CPA_BLOCK = 256 }; // cells that go through the model at once

// What cells are predicted as. Numbers are the model's.
typedef struct cpa_target {
    bool own;          // each cell as what it is; nothing else is then set
    char *name, *dose; // "A+B", "1+0.5", owned
    int n, *pert;      // components, owned
    double *dose_of;   // [n], owned
    int *cov;          // [covariates] value, -1: the cell's own; owned
    double library;    // counts of a predicted cell, 0: the cell's own
    int64_t n_cells;
    const int64_t *cell;    // [n_cells] rows of the file, borrowed
    int64_t n_control;      // the real cells that it is compared with
    const int64_t *control; // [n_control], borrowed
    int category;           // of the registry: the group that it stands for; -1
    int64_t n_held;         // cells of that group with this condition
} cpa_target;

typedef struct cpa_trained {
    cpa_comm *comm; // borrowed
    char *model_path;
    cpa_model_meta meta; // knows also the perturbations that have external vectors without having been trained
    cpa_pert_table *vectors, *more; // the model's and those of --pert-embeddings, NULL: none
    cpa_h5ad *file;
    uint64_t genes; // a digest of the names of the file's genes
    cpa_registry *registry;
    cpa_feed *feed;         // of cells that come in the order of a list, NULL: all are in memory
    const cpa_cells *cells; // all, NULL when they are streamed
    cpa_cells *loaded;      // owned, without a feed
    int64_t n_listed, at;   // cells of the list, and which of them come next
    cpa_backend *be;
    cpa_model *model;
    cpa_batch *batch;
    int batch_covs, batch_comb; // what the loader fills it with
    int *pert_of;               // [registry->pert.n] the model's number of the file's perturbation, -1: unknown to it
    int **cov_of;               // [model's covariates][values in the file] likewise
    int parts;                // CPA_LATENT_...: all that is asked of a latent; what is not may be unknown to the model
    bool *add;                // [model's covariates] which are added to latents that have covariates
    cpa_decoding decoding;    // how predictions are made
    int n_draws;              // of a variational latent, 0: its mean is decoded
    cpa_real *means;          // [CPA_BLOCK, n_genes] what the last prediction gave
    cpa_real *spread, *drawn; // the same: variances of the draws, the last draw; where there are draws
} cpa_trained;

// A latent by name, as the sum of its parts.
typedef struct cpa_latent_kind {
    const char *name;
    int parts; // CPA_LATENT_...
} cpa_latent_kind;

/** The latent of that name; NULL when there is none. */
const cpa_latent_kind *cpa_latent_find(const char *name);

// What of the data file must be there.
typedef struct cpa_trained_needs {
    bool splits, degs; // the run's split column, its lists of genes
    bool listed;       // cells come in the order of cpa_trained_list alone, so that those that do not fit into memory can be streamed
} cpa_trained_needs;

/** Puts into a spec what command line or --config say of the data. Strings are replaced by copies. */
cpa_status cpa_spec_override(const cpa_options *o, cpa_data_spec *spec);

/** Opens RUN/model.h5 (`o->path`), `o->data_path`, read as the run read its own data except where the command line
 *  or --config say otherwise, and `o->pert_embeddings` if any. NO_INPUT; BAD_DATA: genes other than the model's (names the first difference), fewer
 *  covariates. Destroy it also after a failure. Collective; the same status everywhere. */
cpa_status cpa_trained_open(cpa_comm *comm, const cpa_options *o, cpa_trained_needs needs, cpa_trained *t);

/** Closes everything; safe on a zeroed one. Collective. */
void cpa_trained_close(cpa_trained *t);

/** Number of covariates of the model. */
static inline int cpa_trained_n_covs(const cpa_trained *t)
{
    return (int)t->meta.cov_name.n;
}

/** How `t` decodes, from the options (--latent, --add, --n-samples, --zinb-mean); cpa_trained_open does it. BAD_DATA: a
 *  covariate to add that the model does not have. Rank-local. */
cpa_status cpa_trained_decoding(cpa_trained *t, const cpa_options *o);

/** Whether latents of t->parts contain covariate c. */
static inline bool cpa_trained_adds(const cpa_trained *t, int c)
{
    return t->add[c] && (t->parts & (c == t->meta.batch_cov ? CPA_LATENT_BATCH : CPA_LATENT_COVS));
}

/** Whether the model knows what cells are to be predicted as, as far as t->parts contain it. BAD_DATA names values of covariates and perturbations
 *  that it does not know, with numbers of cells. Rank-local. */
cpa_status cpa_trained_check(const cpa_trained *t, const cpa_target *target);

/** A target of one condition: names and doses become numbers, covariates the cell's own. BAD_DATA as
 *  cpa_condition_parse. */
cpa_status cpa_target_init(const cpa_trained *t, const char *name, const char *dose, cpa_target *target);

/** Sets a covariate of a target. BAD_DATA: the model has no such covariate or value (lists those there are). */
cpa_status cpa_target_set(const cpa_trained *t, cpa_target *target, const char *covariate, const char *value);

/** Frees it; safe on a zeroed one. */
void cpa_target_fini(cpa_target *target);

/** Says which cells this rank encodes or predicts from now on, in which order: blocks of CPA_BLOCK, of which the last may be smaller,
 *  repeats allowed. Only of what was opened as `listed`, and once. `cell` [n] is borrowed. CONFIG, IO. Collective. */
cpa_status cpa_trained_list(cpa_trained *t, const int64_t *cell, int64_t n);

/** Predicts at most CPA_BLOCK cells, each as its own target, into t->means [n, n_genes]: means of counts at the target's
 *  library size; of draws of a variational latent their average, and into t->spread their variances (unbiased).
 *  Memory does not depend on the number of draws. Rank-local. */
cpa_status cpa_trained_predict(cpa_trained *t, const int64_t *cell, const cpa_target *const *as, int n);

/** Encodes at most CPA_BLOCK cells, each as its own target; cpa_model_latent then gives their latents. Never decodes.
 *  Rank-local. */
cpa_status cpa_trained_encode(cpa_trained *t, const int64_t *cell, const cpa_target *const *as, int n);

/** The profile of all predictions of a target: fixed blocks of its cells, shared among the ranks, merged in order.
 *  The same bits at any number of ranks. Collective. */
cpa_status cpa_trained_profile(cpa_trained *t, const cpa_target *target, cpa_scale scale, cpa_profile *out);

/** The scale of the model's values: counts, or (gauss) values that are on the scale of scores already. */
cpa_scale cpa_trained_scale(const cpa_trained *t);

#endif
