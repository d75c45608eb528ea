// Owns: perturbations that a model never trained on and knows by their external vectors: their names, embeddings and dose curves.
// Never changes what the model learned of others.
#ifndef CPA_TRAIN_UNSEEN_H
#define CPA_TRAIN_UNSEEN_H

#include "cpa/train/modelfile.h"

/** Notes in meta->trained which perturbations have a training cell in the registry that the meta is of. */
cpa_status cpa_unseen_mark(cpa_model_meta *meta, const cpa_registry *r);

/** Gives, in tensor `name` as it goes into a file, perturbations that meta->trained says were never trained the mean dose curve of
 *  those that were: weight decay would have left them with none. Other tensors stay. */
void cpa_unseen_settle(const cpa_model_meta *meta, const char *name, cpa_real *value);

/** Adds the names of meta->vectors and of `more` (either may be NULL) to meta->pert, which stays sorted, and says in meta->source where their
 *  vectors are. A name that is there already keeps its vector. Nothing for a model that learned its embeddings. The tables
 *  must outlive the meta. CONFIG: `more` for such a model; BAD_DATA: vectors of another width than the model's. Rank-local. */
cpa_status cpa_unseen_add(cpa_model_meta *meta, const cpa_pert_table *more);

/** Perturbations in the tensors of the file that the meta is of. */
int64_t cpa_unseen_n_stored(const cpa_model_meta *meta);

/** Fills a model of learned embeddings for all of meta->pert from the model of external vectors that the file holds: vectors are
 *  projected, those from tables get the mean dose curve, everything else is copied. */
cpa_status cpa_unseen_fill(const cpa_model_meta *meta, const cpa_params *from, cpa_params *to);

#endif
