// Owns: what a user can ask for: commands, the one table of options (options.def), their values and their sources.
// Never acts on a request: no data, no training, no printing but the texts of the help functions.
#ifndef CPA_APP_OPTIONS_H
#define CPA_APP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "cpa/base/mem.h"
#include "cpa/base/text.h"
#include "cpa/data/registry.h"
#include "cpa/data/simulate.h"
#include "cpa/model/config.h"
#include "cpa/train/config.h"

// The commands: X(name, NAME, what follows it, what it does).
#define CPA_COMMAND_LIST(X)                                                                                            \
    X(inspect, INSPECT, "PATH", "says what an .h5ad file, a run folder or a checkpoint holds")                         \
    X(check, CHECK, "DATA.h5ad", "lists everything that training would object to, without training")                   \
    X(simulate, SIMULATE, "OUT.h5ad --cells N --genes G", "writes a synthetic atlas with known truth, of any size")    \
    X(convert, CONVERT, "IN OUT.h5ad", "rewrites any accepted .h5ad in the layout that reads fastest")                 \
    X(plan, PLAN, "DATA.h5ad", "says what memory training would take, and which batches fit, without training")        \
    X(train, TRAIN, "DATA.h5ad --out RUN", "trains a model and writes a run folder")                                   \
    X(predict, PREDICT, "RUN --data DATA.h5ad --out PRED.h5ad",                                                        \
      "writes counterfactual predictions, or reconstructions")                                                         \
    X(evaluate, EVALUATE, "RUN --data DATA.h5ad --out SCORES.csv", "scores held-out groups, beside the baselines")     \
    X(compare, COMPARE, "A B", "compares two runs on the cells of --data, or two files of predictions")                \
    X(latent, LATENT, "RUN --data DATA.h5ad --out LATENT.h5ad", "writes latent vectors of cells")                      \
    X(embeddings, EMBEDDINGS, "RUN --out EMBEDDINGS.h5ad", "writes vectors of perturbations and covariate values")     \
    X(import, IMPORT, "FILE.h5 --out RUN", "makes a run folder from weights trained by upstream")                      \
    X(export, EXPORT, "RUN --out FILE.h5", "writes a run's weights as upstream's state dict")                          \
    X(bench, BENCH, "loader DATA.h5ad", "measures how fast cells come out of a file, without training")                \
    X(scale, SCALE, "DATA.h5ad --out FOLDER",                                                                          \
      "measures strong and weak scaling over ranks, and predicts it beyond them")

typedef enum cpa_command {
    CPA_COMMAND_NONE,
#define X(name, NAME, usage, summary) CPA_COMMAND_##NAME,
    CPA_COMMAND_LIST(X)
#undef X
} cpa_command;

enum {
#define X(name, NAME, usage, summary) CPA_FOR_##NAME = 1 << CPA_COMMAND_##NAME,
    CPA_COMMAND_LIST(X)
#undef X
};

typedef enum cpa_request { CPA_REQUEST_RUN, CPA_REQUEST_HELP, CPA_REQUEST_VERSION, CPA_REQUEST_OPTIONS } cpa_request;

typedef enum cpa_option_type {
    CPA_OPTION_INT,
    CPA_OPTION_INT64,
    CPA_OPTION_REAL,
    CPA_OPTION_BOOL,
    CPA_OPTION_STRING,
    CPA_OPTION_STRINGS, // separated by commas, or, where the record says `repeat`, one each time it is given
} cpa_option_type;

// The sections: X(NAME, heading). What the first three hold makes the model; a run remembers it.
#define CPA_SECTION_LIST(X)                                                                                            \
    X(DATA, "Describing the data")                                                                                     \
    X(MODEL, "Model")                                                                                                  \
    X(TRAINING, "Training")                                                                                            \
    X(RUN, "This run")                                                                                                 \
    X(PREDICTION, "Prediction")                                                                                        \
    X(SIMULATION, "Simulation")                                                                                        \
    X(PLANNING, "Planning")                                                                                            \
    X(SCALING, "Scaling studies")

typedef enum cpa_option_section {
#define X(NAME, heading) CPA_SECTION_##NAME,
    CPA_SECTION_LIST(X)
#undef X
} cpa_option_section;

// Where a value came from; a later one beats an earlier one.
typedef enum cpa_source {
    CPA_SOURCE_DEFAULT,
    CPA_SOURCE_SEMANTICS, // the default that --semantics fixed sets
    CPA_SOURCE_PRESET,
    CPA_SOURCE_RUN,
    CPA_SOURCE_CONFIG,
    CPA_SOURCE_COMMAND_LINE,
} cpa_source;

enum {
#define CPA_OPTION(...) +1
    CPA_N_OPTIONS =
#include "cpa/app/options.def"
#undef CPA_OPTION
};

// One record of the table.
typedef struct cpa_option {
    const char *name; // with underscores
    const char *help; // what it is, a phrase
    cpa_option_section section;
    unsigned commands; // CPA_FOR_... bits
    cpa_option_type type;
    size_t offset;      // into cpa_options
    const char *value;  // what its value is called in help, NULL: by its type
    const char *def;    // default, as typed; NULL: none
    const char *absent; // what having no value, or 0, means
    double min, max;    // of numbers, inclusive unless open
    bool min_open, max_open;
    bool power_of_two;
    bool size;           // an integer of bytes, typed as 512MiB or 2GiB
    bool repeat;         // each mention adds one
    bool can_be_none;    // an empty text means none; elsewhere it means the default
    unsigned required;   // commands that cannot do without it
    const char *choices; // "a|b", NULL: anything
    // Where upstream does something else than it means to: the row of docs/semantics.md (NULL: none), what upstream
    // does (NULL: `def`), and the default under --semantics fixed (NULL: `def`). Flags and choices alone have these.
    const char *row, *upstream, *fixed;
} cpa_option;

