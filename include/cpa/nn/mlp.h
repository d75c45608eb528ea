// Owns: a stack of hidden layers (linear, batch and/or layer norm, ReLU, dropout) with an optional last linear layer: parameters, activations,
// forward, backward and second-order backward, as compositions of operations.
#ifndef CPA_NN_MLP_H
#define CPA_NN_MLP_H

#include "cpa/nn/params.h"
#include "cpa/nn/recompute.h"

// Where lanes that share their batch norms' statistics meet: before each of them every lane hands in sums over its cells, and gets those
// over the cells of all lanes, of other ranks too. Borrowed by the stacks.
typedef struct cpa_meeting {
    int64_t rows; // cells of all lanes
    double *own;  // [lanes of this rank that have cells, n] what they hand in, in order
    double *all;  // [n] what they get
    /** Adds up n sums; n is at most what the stacks' cpa_mlp_n_pooled says. Whoever adds them decides who else takes part. */
    cpa_status (*add_up)(void *ctx, int n);
    void *ctx;
} cpa_meeting;

// A hidden layer: A = X W^T + b, then batch norm (affine), then layer norm (not affine), each if it is on, then ReLU and dropout: Y. In
// front of a batch norm the bias moves only the running mean, and its gradient is exactly 0.
typedef struct cpa_layer {
    int weight, bias, gamma, beta, mean, var; // numbers in the parameter table; the last four only with batch norm
    int n_in, n_out;
    cpa_mat y;                // [max_cells, n_out]
    cpa_mat a;                // where activations are recomputed: A, [max_cells, n_out]
    cpa_mat xhat, rstd;       // of the batch norm, [max_cells, n_out] and [n_out]
    cpa_mat lhat, lrstd;      // of the layer norm, [max_cells, n_out] and [max_cells]; lhat holds its input before
    cpa_mat delta, e, q;      // second order: d(sum of outputs)/dY and /dA, and dP/dA, [max_cells, n_out]
    cpa_mat mid_delta, mid_q; // the same between the norms
} cpa_layer;

// Which norms the hidden layers of a stack have.
typedef struct cpa_norms {
    bool batch, layer;
} cpa_norms;

// Input of a stack: a dense matrix, or cells as CSR.
typedef struct cpa_input {
    cpa_mat x;
    const cpa_csr *csr;
} cpa_input;

// Draws the dropout mask of a hidden layer: the same one whenever it is asked for that layer in one run of the stack.
typedef struct cpa_masks {
    cpa_status (*draw)(void *ctx, cpa_mat mask, int layer);
    void *ctx;
} cpa_masks;

// Room of stacks that run one after another, which none of them needs between its runs.
typedef struct cpa_scratch {
    cpa_mat work[2]; // [max_cells, cpa_mlp_width of the widest]
    cpa_mat row;     // [widest hidden layer]
} cpa_scratch;

typedef struct cpa_mlp {
    cpa_params *t;                       // borrowed
    int n_layers, n_in, n_hidden, n_out; // n_out 0: no last linear layer
    cpa_layer layer[CPA_MAX_LAYERS];
    int out_weight, out_bias;
    cpa_norms norms;
    cpa_real rate, keep;  // of dropout, and 1/(1 - rate)
    cpa_mat work[2];      // scratch [max_cells, n_hidden, and n_in of a dense input]
    cpa_mat row;          // scratch [n_hidden]
    int linear;           // which of `work` takes an A that is not kept
    cpa_masks masks;      // of the run to come, where there is dropout
    cpa_recompute *again; // borrowed; NULL: all activations are kept from forward to backward
    // Owned, of the training of lanes that meet: a batch norm's sums over this lane's cells, and over all; behind the latter, with `again`,
    // those of every layer's last forward [n_layers, 2 n_hidden].
    cpa_dev_f64 *own, *all;
    bool sparse, use_log1p;     // the first layer takes a cpa_csr, its logarithms or its counts
    const cpa_meeting *meeting; // NULL: every lane has statistics of its own
    struct cpa_mlp *next; // the same stack of this rank's next lane, with which it goes layer by layer; NULL: none
    cpa_input in;         // what cpa_mlp_load said
    int n_cells;
    cpa_mat dx;
    bool cancels; // whatever reads the outputs batch-normalises them first, so their bias has an exactly zero gradient
} cpa_mlp;

