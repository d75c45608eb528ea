// Owns: the command `export`: a run's weights and what they mean, in the layout that `import` reads and upstream's
// state dict fits. Never changes a weight.
#include <cjson/cJSON.h>
#include <stddef.h>
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/train/modelfile.h"

static void add_text(cJSON *to, const char *name, const char *text)
{
    if (text) {
        cJSON_AddStringToObject(to, name, text);
    } else {
        cJSON_AddNullToObject(to, name);
    }
}

static void add_option(cJSON *to, const cpa_option *option, const void *member)
{
    switch (option->type) {
    case CPA_OPTION_INT:
        cJSON_AddNumberToObject(to, option->name, *(const int *)member);
        break;
    case CPA_OPTION_INT64:
        cJSON_AddNumberToObject(to, option->name, (double)*(const int64_t *)member);
        break;
    case CPA_OPTION_REAL:
        cJSON_AddNumberToObject(to, option->name, *(const double *)member);
        break;
    case CPA_OPTION_BOOL:
        cJSON_AddBoolToObject(to, option->name, *(const bool *)member);
        break;
    case CPA_OPTION_STRING:
        add_text(to, option->name, *(char *const *)member);
        break;
    case CPA_OPTION_STRINGS: // none of the model's is a list
        break;
    }
}

// The hyper-parameters: those of the adversaries are upstream's plan_kwargs, the others arguments of its CPA(...). Each
// is JSON in a string, as upstream's own exports have it.
static cpa_status add_hyper(cJSON *command, const cpa_model_config *config)
{
    cpa_status st = CPA_OK;
    cJSON *model = cJSON_CreateObject(), *plan = cJSON_CreateObject();
    char *model_text = NULL, *plan_text = NULL;
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *option = &cpa_option_table()[i];
        size_t n = strlen(option->name);
        if (option->section == CPA_SECTION_MODEL && option->row == NULL) { // the others upstream does not know
            const void *member = (const char *)config + (option->offset - offsetof(cpa_options, model));
            add_option(n > 4 && strcmp(option->name + n - 4, "_adv") == 0 ? plan : model, option, member);
        }
    }
    model_text = cJSON_PrintUnformatted(model);
    plan_text = cJSON_PrintUnformatted(plan);
    CPA_REQUIRE(model_text && plan_text, CPA_INTERNAL, "no memory for the options of the model");
    cJSON_AddStringToObject(command, "model", model_text);
    cJSON_AddStringToObject(command, "plan", plan_text);
cleanup:
    cJSON_free(model_text);
    cJSON_free(plan_text);
    cJSON_Delete(model);
    cJSON_Delete(plan);
    return st;
}

// How the model was made: what `import` needs beyond tensors and names.
static cpa_status describe(const cpa_model_meta *meta, char **text)
{
    cpa_status st = CPA_OK;
    const cpa_data_spec *s = &meta->spec;
    const struct {
        const char *name, *text;
    } entry[] = {
        {"perturbation_key", s->perturbation_key},
        {"control", s->control_group},
        {"dosage_key", s->dosage_key},
        {"batch_key", s->batch_key},
        {"layer", s->layer},
        {"split_key", s->split_key},
        {"train_split", s->train_split},
        {"valid_split", s->valid_split},
        {"test_split", s->test_split},
        {"degs", s->deg_uns_key},
        {"deg_uns_cat_key", s->deg_uns_cat_key},
        {"recon", meta->config.recon_loss},
    };
    cpa_text covariates = {0};
    cJSON *command = cJSON_CreateObject();
    char *json = NULL;
    for (size_t i = 0; i < sizeof entry / sizeof *entry; i++) {
        add_text(command, entry[i].name, entry[i].text);
    }
    for (int64_t c = 0; c < s->categorical_covariate_keys.n; c++) {
        CPA_TRY(cpa_text_add(&covariates, "%s%s", c ? "," : "", s->categorical_covariate_keys.s[c]));
    }
    add_text(command, "covariates", cpa_text_str(&covariates));
    cJSON *rows = cJSON_AddObjectToObject(command, "rows"); // of docs/semantics.md, which upstream has no options for
    cJSON_AddBoolToObject(rows, "control_zero", meta->config.control_zero);
    cJSON_AddBoolToObject(rows, "nb_decoder_dropout", meta->config.nb_decoder_dropout);
    cJSON_AddBoolToObject(rows, "compat_dose_order", s->compat_dose_order);
    cJSON_AddNumberToObject(command, "max_comb", meta->max_comb_len);
    cJSON_AddNumberToObject(command, "train_size", s->train_size);
    cJSON_AddNumberToObject(command, "seed", (double)s->seed);
    CPA_TRY(add_hyper(command, &meta->config));
    json = cJSON_PrintUnformatted(command);
    CPA_REQUIRE(json, CPA_INTERNAL, "no memory for the description of the model");
    CPA_TRY(cpa_strdup(json, text));
cleanup:
    cJSON_free(json);
    cJSON_Delete(command);
    cpa_text_fini(&covariates);
    return st;
}

// Rank 0's work.
static cpa_status export_run(const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_model_meta meta = {0};
    cpa_backend *be = NULL;
    cpa_model *model = NULL;
    cpa_pert_table *vectors = NULL;
    char *path = NULL, *temporary = NULL, *command = NULL;
    CPA_TRY(cpa_output_begin(o->out, &temporary));
    CPA_TRY(cpa_rundir_trained(o->path, &path));
    CPA_TRY(cpa_modelfile_meta(path, &meta));
    CPA_TRY(cpa_modelfile_vectors(NULL, path, &vectors));
    meta.vectors = vectors;
    CPA_TRY(cpa_backend_create("cpu", &be));
    CPA_TRY(cpa_modelfile_load(path, &meta, be, 1, 1, &model));
    CPA_TRY(describe(&meta, &command));
    CPA_TRY(cpa_modelfile_export(temporary, cpa_model_params(model), &meta, command));
    CPA_TRY(cpa_output_commit(temporary, o->out));
    if (strcmp(meta.config.doser_type, "mlp") == 0) {
        cpa_warn("upstream has no working dose response 'mlp': '%s' is for the command import alone", o->out);
    }
    if (meta.config.control_zero && meta.n_pert_features > 0) {
        cpa_warn(
            "upstream adds the projected vector of the control to control cells, which this model does not: '%s' is "
            "for the command import alone",
            o->out);
    }
    cpa_info("%s: %lld genes, %lld perturbations, %lld covariates, from model %s", o->out, (long long)meta.gene.n,
             (long long)meta.pert.n - 1, (long long)meta.cov_name.n, meta.digest);
cleanup:
    if (st != CPA_OK) {
        cpa_output_discard(temporary);
    }
    cpa_free(&path);
    cpa_free(&temporary);
    cpa_free(&command);
    cpa_model_destroy(&model);
    cpa_pert_table_destroy(&vectors);
    if (be) {
        cpa_backend_destroy(&be);
    }
    cpa_model_meta_fini(&meta);
    return st;
}

cpa_status cpa_cmd_export(cpa_comm *comm, const cpa_options *o)
{
    return cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? export_run(o) : CPA_OK);
}
