// Owns: external vectors of perturbations, by name, from a file of one of three kinds. One copy per node.
// Never changes once read, and knows neither what the vectors mean nor what a model makes of them.
#ifndef CPA_DATA_PERT_TABLE_H
#define CPA_DATA_PERT_TABLE_H

#include <stdbool.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

// The vectors are floats, or bits packed as numpy.packbits packs rows: the first number is the highest bit of a row's first byte.
typedef struct cpa_pert_table {
    char *path;
    cpa_strings name; // in the file's order
    int64_t *sorted;  // [name.n] numbers of names, in ascending order of names
    int n_features;
    const float *value;  // [name.n, n_features], or NULL and
    const uint8_t *bits; // [name.n, (n_features + 7) / 8], 0 behind the last bit
    size_t bytes;        // of the vectors, per node
    cpa_comm *comm;      // borrowed; NULL: read by this process for itself
    void *memory;        // owned: what value or bits point to
} cpa_pert_table;

/** Reads a file of names x vectors: HDF5 with the datasets `names` [n] and `vectors` [n, k] (numbers) or `bits` [n, ceil(k/8)] (uint8,
 *  its attribute n_bits is k, default all); an .h5ad (index of obs, X); else CSV (a header line, then name, numbers). `group`: the
 *  group of an HDF5 file that holds the datasets, NULL: the root, and any of the three kinds. NO_INPUT: unreadable. BAD_DATA names file,
 *  perturbation and value: a name twice or empty, a number that is none or not finite, vectors of no or unequal length.
 *  Every rank reads the names, one of each node the vectors. Collective; comm NULL: this process alone. */
cpa_status cpa_pert_table_read(cpa_comm *comm, const char *path, const char *group, cpa_pert_table **out);

/** Frees it and sets *t to NULL; NULL-safe. Collective over the node, unless read alone. */
void cpa_pert_table_destroy(cpa_pert_table **t);

/** The number of a name, -1 if it is not there. */
int64_t cpa_pert_table_find(const cpa_pert_table *t, const char *name);

/** Copies vector i to out[n_features]. */
void cpa_pert_table_row(const cpa_pert_table *t, int64_t i, float *out);

/** The bytes of a vector as they are kept: packed bits, or floats. */
static inline int64_t cpa_pert_table_row_bytes(const cpa_pert_table *t)
{
    return t->bits ? (t->n_features + 7) / 8 : (int64_t)t->n_features * (int64_t)sizeof(float);
}

/** The vectors of a registry's perturbations ([0] padding, [1] control, others) into out[perts->n, n_features]: 0 for the padding, and
 *  for a control that the table does not have, which is said. BAD_DATA names every other perturbation that is missing. Rank-local. */
cpa_status cpa_pert_table_expand(const cpa_pert_table *t, const cpa_strings *perts, float *out);

#endif
