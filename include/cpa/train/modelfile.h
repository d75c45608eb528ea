// Owns: model.h5: the trained tensors under their upstream names and everything needed to use them on another file.
// Holds nothing that depends on when, where or on how many ranks it was made. Reads what upstream's export holds,
// too.
#ifndef CPA_TRAIN_MODELFILE_H
#define CPA_TRAIN_MODELFILE_H

#include "cpa/data/pert_table.h"
#include "cpa/data/registry.h"
#include "cpa/model/model.h"

// Where the vector of a perturbation is: in a row of a table, or (NULL) of the model's tensors.
typedef struct cpa_pert_source {
    const cpa_pert_table *table;
    int64_t row;
} cpa_pert_source;

// What a model file says beside its tensors. Owns its strings.
typedef struct cpa_model_meta {
    cpa_model_config config;
    cpa_data_spec spec;     // how the training data were read; what another file is read by unless told otherwise
    cpa_strings gene;       // [n_genes]
    cpa_strings pert;       // [0] "<PAD>", [1] control, then the others sorted
    cpa_strings cov_name;   // batch key last, if any
    cpa_strings *cov_value; // [cov_name.n]
    int batch_cov;          // -1: none
    int max_comb_len;
    char digest[17];               // hexadecimal, over names and bytes of the tensors, and of the vectors beside them
    int n_pert_features;           // width of external vectors, 0: embeddings were learned from cells
    bool *trained;                 // [pert.n] of external vectors: whether cells trained it; NULL: all
    const cpa_pert_table *vectors; // borrowed: vectors of perturbations that are in no tensor, too; NULL: none
    cpa_pert_source *source;       // [pert.n] once cpa_unseen_add was called, else NULL
} cpa_model_meta;

/** Frees it. */
void cpa_model_meta_fini(cpa_model_meta *meta);

/** The meta of a model trained on a registry (deep copies). `gene`: names of the genes. */
cpa_status cpa_model_meta_of(const cpa_registry *r, const cpa_strings *gene, const cpa_model_config *config,
                             cpa_model_meta *meta);

/** Writes model.h5 (temporary name, fsync, rename): datasets module/... of the value arena, schema/..., scalar
 *  options as attributes, unseen/... the rows of meta->vectors whose names are not in meta->pert. Rank 0 only. */
cpa_status cpa_modelfile_save(const char *path, const cpa_params *t, const cpa_model_meta *meta);

/** The bytes of such a file in *(void **)bytes (cpa_free), with `value` (a value arena, in host memory) as the tensors. */
cpa_status cpa_modelfile_image(const cpa_params *t, const cpa_real *value, const cpa_model_meta *meta, void *bytes,
                               size_t *n);

/** Reads the vectors that a model file or an export holds for perturbations that are in none of its tensors; NULL: none. They belong
 *  into meta.vectors before the file is loaded. Collective; comm NULL: this process alone. */
cpa_status cpa_modelfile_vectors(cpa_comm *comm, const char *path, cpa_pert_table **out);

/** Reads the meta of a model file. NO_INPUT, BAD_DATA (not a model file, missing or misshapen tensor) with names.
 *  Every rank by itself. */
cpa_status cpa_modelfile_meta(const char *path, cpa_model_meta *meta);

/** Reads an upstream export (module/<state dict>, attributes pert_encoder and covars_encoder as JSON, var_names):
 *  sizes are inferred from the tensors. An optional attribute `command` (JSON) gives covariates, control, layer. */
cpa_status cpa_modelfile_import_meta(const char *path, cpa_model_meta *meta);

/** Writes an upstream export to `path`, created: every tensor of upstream's state dict, those that it never uses as
 *  zeros; the encoders and var_names; `command` as it is. Rank 0 only. */
cpa_status cpa_modelfile_export(const char *path, const cpa_params *t, const cpa_model_meta *meta, const char *command);

/** Creates an inference model of the right sizes and fills it from the tensors of a model file or upstream export. After cpa_unseen_add
 *  it has an embedding for every name of meta->pert, and external vectors no more: they are projected.
 *  Tensors without effect (unused decoder heads, num_batches_tracked) are ignored; a missing or misshapen one is
 *  BAD_DATA with its name. */
cpa_status cpa_modelfile_load(const char *path, const cpa_model_meta *meta, cpa_backend *be, int max_cells,
                              int64_t max_nnz, cpa_model **out);

#endif
