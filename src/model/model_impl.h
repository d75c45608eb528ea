// Owns: the inside of a model, shared by the files of this folder.
// Never included elsewhere.
#ifndef CPA_MODEL_IMPL_H
#define CPA_MODEL_IMPL_H

#include "cpa/model/model.h"
#include "cpa/nn/mlp.h"

// A batch on the backend.
typedef struct cpa_device_batch {
    cpa_csr x;
    cpa_dev_int *indptr, *gene, *pert, *label, *cov, *cell;
    cpa_dev_real *count, *log1p, *library, *dose;
} cpa_device_batch;

// A classifier that tries to read the perturbation (cov < 0) or a covariate off the basal latent.
typedef struct cpa_adversary {
    cpa_mlp mlp;
    int cov;
    int classes;
    cpa_mat logits;       // [max_cells, classes], owned
    cpa_mat class_weight; // [classes] or without data
    int sum_adv, sum_penalty, sum_acc;
} cpa_adversary;

struct cpa_model {
    cpa_backend *be; // borrowed
    cpa_model_config config;
    cpa_shape shape; // arrays owned
    bool training;
    cpa_params t;
    cpa_mlp encoder, decoder;
    int px_r, pert_embedding, doser_w, doser_b, *cov_embedding;
    int n_adversaries;
    cpa_adversary *adversary;
    uint32_t *const *gene_mask; // borrowed
    int mask_words;
    bool has_mask; // some group of the prepared batch has a list of genes

    cpa_device_batch batch;
    int n; // cells of the batch that is loaded
    cpa_mat z_basal, z, dz, dz_basal, g; // [max_cells, n_latent]
    cpa_mat s, ds;                       // scaled doses [max_cells, max_comb_len]
    cpa_mat logits, means, target;       // [max_cells, n_genes]; the last two for metrics
    cpa_dev_real *memory;                // owned: all of the above
    cpa_dev_real *class_weights;         // owned
    cpa_dev_f64 *sums, *r2;              // [n_sums], [2 max_cells]
    cpa_dev_int *order, *offsets, *mask; // [max_cells], [max_cells+1], [max_cells, mask_words]
    cpa_dev_int *best;                   // [1 + n_covs, max_cells] class that each adversary found likeliest
    int32_t *host_order, *host_offsets, *host_mask, *host_best; // [max_cells ...]
    double *host_r2;
    int *host_hits; // [3 max classes]
};

/** Uploads a batch. */
cpa_status cpa_model_load(cpa_model *m, const cpa_batch *batch);

/** Training forward up to the decoder's last hidden layer: z_basal, z, activations and batch statistics. */
cpa_status cpa_model_forward(cpa_model *m);

/** z = sum of the named parts, for the loaded batch; needs z_basal and scaled doses. */
cpa_status cpa_model_compose(cpa_model *m, cpa_mat z, int parts);

/** Loss, head and everything below it: gradients of all autoencoder and doser parameters. dz_basal must hold what the adversaries
 *  send back (or 0). */
cpa_status cpa_model_autoencoder_grad(cpa_model *m, const cpa_lane_plan *plan);

/** The adversaries inside the autoencoder's loss: their losses into the sums, the gradient of -lambda * loss with respect to the basal
 *  latent added to dz_basal. */
cpa_status cpa_adversary_against(cpa_model *m, const cpa_lane_plan *plan);

/** The adversaries' own loss with the gradient penalty: gradients of their parameters. */
cpa_status cpa_adversary_train(cpa_model *m, const cpa_lane_plan *plan);

/** Groups the loaded batch by category and prepares the target of the R2. */
cpa_status cpa_score_prepare(cpa_model *m, const cpa_batch *batch, int *n_groups);

/** R2 of the means (destroyed: log1p is taken) against the target, averaged over groups. */
cpa_status cpa_score_r2(cpa_model *m, cpa_mat means, int n_groups, double *r2_mean, double *r2_var);

/** Accuracy of an adversary's logits: macro average over classes that occur or are predicted, or the plain share. */
cpa_status cpa_score_accuracy(cpa_model *m, const cpa_adversary *a, const cpa_batch *batch, double *accuracy);

#endif
