// Owns: what the two files of checkpoints share: the list of what a state consists of. Never included elsewhere.
#ifndef CPA_TRAIN_CHECKPOINT_IMPL_H
#define CPA_TRAIN_CHECKPOINT_IMPL_H

#include "cpa/platform/h5.h"
#include "cpa/train/checkpoint.h"

#define CPA_CHECKPOINT_FORMAT "cpa-hpc checkpoint"
#define CPA_CHECKPOINT_CSV "state/history_csv"
enum {
    CPA_CHECKPOINT_VERSION = 1,
    CPA_CHECKPOINT_FIELDS = 12,
    CPA_CHECKPOINT_SEAL = 24, // bytes behind the HDF5 file, which HDF5 does not look at
};

// One array of a checkpoint: a tensor of an arena, numbers at `from`, or neither: the history's text.
typedef struct cpa_checkpoint_item {
    char path[600];
    cpa_h5_type type;
    int64_t n;              // elements
    void *from;             // of the state
    const cpa_param *param; // NULL: no tensor
    int id;
    cpa_dev_real *arena; // where it is, or
    cpa_real *copy;      // (not NULL) the copy of an arena in host memory
} cpa_checkpoint_item;

/** How many items to ask for. */
int cpa_checkpoint_items(const cpa_train_state *s);

/** Item i of a state; false when there is nothing there. */
bool cpa_checkpoint_item_of(const cpa_train_state *s, int i, cpa_checkpoint_item *item);

#endif
