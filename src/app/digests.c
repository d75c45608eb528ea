// Owns: digests of what data mean, for telling whether work that was interrupted was on the same. Never of counts.
#include "digests_impl.h"

#include <string.h>

#include "cpa/base/hash.h"

uint64_t cpa_digest_strings(uint64_t hash, const cpa_strings *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        hash = cpa_hash(hash, list->s[i], strlen(list->s[i]) + 1);
    }
    return hash;
}

uint64_t cpa_digest_conditions(const cpa_registry *r)
{
    uint64_t hash = CPA_HASH_START;
    for (int i = 0; i < r->n_conditions; i++) {
        const cpa_condition *c = &r->condition[i];
        hash = cpa_hash(hash, c->name, strlen(c->name) + 1);
        hash = cpa_hash(hash, c->dose, (size_t)c->n * sizeof *c->dose);
    }
    return cpa_hash(hash, r->condition_of, (size_t)r->n_cells * sizeof *r->condition_of);
}

uint64_t cpa_digest_covariates(const cpa_registry *r)
{
    uint64_t hash = CPA_HASH_START;
    for (int c = 0; c < r->n_covs; c++) {
        hash = cpa_hash(hash, r->cov[c].name, strlen(r->cov[c].name) + 1);
        hash = cpa_digest_strings(hash, &r->cov[c].value);
        hash = cpa_hash(hash, r->cov[c].code, (size_t)r->n_cells * sizeof *r->cov[c].code);
    }
    return hash;
}

uint64_t cpa_digest_vectors(const cpa_pert_table *t)
{
    uint64_t hash = cpa_digest_strings(CPA_HASH_START, &t->name);
    return cpa_hash(hash, t->memory, t->bytes);
}
