// Owns: what the files of the model file share. Never included outside src/train/modelfile*.c.
#ifndef CPA_TRAIN_MODELFILE_IMPL_H
#define CPA_TRAIN_MODELFILE_IMPL_H

#include "cpa/platform/h5.h"
#include "cpa/train/modelfile.h"

/** The tensors that a model file holds, by name: numbers in the table into order[t->n], how many into *n. */
void cpa_modelfile_order(const cpa_params *t, int *order, int *n);

/** Adds a tensor to the digest: its name with the closing zero, then its values as little-endian floats. */
uint64_t cpa_modelfile_hash(uint64_t hash, const char *name, const cpa_real *value, int64_t n);

/** Reads a tensor into torch[rows * cols]. BAD_DATA: missing, misshapen, not numbers or not finite; named. */
cpa_status cpa_modelfile_tensor(const cpa_h5 *f, const cpa_param *p, cpa_real *torch);

#endif
