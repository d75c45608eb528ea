// Owns: warm-ups, pretraining, alternation of autoencoder and adversary. Keeps no state.
#include "cpa/train/schedule.h"

#include <math.h>
#include <string.h>

static bool adversary_started(const cpa_train_config *c, int64_t epoch, int64_t steps)
{
    if (c->n_steps_pretrain_ae) {
        return steps > c->n_steps_pretrain_ae;
    }
    return !c->n_epochs_pretrain_ae || epoch > c->n_epochs_pretrain_ae;
}

// Linear warm-up from 0 at `now` = 0 to 1 at `over`.
static double ramp(int64_t now, int64_t over)
{
    return now <= over ? (double)now / (double)over : 1.0;
}

static double adversary_weight(const cpa_train_config *c, int64_t epoch, int64_t steps)
{
    if (c->n_steps_adv_warmup) {
        return c->reg_adv * ramp(steps - c->n_steps_pretrain_ae, c->n_steps_adv_warmup);
    }
    if (c->n_epochs_adv_warmup) {
        return c->reg_adv * ramp(epoch - c->n_epochs_pretrain_ae, c->n_epochs_adv_warmup);
    }
    return c->reg_adv;
}

// Epochs win over steps; both weigh 0 at first and 1 after the warm-up.
static double kl_weight(const cpa_train_config *c, int64_t epoch, int64_t steps)
{
    int64_t over = c->n_epochs_kl_warmup ? c->n_epochs_kl_warmup : c->n_steps_kl_warmup;
    int64_t now = c->n_epochs_kl_warmup ? epoch : steps;
    return over && now < over ? (double)now / (double)over : 1.0;
}

// Upstream's warm-up after pretraining by epochs subtracts the epoch from itself, and so never begins.
static double mixup_alpha(const cpa_train_config *c, int64_t epoch)
{
    if (!c->n_epochs_mixup_warmup) {
        return c->mixup_alpha;
    }
    bool stuck = c->n_epochs_pretrain_ae && strcmp(c->mixup_warmup, "upstream") == 0;
    int64_t now = stuck ? 0 : epoch - c->n_epochs_pretrain_ae;
    return c->mixup_alpha * ramp(now > 0 ? now : 0, c->n_epochs_mixup_warmup);
}

// 0.9 to the number of decays before this epoch. Upstream counts a step of its schedule every S-th epoch after epoch 1, and decays every
// S-th of those steps.
static double lr_factor(const cpa_train_config *c, int64_t epoch)
{
    int64_t s = c->step_size_lr;
    if (!s) {
        return 1;
    }
    if (strcmp(c->lr_schedule, "every") == 0) {
        return pow(0.9, (double)(epoch / s));
    }
    int64_t taken = epoch ? (epoch - 1) / s : 0; // epochs e with 1 <= e < epoch, e % s == 0
    if (s == 1 && taken) {
        taken--; // epoch 1 does not count
    }
    return pow(0.9, (double)(taken / s));
}

cpa_phase cpa_schedule(const cpa_train_config *c, int64_t epoch, int64_t steps, int64_t batch)
{
    cpa_phase p = {.adv_lambda = adversary_weight(c, epoch, steps),
                   .kl_weight = kl_weight(c, epoch, steps),
                   .mixup_alpha = mixup_alpha(c, epoch),
                   .lr_factor = lr_factor(c, epoch)};
    p.adversary_in_loss = adversary_started(c, epoch, steps);
    bool both = !p.adversary_in_loss || c->adv_steps == 0;
    p.update_autoencoder = both || batch % c->adv_steps == 0;
    p.update_adversary = both || !p.update_autoencoder;
    return p;
}

int cpa_schedule_epochs(const cpa_train_config *c, int64_t n_cells)
{
    if (c->max_epochs > 0) {
        return c->max_epochs;
    }
    double n = nearbyint(20000.0 / (double)(n_cells > 0 ? n_cells : 1) * 400.0);
    return n > 400 ? 400 : n < 1 ? 1 : (int)n;
}
