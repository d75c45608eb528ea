// Owns: parameter updates from the gradient arena. Never computes a gradient.
#include "cpa/train/optimizer.h"

#include <math.h>

static cpa_mat range(const cpa_dev_real *arena, int64_t at, int64_t n)
{
    return cpa_mat_of(cpa_real_at(arena, at), 1, (int)n);
}

// Clips if asked to and updates one group. A group without parameters still counts as an optimizer that steps.
static cpa_status adam(cpa_optimizer *o, cpa_params *t, const cpa_train_config *c, cpa_group group, double lr,
                       double wd)
{
    cpa_status st = CPA_OK;
    int64_t at = t->begin[group], n = t->begin[group + 1] - at, taken = ++o->taken[group];
    o->steps++;
    if (n == 0) {
        return CPA_OK;
    }
    if (c->do_clip_grad) {
        CPA_TRY(cpa_op_clip(t->be, t->norm, range(t->grad, at, n), c->gradient_clip_value));
    }
    CPA_TRY(cpa_op_adam(t->be, range(t->value, at, n), range(t->m, at, n), range(t->v, at, n), range(t->grad, at, n),
                        lr, wd, 1 - pow(0.9, (double)taken), 1 - pow(0.999, (double)taken)));
cleanup:
    return st;
}

// value[at, at+n) moves towards the lanes' mean of what is summed at grad[from].
static cpa_status move_statistics(cpa_params *t, int64_t at, int64_t n, int64_t from, int n_lanes)
{
    const double momentum = 0.01;
    return n ? cpa_op_axpby(t->be, range(t->value, at, n), (cpa_real)(momentum / n_lanes), range(t->grad, from, n),
                            (cpa_real)(1 - momentum))
             : CPA_OK;
}

cpa_status cpa_optimizer_step(cpa_optimizer *o, cpa_params *t, const cpa_train_config *c, const cpa_phase *phase,
                              int n_lanes)
{
    cpa_status st = CPA_OK;
    int64_t module = t->begin[CPA_GROUP_STAT_MODULE], adversary = t->begin[CPA_GROUP_STAT_ADVERSARY];
    int64_t n_adversary = t->begin[CPA_N_GROUPS] - adversary;
    CPA_TRY(move_statistics(t, module, adversary - module, module, n_lanes));
    if (phase->update_autoencoder) {
        CPA_TRY(adam(o, t, c, CPA_GROUP_AUTOENCODER, c->lr * phase->lr_factor, c->wd));
        CPA_TRY(adam(o, t, c, CPA_GROUP_DOSER, c->doser_lr * phase->lr_factor, c->doser_wd));
        if (phase->adversary_in_loss) {
            CPA_TRY(move_statistics(t, adversary, n_adversary, adversary + n_adversary, n_lanes));
        }
    }
    if (phase->update_adversary) {
        CPA_TRY(move_statistics(t, adversary, n_adversary, adversary, n_lanes));
        CPA_TRY(adam(o, t, c, CPA_GROUP_ADVERSARY, c->adv_lr * phase->lr_factor, c->adv_wd));
    }
cleanup:
    return st;
}

int cpa_optimizer_spans(const cpa_params *t, const cpa_phase *phase, cpa_range span[3])
{
    const int64_t *begin = t->begin;
    int64_t adversary = begin[CPA_GROUP_ADVERSARY], frozen = begin[CPA_GROUP_FROZEN],
            stats = begin[CPA_GROUP_STAT_MODULE];
    int64_t stats_adversary = begin[CPA_GROUP_STAT_ADVERSARY], end = begin[CPA_N_GROUPS];
    int n = 0;
    if (phase->update_autoencoder && phase->update_adversary) {
        span[n++] = (cpa_range){0, frozen};
        span[n++] = (cpa_range){stats, t->n_grad - stats};
    } else if (phase->update_autoencoder) {
        span[n++] = (cpa_range){0, adversary};
        span[n++] = (cpa_range){stats, stats_adversary - stats};
        span[n++] = (cpa_range){end, t->n_grad - end};
    } else {
        span[n++] = (cpa_range){adversary, frozen - adversary};
        span[n++] = (cpa_range){stats, end - stats};
    }
    return n;
}
