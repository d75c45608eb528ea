// Owns: writing model.h5 and reading back what it says and holds. Never writes anything that depends on when, where
// or on how many ranks a model was made.
#include "cpa/train/modelfile.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/hash.h"
#include "cpa/nn/mlp.h" // CPA_MAX_LAYERS
#include "cpa/train/unseen.h"
#include "modelfile_impl.h"

static const char FORMAT[] = "cpa-hpc model";
enum { VERSION = 1, MAX_WIDTH = 65536, MAX_COMBINED = 64 };

// The attributes of the group `options`: one row per scalar that a model file remembers.
typedef enum row_type { ROW_STRING, ROW_BOOL, ROW_INT, ROW_INT64, ROW_REAL } row_type;
typedef struct option_row {
    const char *name;
    row_type type;
    size_t offset;    // into cpa_model_meta
    int64_t min, max; // of integers: a damaged size must not be allocated
} option_row;
#define ROW(name, type, member)                                                                                        \
    {                                                                                                                  \
        name, ROW_##type, offsetof(cpa_model_meta, member), INT64_MIN, INT64_MAX                                       \
    }
#define SIZE(name, max, member)                                                                                        \
    {                                                                                                                  \
        name, ROW_INT, offsetof(cpa_model_meta, member), 1, max                                                        \
    }
static const option_row ROWS[] = {
    ROW("recon_loss", STRING, config.recon_loss),
    ROW("doser_type", STRING, config.doser_type),
    SIZE("n_hidden_doser", MAX_WIDTH, config.n_hidden_doser),
    SIZE("n_layers_doser", CPA_MAX_LAYERS, config.n_layers_doser),
    SIZE("n_latent", MAX_WIDTH, config.n_latent),
    SIZE("n_hidden_encoder", MAX_WIDTH, config.n_hidden_encoder),
    SIZE("n_layers_encoder", CPA_MAX_LAYERS, config.n_layers_encoder),
    SIZE("n_hidden_decoder", MAX_WIDTH, config.n_hidden_decoder),
    SIZE("n_layers_decoder", CPA_MAX_LAYERS, config.n_layers_decoder),
    ROW("use_batch_norm_encoder", BOOL, config.use_batch_norm_encoder),
    ROW("use_layer_norm_encoder", BOOL, config.use_layer_norm_encoder),
    ROW("use_batch_norm_decoder", BOOL, config.use_batch_norm_decoder),
    ROW("use_layer_norm_decoder", BOOL, config.use_layer_norm_decoder),
    ROW("dropout_rate_encoder", REAL, config.dropout_rate_encoder),
    ROW("dropout_rate_decoder", REAL, config.dropout_rate_decoder),
    ROW("nb_decoder_dropout", BOOL, config.nb_decoder_dropout),
    ROW("control_zero", BOOL, config.control_zero),
    ROW("variational", BOOL, config.variational),
    ROW("use_batch_norm_adv", BOOL, config.use_batch_norm_adv),
    ROW("use_layer_norm_adv", BOOL, config.use_layer_norm_adv),
    SIZE("n_hidden_adv", MAX_WIDTH, config.n_hidden_adv),
    SIZE("n_layers_adv", CPA_MAX_LAYERS, config.n_layers_adv),
    ROW("dropout_rate_adv", REAL, config.dropout_rate_adv),
    ROW("seed", INT64, config.seed),
    ROW("perturbation_key", STRING, spec.perturbation_key),
    ROW("control_group", STRING, spec.control_group),
    ROW("dosage_key", STRING, spec.dosage_key),
    ROW("batch_key", STRING, spec.batch_key),
    ROW("layer", STRING, spec.layer),
    ROW("split_key", STRING, spec.split_key),
    ROW("train_split", STRING, spec.train_split),
    ROW("valid_split", STRING, spec.valid_split),
    ROW("test_split", STRING, spec.test_split),
    ROW("train_size", REAL, spec.train_size),
    ROW("deg_uns_key", STRING, spec.deg_uns_key),
    ROW("deg_uns_cat_key", STRING, spec.deg_uns_cat_key),
    ROW("data_seed", INT64, spec.seed),
    ROW("compat_dose_order", BOOL, spec.compat_dose_order),
    SIZE("max_comb_len", MAX_COMBINED, max_comb_len),
    ROW("batch_covariate", INT, batch_cov),
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

void cpa_model_meta_fini(cpa_model_meta *meta)
{
    cpa_free(&meta->config.recon_loss);
    cpa_free(&meta->config.doser_type);
    cpa_data_spec_fini(&meta->spec);
    cpa_strings_fini(&meta->gene);
    cpa_strings_fini(&meta->pert);
    cpa_free(&meta->trained);
    cpa_free(&meta->source);
    for (int64_t c = 0; meta->cov_value && c < meta->cov_name.n; c++) {
        cpa_strings_fini(&meta->cov_value[c]);
    }
    cpa_free(&meta->cov_value);
    cpa_strings_fini(&meta->cov_name);
    *meta = (cpa_model_meta){0};
}

cpa_status cpa_model_meta_of(const cpa_registry *r, const cpa_strings *gene, const cpa_model_config *config,
                             cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    *meta = (cpa_model_meta){.config = *config, .batch_cov = -1, .max_comb_len = r->max_comb_len};
    meta->config.recon_loss = meta->config.doser_type = NULL; // not this meta's until copied
    CPA_TRY(cpa_strdup(config->recon_loss, &meta->config.recon_loss));
    CPA_TRY(cpa_strdup(config->doser_type, &meta->config.doser_type));
    CPA_TRY(cpa_data_spec_copy(&r->spec, &meta->spec));
    CPA_TRY(cpa_strings_copy(gene, &meta->gene));
    CPA_TRY(cpa_strings_copy(&r->pert, &meta->pert));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *meta->cov_value, &meta->cov_value));
    for (int c = 0; c < r->n_covs; c++) {
        if (r->spec.batch_key && strcmp(r->cov[c].name, r->spec.batch_key) == 0) {
            meta->batch_cov = c;
        }
        CPA_TRY(cpa_strings_add(&meta->cov_name, r->cov[c].name));
        CPA_TRY(cpa_strings_copy(&r->cov[c].value, &meta->cov_value[c]));
    }
