// Owns: gradient checkpointing: which outputs of hidden layers stay from forward to backward, and computing the others again.
// Never changes a bit of what is computed.
#ifndef CPA_NN_RECOMPUTE_H
#define CPA_NN_RECOMPUTE_H

#include "cpa/platform/backend.h"

enum { CPA_MAX_LAYERS = 8 };

struct cpa_mlp;

// What stacks share that recompute their activations. The slots hold outputs of one stack's layers: of the one that ran last. On the way
// back those that are not there are computed again from the nearest that is, or from the stack's input, and spread anew over the slots
// that have become free. What a norm leaves is there for one layer at a time, in the scratch where that layer's input gradient will be.
typedef struct cpa_recompute {
    int n_slots;
    cpa_mat slot[CPA_MAX_LAYERS]; // [max_cells, widest layer]
    int layer[CPA_MAX_LAYERS];    // whose output a slot holds, -1: none
    const struct cpa_mlp *of;     // the stack whose they are, NULL: of none
    int base, last,
        more;     // layers that are being computed: behind `base` up to `last`; how many stay of those before last - 1
    int ready;    // the layer whose norms' values are in the scratch, -1: none
    cpa_mat lhat; // where a stack has both norms, [max_cells, widest layer]
    cpa_mat mask; // where a stack has dropout, the same
    cpa_mat mean, var, rstd; // [widest layer]
    cpa_mat lrstd;           // [max_cells]
} cpa_recompute;

/** Places what `n` stacks share that were laid out for `max_cells` cells before; with arena NULL only counts. Takes a fifth of what their
 *  activations would, where that is enough for two outputs. */
void cpa_recompute_lay_out(cpa_recompute *r, const struct cpa_mlp *const *stack, int n, int max_cells,
                           const cpa_dev_real *arena, int64_t *used);

#endif
