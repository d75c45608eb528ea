// Owns: warm-ups, pretraining, alternation of autoencoder and adversary. Keeps no state.
#include "cpa/train/schedule.h"

#include <math.h>

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

cpa_phase cpa_schedule(const cpa_train_config *c, int64_t epoch, int64_t optimizer_steps, int64_t batch)
{
    cpa_phase p = {.adv_lambda = adversary_weight(c, epoch, optimizer_steps)};
    p.adversary_in_loss = adversary_started(c, epoch, optimizer_steps);
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
