// Owns: the options of training (upstream's train(...) and plan_kwargs arguments).
// Never holds what describes data or model.
#ifndef CPA_TRAIN_CONFIG_H
#define CPA_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cpa_train_config {
    int max_epochs;   // 0: min(round(20000 / cells * 400), 400), at least 1
    int batch_size;   // cells of one lane in one step
    int lanes;        // power of two
    char *reduce;     // "tree" (the sum over lanes is the same for every number of ranks) or "mpi", or "nccl" (on GPUs)
    char *batch_norm; // "local" (statistics of each lane) or "sync" (of all lanes together)
    double lr, wd, doser_lr, doser_wd, adv_lr, adv_wd;
    int n_epochs_pretrain_ae, n_steps_pretrain_ae, n_epochs_adv_warmup, n_steps_adv_warmup; // 0: none
    int n_epochs_kl_warmup, n_steps_kl_warmup;
    double mixup_alpha; // 0: no mixup
    int n_epochs_mixup_warmup;
    int adv_steps; // 0: autoencoder and adversary on every batch (upstream's None)
    double reg_adv, pen_adv;
    char *adv_loss; // "cce" or "focal"
    bool do_clip_grad;
    double gradient_clip_value; // largest Euclidean norm of one optimizer's gradients
    int step_size_lr;           // 0: a constant learning rate
    char *lr_schedule;   // "upstream" (decays every step_size_lr^2 epochs) or "every" (every step_size_lr epochs)
    char *mixup_warmup;  // "upstream" (with n_epochs_pretrain_ae: never mixes) or "linear"
    char *adv_cov_mixup; // "upstream" (a mixed cell's own covariates alone) or "both"
    char *step_unit;     // of n_steps_*: "optimizer" (updates of single optimizers) or "batch"
    char *class_weights; // counted over "all" cells or those that "train"
    char *epoch_means;   // "upstream" (without zeros) or "exact"
    int check_val_every_n_epoch, early_stopping_patience;
    int train_metrics_every; // R2 and accuracies on every N-th autoencoder batch
    int n_deg_r2;            // genes of each category's list that r2_mean_deg and r2_var_deg are taken over
    char *shuffle;           // "auto", "full" or "block"
    int shuffle_block;       // cells of a block
    int64_t shuffle_window;  // cells that are mixed at a time, over all lanes
} cpa_train_config;

#endif