cleanup:
    if (st != CPA_OK) {
        cpa_model_meta_fini(meta);
    }
    return st;
}

void cpa_modelfile_order(const cpa_params *t, int *order, int *n)
{
    *n = 0;
    for (int i = 0; i < t->n; i++) {
        if (t->p[i].group != CPA_GROUP_ADVERSARY && t->p[i].group != CPA_GROUP_STAT_ADVERSARY) {
            int k = (*n)++;
            for (; k > 0 && strcmp(t->p[order[k - 1]].name, t->p[i].name) > 0; k--) {
                order[k] = order[k - 1];
            }
            order[k] = i;
        }
    }
}

uint64_t cpa_modelfile_hash(uint64_t hash, const char *name, const cpa_real *value, int64_t n)
{
    hash = cpa_hash(hash, name, strlen(name) + 1);
    for (int64_t i = 0; i < n; i++) {
        float x = (float)value[i]; // also in double precision, so that one file has one digest in every build
        hash = cpa_hash(hash, &x, sizeof x);
    }
    return hash;
}

static cpa_status write_rows(cpa_h5 *f, const cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5_write_group(f, "options"));
    for (int i = 0; i < N_ROWS; i++) {
        const void *member = (const char *)meta + ROWS[i].offset;
        const char *const *s = member;
        switch (ROWS[i].type) {
        case ROW_STRING: // one that is not set has no attribute
            st = *s ? cpa_h5_write_attr_string(f, "options", ROWS[i].name, *s) : CPA_OK;
            break;
        case ROW_BOOL:
            st = cpa_h5_write_attr_numbers(f, "options", ROWS[i].name, CPA_H5_U8, -1, member);
            break;
        case ROW_INT:
            st = cpa_h5_write_attr_numbers(f, "options", ROWS[i].name, CPA_H5_I32, -1, member);
            break;
        case ROW_INT64:
            st = cpa_h5_write_attr_numbers(f, "options", ROWS[i].name, CPA_H5_I64, -1, member);
            break;
        case ROW_REAL:
            st = cpa_h5_write_attr_numbers(f, "options", ROWS[i].name, CPA_H5_F64, -1, member);
            break;
        }
        CPA_TRY(st);
    }
    if (meta->spec.categorical_covariate_keys.n > 0) {
        CPA_TRY(cpa_h5_write_attr_strings(f, "options", "categorical_covariate_keys",
                                          &meta->spec.categorical_covariate_keys));
    }
    if (meta->spec.holdout.n > 0) {
        CPA_TRY(cpa_h5_write_attr_strings(f, "options", "holdout", &meta->spec.holdout));
    }
