// Owns: what the parts of the golden replay share. A fixture and its replay are stores of named tensors in double.
// Must never take a bound or an expected value from the program under test.
#ifndef CPA_TESTS_GOLDEN_H
#define CPA_TESTS_GOLDEN_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "cpa/base/mem.h"
#include "cpa/data/batch.h"
#include "cpa/model/config.h"
#include "cpa/platform/backend.h"
#include "cpa/train/config.h"

typedef struct tensor {
    char *path; // without a leading '/'
    int rank;
    int64_t dim[4], n;
    double *v;
    char *module; // of a dropout mask: the module that used it, else NULL
} tensor;

typedef struct store {
    tensor *t;
    int n;
} store;

/** Reads every numeric dataset of a file. */
cpa_status store_read(const char *path, store *s);

/** Writes a store: float32, scalars float64, as fixtures are. */
cpa_status store_write(const char *path, const store *s);

/** The tensor at a path (printf style), NULL if there is none. */
const tensor *store_find(const store *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Adds a tensor; values are rounded to float32, scalars are not. */
cpa_status store_put_real(store *s, const char *path, int rank, const int64_t *dim, const cpa_real *v);
cpa_status store_put_scalar(store *s, const char *path, double v);

/** Frees it. */
void store_fini(store *s);

// A fixture: what upstream computed, and with which sizes and options.
typedef struct fixture {
    store s;
    cJSON *config;
    int n_steps, steps_per_epoch;
    int n_genes, n_perts, n_labels, n_covs, max_comb_len, n_cells; // n_cells of the largest batch
    int n_pert_features;                                           // width of external perturbation vectors, 0: none
    const char *cov_name[16];
    int cov_size[16], batch_cov;
    cpa_model_config model;
    cpa_train_config train;
} fixture;

/** Reads a fixture. BAD_DATA when it uses an option that this build does not have, naming it. */
cpa_status fixture_read(const char *path, fixture *f);

/** Frees it. */
void fixture_fini(fixture *f);

/** Replays a fixture on a backend: everything that golden_judge looks at, in the fixture's own layout. */
cpa_status golden_replay(const fixture *f, const char *backend, cpa_precision precision, store *replay);

/** Judges a replay by the fixture's rules, prints the worst of each kind and a verdict; true when everything is within its bound.
 *  `tight`: bounds divided by 100, no further than what float32 storage allows (1e-6); `rounded`: of products that are not in fp32. */
bool golden_judge(const fixture *f, const store *replay, bool tight, bool rounded);

#endif
