// Owns: the inside of a model, shared by the files of this folder.
// Never included elsewhere.
#ifndef CPA_MODEL_IMPL_H
#define CPA_MODEL_IMPL_H

#include "cpa/model/model.h"
#include "cpa/nn/mlp.h"

typedef enum cpa_likelihood { CPA_NB, CPA_ZINB, CPA_GAUSS } cpa_likelihood;

// A batch on the backend. cov holds cov_width codes a cell: its own, and in a mixed batch its partner's.
typedef struct cpa_device_batch {
    cpa_csr x;
    cpa_dev_int *indptr, *gene, *pert, *label, *label2, *cov, *cov_own, *cov_partner, *cell, *row, *partner;
    cpa_dev_real *count, *log1p, *library, *dose, *cov_weight;
    int comb; // components a cell
    bool mixed;
    double lambda; // weight of the cell itself
} cpa_device_batch;

// Where a run of a stack has its dropout masks from.
typedef struct cpa_mask_source {
    const cpa_model *m;
    const cpa_lane_plan *plan;
    int part, pass;
    cpa_real keep, rate;
} cpa_mask_source;

// A classifier that tries to read the perturbation (cov < 0) or a covariate off the basal latent.
typedef struct cpa_adversary {
    cpa_mlp mlp;
    int cov;
    int classes;
    cpa_mask_source masks;
    cpa_mat logits;       // [max_cells, classes]
    cpa_mat class_weight; // [classes] or without data
    int sum_adv, sum_penalty, sum_acc;
} cpa_adversary;

// Networks of ReLU layers from a dose to its effect, one for each perturbation: tensors of all of them stacked, and
// activations [max_cells * components, width] of those that the loaded batch needs.
typedef struct cpa_dose_nets {
    int n_layers;                                             // hidden ones
    int weight[CPA_MAX_LAYERS + 1], bias[CPA_MAX_LAYERS + 1]; // the output layer's last
    cpa_mat y[CPA_MAX_LAYERS], work[2];
    cpa_mat out, dout; // [max_cells * components, 1]
} cpa_dose_nets;

// What one lane's operations go by that is no cpa_number: two lanes with the same do the same.
typedef struct cpa_lane_kind {
    int64_t n_cells;
    uint64_t seed;
    double kl_weight, pen_adv, focal_gamma;
    int n, comb;
    int update_autoencoder, update_adversary, adversary_in_loss;
    int unused; // 0: no bytes of it are left undefined
} cpa_lane_kind;

// A kind of lane that was met before, and its operations once they are recorded.
typedef struct cpa_repeat {
    cpa_lane_kind kind;
    cpa_recording *what;
    bool is_known;
} cpa_repeat;

enum { CPA_REPEATS = 8 };

// Numbers of a step, as operations take them: the epoch, then for every adversary what its losses are multiplied by, inside the autoencoder's
// and in its own training.
enum { CPA_NUMBER_EPOCH, CPA_NUMBER_ADVERSARIES };

struct cpa_model {
    cpa_backend *be;  // borrowed
    cpa_model **more; // [n_more] owned: what other lanes compute in at the same time; they share the parameters' values
    int n_more;
    cpa_model *next; // the next lane of the step, NULL: the last; whatever meets others runs all of them
    cpa_model_config config;
    cpa_shape shape; // arrays owned
    bool training;
    cpa_params t;
    cpa_likelihood likelihood;
    bool has_dose_nets; // instead of `doser`
    cpa_doser doser;
    cpa_dose_nets dose_nets;
    cpa_mlp encoder, decoder;
    cpa_mask_source encoder_masks, decoder_masks;
    cpa_recompute again;          // with shape.checkpointing, of the last two
    int var_weight, var_bias;     // second output of a variational encoder
    int head2_weight, head2_bias; // second head of the decoder: zero inflation or variance
    int px_r, pert_embedding, doser_w, doser_b, *cov_embedding;
    int project_weight, project_bias; // of external perturbation vectors
    int n_adversaries;
    cpa_adversary *adversary;
    uint32_t *const *gene_mask; // borrowed
    int mask_words;
    bool has_mask; // some group of the prepared batch has a list of genes