/** Declares parameters: hidden layers under "<prefix>Layer k.0.weight" ..., the last linear layer as `out_name`.weight/.bias
 *  (n_out 0: none). USAGE when n_layers is not in 1..CPA_MAX_LAYERS. */
cpa_status cpa_mlp_declare(cpa_mlp *mlp, cpa_params *t, cpa_group group, cpa_group stat_group, int n_in, int n_hidden,
                           int n_layers, int n_out, cpa_norms norms, bool sparse, const char *prefix,
                           const char *out_name);

// What a stack is laid out for.
typedef struct cpa_mlp_use {
    int max_cells;
    bool training, second_order; // the latter: also for cpa_mlp_penalty
    double dropout_rate;
    const cpa_scratch *scratch; // laid out before
    cpa_recompute *again;       // what recomputes its activations (laid out after it), NULL: nothing does
} cpa_mlp_use;

/** Places its activations; with arena NULL only counts. The arena is the caller's. */
void cpa_mlp_lay_out(cpa_mlp *mlp, const cpa_mlp_use *use, const cpa_dev_real *arena, int64_t *used);

/** Columns that it needs of cpa_scratch's work. */
int cpa_mlp_width(const cpa_mlp *mlp);

/** Allocates what a stack needs to meet others, and frees it. */
cpa_status cpa_mlp_place_sums(cpa_mlp *mlp);
void cpa_mlp_fini_sums(cpa_mlp *mlp);

/** Most sums that it hands in at once. */
int cpa_mlp_n_pooled(const cpa_mlp *mlp);

/** What the training of the next batch is about: its n_cells rows, and dx [n_cells, n_in] for the gradient of a dense input (or without
 *  data). All of it borrowed. */
void cpa_mlp_load(cpa_mlp *mlp, cpa_input in, int n_cells, cpa_mat dx);

// The training functions that follow, down to cpa_mlp_penalty, run a stack and those that follow it in `next`.

/** Forward: fills activations and the batch statistics' slots; `masks` must be set when there is dropout. `inside_autoencoder` chooses the
 *  statistics' slots. */
cpa_status cpa_mlp_forward(cpa_mlp *mlp, bool inside_autoencoder);

/** Before the backward of a stack that recomputes its activations, where another of its kind ran since its forward: the output of the
 *  last hidden layer is there again. Nothing otherwise. */
cpa_status cpa_mlp_recall(cpa_mlp *mlp);

/** Backward through the hidden layers from cpa_mlp_dhidden (destroyed). `params`: parameter gradients, written (or, with `add`, added for
 *  weights and gamma). `second`: adds the penalty's dP/dA at every layer. `to_input`: into dx. */
cpa_status cpa_mlp_grad(cpa_mlp *mlp, bool params, bool add, bool second, bool to_input);

/** dx = d(sum of all outputs)/d(input) in training mode, for the activations of the last forward. */
cpa_status cpa_mlp_sum_gradient(cpa_mlp *mlp);

/** Second order: given dP/d(dx) in dx after cpa_mlp_sum_gradient, writes dP/d(weights, gamma) into the gradients and keeps
 *  dP/dA of every layer for cpa_mlp_grad(second). beta and hidden biases get nothing from P. */
cpa_status cpa_mlp_penalty(cpa_mlp *mlp);

/** Evaluation forward (running statistics, no dropout). */
cpa_status cpa_mlp_eval(cpa_mlp *mlp, cpa_input in, int n_cells);

/** The values of layer k as the last run had them, where they are not kept: computed again, for whoever wants to look at them. `training`:
 *  that run was a forward, else an evaluation. The stack must run anew afterwards. */
cpa_status cpa_mlp_show(cpa_mlp *mlp, int k, bool training);

/** Output of the last hidden layer, [n_cells, n_hidden]. */
cpa_mat cpa_mlp_hidden(const cpa_mlp *mlp, int n_cells);

/** Scratch for the gradient of the last hidden layer's output, [n_cells, n_hidden], where cpa_mlp_grad takes it from. */
cpa_mat cpa_mlp_dhidden(const cpa_mlp *mlp, int n_cells);

/** out [n_cells, n_out] = hidden W^T + b, the last linear layer. */
cpa_status cpa_mlp_output(cpa_mlp *mlp, cpa_mat out);

/** Backward of cpa_mlp_output: weight and bias gradients (when `params`; `add`: added to what is there), dh = dout W. */
cpa_status cpa_mlp_output_grad(cpa_mlp *mlp, cpa_mat dh, cpa_mat dout, bool params, bool add);

#endif
