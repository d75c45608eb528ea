// Owns: what training takes memory for, item by item, as it is taken. `train` and `plan` keep it in the same places of the same code, so
// that they cannot disagree. Never takes memory itself.
#ifndef CPA_TRAIN_LEDGER_H
#define CPA_TRAIN_LEDGER_H

#include "cpa/base/mem.h"
#include "cpa/nn/params.h"

// The items: X(name, NAME, what it is).
#define CPA_ITEM_LIST(X)                                                                                               \
    X(columns, COLUMNS, "names, columns and splits of the cells")                                                      \
    X(order, ORDER, "order of the training cells")                                                                     \
    X(cells, CELLS, "counts of the cells")                                                                             \
    X(values, VALUES, "parameters")                                                                                    \
    X(gradients, GRADIENTS, "gradients")                                                                               \
    X(moments, MOMENTS, "moments of the three Adams")                                                                  \
    X(activations, ACTIVATIONS, "activations, and the batch as the backend has it")                                    \
    X(history, HISTORY, "history and description of the model")                                                        \
    X(lanes, LANES, "batches and sums over lanes and ranks")                                                           \
    X(validation, VALIDATION, "validation")                                                                            \
    X(best, BEST, "the best state so far")                                                                             \
    X(steps, STEPS, "scratch of the backend, and the checkpoint in the making")

typedef enum cpa_item {
#define X(name, NAME, what) CPA_ITEM_##NAME,
    CPA_ITEM_LIST(X)
#undef X
        CPA_N_ITEMS
} cpa_item;

typedef struct cpa_ledger {
    long bytes[CPA_N_ITEMS][CPA_N_MEMORY];
    long seen[CPA_N_MEMORY]; // up to the last entry
} cpa_ledger;

/** Its name ("cells"), and what it is. */
const char *cpa_item_name(cpa_item item);
const char *cpa_item_text(cpa_item item);

/** Begins: what lives now belongs to no item. */
void cpa_ledger_begin(cpa_ledger *l);

/** What was taken since the last entry, less what was given back, is this item's, added to what it has. `l` may be NULL. */
void cpa_ledger_enter(cpa_ledger *l, cpa_item item);

/** The same for a model that has just been made: values, gradients, moments, and the rest. */
void cpa_ledger_enter_model(cpa_ledger *l, const cpa_params *t);

/** Bytes of an item, of all items. */
long cpa_ledger_item(const cpa_ledger *l, cpa_item item);
long cpa_ledger_total(const cpa_ledger *l, cpa_memory where);

#endif
