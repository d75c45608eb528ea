// Owns: history.csv: a row per epoch and mode under upstream's metric names. Means over batches leave out zeros, as upstream's do, or are exact.
// Never holds a time: equal runs give equal files.
#ifndef CPA_TRAIN_HISTORY_H
#define CPA_TRAIN_HISTORY_H

#include "cpa/base/text.h"
#include "cpa/data/registry.h"
#include "cpa/train/step.h"

typedef struct cpa_history cpa_history;

/** Columns for the covariates of this registry. `exact`: means take in batches whose value is 0, which upstream's leave out. */
cpa_status cpa_history_create(const cpa_registry *registry, bool exact, cpa_history **out);

/** Frees it and sets *h to NULL; NULL-safe. */
void cpa_history_destroy(cpa_history **h);

/** Adds a value of the current epoch to a column. */
void cpa_history_take(cpa_history *h, const char *column, double value);

/** Sets a column of the current epoch to a value that is no mean over batches; NaN leaves it empty. */
void cpa_history_give(cpa_history *h, const char *column, double value);

/** Adds what a training step computed. */
void cpa_history_step(cpa_history *h, const cpa_step_result *r);

/** Mean of a column over the current epoch, NaN when it got no value. */
double cpa_history_mean(const cpa_history *h, const char *column);

/** Ends the epoch: appends its row and starts afresh. `mode`: "train" or "valid". */
cpa_status cpa_history_row(cpa_history *h, int64_t epoch, const char *mode);

/** The whole CSV. Borrowed. */
const char *cpa_history_csv(const cpa_history *h);

/** The sums and numbers of values of the current epoch, one per column; returns how many columns. Borrowed. */
int cpa_history_sums(cpa_history *h, double **sum, int64_t **n);

/** Takes a CSV that another history of the same columns gave, in place of its own. */
cpa_status cpa_history_restore(cpa_history *h, const char *csv);

#endif
