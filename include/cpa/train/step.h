// Owns: one step over all lanes: filling batches, running this rank's lanes, the tree sum, the update. The result is the same on every
// rank and for every number of ranks.
#ifndef CPA_TRAIN_STEP_H
#define CPA_TRAIN_STEP_H

#include "cpa/data/feed.h"
#include "cpa/data/sampler.h"
#include "cpa/model/model.h"
#include "cpa/platform/device_sum.h"
#include "cpa/train/ledger.h"
#include "cpa/train/optimizer.h"

// What a stepper works on; all borrowed.
typedef struct cpa_step_parts {
    cpa_comm *comm;
    cpa_backend *be;
    cpa_model *model;
    cpa_feed *feed;
    const cpa_registry *registry;
    cpa_sampler *sampler;
    const cpa_train_config *config;
    uint64_t seed;
    const cpa_strings *gene;    // names, for messages; may be NULL
    int block;                  // of the order of training cells, 1: full
    int64_t window;             // its blocks, 0: all
    cpa_device_sum *device_sum; // with --reduce nccl, else NULL
    cpa_ledger *ledger;         // where what training takes is entered; may be NULL
} cpa_step_parts;

// What a step computed, over the global batch. Sums are indexed by CPA_SUM_*; they hold what the phase ran.
typedef struct cpa_step_result {
    cpa_phase phase;
    int64_t n_cells;
    double adv_weight; // what the perturbation adversary's loss is divided by: its class weights, or (focal) the cells
    bool has_metrics, has_recon;
    double summing;     // seconds that this rank was in the sum over ranks, waiting for others included
    double updating;    // and in the update
    int n_parts;        // that the gradients go to other ranks in
    const double *sums; // borrowed until the next step
    bool stop;          // some rank has been asked to stop (cpa_stop_wanted); the same on all ranks
} cpa_step_result;

typedef struct cpa_stepper cpa_stepper;

/** Sizes everything a step needs. Rank-local. */
cpa_status cpa_stepper_create(const cpa_step_parts *parts, cpa_stepper **out);

/** Frees it and sets *s to NULL; NULL-safe. */
void cpa_stepper_destroy(cpa_stepper **s);

/** The counts of updates, which with the parameters' arenas are all that a step changes. Borrowed. */
cpa_optimizer *cpa_stepper_optimizer(cpa_stepper *s);

/** Runs step `step` of the sampler's current epoch and updates the parameters. NONFINITE, the same on all ranks and with the
 *  layer, cell or gene to blame, when a loss is not finite; the failure of one rank, the same on all ranks: the parameters are then left as they were. Allocates nothing.
 *  Collective. */
cpa_status cpa_stepper_run(cpa_stepper *s, int64_t epoch, int64_t step, cpa_step_result *result);

#endif