    cpa_device_batch batch;
    int n;                                       // cells of the batch that is loaded
    cpa_mat z_basal, z, dz, dz_basal, g;         // [max_cells, n_latent]
    cpa_mat z_mean, z_raw, z_std, noise, dz_raw; // the same, of a variational encoder
    cpa_mat s, ds;                               // scaled doses [max_cells, components]
    cpa_mat vectors, dvectors;                   // projected external vectors and their gradient [n_perts, n_latent]
    cpa_mat logits, head2;                       // [max_cells, n_genes]; without bias until the loss
    cpa_mat means, means2, target;               // the same, for metrics; the adversaries run where these were
    double *number;                              // [n_numbers] owned
    cpa_dev_f64 *numbers;                        // the same on the backend
    cpa_repeat repeat[CPA_REPEATS];              // of single lanes
    int next_repeat;                             // that gives way
    cpa_dev_real *memory;                        // owned: all of the above, and the stacks'
    cpa_dev_real *class_weights;                 // owned
    cpa_dev_f64 *sums, *r2;                      // [n_sums], [2 max_cells]
    cpa_dev_int *order, *offsets, *mask;         // [max_cells], [max_cells+1], [max_cells, mask_words]
    cpa_dev_int *best;                           // [1 + n_covs, max_cells] class that each adversary found likeliest
    int32_t *host_order, *host_offsets, *host_mask, *host_best; // [max_cells ...]
    int32_t *host_cov;                                          // [2 max_cells]
    cpa_real *host_weight;                                      // [2 max_cells]
    double *host_r2, batch_r2[2]; // the latter of the last training batch: of means, of variances
    int *host_hits;               // [3 max classes]
};

/** Number of the first perturbation that adds to the latent: behind the padding, and behind a control that is nothing. */
static inline int cpa_first_perturbation(const cpa_model *m)
{
    return m->config.control_zero ? 2 : 1;
}

/** Says that pieces of the gradient arena are final, to whom it concerns. */
static inline cpa_status cpa_model_reached(const cpa_lane_plan *plan, int n_pieces)
{
    return plan->final ? plan->final(plan->final_ctx, n_pieces) : CPA_OK;
}

/** Takes the memory of what one lane computes in, and gives it back. */
cpa_status cpa_model_place(cpa_model *m);
void cpa_model_unplace(cpa_model *m);

/** Links the model and n - 1 further lanes for what comes next; their batch norms meet, or (NULL) do not. */
cpa_status cpa_model_join(cpa_model *m, int n, const cpa_meeting *meeting);

/** Sets the numbers of the step, on the host and on the backend. */
cpa_status cpa_model_set_numbers(cpa_model *m, const cpa_lane_plan *plan);

/** One of them. */
static inline cpa_number cpa_model_number(const cpa_model *m, int i)
{
    return (cpa_number){m->number[i], cpa_f64_at(m->numbers, i)};
}

/** What the losses of the adversaries are multiplied by: `own`: in their own training. */
double cpa_adversary_scale(const cpa_adversary *a, const cpa_lane_plan *plan, bool own);

/** Uploads a batch. */
cpa_status cpa_model_load(cpa_model *m, const cpa_batch *batch);

/** Training forward of the linked lanes up to the decoder's last hidden layer: z_basal, z, activations, batch statistics, the KL sum. */
cpa_status cpa_model_forward(cpa_model *m, const cpa_lane_plan *plan);

/** From the latents of the last cpa_model_infer, or some of their parts (CPA_LATENT_...), to the head products. */
cpa_status cpa_model_heads(cpa_model *m, int parts);

/** Says where the masks of the next run of a stack come from: recorded ones, or drawn per cell. The plan is borrowed for that run and its
 *  backward; `source` is the stack's. */
void cpa_model_masks(cpa_model *m, cpa_mlp *mlp, cpa_mask_source *source, int part, const cpa_lane_plan *plan,
                     int pass);

/** Basal latent in evaluation mode (a variational one is its mean); its KL into the sums. */
cpa_status cpa_latent_eval(cpa_model *m);

/** Basal latent of a variational encoder after cpa_latent_eval: its mean (draw 0), or a draw of that number. */
cpa_status cpa_latent_draw(cpa_model *m, int draw, uint64_t seed);

/** Gradients of the encoder's outputs from dz_basal (destroyed), down to its last hidden layer. */
cpa_status cpa_latent_encoder_grad(cpa_model *m, const cpa_lane_plan *plan);