cleanup:
    return st;
}

static cpa_status write_schema(cpa_h5 *f, const cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    char *path = NULL;
    CPA_TRY(cpa_h5_write_strings(f, "schema/genes", &meta->gene));
    CPA_TRY(cpa_h5_write_strings(f, "schema/perturbations", &meta->pert));
    CPA_TRY(cpa_h5_write_strings(f, "schema/covariate_order", &meta->cov_name));
    for (int64_t c = 0; c < meta->cov_name.n; c++) {
        CPA_TRY(cpa_sprintf(&path, "schema/covariates/%s", meta->cov_name.s[c]));
        CPA_TRY(cpa_h5_write_strings(f, path, &meta->cov_value[c]));
        cpa_free(&path);
    }
cleanup:
    cpa_free(&path);
    return st;
}

// Writes the tensors of a value arena in host memory in the order of their names and returns their digest.
static cpa_status write_tensors(cpa_h5 *f, const cpa_params *t, const cpa_real *value, const cpa_model_meta *meta,
                                uint64_t *digest)
{
    cpa_status st = CPA_OK;
    cpa_real *host = NULL;
    int *order = NULL, n;
    *digest = CPA_HASH_START;
    CPA_TRY(cpa_alloc((size_t)t->n, sizeof *order, &order));
    cpa_modelfile_order(t, order, &n);
    for (int i = 0; i < n; i++) {
        const cpa_param *p = &t->p[order[i]];
        int64_t shape[2] = {p->rank == 1 ? p->cols : p->rows, p->cols};
        CPA_TRY(cpa_realloc((size_t)cpa_param_size(p), sizeof *host, &host));
        cpa_params_unpack(t, value, order[i], host);
        cpa_unseen_settle(meta, p->name, host);
        CPA_TRY(cpa_h5_write(f, p->name, (cpa_h5_type)CPA_H5_REAL, p->rank, shape, host, 0));
        *digest = cpa_modelfile_hash(*digest, p->name, host, cpa_param_size(p));
    }
cleanup:
    cpa_free(&host);
    cpa_free(&order);
    return st;
}

static cpa_status write_model(cpa_h5 *f, const cpa_params *t, const cpa_real *value, const cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    char text[17];
    uint64_t digest;
    int version = VERSION;
    CPA_TRY(cpa_h5_write_attr_string(f, "/", "format", FORMAT));
    CPA_TRY(cpa_h5_write_attr_numbers(f, "/", "version", CPA_H5_I32, -1, &version));
    CPA_TRY(write_rows(f, meta));
    CPA_TRY(write_schema(f, meta));
    CPA_TRY(write_tensors(f, t, value, meta, &digest));
    CPA_TRY(cpa_modelfile_write_vectors(f, meta, &digest));
    snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
    CPA_TRY(cpa_h5_write_attr_string(f, "/", "digest", text));
cleanup:
    return st;
}

