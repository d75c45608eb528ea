// Owns: reading what upstream's export says: sizes from the tensors, names from its JSON. Never guesses a meaning
// that neither states.
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "modelfile_impl.h"

static cpa_status parse_attr(const cpa_h5 *f, const char *name, cJSON **out)
{
    cpa_status st = CPA_OK;
    char *text = NULL;
    CPA_REQUIRE(cpa_h5_has_attr(f, "/", name), CPA_BAD_DATA,
                "'%s' has no attribute '%s' at its root: not an export of upstream's weights (which names "
                "perturbations and covariates as JSON)",
                cpa_h5_path(f), name);
    CPA_TRY(cpa_h5_attr_string(f, "/", name, &text));
    *out = cJSON_Parse(text);
    CPA_REQUIRE(cJSON_IsObject(*out), CPA_BAD_DATA, "'%s': attribute '%s' is not a JSON object", cpa_h5_path(f), name);
cleanup:
    cpa_free(&text);
    return st;
}

// An encoder {name: number}, as the list of names by number.
static cpa_status names_by_number(const cpa_h5 *f, const cJSON *encoder, const char *what, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    int n = cJSON_GetArraySize(encoder);
    for (int i = 0; i < n; i++) {
        const cJSON *item, *found = NULL;
        cJSON_ArrayForEach(item, encoder)
        {
            if (cJSON_IsNumber(item) && item->valuedouble == i) {
                found = item;
            }
        }
        CPA_REQUIRE(found, CPA_BAD_DATA, "'%s': %s has %d names but none with the number %d", cpa_h5_path(f), what, n,
                    i);
        CPA_TRY(cpa_strings_add(out, found->string));
    }
cleanup:
    return st;
}

static cpa_status read_encoders(const cpa_h5 *f, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cJSON *perts = NULL, *covs = NULL;
    const cJSON *cov;
    CPA_TRY(parse_attr(f, "pert_encoder", &perts));
    CPA_TRY(parse_attr(f, "covars_encoder", &covs));
    CPA_TRY(names_by_number(f, perts, "pert_encoder", &meta->pert));
    CPA_REQUIRE(meta->pert.n >= 2 && strcmp(meta->pert.s[0], "<PAD>") == 0, CPA_BAD_DATA,
                "'%s': pert_encoder must name '<PAD>' 0 and the control 1", cpa_h5_path(f));
    CPA_TRY(cpa_alloc((size_t)cJSON_GetArraySize(covs), sizeof *meta->cov_value, &meta->cov_value));
    cJSON_ArrayForEach(cov, covs)
    {
        CPA_TRY(cpa_strings_add(&meta->cov_name, cov->string));
        CPA_TRY(names_by_number(f, cov, cov->string, &meta->cov_value[meta->cov_name.n - 1]));
    }
cleanup:
    cJSON_Delete(perts);
    cJSON_Delete(covs);
    return st;
}

static cpa_status shape_of(const cpa_h5 *f, const char *tensor, int rank, int64_t *shape)
{
    cpa_status st = CPA_OK;
    cpa_h5_info info;
    CPA_REQUIRE(cpa_h5_kind_of(f, tensor) == CPA_H5_DATASET, CPA_BAD_DATA, "'%s' has no tensor '%s'", cpa_h5_path(f),
                tensor);
    CPA_TRY(cpa_h5_describe(f, tensor, &info));
    CPA_REQUIRE(info.rank == rank, CPA_BAD_DATA, "'%s': tensor '%s' has %d dimensions, not %d", cpa_h5_path(f), tensor,
                info.rank, rank);
    memcpy(shape, info.shape, (size_t)rank * sizeof *shape);
cleanup:
    return st;
}

// Rows of the first and number of the hidden layers whose tensors are called "<prefix>k<suffix>".
static cpa_status layers_of(const cpa_h5 *f, const char *prefix, const char *suffix, int *rows, int *n)
{
    cpa_status st = CPA_OK;
    char *name = NULL;
    int64_t shape[2];
    for (*n = 0;; ++*n) {
        cpa_free(&name);
        CPA_TRY(cpa_sprintf(&name, "%s%d%s", prefix, *n, suffix));
        if (*n > 0 && cpa_h5_kind_of(f, name) == CPA_H5_NOTHING) {
            break;
        }
        CPA_TRY(shape_of(f, name, 2, shape));
        *rows = (int)shape[0];
    }
cleanup:
    cpa_free(&name);
    return st;
}

// Whether the first hidden layer under a prefix has a batch norm. A layer norm leaves no tensor.
static bool has_batch_norm(const cpa_h5 *f, const char *prefix)
{
    char name[200];
    snprintf(name, sizeof name, "%s0.1.weight", prefix);
    return cpa_h5_kind_of(f, name) == CPA_H5_DATASET;
}