/** The embeddings of perturbations, [n_perts, n_latent]: learned rows, or external vectors projected (computed here). */
cpa_status cpa_latent_vectors(cpa_model *m, cpa_mat *vectors);

/** Gradients of embeddings, projection and dosers from dz. */
cpa_status cpa_latent_embedding_grad(cpa_model *m, cpa_mat dz);

/** Scaled doses of the loaded batch. */
cpa_status cpa_latent_doses(cpa_model *m);

/** Declares the parameters of the dose response. */
cpa_status cpa_doser_declare(cpa_model *m);

/** Places its activations; with arena NULL only counts. */
void cpa_doser_lay_out(cpa_model *m, cpa_dev_real *arena, int64_t *used);

/** Effects of the loaded batch's doses into s [n, components]. */
cpa_status cpa_doser_forward(cpa_model *m, cpa_mat s);

/** Gradients of its parameters from ds, for the activations of the last forward; only where it has any. */
cpa_status cpa_doser_grad(cpa_model *m, cpa_mat ds);
bool cpa_doser_has_gradient(const cpa_model *m);

/** Declares the decoder of the likelihood. */
cpa_status cpa_likelihood_declare(cpa_model *m);

/** logits or head2 of the loaded batch as a training step has them: where the backend's precision is bf16 the products, and then their
 *  gradients, are in bfloat16, in the first half of the same room. */
cpa_mat cpa_likelihood_trained(const cpa_model *m, cpa_mat x);

/** Head products of the decoder's last hidden layer into logits (and head2), as a training step has them or in cpa_real. */
cpa_status cpa_likelihood_head(cpa_model *m, bool training);

/** Reconstruction loss into the sums; logits and head2 become scale * gradients; gradients of biases and dispersion. */
cpa_status cpa_likelihood_loss(cpa_model *m, cpa_real scale);

/** Gradients of the heads' weights, and dh of the decoder's last hidden layer. */
cpa_status cpa_likelihood_head_grad(cpa_model *m, cpa_mat dh);

/** Reconstruction loss into the sums without gradients: `means` (and `second`) hold head products and become means (and, for
 *  gauss, variances). */
cpa_status cpa_likelihood_mean_loss(cpa_model *m, cpa_mat means, cpa_mat second);

/** Head products in logits become means; `thin`: those of zinb with the zeros of the inflation. */
cpa_status cpa_likelihood_means(cpa_model *m, bool thin);

/** z = sum of the named parts, for the loaded batch; needs z_basal and scaled doses. */
cpa_status cpa_model_compose(cpa_model *m, cpa_mat z, int parts);

/** Of the linked lanes: loss, head and everything below it: gradients of all autoencoder and doser parameters. dz_basal must hold what the adversaries
 *  send back (or 0). */
cpa_status cpa_model_autoencoder_grad(cpa_model *m, const cpa_lane_plan *plan);

/** Of the linked lanes: the adversaries inside the autoencoder's loss: their losses into the sums, the gradient of -lambda * loss with respect to the basal
 *  latent added to dz_basal. */
cpa_status cpa_adversary_against(cpa_model *m, const cpa_lane_plan *plan);

/** Runs adversary i of the first lane forward as the last step did, for a look at its layers. */
cpa_status cpa_adversary_show(cpa_model *m, int i, const cpa_lane_plan *plan);

/** Of the linked lanes: the adversaries' own loss with the gradient penalty: gradients of their parameters. */
cpa_status cpa_adversary_train(cpa_model *m, const cpa_lane_plan *plan);

/** Groups the loaded batch by category and prepares the target of the R2. */
cpa_status cpa_score_prepare(cpa_model *m, const cpa_batch *batch, int *n_groups);

/** R2 of the means (destroyed: for counts log1p is taken) against the target, averaged over groups; for gauss the predicted variances
 *  are scored in place of the means' variance. */
cpa_status cpa_score_r2(cpa_model *m, cpa_mat means, cpa_mat variances, int n_groups, double *r2_mean, double *r2_var);

/** Accuracy of an adversary's logits: macro average over classes that occur or are predicted, or the plain share. */
cpa_status cpa_score_accuracy(cpa_model *m, const cpa_adversary *a, const cpa_batch *batch, double *accuracy);

#endif
