// Owns: the exact nearest neighbours of some cells among many that come in blocks, as memory for the former alone. The result does not
// depend on blocks, their order, ranks or threads. Never knows what cells are.
#ifndef CPA_TRAIN_NEIGHBOURS_H
#define CPA_TRAIN_NEIGHBOURS_H

#include "cpa/platform/backend.h"
#include "cpa/platform/comm.h"

typedef struct cpa_neighbours cpa_neighbours;

/** Takes the memory to find the k nearest of others for cells 0 .. n_queries - 1, in blocks of at most max_block. */
cpa_status cpa_neighbours_create(cpa_backend *be, int n_queries, int n_latent, int k, int max_block,
                                 cpa_neighbours **out);

/** Frees it and sets *s to NULL; NULL-safe. */
void cpa_neighbours_destroy(cpa_neighbours **s);

/** Starts afresh with the vectors z [n_queries, n_latent] of the queries (copied). */
cpa_status cpa_neighbours_begin(cpa_neighbours *s, const cpa_real *z);

/** Looks through the cells first .. first + n - 1 with the vectors z [n, n_latent]. Every cell comes once, the queries too.
 *
 *  Math:    Euclidean distance in double; ties: the cell of the smaller number; a cell is not its own neighbour. Products in
 *           cpa_real only tell which cells are too far, with the bound of their rounding error. */
cpa_status cpa_neighbours_add(cpa_neighbours *s, int64_t first, int n, const cpa_real *z);

/** Puts together what the ranks found, each among cells of its own. Collective. */
cpa_status cpa_neighbours_merge(cpa_neighbours *s, cpa_comm *comm);

/** The neighbours [n_queries, k] of every query in order of distance; -1 where there were fewer. Borrowed. */
const int64_t *cpa_neighbours_found(const cpa_neighbours *s);

#endif
