// Owns: writing a model as upstream's state dict, complete: also the tensors that upstream declares and never uses.
// Never writes a value that the model does not have, but zeros.
#include <cjson/cJSON.h>
#include <string.h>

#include "cpa/base/hash.h"
#include "modelfile_impl.h"

// A tensor, in single precision as upstream's are.
static cpa_status write_tensor(cpa_h5 *f, const cpa_params *t, int id)
{
    cpa_status st = CPA_OK;
    const cpa_param *p = &t->p[id];
    int64_t shape[2] = {p->rank == 1 ? p->cols : p->rows, p->cols}, n = cpa_param_size(p);
    cpa_real *host = NULL;
    float *single = NULL;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *host, &host));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *single, &single));
    CPA_TRY(cpa_params_get(t, t->value, id, host));
    for (int64_t i = 0; i < n; i++) {
        single[i] = (float)host[i];
    }
    CPA_TRY(cpa_h5_write(f, p->name, CPA_H5_F32, p->rank, shape, single, 0));
cleanup:
    cpa_free(&host);
    cpa_free(&single);
    return st;
}

// torch's batch norm counts batches beside its running mean; with upstream's fixed momentum the count is never used.
static cpa_status write_batch_counts(cpa_h5 *f, const cpa_params *t, const int *order, int n)
{
    static const char mean[] = "running_mean";
    cpa_status st = CPA_OK;
    char *name = NULL;
    const int64_t zero = 0;
    for (int i = 0; i < n; i++) {
        const char *has = t->p[order[i]].name;
        size_t stem = strlen(has) - (strlen(has) < sizeof mean ? strlen(has) : sizeof mean - 1);
        if (strcmp(has + stem, mean) == 0) {
            CPA_TRY(cpa_sprintf(&name, "%.*snum_batches_tracked", (int)stem, has));
            CPA_TRY(cpa_h5_write(f, name, CPA_H5_I64, 0, NULL, &zero, 0));
            cpa_free(&name);
        }
    }
cleanup:
    cpa_free(&name);
    return st;
}

// A head of the decoder that this likelihood does not use, of the shape of the one that all counts use.
static cpa_status write_unused_head(cpa_h5 *f, const cpa_params *t, const char *head)
{
    static const char *const part[] = {"weight", "bias"};
    cpa_status st = CPA_OK;
    char *name = NULL, *like = NULL;
    float *zeros = NULL;
    for (int i = 0; i < 2; i++) {
        CPA_TRY(cpa_sprintf(&name, "module/decoder.%s.%s", head, part[i]));
        CPA_TRY(cpa_sprintf(&like, "module/decoder.px_scale_decoder.0.%s", part[i]));
        int model = cpa_params_find(t, like);
        if (model >= 0 && cpa_params_find(t, name) < 0) {
            const cpa_param *p = &t->p[model];
            int64_t shape[2] = {p->rank == 1 ? p->cols : p->rows, p->cols};
            CPA_TRY(cpa_alloc((size_t)cpa_param_size(p), sizeof *zeros, &zeros));
            CPA_TRY(cpa_h5_write(f, name, CPA_H5_F32, p->rank, shape, zeros, 0));
            cpa_free(&zeros);
        }
        cpa_free(&name);
        cpa_free(&like);
    }
cleanup:
    cpa_free(&name);
    cpa_free(&like);
    cpa_free(&zeros);
    return st;
}

static cpa_status write_tensors(cpa_h5 *f, const cpa_params *t)
{
    cpa_status st = CPA_OK;
    int *order = NULL, n;
    CPA_TRY(cpa_alloc((size_t)t->n, sizeof *order, &order));
    cpa_modelfile_order(t, order, &n);
    for (int i = 0; i < n; i++) {
        CPA_TRY(write_tensor(f, t, order[i]));
    }
    CPA_TRY(write_batch_counts(f, t, order, n));
    CPA_TRY(write_unused_head(f, t, "px_r_decoder"));
    CPA_TRY(write_unused_head(f, t, "px_dropout_decoder"));
cleanup:
    cpa_free(&order);
    return st;
}

// Names by number, as upstream's encoders: {name: number}.
static cJSON *encoder_of(const cpa_strings *name)
{
    cJSON *encoder = cJSON_CreateObject();
    for (int64_t i = 0; i < name->n; i++) {
        cJSON_AddItemToObject(encoder, name->s[i], cJSON_CreateNumber((double)i));
    }
    return encoder;
}

static cpa_status write_json(cpa_h5 *f, const char *name, const cJSON *value)
{
    cpa_status st = CPA_OK;
    char *text = cJSON_PrintUnformatted(value);
    CPA_REQUIRE(text, CPA_INTERNAL, "no memory for the attribute '%s'", name);
    CPA_TRY(cpa_h5_write_attr_string(f, "/", name, text));
cleanup:
    cJSON_free(text);
    return st;
}

cpa_status cpa_modelfile_export(const char *path, const cpa_params *t, const cpa_model_meta *meta, const char *command)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    uint64_t digest = CPA_HASH_START; // an export has none
    cJSON *perts = encoder_of(&meta->pert), *covs = cJSON_CreateObject();
    for (int64_t c = 0; c < meta->cov_name.n; c++) {
        cJSON_AddItemToObject(covs, meta->cov_name.s[c], encoder_of(&meta->cov_value[c]));
    }
    CPA_TRY(cpa_h5_create(path, &f));
    CPA_TRY(write_json(f, "pert_encoder", perts));
    CPA_TRY(write_json(f, "covars_encoder", covs));
    CPA_TRY(cpa_h5_write_attr_string(f, "/", "command", command));
    CPA_TRY(cpa_h5_write_strings(f, "var_names", &meta->gene));
    CPA_TRY(write_tensors(f, t));
    CPA_TRY(cpa_modelfile_write_vectors(f, meta, &digest));
    CPA_TRY(cpa_h5_finish(&f));
cleanup:
    cpa_h5_close(&f);
    cJSON_Delete(perts);
    cJSON_Delete(covs);
    return st;
}
