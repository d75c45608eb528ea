// Owns: the parameter table and its arenas (value, gradient, Adam moments) on one backend. Everything that loops over parameters
// (reduction, optimizer, model file, golden replay) loops over this table. Knows nothing of layers.
#ifndef CPA_NN_PARAMS_H
#define CPA_NN_PARAMS_H

#include "cpa/base/mem.h"
#include "cpa/platform/backend.h"

// What an element belongs to. The arenas are laid out in this order, so that each optimizer owns one contiguous range.
typedef enum cpa_group {
    CPA_GROUP_AUTOENCODER, // Adam 1: encoder, decoder, embeddings, px_r
    CPA_GROUP_DOSER,       // Adam 2
    CPA_GROUP_ADVERSARY,   // Adam 3
    CPA_GROUP_FROZEN,      // of the model, but in no optimizer
    CPA_GROUP_STAT_MODULE, // running statistics of encoder and decoder; in the gradient arena: this batch's statistics
    CPA_GROUP_STAT_ADVERSARY,
    CPA_N_GROUPS
} cpa_group;

enum { CPA_N_OPTIMIZERS = 3 };

// How a tensor begins; one that is given has its values from elsewhere.
typedef enum cpa_init {
    CPA_INIT_UNIFORM,
    CPA_INIT_NORMAL,
    CPA_INIT_NORMAL_PAD,
    CPA_INIT_ZERO,
    CPA_INIT_ONE,
    CPA_INIT_GIVEN
} cpa_init;

// One tensor. Its torch shape is [rows, cols], or [cols] when rank is 1; `transposed` ones are stored [cols, rows].
typedef struct cpa_param {
    char *
        name; // "module/...", "perturbation_classifier/..." or "covars_classifiers/..." and the name in upstream's state dict
    cpa_group group;
    int rows, cols, rank;
    bool transposed;
    cpa_init init;
    double bound; // of CPA_INIT_UNIFORM: 1/sqrt(fan_in); of CPA_INIT_NORMAL_PAD: how many rows are zero
    int64_t at;   // offset in the arenas, in elements
} cpa_param;

// The gradient arena is longer than the value arena by a second copy of the adversary's statistics: the slots that an
// adversary run inside the autoencoder's step writes (upstream moves them twice when both are updated on one batch).
typedef struct cpa_params {
    cpa_backend *be; // borrowed
    int n;
    cpa_param *p;
    int64_t begin[CPA_N_GROUPS + 1]; // group g spans [begin[g], begin[g+1])
    int64_t n_trained, n_value, n_grad;
    cpa_dev_real *value, *grad, *m, *v; // owned; m, v: n_trained, NULL without training
    cpa_dev_f64 *norm;                  // owned, one number: the norm of a group's gradients
} cpa_params;

/** Adds a tensor to the table (before cpa_params_place); its number in *id. */
cpa_status cpa_params_add(cpa_params *t, cpa_group group, int rows, int cols, int rank, cpa_init init, double bound,
                          int *id, const char *fmt, ...) __attribute__((format(printf, 9, 10)));

/** Lays the table out and allocates the arenas; gradients are zeroed. `training`: also gradient and moments. */
cpa_status cpa_params_place(cpa_params *t, cpa_backend *be, bool training);

/** Draws initial values (torch's defaults) from the seed: element e of tensor i depends on (seed, i, e) alone. Given ones stay. */
cpa_status cpa_params_init(cpa_params *t, uint64_t seed);

/** Frees table and arenas. */
void cpa_params_fini(cpa_params *t);

/** Number of the tensor of this name, -1 if there is none. */
int cpa_params_find(const cpa_params *t, const char *name);

/** Copies a tensor from host memory in torch's layout (rows*cols values) to the value arena, to an arena, or back from one. */
cpa_status cpa_params_set(cpa_params *t, int id, const cpa_real *torch);
cpa_status cpa_params_put(const cpa_params *t, cpa_dev_real *arena, int id, const cpa_real *torch);
cpa_status cpa_params_get(const cpa_params *t, const cpa_dev_real *arena, int id, cpa_real *torch);

/** The same with a copy of an arena in host memory: a tensor to it, and back. */
void cpa_params_pack(const cpa_params *t, cpa_real *copy, int id, const cpa_real *torch);
void cpa_params_unpack(const cpa_params *t, const cpa_real *copy, int id, cpa_real *torch);

/** Views of a tensor as stored. */
cpa_mat cpa_value(const cpa_params *t, int id);
cpa_mat cpa_grad(const cpa_params *t, int id);

/** The slot of a batch statistic: in the second copy when `inside_autoencoder` (adversary statistics only). */
cpa_mat cpa_stat(const cpa_params *t, int id, bool inside_autoencoder);

/** Elements of a tensor. */
static inline int64_t cpa_param_size(const cpa_param *p)
{
    return (int64_t)p->rows * p->cols;
}

#endif
