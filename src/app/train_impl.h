// Owns: what the files of the command `train` share: everything that a training run holds. Never used outside these files.
#ifndef CPA_APP_TRAIN_IMPL_H
#define CPA_APP_TRAIN_IMPL_H

#include "cpa/app/checkpoints.h"
#include "cpa/app/options.h"
#include "cpa/train/trainer.h"

typedef struct cpa_train_run {
    cpa_comm *comm;      // borrowed
    cpa_options options; // resolved
    cpa_h5ad *file;
    cpa_registry *registry;
    cpa_feed *feed;
    int block;      // of the order of training cells, 1: full
    int64_t window; // its blocks, 0: all
    cpa_strings gene;
    cpa_pert_table *vectors; // NULL: embeddings are learned
    cpa_rundir *dir;
    cpa_runlog *log;
    const char *config; // path of config.yaml
    cpa_backend *be;
    cpa_sampler *sampler;
    cpa_model *model;
    cpa_device_sum *device_sum; // with --reduce nccl
    cpa_model_meta meta;
    cpa_history *history;
    cpa_checkpoint_facts facts;
    cpa_found found; // what training goes on from, until it does
    cpa_checkpoints *checkpoints;
    cpa_ledger ledger;
    cpa_matrix *imagined;   // NULL: the real thing; else a plan: cells are not read, nothing computes; borrowed
    double begun, started;  // the run, training
    cpa_runlog_work set_up; // what the set-up took
    int64_t first_epoch;    // of this sitting
} cpa_train_run;

/** Puts the parts together, up to the first step: run folder, data, sampler, model, history, and with --resume the
 *  checkpoint to go on from. AGAIN when asked to stop. Collective. */
cpa_status cpa_train_set_up(cpa_train_run *t, const cpa_options *o);

// The parts of the set-up, for commands that run steps without a run folder. They work on t->comm and t->options.

/** Copies the options, which have to go together: CONFIG. Collective. */
cpa_status cpa_train_take_options(cpa_train_run *t, const cpa_options *o);

/** Reads what describes cells, genes and perturbations: file, registry, gene, vectors. Collective. */
cpa_status cpa_train_read(cpa_train_run *t);

/** Order, cells, model and history: the parts below with what goes with them, each entered in the ledger. AGAIN when asked to stop.
 *  Collective. */
cpa_status cpa_train_prepare(cpa_train_run *t);

/** The training cells in file order, dealt to lanes. BAD_DATA: too few. Rank-local. */
cpa_status cpa_train_make_sampler(cpa_train_run *t);

/** The cells' counts, resident or streamed; needs the sampler. Collective. */
cpa_status cpa_train_open_feed(cpa_train_run *t);

/** Backend and model with their first parameters; needs the feed. Rank-local. */
cpa_status cpa_train_make_model(cpa_train_run *t);

/** Connects the ranks' GPUs where --reduce nccl wants that and a step has several lanes; needs the backend. Collective. */
cpa_status cpa_train_connect(cpa_train_run *t);

/** What a step works on. Borrowed from the run. */
cpa_step_parts cpa_train_parts(cpa_train_run *t);

/** Logs where the ranks run, a line each; with one rank only what is wrong with that. Collective. */
cpa_status cpa_train_describe_binding(cpa_comm *comm);

/** What this rank has done since the beginning. */
cpa_runlog_work cpa_train_work(const cpa_train_run *t);

/** Takes everything down; `keep`: the run folder stays. Collective. */
void cpa_train_tear_down(cpa_train_run *t, bool keep);

/** Whether a run to resume is finished already. CONFIG: it is, but with other options than those that `o` was given.
 *  Collective. */
cpa_status cpa_train_is_finished(cpa_comm *comm, const cpa_options *o, bool *finished);

/** With --resume, finds the checkpoint to go on from, compares what it was made of with this run, and clears the folder.
 *  BAD_DATA: other data. CONFIG: other options, or no more epochs. Collective. */
cpa_status cpa_train_find(cpa_train_run *t);

/** Puts the state that was found in place, if one was. Collective. */
cpa_status cpa_train_go_on(cpa_train_run *t, cpa_train_state *state);

#endif
