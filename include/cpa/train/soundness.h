// Owns: whether a trained state is sound: the same on every rank, finite, of use. Never repairs one.
#ifndef CPA_TRAIN_SOUNDNESS_H
#define CPA_TRAIN_SOUNDNESS_H

#include "cpa/train/step.h"

/** Whether all ranks hold the same parameters, bit for bit: every tensor's digest against rank 0's. INTERNAL, naming tensor and
 *  rank, when not. Collective. */
cpa_status cpa_soundness_replicas(cpa_comm *comm, const cpa_params *t);

/** Whether the model in its present state can be handed out: replicas, finite parameters and, unless it was `validated`, a finite
 *  reconstruction loss of some training cells. NONFINITE, with the place, when not. Collective. */
cpa_status cpa_soundness_result(const cpa_step_parts *parts, bool validated);

#endif