cpa_status cpa_modelfile_image(const cpa_params *t, const cpa_real *value, const cpa_model_meta *meta, void *bytes,
                               size_t *n)
{
    cpa_status st;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_image_create("model", false, &f));
    CPA_TRY(write_model(f, t, value, meta));
    CPA_TRY(cpa_h5_image_finish(&f, 0, bytes, n));
cleanup:
    cpa_h5_close(&f);
    return st;
}

cpa_status cpa_modelfile_save(const char *path, const cpa_params *t, const cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    char *temporary = NULL;
    cpa_real *value = NULL;
    CPA_TRY(cpa_alloc((size_t)t->n_value, sizeof *value, &value));
    CPA_TRY(cpa_op_download(t->be, value, t->value, (size_t)t->n_value * sizeof *value));
    CPA_TRY(cpa_sprintf(&temporary, "%s.part", path));
    CPA_TRY(cpa_h5_create(temporary, &f));
    CPA_TRY(write_model(f, t, value, meta));
    CPA_TRY(cpa_h5_finish(&f));
    CPA_REQUIRE(rename(temporary, path) == 0, CPA_IO, "cannot rename '%s' to '%s': %s", temporary, path,
                strerror(errno));
cleanup:
    cpa_h5_close(&f);
    if (st != CPA_OK && temporary) {
        remove(temporary);
    }
    cpa_free(&temporary);
    cpa_free(&value);
    return st;
}

static cpa_status read_rows(const cpa_h5 *f, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < N_ROWS; i++) {
        void *member = (char *)meta + ROWS[i].offset;
        int64_t whole = 0; // of an empty attribute
        int n;
        if (ROWS[i].type == ROW_STRING) {
            if (cpa_h5_has_attr(f, "options", ROWS[i].name)) {
                CPA_TRY(cpa_h5_attr_string(f, "options", ROWS[i].name, member));
            }
        } else if (ROWS[i].type == ROW_REAL) {
            CPA_TRY(cpa_h5_attr_numbers(f, "options", ROWS[i].name, CPA_H5_F64, 1, member, &n));
        } else {
            CPA_TRY(cpa_h5_attr_numbers(f, "options", ROWS[i].name, CPA_H5_I64, 1, &whole, &n));
            CPA_REQUIRE(whole >= ROWS[i].min && whole <= ROWS[i].max, CPA_BAD_DATA,
                        "'%s' is damaged: its option %s is %lld; %lld to %lld are possible", cpa_h5_path(f),
                        ROWS[i].name, (long long)whole, (long long)ROWS[i].min, (long long)ROWS[i].max);
            if (ROWS[i].type == ROW_INT64) {
                memcpy(member, &whole, sizeof whole);
            } else if (ROWS[i].type == ROW_BOOL) {
                *(bool *)member = whole != 0;
            } else {
                int small = (int)whole;
                memcpy(member, &small, sizeof small);
            }
        }
    }
    meta->spec.max_comb_len = meta->max_comb_len;
    if (cpa_h5_has_attr(f, "options", "categorical_covariate_keys")) {
        CPA_TRY(
            cpa_h5_attr_strings(f, "options", "categorical_covariate_keys", &meta->spec.categorical_covariate_keys));
    }
    if (cpa_h5_has_attr(f, "options", "holdout")) {
        CPA_TRY(cpa_h5_attr_strings(f, "options", "holdout", &meta->spec.holdout));
    }
cleanup:
    return st;
}