// Sizes and norms, and the likelihood as far as tensors tell it: a variational encoder and a gauss decoder have names of their own.
static cpa_status infer_sizes(const cpa_h5 *f, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    int64_t shape[2];
    cpa_model_config *c = &meta->config;
    c->variational = cpa_h5_kind_of(f, "module/encoder.mean_encoder.weight") == CPA_H5_DATASET;
    bool gauss = cpa_h5_kind_of(f, "module/decoder.mean_encoder.weight") == CPA_H5_DATASET;
    const char *encoder =
        c->variational ? "module/encoder.encoder.fc_layers.Layer " : "module/encoder.network.fc_layers.Layer ";
    const char *decoder =
        gauss ? "module/decoder.encoder.fc_layers.Layer " : "module/decoder.px_decoder.fc_layers.Layer ";
    CPA_TRY(cpa_strdup(gauss ? "gauss" : "nb", &c->recon_loss));
    CPA_TRY(shape_of(f, c->variational ? "module/encoder.mean_encoder.weight" : "module/encoder.z.weight", 2, shape));
    c->n_latent = (int)shape[0];
    CPA_TRY(layers_of(f, encoder, ".0.weight", &c->n_hidden_encoder, &c->n_layers_encoder));
    CPA_TRY(layers_of(f, decoder, ".0.weight", &c->n_hidden_decoder, &c->n_layers_decoder));
    c->use_batch_norm_encoder = has_batch_norm(f, encoder);
    c->use_batch_norm_decoder = has_batch_norm(f, decoder);
    CPA_TRY(shape_of(f, gauss ? "module/decoder.mean_encoder.bias" : "module/px_r", 1, shape));
    CPA_TRY(cpa_h5_read_strings(f, "var_names", &meta->gene));
    CPA_REQUIRE(meta->gene.n == shape[0], CPA_BAD_DATA, "'%s': var_names has %lld names, but the model has %lld genes",
                cpa_h5_path(f), (long long)meta->gene.n, (long long)shape[0]);
cleanup:
    return st;
}

// The networks of dose responses, which none of upstream's models has: only what cpa-hpc exports.
static cpa_status infer_dose_networks(const cpa_h5 *f, cpa_model_meta *meta)
{
    static const char layer[] = "module/pert_network.dosers.Layer ";
    cpa_status st = CPA_OK;
    cpa_model_config *c = &meta->config;
    int rows, n_perts = (int)meta->pert.n;
    if (cpa_h5_kind_of(f, "module/pert_network.dosers.Layer 0.weight") != CPA_H5_DATASET) {
        return CPA_OK;
    }
    CPA_TRY(layers_of(f, layer, ".weight", &rows, &c->n_layers_doser));
    CPA_REQUIRE(rows % n_perts == 0, CPA_BAD_DATA,
                "'%s': the tensor '%s0.weight' has %d rows, not a multiple of the %d perturbations", cpa_h5_path(f),
                layer, rows, n_perts);
    c->n_hidden_doser = rows / n_perts;
    CPA_TRY(cpa_strdup("mlp", &c->doser_type));
cleanup:
    return st;
}

static const char *text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static int number_of(const cJSON *object, const char *name, int otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valueint : otherwise;
}

