// Owns: what the files of this folder share about stacks: views, and the two halves of a layer's forward.
// Never included elsewhere.
#ifndef CPA_MLP_IMPL_H
#define CPA_MLP_IMPL_H

#include "cpa/nn/mlp.h"

/** A matrix of this size where m is. */
static inline cpa_mat cpa_sized(cpa_mat m, int rows, int cols)
{
    return cpa_mat_of(m.data, rows, cols);
}

/** A = input of layer k times its weight, without bias. Of this lane alone. */
cpa_status cpa_mlp_product(cpa_mlp *mlp, int k);

/** Y of layer k from A in training mode, filling what the backward needs; its batch norm's statistics without the bias into mean and
 *  var. Of this lane alone: where lanes meet, they have. */
cpa_status cpa_mlp_activate(cpa_mlp *mlp, int k, cpa_mat mean, cpa_mat var);

/** Around the forward of a stack: before all layers, before one, after all. Nothing where activations are kept. */
void cpa_recompute_begin(cpa_mlp *mlp);
cpa_status cpa_recompute_enter(cpa_mlp *mlp, int k);
void cpa_recompute_end(cpa_mlp *mlp);

/** On the way back, layers in descending order: output and normalised values of layer k are there; those of the layers behind it no more.
 *  Of this lane alone. */
cpa_status cpa_recompute_layer(cpa_mlp *mlp, int k);

/** Nothing is there any more. */
void cpa_recompute_forget(cpa_mlp *mlp);

#endif