static cpa_status read_schema(const cpa_h5 *f, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    char *path = NULL;
    CPA_TRY(cpa_h5_read_strings(f, "schema/genes", &meta->gene));
    CPA_TRY(cpa_h5_read_strings(f, "schema/perturbations", &meta->pert));
    CPA_TRY(cpa_h5_read_strings(f, "schema/covariate_order", &meta->cov_name));
    CPA_TRY(cpa_alloc((size_t)meta->cov_name.n, sizeof *meta->cov_value, &meta->cov_value));
    for (int64_t c = 0; c < meta->cov_name.n; c++) {
        CPA_TRY(cpa_sprintf(&path, "schema/covariates/%s", meta->cov_name.s[c]));
        CPA_TRY(cpa_h5_read_strings(f, path, &meta->cov_value[c]));
        cpa_free(&path);
    }
    CPA_REQUIRE(meta->batch_cov >= -1 && meta->batch_cov < meta->cov_name.n, CPA_BAD_DATA,
                "'%s' is damaged: covariate %d should be the batch, but there are %lld", cpa_h5_path(f),
                meta->batch_cov, (long long)meta->cov_name.n);
cleanup:
    cpa_free(&path);
    return st;
}

cpa_status cpa_modelfile_meta(const char *path, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    char *format = NULL, *digest = NULL;
    int64_t version;
    int n;
    *meta = (cpa_model_meta){.batch_cov = -1};
    CPA_TRY(cpa_h5_open(path, &f));
    CPA_REQUIRE(cpa_h5_has_attr(f, "/", "format"), CPA_BAD_DATA,
                "'%s' is not a model file: its root has no attribute 'format'; weights from elsewhere go through the "
                "command import",
                path);
    CPA_TRY(cpa_h5_attr_string(f, "/", "format", &format));
    CPA_TRY(cpa_h5_attr_numbers(f, "/", "version", CPA_H5_I64, 1, &version, &n));
    CPA_REQUIRE(strcmp(format, FORMAT) == 0 && version == VERSION, CPA_BAD_DATA,
                "'%s' is of format '%s' version %lld; this program reads '%s' version %d", path, format,
                (long long)version, FORMAT, VERSION);
    CPA_TRY(cpa_h5_attr_string(f, "/", "digest", &digest));
    CPA_REQUIRE(strlen(digest) == sizeof meta->digest - 1, CPA_BAD_DATA,
                "'%s' has the digest '%s', not 16 digits: the file is damaged", path, digest);
    memcpy(meta->digest, digest, sizeof meta->digest);
    CPA_TRY(read_rows(f, meta));
    CPA_TRY(read_schema(f, meta));
    CPA_TRY(cpa_modelfile_features(f, &meta->n_pert_features));
cleanup:
    cpa_h5_close(&f);
    cpa_free(&format);
    cpa_free(&digest);
    if (st != CPA_OK) {
        cpa_model_meta_fini(meta);
    }
    return st;
}

static void shape_text(int rank, const int64_t *shape, char out[64])
{
    int n = snprintf(out, 64, "[");
    for (int i = 0; i < rank && n < 48; i++) {
        n += snprintf(out + n, 64 - (size_t)n, i ? ", %lld" : "%lld", (long long)shape[i]);
    }
    snprintf(out + n, 64 - (size_t)n, "]");
}

cpa_status cpa_modelfile_tensor(const cpa_h5 *f, const cpa_param *p, cpa_real *torch)
{
    cpa_status st = CPA_OK;
    cpa_h5_info info;
    char want[64], got[64];
    int64_t shape[2] = {p->rank == 1 ? p->cols : p->rows, p->cols}, n = cpa_param_size(p);
    CPA_REQUIRE(cpa_h5_kind_of(f, p->name) == CPA_H5_DATASET, CPA_BAD_DATA,
                "'%s' has no tensor '%s': not a model of this kind, or an incomplete file", cpa_h5_path(f), p->name);
    CPA_TRY(cpa_h5_describe(f, p->name, &info));
    shape_text(p->rank, shape, want);
    shape_text(info.rank, info.shape, got);
    CPA_REQUIRE(info.rank == p->rank && strcmp(want, got) == 0, CPA_BAD_DATA,
                "'%s': tensor '%s' has shape %s, the model needs %s", cpa_h5_path(f), p->name, got, want);
    CPA_TRY(cpa_h5_read_into(f, p->name, (cpa_h5_type)CPA_H5_REAL, n, torch));
    for (int64_t i = 0; i < n; i++) {
        CPA_REQUIRE(isfinite(torch[i]), CPA_BAD_DATA,
                    "'%s': element %lld of tensor '%s' is %g; only finite numbers make a model", cpa_h5_path(f),
                    (long long)i, p->name, (double)torch[i]);
    }
cleanup:
    return st;
}