typedef struct cpa_options {
    cpa_command command;
    cpa_request request;
    char *subject; // of bench: what is measured
    char *path_b;  // the second one, of compare; of convert where it goes
    char *path;    // what the command is about: DATA.h5ad, RUN, FILE
    cpa_data_spec data;
    cpa_model_config model; // model.seed and data.seed are the one option `seed`
    cpa_train_config train;
    char *pert_embeddings; // NULL: none
    char *out, *config;
    char *semantics; // "cpa-0.8.8" or "fixed"
    char *preset;    // NULL: none
    char *data_path; // --data
    char *backend;
    int threads;    // 0: as OpenMP finds
    int64_t memory; // bytes, 0: half of what is free
    bool gradient_checkpointing;
    char *precision;
    double timeout; // seconds
    bool json, quiet;
    bool resume;
    int checkpoint_every_steps;      // 0: not by steps
    double checkpoint_every_seconds; // 0: not by time
    int keep;
    char *split, *perturbation, *dose;
    cpa_strings set, where; // "column=value" each
    char *cells, *grid;
    bool reconstruct;
    char *output;
    cpa_strings which;
    int n_samples; // of a variational latent, 0: its mean
    bool zinb_mean;
    char *library; // "control", "condition-mean" or a number
    char *latent;
    cpa_strings add;              // covariates, or "all", or "none"
    cpa_simulate_config simulate; // its cells, genes, seed and gzip are options of others, too
    int gzip;
    struct {
        int ranks, per_node;     // 0: those that run; all on one node
        int64_t fit, fit_device; // bytes, 0: no batch is looked for
    } plan;
    struct {
        char *model; // "latency,bandwidth,flops", NULL: found
        int steps, repeats;
    } scale;
    unsigned char source[CPA_N_OPTIONS]; // cpa_source
} cpa_options;

/** The table: CPA_N_OPTIONS records, in the order of help and of config.yaml. */
const cpa_option *cpa_option_table(void);

/** Whether a run remembers the option: all that makes the model. */
bool cpa_option_is_remembered(const cpa_option *option);

/** Number of the option in the table, -1 when there is none of this name (dashes or underscores). */
int cpa_option_find(const char *name);

/** Whether option `i`, a flag or a choice, has the value that this text stands for. */
bool cpa_option_is(const cpa_options *o, int i, const char *text);

/** The name of a command ("train"); "" for CPA_COMMAND_NONE. */
const char *cpa_command_name(cpa_command command);

/** Every option at its default. `o` is overwritten; free it with cpa_options_fini. */
cpa_status cpa_options_init(cpa_options *o);

/** Reads the command line, and the file that --config names, then what --preset sets of the rest and what --semantics
 *  does of what is left, into `o` (overwritten; cpa_options_fini also after a failure). USAGE: an unknown command or option (with the nearest name), one that the command does not take, a
 *  malformed or out-of-range value, a missing path or required option. NO_INPUT, CONFIG: as cpa_options_read.
 *  Rank-local. */
cpa_status cpa_options_parse(int argc, char **argv, cpa_options *o);

/** Takes from a YAML file what no better source has set. Options that this command does not take are checked
 *  and, but for a run's, dropped, so that one file serves all commands. NO_INPUT: no such file. CONFIG, with file and
 *  line: not YAML, an unknown or repeated key, a value of the wrong type or out of range, or (from CPA_SOURCE_RUN) an
 *  option that a run never writes. */
cpa_status cpa_options_read(cpa_options *o, const char *path, cpa_source source);

/** Writes every option that a run remembers, in the order of the table, to a YAML file (temporary name, then renamed).
 *  IO. */
cpa_status cpa_options_write(const cpa_options *o, const char *path);

/** Appends option i's value as it could be typed, nothing where it has none. */
cpa_status cpa_option_show(const cpa_options *o, int i, cpa_text *t);

/** Adds option i's value as it could be typed behind its name to `out`; where the option repeats, each of its values. */
cpa_status cpa_option_values(const cpa_options *o, int i, cpa_strings *out);

/** Deep copy into an empty `out`. */
cpa_status cpa_options_copy(const cpa_options *o, cpa_options *out);

/** Deep copy into an empty `out` of `o`, with what command line and --config left open taken from RUN/config.yaml.
 *  NO_INPUT: no such folder, or none with a config.yaml. CONFIG: see cpa_options_read. */
cpa_status cpa_options_of_run(const cpa_options *o, const char *run, cpa_options *out);

/** Frees what `o` holds; NULL-safe members. */
void cpa_options_fini(cpa_options *o);

/** The help of a command, or for CPA_COMMAND_NONE of the program, appended to `t`. */
cpa_status cpa_options_help(cpa_command command, cpa_text *t);

/** The page docs/options.md: every option, generated from the table; appended to `t`. */
cpa_status cpa_options_page(cpa_text *t);

#endif
