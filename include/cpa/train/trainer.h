// Owns: the epoch loop: training, validation, early stopping, the best state. Knows nothing of files and folders.
#ifndef CPA_TRAIN_TRAINER_H
#define CPA_TRAIN_TRAINER_H

#include "cpa/train/checkpoint.h"
#include "cpa/train/validate.h"

// What an epoch did, for logs and progress.
typedef struct cpa_epoch_report {
    int64_t epoch, n_epochs;
    int64_t cells;    // trained on in this epoch, over all ranks
    double seconds;   // of training in this epoch
    long allocations; // of this process in its steps
    double recon_loss, r2_mean;
    bool validated, is_best;
    double cpa_metric; // when validated
} cpa_epoch_report;

// Called on every rank: before the first step, when the state may be replaced by an earlier one; after every epoch; and between two
// steps, or between an epoch and the next, when the state is complete. `stop`, the same on all ranks: training is asked to stop here,
// so the hook must return a failure, CPA_AGAIN when the state was saved.
typedef struct cpa_train_hooks {
    cpa_status (*begin)(void *ctx, cpa_train_state *state);
    cpa_status (*epoch)(void *ctx, const cpa_epoch_report *report);
    cpa_status (*pause)(void *ctx, const cpa_train_state *state, bool stop);
    void *ctx;
} cpa_train_hooks;

// How training ended.
typedef struct cpa_train_summary {
    int64_t epochs,
        best_epoch; // run, in all sittings; whose state the model holds now (-1: the last, without validation)
    double best_metric;
    bool stopped_early;
    int64_t cells; // trained on altogether
    double seconds;
} cpa_train_summary;

/** Trains the model. At the end it holds the best state by cpa_metric: validation runs every check_val_every_n_epoch epochs and after the
 *  last one, and training stops after early_stopping_patience validations without a better metric or when it is NaN. Without
 *  validation cells the last state stays. What a hook returns ends it. Collective.
 *
 *  Source: upstream's CPA.train; deliberate differences: the last epoch is always validated, and a first validation always counts, so that
 *  a short run does not hand back its initial weights. */
cpa_status cpa_train(const cpa_step_parts *parts, cpa_history *history, const cpa_train_hooks *hooks,
                     cpa_train_summary *summary);

// What a rehearsal tells beside the ledger.
typedef struct cpa_rehearsal {
    size_t scratch[2]; // bytes of the backend, after a step of the adversaries, and after one of the autoencoder
    cpa_status (*checkpoint)(void *ctx, const cpa_train_state *state); // takes the memory of one; NULL: none
    void *ctx;
} cpa_rehearsal;

/** Takes, in the code that cpa_train takes it in, what training takes, and gives it back: for planning. `parts` have a counting backend
 *  and a ledger, and need no cells. Nothing is trained. Rank-local. */
cpa_status cpa_train_rehearse(const cpa_step_parts *parts, cpa_history *history, cpa_rehearsal *r);

#endif
