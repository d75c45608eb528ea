// Owns: digests of what data mean, which training and predictions that go on compare. Never included outside src/app.
#ifndef CPA_APP_DIGESTS_IMPL_H
#define CPA_APP_DIGESTS_IMPL_H

#include "cpa/data/pert_table.h"
#include "cpa/data/registry.h"

/** Folds the strings of a list into a digest that began as CPA_HASH_START. */
uint64_t cpa_digest_strings(uint64_t hash, const cpa_strings *list);

/** Of the conditions, and which one each cell has. */
uint64_t cpa_digest_conditions(const cpa_registry *r);

/** Of the covariates, and the value of each cell. */
uint64_t cpa_digest_covariates(const cpa_registry *r);

/** Of external vectors and their names. */
uint64_t cpa_digest_vectors(const cpa_pert_table *t);

#endif
