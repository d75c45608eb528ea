// Owns: what the files of the command `scale` share: points of a study, what was measured at them, the model of their cost.
// Never used outside these files and their test.
#ifndef CPA_APP_SCALE_IMPL_H
#define CPA_APP_SCALE_IMPL_H

#include "train_impl.h"

enum { CPA_SCALE_MOST = 4096 }; // ranks that curves are extrapolated to

// The kinds of steps: those that train the autoencoder (also when the adversaries train beside it), and the adversaries alone.
enum { CPA_SCALE_AUTOENCODER, CPA_SCALE_ADVERSARY, CPA_SCALE_KINDS };

// The mean step of one pass, in seconds. step = compute + wait + reduce: compute is the mean over ranks of everything but the sum
// over ranks, wait what they are then ahead of the slowest, reduce what is left of the sum.
typedef struct cpa_scale_pass {
    double step, compute, wait, reduce;
    double update;                     // of compute: what does not depend on the cells
    double imbalance;                  // compute of the slowest rank over the mean, minus 1
    double reduce_of[CPA_SCALE_KINDS]; // reduce in the steps of a kind
} cpa_scale_pass;

// A number of ranks under one of the two laws.
typedef struct cpa_scale_point {
    bool weak, predicted;
    int ranks, nodes, lanes, batch;
    cpa_scale_pass *pass;  // [n_passes] owned; NULL when predicted
    cpa_scale_pass middle; // that of the median step, of an even number the mean of two; predicted: the model's
    double p25, p75;       // quartiles of the step; predicted: NAN
    double speedup, efficiency;
    double model; // the step as the model has it, NAN without one
} cpa_scale_point;

// What a step takes, whatever the ranks.
typedef struct cpa_scale_work {
    double flops[CPA_SCALE_KINDS]; // of a cell
    double bytes[CPA_SCALE_KINDS]; // of gradients that are summed
    double parts[CPA_SCALE_KINDS]; // that they leave in
    double share[CPA_SCALE_KINDS]; // of the steps
    double told;                   // bytes of sums that every rank tells every other
} cpa_scale_work;

// The model of the cost. A number that is 0 is found from what was measured.
typedef struct cpa_scale_model {
    double latency, bandwidth, flops; // seconds a message, bytes a second, operations a second; of one rank
    double update;                    // operations of a step that do not depend on its cells
    bool is_given, is_known;          // some number was given; all are there
    double mean_error, worst_error;   // of the steps that were measured, relative
} cpa_scale_model;

typedef struct cpa_scale_study {
    cpa_scale_point *point; // [n_points] those that were measured come first; strong before weak, ranks ascending
    int n_points, n_measured, n_passes, n_steps, threads;
    cpa_scale_work work;
    cpa_scale_model model;
} cpa_scale_study;

/** Reads "latency,bandwidth,flops" (microseconds, GB/s, GFLOP/s; an empty one is to be found; NULL: all). USAGE. */
cpa_status cpa_scale_parse(const char *text, cpa_scale_model *out);

/** Measures a point in a pass: the first ranks of base->comm set a run up, warm up and time n_steps steps; the others sleep. On rank 0
 *  point->pass[pass], point->nodes and *work are filled in. base: registry and, where cells are resident, the feed of all ranks.
 *  BAD_DATA: too few cells for full steps. Collective. */
cpa_status cpa_scale_measure(const cpa_train_run *base, cpa_scale_point *point, int pass, int n_steps,
                             cpa_scale_work *work);

/** Operations on one cell in a step of each kind, from the shapes of the weights; `nnz`: stored values of a cell. */
void cpa_scale_count(const cpa_params *t, int n_genes, double nnz, double flops[CPA_SCALE_KINDS]);

/** Medians, quartiles, speedups and efficiencies of the points that were measured. Speedups are medians of those of each pass. */
void cpa_scale_summarise(cpa_scale_study *s);

/** Finds the numbers of the model that were not given, and its error. is_known stays false where one rank alone tells nothing of
 *  latency and bandwidth. */
void cpa_scale_fit(cpa_scale_study *s);

/** Adds the points that the model predicts, up to CPA_SCALE_MOST ranks. */
cpa_status cpa_scale_extrapolate(cpa_scale_study *s);

/** The file: a row for each point. */
cpa_status cpa_scale_csv(const cpa_scale_study *s, cpa_text *out);

/** The page on standard output: a Markdown table for each law, the model and its error. */
cpa_status cpa_scale_page(const cpa_scale_study *s, cpa_text *out);

/** The figure: throughput and efficiency over ranks, and where the time of a step goes. */
cpa_status cpa_scale_figure(const cpa_scale_study *s, cpa_text *out);

/** Frees the points. */
void cpa_scale_fini(cpa_scale_study *s);

#endif
