// Owns: the digest of all that the numbers of a prediction depend on, by which it is known whether one that was interrupted can go on.
// Never of what the file says in words: that is compared as it is.
#include <string.h>

#include "cpa/base/hash.h"
#include "digests_impl.h"
#include "predict_impl.h"

static uint64_t add_number(uint64_t hash, int64_t x)
{
    return cpa_hash(hash, &x, sizeof x);
}

static uint64_t add_double(uint64_t hash, double x)
{
    return cpa_hash(hash, &x, sizeof x);
}

static uint64_t add_text(uint64_t hash, const char *s)
{
    return cpa_hash(hash, s, strlen(s) + 1);
}

// The model, the arithmetic, and how it decodes.
static uint64_t add_model(uint64_t hash, const cpa_trained *t)
{
    hash = add_text(hash, t->meta.digest);
    hash = add_text(hash, cpa_backend_isa(t->be));
    hash = add_number(hash, sizeof(cpa_real));
    hash = t->more ? add_number(hash, (int64_t)cpa_digest_vectors(t->more)) : hash;
    hash = add_number(hash, t->parts);
    for (int c = 0; c < cpa_trained_n_covs(t); c++) {
        hash = add_number(hash, t->add[c]);
    }
    hash = add_number(hash, t->n_draws);
    hash = add_number(hash, t->decoding.parts);
    hash = add_number(hash, (int64_t)t->decoding.seed);
    return add_number(hash, t->decoding.thin);
}

// What is known of the cells.
static uint64_t add_data(uint64_t hash, const cpa_trained *t)
{
    const cpa_registry *r = t->registry;
    hash = add_number(hash, (int64_t)t->genes);
    hash = add_number(hash, r->n_cells);
    hash = add_number(hash, t->feed ? cpa_feed_nnz(t->feed) : t->cells->nnz);
    hash = add_number(hash, (int64_t)(t->feed ? cpa_feed_totals(t->feed) : t->cells->matrix->stats.totals));
    hash = cpa_digest_strings(hash, &r->pert);
    hash = add_number(hash, (int64_t)cpa_digest_conditions(r));
    return add_number(hash, (int64_t)cpa_digest_covariates(r));
}

static uint64_t add_target(uint64_t hash, const cpa_trained *t, const cpa_target *target)
{
    hash = add_number(hash, target->own);
    hash = add_number(hash, target->n);
    for (int k = 0; k < target->n; k++) {
        hash = add_number(hash, target->pert[k]);
        hash = add_double(hash, target->dose_of[k]);
    }
    for (int c = 0; target->cov != NULL && c < cpa_trained_n_covs(t); c++) {
        hash = add_number(hash, target->cov[c]);
    }
    hash = add_double(hash, target->library);
    hash = add_number(hash, target->n_cells);
    hash = cpa_hash_long(hash, target->cell, (size_t)target->n_cells * sizeof *target->cell);
    hash = add_number(hash, target->n_control);
    return cpa_hash_long(hash, target->control, (size_t)target->n_control * sizeof *target->control);
}

uint64_t cpa_plan_digest(const cpa_trained *t, const cpa_plan *plan)
{
    uint64_t hash = add_data(add_model(CPA_HASH_START, t), t);
    hash = add_text(hash, plan->mode);
    for (int64_t i = 0; i < plan->n; i++) {
        hash = add_target(hash, t, &plan->target[i]);
    }
    return hash;
}
