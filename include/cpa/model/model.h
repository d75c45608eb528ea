// Owns: the compositional perturbation autoencoder and its adversaries on one backend: parameters, activations, one lane of a
// training step, and inference. Knows nothing of files, ranks, epochs or optimizers.
#ifndef CPA_MODEL_MODEL_H
#define CPA_MODEL_MODEL_H

#include "cpa/base/text.h"
#include "cpa/data/batch.h"
#include "cpa/model/config.h"
#include "cpa/nn/mlp.h"

// Sizes that come from the data. Strings and arrays are copied by cpa_model_create.
typedef struct cpa_shape {
    int n_genes, n_perts, n_labels, n_covs, max_comb_len;
    const char *const *cov_name; // [n_covs]
    const int *cov_size; // [n_covs] values of each covariate; an adversary stands against those with more than one
    int batch_cov;       // which covariate is the batch key, -1: none
    int max_cells;       // largest batch
    int64_t max_nnz;     // most stored values of a batch
    bool mixup;          // batches may be mixed: twice the values and components
    bool checkpointing;  // training keeps few of the hidden layers' activations, and computes the others again
    int n_pert_features; // width of external perturbation vectors, 0: embeddings are learned
    const float *pert_features; // [n_perts, n_pert_features] those vectors, row 0 zero; borrowed by cpa_model_create
} cpa_shape;

typedef struct cpa_model cpa_model;

// Parts of the model that have dropout: 0 the perturbation adversary, 1 + c that of covariate c, and these.
enum { CPA_PART_ENCODER = 254, CPA_PART_DECODER = 255 };

// Recorded draws to use in place of fresh ones: the mask of hidden layer k of a part on its pass-th run in this step, 0 or 1 per
// [cell, unit], and the reparametrisation noise [cell, n_latent]; NULL where nothing was recorded.
typedef struct cpa_draws {
    const cpa_real *(*mask)(void *ctx, int part, int layer, int pass);
    const cpa_real *(*noise)(void *ctx);
    void *ctx;
} cpa_draws;

// The gradient arena in the order in which a lane that updates the autoencoder completes it: the decoder's heads; what is before them,
// the decoder's layers; encoder, embeddings and dosers; the rest.
enum { CPA_MODEL_PIECES = 4 };

// What one lane of a step has to do. Denominators are those of the global batch, so that lanes add up.
typedef struct cpa_lane_plan {
    bool update_autoencoder, update_adversary;
    bool adversary_in_loss; // the autoencoder's loss contains the adversaries' (not while pretraining)
    bool
        want_metrics; // R2 and accuracies of this batch, and the reconstruction loss also without an autoencoder update
    bool
        mix_covariates; // the adversaries of covariates have to find both cells' values in a mixed batch, not only the first's
    double adv_lambda, pen_adv, kl_weight;
    double focal_gamma;  // of the adversaries' loss, 0: plain cross-entropy; focal losses are means over cells
    int64_t n_cells;     // of the global batch
    double label_weight; // sum over the global batch of the class weights of its cells
    uint32_t epoch;
    uint64_t seed;
    const cpa_draws *draws; // NULL: fresh ones
    // Told, more than once, that the first n_pieces pieces are what they will be at the end of the lane; NULL: not wanted.
    cpa_status (*final)(void *ctx, int n_pieces);
    void *final_ctx;
    // Called once when the lane's work is under way, before its sums are waited for: time for the host to use; NULL: not wanted.
    cpa_status (*meanwhile)(void *ctx);
    void *meanwhile_ctx;
    const cpa_meeting *meeting; // where lanes meet that share their batch norms' statistics; NULL: each has its own
} cpa_lane_plan;

// Sums over cells (or, R2 and accuracies, over lanes that took metrics), added over lanes. A penalty is the mean over
// the latent of the squared derivative. Three more per covariate follow.
enum {
    CPA_SUM_RECON,
    CPA_SUM_ADV_PERT,
    CPA_SUM_PENALTY_PERT,
    CPA_SUM_R2_MEAN,
    CPA_SUM_R2_VAR,
    CPA_SUM_ACC_PERT,
    CPA_SUM_METRIC_LANES,
    CPA_SUM_KL,
    CPA_SUM_COVS
};
enum { CPA_SUM_COV_ADV, CPA_SUM_COV_PENALTY, CPA_SUM_COV_ACC, CPA_SUMS_PER_COV };

/** Builds the model: declares and places parameters (values undefined: cpa_params_init or a file fills them), sizes every
 *  activation. `training`: with adversaries, gradients and moments; label_weight [n_labels] is then required. `gene_mask`:
 *  per category a bitset of (n_genes+31)/32 words or NULL (all genes), borrowed; may be NULL. */
cpa_status cpa_model_create(cpa_backend *be, const cpa_model_config *config, const cpa_shape *shape, bool training,
                            const double *label_weight, uint32_t *const *gene_mask, cpa_model **out);

