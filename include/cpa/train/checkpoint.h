// Owns: the state of training as a file in memory, from which training goes on to the same bits on any number of ranks.
// Never touches a folder or a clock; one copying is all it costs the training thread.
#ifndef CPA_TRAIN_CHECKPOINT_H
#define CPA_TRAIN_CHECKPOINT_H

#include "cpa/train/history.h"
#include "cpa/train/optimizer.h"

// Where training stands, between two steps.
typedef struct cpa_train_position {
    int64_t epoch, step; // to be done next; step == steps of the epoch: its validation
    int64_t best_epoch;  // whose metric is the best so far; -1: none
    int64_t waited;      // validations since
    double best_metric;
    int64_t cells; // trained on so far
    double seconds;
} cpa_train_position;

// All that training moves. Everything behind a pointer is borrowed.
typedef struct cpa_train_state {
    cpa_train_position at;
    int64_t n_steps; // of an epoch
    cpa_optimizer *optimizer;
    cpa_params *params;
    cpa_real *best; // [n_value] value arena of at.best_epoch, in host memory: the device has better use for its own
    cpa_history *history;
} cpa_train_state;

// What must be the same for training to go on from a checkpoint: names and their values as text. `isa` should be.
typedef struct cpa_checkpoint_facts {
    cpa_strings option, option_value; // that make the model
    cpa_strings data, data_value;     // of the cells
    char *isa;                        // instruction set of the arithmetic
    int64_t epochs;                   // done, in a checkpoint that is read
} cpa_checkpoint_facts;

/** Adds an option or a fact of the data. */
cpa_status cpa_checkpoint_fact(cpa_strings *name, cpa_strings *value, const char *n, const char *v);

/** Frees them. */
void cpa_checkpoint_facts_fini(cpa_checkpoint_facts *facts);

typedef struct cpa_checkpoint cpa_checkpoint;

/** Begins a file for states of this size, with room for a longer history. Rank-local, as all of these. */
cpa_status cpa_checkpoint_create(const cpa_train_state *s, const cpa_checkpoint_facts *facts, cpa_checkpoint **out);

/** Frees it and sets *c to NULL; NULL-safe. */
void cpa_checkpoint_destroy(cpa_checkpoint **c);

/** Lays out the file, for about so many seconds at a time; *done when a state can be taken. This alone calls HDF5. */
cpa_status cpa_checkpoint_lay(cpa_checkpoint *c, const cpa_train_state *s, double seconds, bool *done);

/** Whether the history has outgrown the room for it, so that a new layout is needed. */
bool cpa_checkpoint_is_small(const cpa_checkpoint *c, const cpa_train_state *s);

/** Copies the state into it, once it is laid out. */
cpa_status cpa_checkpoint_take(cpa_checkpoint *c, const cpa_train_state *s);

/** Adds the checksums of its arrays and of the whole; then the bytes are a file. Works on its own memory alone, in any
 *  thread. */
void cpa_checkpoint_seal(cpa_checkpoint *c, const void **bytes, size_t *n);

/** Whether bytes are a whole, undamaged checkpoint; if not, *why (static) says what is wrong. */
bool cpa_checkpoint_is_whole(const void *bytes, size_t n, const char **why);

/** What a whole checkpoint says of itself. `name`: what messages call it. BAD_DATA. */
cpa_status cpa_checkpoint_read_facts(const char *name, const void *bytes, size_t n, cpa_checkpoint_facts *facts);

/** Puts the state of a whole checkpoint, whose facts are those of this run, into *s. BAD_DATA. Rank-local. */
cpa_status cpa_checkpoint_restore(const char *name, const void *bytes, size_t n, cpa_train_state *s);

#endif
