// Owns: what the files that simulate an atlas share: the truth behind it, and one cell of it.
// Never included outside src/data/simulate*.c.
#ifndef CPA_DATA_SIMULATE_IMPL_H
#define CPA_DATA_SIMULATE_IMPL_H

#include "cpa/base/rng.h"
#include "cpa/data/simulate.h"
#include "cpa/platform/h5.h"

// What a draw is for: the last word of its counter.
typedef enum cpa_draw {
    CPA_DRAW_BASAL,
    CPA_DRAW_TYPE,
    CPA_DRAW_BATCH,
    CPA_DRAW_DISPERSION,
    CPA_DRAW_EFFECT,
    CPA_DRAW_RESPONSE,
    CPA_DRAW_INTERACTION,
    CPA_DRAW_PAIR,
    CPA_DRAW_PAIR_DOSE,
    CPA_DRAW_HELD_OUT,
    CPA_DRAW_GROUP,
    CPA_DRAW_CELL,
    CPA_DRAW_COUNT,
} cpa_draw;

// Changes of some genes, as natural logarithms.
typedef struct cpa_effect {
    int32_t n, *gene;
    float *change;
} cpa_effect;

// A perturbation or combination at its doses. The first one is the control.
typedef struct cpa_sim_condition {
    int name;    // 0 the control, then the perturbations, then the combinations
    int n;       // components
    int pert[2]; // of them
    int dose[2]; // levels
    int text;    // level of the dose as text
} cpa_sim_condition;

// Everything that the cells are drawn from. The names are those in the file.
typedef struct cpa_truth {
    const cpa_simulate_config *config; // borrowed
    cpa_strings gene, pert, combo, type, batch;
    cpa_strings name, dose_text, cov_cond; // cov_cond: cell type x name
    int n_conditions;
    cpa_sim_condition *condition;
    double *dose;                     // [doses]
    double *ec50, *slope;             // [perturbations]
    cpa_effect *effect, *interaction; // [perturbations], [combinations]
    float *basal;                     // [cell types, genes] sums to 1
    float *batch_change;              // [batches, genes] logarithms
    float *batch_fold;                // and their exponentials
    float *dispersion;                // [genes] variance = mean + mean^2 / dispersion
    double library_mean, library_sd;  // of the logarithm
    uint8_t *held_out;                // [cell types, names]
} cpa_truth;

typedef enum cpa_sim_split { CPA_SIM_TRAIN, CPA_SIM_TEST, CPA_SIM_OOD } cpa_sim_split;

typedef struct cpa_sim_cell {
    int type, batch, condition;
    cpa_sim_split split;
    double library;
} cpa_sim_cell;

// Room for one cell.
typedef struct cpa_sim_room {
    float *mean;    // [genes, up to 3 more]
    uint32_t *word; // [the same]
    int32_t *maybe; // [genes]
} cpa_sim_room;

/** Draws the truth. USAGE when the values contradict each other. The caller calls cpa_truth_fini also on failure. */
cpa_status cpa_truth_init(cpa_truth *t, const cpa_simulate_config *config);
void cpa_truth_fini(cpa_truth *t);

/** The condition's part of its full effect for component k: d^s / (d^s + ec50^s). */
double cpa_truth_hill(const cpa_truth *t, const cpa_sim_condition *c, int k);

/** Multiplies mean[genes] by what the condition does. */
void cpa_truth_apply(const cpa_truth *t, const cpa_sim_condition *c, float *mean);

/** Writes uns/truth and uns/rank_genes_groups_cov. */
cpa_status cpa_truth_write(const cpa_truth *t, cpa_h5 *f);

/** What cell `i` is. */
cpa_sim_cell cpa_sim_cell_of(const cpa_truth *t, int64_t i);

cpa_status cpa_sim_room_init(cpa_sim_room *room, int32_t n_genes);
void cpa_sim_room_fini(cpa_sim_room *room);

/** Draws the counts of cell `i` and keeps those that are not 0, at most n_genes: their number. Genes ascend. Depends on
 *  the truth and `i` alone. */
int64_t cpa_sim_draw(const cpa_truth *t, int64_t i, cpa_sim_room *room, int32_t *gene, float *count);

/** The mean over cell types and genes of the chance that a count of a control cell is not 0. */
double cpa_sim_density(const cpa_truth *t);

/** Four words for row `i`, column `j` of a purpose. */
static inline void cpa_sim_words(const cpa_truth *t, cpa_draw draw, int64_t i, uint32_t j, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), j, (uint32_t)draw};
    cpa_philox(t->config->seed, CPA_STREAM_SIMULATE, counter, out);
}

/** A standard normal variable from two words. */
double cpa_sim_normal(uint32_t a, uint32_t b);

/** Uniform in (0, 1) with 32 bits. */
static inline double cpa_sim_unit(uint32_t word)
{
    return ((double)word + 0.5) * 0x1p-32;
}

#endif
