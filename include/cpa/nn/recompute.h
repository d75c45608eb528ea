// Owns: gradient checkpointing: what of hidden layers stays from forward to backward, and computing the rest again.
// Never changes a bit of what is computed.
#ifndef CPA_NN_RECOMPUTE_H
#define CPA_NN_RECOMPUTE_H

#include "cpa/platform/backend.h"

enum { CPA_MAX_LAYERS = 8 };

struct cpa_mlp;

// What stacks share that recompute their activations. The slots hold A, the products, of layers of one stack: of the one that ran last.
// What follows from A - norms, output - is computed again on the way back, for one layer at a time, the normalised values where A was.
// An A that is not there is computed again from the nearest that is, or from the stack's input, and those between are spread anew over the
// slots that have become free.
typedef struct cpa_recompute {
    int n_slots;
    cpa_mat slot[CPA_MAX_LAYERS]; // [max_cells, widest layer]
    int layer[CPA_MAX_LAYERS];    // whose A a slot holds, -1: none
    const struct cpa_mlp *of;     // the stack whose they are, NULL: of none
    int base, last, more; // layers that are being computed: behind `base` up to `last`; how many stay of those between
    int ready;            // the layer whose output and normalised values are there, -1: none
    cpa_mat y;            // output of one layer, [max_cells, widest layer]
    cpa_mat lhat, mask;   // where a stack has both norms, or dropout, the same
    cpa_mat mean, var, rstd; // [widest layer]
    cpa_mat lrstd;           // [max_cells]
} cpa_recompute;

/** Places what `n` stacks share that were laid out for `max_cells` cells before; with arena NULL only counts. Takes a fifth of what their
 *  activations would, where that is enough for one A and one output. */
void cpa_recompute_lay_out(cpa_recompute *r, const struct cpa_mlp *const *stack, int n, int max_cells,
                           const cpa_dev_real *arena, int64_t *used);

#endif
