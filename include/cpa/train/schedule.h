// Owns: what a step does and with which weights, as a function of epoch, steps so far and batch number. Keeps no state.
#ifndef CPA_TRAIN_SCHEDULE_H
#define CPA_TRAIN_SCHEDULE_H

#include "cpa/train/config.h"

// What one batch updates.
typedef struct cpa_phase {
    bool update_autoencoder, update_adversary;
    bool adversary_in_loss; // false while the autoencoder is pretrained
    double adv_lambda, kl_weight, mixup_alpha;
    double lr_factor; // of all learning rates
} cpa_phase;

/** The phase of batch `batch` (counted from 0 in its epoch). `steps`: what n_steps_* count, so far: updates of single optimizers,
 *  upstream's global step (an autoencoder update counts 2, an adversary update 1), or batches.
 *
 *  Pretraining lasts while epoch <= n_epochs_pretrain_ae (or steps <= n_steps_pretrain_ae, which wins) and updates both on every
 *  batch. Then adv_steps decides: 0 both, else the autoencoder on every adv_steps-th batch and the adversaries on the others.
 *  adv_lambda rises linearly to reg_adv over the warm-up. Source: upstream's CPATrainingPlan.training_step and adv_lambda. */
cpa_phase cpa_schedule(const cpa_train_config *c, int64_t epoch, int64_t steps, int64_t batch);

/** Epochs to train: max_epochs, or min(round(20000 / n_cells * 400), 400), at least 1. */
int cpa_schedule_epochs(const cpa_train_config *c, int64_t n_cells);

#endif
