// Owns: what the files of the model file share. Never included outside src/train/modelfile*.c.
#ifndef CPA_TRAIN_MODELFILE_IMPL_H
#define CPA_TRAIN_MODELFILE_IMPL_H

#include "cpa/platform/h5.h"
#include "cpa/train/modelfile.h"

/** The tensors that a model file holds, by name: numbers in the table into order[t->n], how many into *n. */
void cpa_modelfile_order(const cpa_params *t, int *order, int *n);

/** Adds a tensor to the digest: its name with the closing zero, then its values as little-endian floats. */
uint64_t cpa_modelfile_hash(uint64_t hash, const char *name, const cpa_real *value, int64_t n);

/** Width of the external vectors that the tensors of a file are made for, 0: none. */
cpa_status cpa_modelfile_features(const cpa_h5 *f, int *n);

/** Writes unseen/...: the rows of meta->vectors whose names are not in meta->pert, and adds them to the digest. */
cpa_status cpa_modelfile_write_vectors(cpa_h5 *f, const cpa_model_meta *meta, uint64_t *digest);

/** Adds a table as it was written to the digest; NULL adds nothing. */
void cpa_modelfile_hash_vectors(const cpa_pert_table *table, uint64_t *digest);

/** Reads a tensor into torch[rows * cols]. BAD_DATA: missing, misshapen, not numbers or not finite; named. */
cpa_status cpa_modelfile_tensor(const cpa_h5 *f, const cpa_param *p, cpa_real *torch);

#endif