// Fills all tensors; the digest must be the file's, where it has one.
static cpa_status fill(const cpa_h5 *f, cpa_params *t, const cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_real *host = NULL;
    int *order = NULL, n;
    uint64_t digest = CPA_HASH_START;
    const char *expected = meta->digest;
    char text[17];
    CPA_TRY(cpa_alloc((size_t)t->n, sizeof *order, &order));
    cpa_modelfile_order(t, order, &n);
    for (int i = 0; i < n; i++) {
        const cpa_param *p = &t->p[order[i]];
        CPA_TRY(cpa_realloc((size_t)cpa_param_size(p), sizeof *host, &host));
        CPA_TRY(cpa_modelfile_tensor(f, p, host));
        CPA_TRY(cpa_params_set(t, order[i], host));
        digest = cpa_modelfile_hash(digest, p->name, host, cpa_param_size(p));
    }
    cpa_modelfile_hash_vectors(meta->vectors, &digest);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
    CPA_REQUIRE(expected[0] == '\0' || strcmp(text, expected) == 0, CPA_BAD_DATA,
                "'%s' is damaged: its tensors have the digest %s, it was written with %s", cpa_h5_path(f), text,
                expected);
cleanup:
    cpa_free(&host);
    cpa_free(&order);
    return st;
}

cpa_status cpa_modelfile_load(const char *path, const cpa_model_meta *meta, cpa_backend *be, int max_cells,
                              int64_t max_nnz, cpa_model **out)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    cpa_model *m = NULL, *wide = NULL;
    int *size = NULL;
    cpa_shape s = {.n_genes = (int)meta->gene.n,
                   .n_perts = (int)cpa_unseen_n_stored(meta),
                   .n_pert_features = meta->n_pert_features,
                   .n_labels = 1,
                   .n_covs = (int)meta->cov_name.n,
                   .max_comb_len = meta->max_comb_len,
                   .cov_name = (const char *const *)meta->cov_name.s,
                   .batch_cov = meta->batch_cov,
                   .max_cells = max_cells,
                   .max_nnz = max_nnz};
    CPA_TRY(cpa_alloc((size_t)meta->cov_name.n, sizeof *size, &size));
    for (int64_t c = 0; c < meta->cov_name.n; c++) {
        size[c] = (int)meta->cov_value[c].n;
    }
    s.cov_size = size;
    CPA_TRY(cpa_h5_open(path, &f));
    CPA_TRY(cpa_model_create(be, &meta->config, &s, false, NULL, NULL, &m));
    CPA_TRY(fill(f, cpa_model_params(m), meta));
    if (meta->source) {
        s.n_perts = (int)meta->pert.n;
        s.n_pert_features = 0;
        CPA_TRY(cpa_model_create(be, &meta->config, &s, false, NULL, NULL, &wide));
        CPA_TRY(cpa_unseen_fill(meta, cpa_model_params(m), cpa_model_params(wide)));
        cpa_model_destroy(&m);
    }
    *out = wide ? wide : m;
    m = wide = NULL;
cleanup:
    cpa_model_destroy(&m);
    cpa_model_destroy(&wide);
    cpa_h5_close(&f);
    cpa_free(&size);
    return st;
}