static double real_of(const cJSON *object, const char *name, double otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

static bool truth_of(const cJSON *object, const char *name, bool otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : otherwise;
}

// What the command that trained it says of the data: covariates, control, layer, batches.
static cpa_status read_spec(const cJSON *command, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_data_spec *s = &meta->spec;
    const char *recon = text_of(command, "recon");
    if (recon) {
        cpa_free(&meta->config.recon_loss);
        CPA_TRY(cpa_strdup(recon, &meta->config.recon_loss));
    }
    CPA_TRY(cpa_strdup(text_of(command, "perturbation_key"), &s->perturbation_key));
    CPA_TRY(cpa_strdup(text_of(command, "dosage_key"), &s->dosage_key));
    CPA_TRY(cpa_strdup(text_of(command, "split_key"), &s->split_key));
    CPA_TRY(cpa_strdup(text_of(command, "batch_key"), &s->batch_key));
    CPA_TRY(cpa_strdup(text_of(command, "layer"), &s->layer));
    CPA_TRY(cpa_strdup(text_of(command, "train_split"), &s->train_split));
    CPA_TRY(cpa_strdup(text_of(command, "valid_split"), &s->valid_split));
    CPA_TRY(cpa_strdup(text_of(command, "test_split"), &s->test_split));
    CPA_TRY(cpa_strdup(text_of(command, "degs"), &s->deg_uns_key));
    CPA_TRY(cpa_strdup(text_of(command, "deg_uns_cat_key"), &s->deg_uns_cat_key));
    s->train_size = real_of(command, "train_size", s->train_size);
    meta->max_comb_len = number_of(command, "max_comb", meta->max_comb_len);
    meta->config.seed = s->seed = (int64_t)real_of(command, "seed", 0);
cleanup:
    return st;
}

// Hyper-parameters that leave no trace in the tensors: those of the adversaries are upstream's plan_kwargs.
static cpa_status read_hyper(const cJSON *command, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    const char *model_text = text_of(command, "model"), *plan_text = text_of(command, "plan");
    cJSON *model = model_text ? cJSON_Parse(model_text) : NULL, *plan = plan_text ? cJSON_Parse(plan_text) : NULL;
    cpa_model_config *c = &meta->config;
    const char *doser = text_of(model, "doser_type");
    if (!c->doser_type) {
        CPA_TRY(cpa_strdup(doser ? doser : "logsigm", &c->doser_type));
    }
    c->use_layer_norm_encoder = truth_of(model, "use_layer_norm_encoder", false);
    c->use_layer_norm_decoder = truth_of(model, "use_layer_norm_decoder", false);
    c->dropout_rate_encoder = real_of(model, "dropout_rate_encoder", 0);
    c->dropout_rate_decoder = real_of(model, "dropout_rate_decoder", 0);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(command, "rows"); // of docs/semantics.md
    c->control_zero = truth_of(rows, "control_zero", false);
    c->nb_decoder_dropout = truth_of(rows, "nb_decoder_dropout", false);
    meta->spec.compat_dose_order = truth_of(rows, "compat_dose_order", false);
    c->use_batch_norm_adv = truth_of(plan, "use_batch_norm_adv", true);
    c->use_layer_norm_adv = truth_of(plan, "use_layer_norm_adv", false);
    c->n_hidden_adv = number_of(plan, "n_hidden_adv", c->n_hidden_adv);
    c->n_layers_adv = number_of(plan, "n_layers_adv", c->n_layers_adv);
    c->dropout_rate_adv = real_of(plan, "dropout_rate_adv", c->dropout_rate_adv);
cleanup:
    cJSON_Delete(model);
    cJSON_Delete(plan);
    return st;
}

// The covariates are the encoder's; the batch key is the last of them.
static cpa_status settle_covariates(const cpa_h5 *f, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    const char *batch = meta->spec.batch_key;
    meta->batch_cov = -1;
    for (int64_t c = 0; c < meta->cov_name.n; c++) {
        if (batch && strcmp(meta->cov_name.s[c], batch) == 0) {
            meta->batch_cov = (int)c;
        } else {
            CPA_TRY(cpa_strings_add(&meta->spec.categorical_covariate_keys, meta->cov_name.s[c]));
        }
    }
    CPA_REQUIRE(!batch || meta->batch_cov == meta->cov_name.n - 1, CPA_BAD_DATA,
                "'%s': the batch key '%s' is not the last covariate of covars_encoder", cpa_h5_path(f), batch);
    if (meta->spec.categorical_covariate_keys.n == 0) { // "" is none; an empty list would be inferred
        CPA_TRY(cpa_strings_add(&meta->spec.categorical_covariate_keys, ""));
    }
cleanup:
    return st;
}

cpa_status cpa_modelfile_import_meta(const char *path, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    cJSON *command = NULL;
    // upstream's defaults, for what an export may leave out
    *meta = (cpa_model_meta){.config = {.n_hidden_doser = 128,
                                        .n_layers_doser = 2,
                                        .n_hidden_adv = 64,
                                        .n_layers_adv = 3,
                                        .dropout_rate_adv = 0.1},
                             .batch_cov = -1,
                             .max_comb_len = 2};
    CPA_TRY(cpa_h5_open(path, &f));
    CPA_TRY(read_encoders(f, meta));
    CPA_TRY(infer_sizes(f, meta));
    CPA_TRY(cpa_modelfile_features(f, &meta->n_pert_features));
    CPA_TRY(infer_dose_networks(f, meta));
    if (cpa_h5_has_attr(f, "/", "command")) {
        CPA_TRY(parse_attr(f, "command", &command));
    }
    CPA_TRY(read_spec(command, meta));
    CPA_TRY(read_hyper(command, meta));
    meta->spec.max_comb_len = meta->max_comb_len;
    CPA_TRY(cpa_strdup(meta->pert.s[1], &meta->spec.control_group));
    CPA_TRY(settle_covariates(f, meta));
cleanup:
    cJSON_Delete(command);
    cpa_h5_close(&f);
    if (st != CPA_OK) {
        cpa_model_meta_fini(meta);
    }
    return st;
}
