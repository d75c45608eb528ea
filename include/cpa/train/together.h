// Owns: the lanes of a step side by side, for batch norms over all of them: where they meet, over the ranks too. The sums are those of
// platform/tree.h, so that nothing depends on the number of ranks.
#ifndef CPA_TRAIN_TOGETHER_H
#define CPA_TRAIN_TOGETHER_H

#include "cpa/model/model.h"
#include "cpa/platform/comm.h"

typedef struct cpa_together cpa_together;

/** Takes the memory of this rank's share of n_lanes lanes, the model's included. Rank-local. */
cpa_status cpa_together_create(cpa_comm *comm, cpa_model *model, int n_lanes, cpa_together **out);

/** Frees it, the model's part too, and sets *g to NULL; NULL-safe. The model must still be there. */
void cpa_together_destroy(cpa_together **g);

/** Runs the lanes of all ranks side by side, as cpa_model_lanes.
 *
 *  Shapes:  batch [n], lane [n]: those of this rank that have cells and their numbers, ascending, maybe none; sums [n, n_sums].
 *  Ranks:   collective. `mine`: a rank-local failure that kept this rank from filling its batches; it and any failure on the way
 *           become everyone's, at the same meeting.
 *  Repeat:  bitwise for every number of ranks. */
cpa_status cpa_together_run(cpa_together *g, const cpa_batch *const *batch, const int *lane, int n,
                            const cpa_lane_plan *plan, cpa_status mine, double *sums);

#endif