/** Frees it and sets *m to NULL; NULL-safe. */
void cpa_model_destroy(cpa_model **m);

/** The parameter table. */
cpa_params *cpa_model_params(cpa_model *m);

/** Dimensions of the latent space. */
int cpa_model_n_latent(const cpa_model *m);

/** Number of sums that a lane reports. */
int cpa_model_n_sums(const cpa_model *m);

/** Runs one lane: gradients (zero where the loss is blind) and batch statistics into the gradient arena, sums into sums[n_sums].
 *  A batch without cells gives zeros. Rank-local. */
cpa_status cpa_model_lane(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, double *sums);

/** The pieces, which cover the gradient arena. */
void cpa_model_pieces(const cpa_model *m, cpa_range piece[CPA_MODEL_PIECES]);

/** Takes what `n` lanes need that run side by side and meet: activations, batches and gradients of n - 1 further lanes. Once; or
 *  again after cpa_model_narrow, which gives it back (and may be called without). Rank-local. */
cpa_status cpa_model_widen(cpa_model *m, int n);
void cpa_model_narrow(cpa_model *m);

/** Most sums that lanes hand in at once where they meet; 0: the model has no batch norm. */
int cpa_model_n_pooled(const cpa_model *m);

/** Runs n lanes (at most as many as cpa_model_widen was told) side by side, batch [n] none of them empty: as cpa_model_lane, with the
 *  sums in sums [n, n_sums] and the gradients in the arenas cpa_model_lane_grad. With plan->meeting batch norms are those of all lanes,
 *  and lanes add up to what one lane of all their cells gives. Rank-local, unless the meeting is not. */
cpa_status cpa_model_lanes(cpa_model *m, const cpa_batch *const *batch, int n, const cpa_lane_plan *plan, double *sums);

/** The gradient arena of lane i of those; the first one's is the model's own. */
cpa_dev_real *cpa_model_lane_grad(cpa_model *m, int i);

/** Clears the lane's gradient arena (for a lane without cells). */
cpa_status cpa_model_no_lane(cpa_model *m, double *sums);

/** Evaluation forward of a batch up to its latents; a variational basal latent is its mean. A covariate's code of -1 adds
 *  nothing. */
cpa_status cpa_model_infer(cpa_model *m, const cpa_batch *batch);

// Results of the last cpa_model_lane or cpa_model_validate of a batch with validation metrics.
typedef struct cpa_scores {
    double recon_loss, kl, r2_mean, r2_var; // means over cells; over the batch's categories
} cpa_scores;

/** Evaluation forward with the validation metrics that need the decoder. */
cpa_status cpa_model_validate(cpa_model *m, const cpa_batch *batch, cpa_scores *scores);

// Parts of a latent vector, to be or-ed. basal + pert + covs + batch is the decoder's input z.
enum { CPA_LATENT_BASAL = 1, CPA_LATENT_PERT = 2, CPA_LATENT_COVS = 4, CPA_LATENT_BATCH = 8, CPA_LATENT_ALL = 15 };

/** Appends to `why` the sentence why a loss of this batch is not finite: a parameter that holds such a value; else the first layer,
 *  cell and unit or gene to have one; else the cell and the count whose loss has. `plan`: as the lane ran; NULL: in evaluation.
 *  `gene`: their names, or NULL. The batch is run once more, by a model for training. Allocates. Rank-local. */
cpa_status cpa_model_diagnose(cpa_model *m, const cpa_batch *batch, const cpa_lane_plan *plan, const cpa_strings *gene,
                              cpa_text *why);

/** Whether a parameter holds a value that is not finite; `why` then gets the sentence that names the first. Rank-local. */
cpa_status cpa_model_find_parameter(cpa_model *m, cpa_text *why, bool *found);

/** Copies the sum of the named parts for the cells of the last batch to host [n_cells, n_latent]. */
cpa_status cpa_model_latent(cpa_model *m, int parts, cpa_real *host);

// What of the last batch's latents is decoded, and to what.
typedef struct cpa_decoding {
    int parts;     // CPA_LATENT_...: what the decoder reads
    int draw;      // of a variational basal latent: the number of its draw, from 1 on; 0: its mean
    uint64_t seed; // of the draws, which are functions of seed, cell and number alone
    bool thin;     // with zinb: the mean of the counts, (1 - inflation) mu, in place of mu
} cpa_decoding;

/** Decodes the batch of the last cpa_model_infer; as often as wanted. */
cpa_status cpa_model_decode(cpa_model *m, const cpa_decoding *how);

/** Copies the means of the last cpa_model_decode or cpa_model_validate to host [n_cells, n_genes]. */
cpa_status cpa_model_means(cpa_model *m, cpa_real *host);

#endif
