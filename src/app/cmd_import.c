// Owns: the command `import`: from upstream's exported weights to a run folder. Never changes a weight.
#include <stddef.h>
#include <string.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/app/trained.h"
#include "cpa/base/log.h"

// Sizes are the tensors'; an option that says otherwise is a misunderstanding.
static cpa_status check_sizes(const cpa_options *o, const cpa_model_config *have)
{
    static const struct {
        const char *name;
        size_t offset;
    } size[] = {
        {"n_latent", offsetof(cpa_model_config, n_latent)},
        {"n_hidden_encoder", offsetof(cpa_model_config, n_hidden_encoder)},
        {"n_layers_encoder", offsetof(cpa_model_config, n_layers_encoder)},
        {"n_hidden_decoder", offsetof(cpa_model_config, n_hidden_decoder)},
        {"n_layers_decoder", offsetof(cpa_model_config, n_layers_decoder)},
    };
    const cpa_option *table = cpa_option_table();
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        for (size_t k = 0; k < sizeof size / sizeof *size; k++) {
            const int *asked = (const int *)(const void *)((const char *)&o->model + size[k].offset);
            const int *is = (const int *)(const void *)((const char *)have + size[k].offset);
            if (strcmp(table[i].name, size[k].name) == 0 && o->source[i] >= CPA_SOURCE_CONFIG && *asked != *is) {
                return cpa_fail(CPA_CONFIG, "%s is %d, but the tensors of '%s' have %d; leave it out", size[k].name,
                                *asked, o->path, *is);
            }
        }
    }
    return CPA_OK;
}

static cpa_status take_if_missing(char **to, const char *from)
{
    return *to ? CPA_OK : cpa_strdup(from, to);
}

// What the export says, and what the options say beyond or instead.
static cpa_status settle(const cpa_options *o, cpa_model_meta *meta)
{
    cpa_status st = CPA_OK;
    cpa_data_spec *s = &meta->spec;
    CPA_TRY(check_sizes(o, &meta->config));
    CPA_TRY(cpa_spec_override(o, s));
    CPA_TRY(take_if_missing(&s->train_split, o->data.train_split));
    CPA_TRY(take_if_missing(&s->valid_split, o->data.valid_split));
    CPA_TRY(take_if_missing(&s->test_split, o->data.test_split));
    s->train_size = s->train_size > 0 ? s->train_size : o->data.train_size;
    CPA_REQUIRE(s->max_comb_len >= 1, CPA_CONFIG, "max_comb_len of '%s' is not known; give --max-comb-len", o->path);
    meta->max_comb_len = s->max_comb_len;
cleanup:
    return st;
}

// config.yaml: the options with the model's in their place.
static cpa_status write_config(const cpa_options *o, const cpa_model_meta *meta, const char *path)
{
    cpa_status st = CPA_OK;
    cpa_options all = {0};
    CPA_TRY(cpa_options_copy(o, &all));
    cpa_data_spec_fini(&all.data);
    CPA_TRY(cpa_data_spec_copy(&meta->spec, &all.data));
    cpa_free(&all.model.recon_loss);
    cpa_free(&all.model.doser_type);
    all.model = meta->config;
    all.model.recon_loss = all.model.doser_type = NULL; // not ours until copied
    CPA_TRY(cpa_strdup(meta->config.recon_loss, &all.model.recon_loss));
    CPA_TRY(cpa_strdup(meta->config.doser_type, &all.model.doser_type));
    CPA_TRY(cpa_options_write(&all, path));
cleanup:
    cpa_options_fini(&all);
    return st;
}

// Rank 0 only: the folder is there.
static cpa_status write_run(const cpa_options *o, cpa_model_meta *meta, cpa_rundir *dir)
{
    cpa_status st = CPA_OK;
    cpa_backend *be = NULL;
    cpa_model *model = NULL;
    cpa_pert_table *vectors = NULL;
    const char *model_path, *config_path;
    CPA_TRY(cpa_rundir_file(dir, "model.h5", &model_path));
    CPA_TRY(cpa_rundir_file(dir, "config.yaml", &config_path));
    CPA_TRY(cpa_modelfile_vectors(NULL, o->path, &vectors));
    meta->vectors = vectors;
    CPA_TRY(cpa_backend_create("cpu", &be));
    CPA_TRY(cpa_modelfile_load(o->path, meta, be, 1, 1, &model));
    CPA_TRY(cpa_modelfile_save(model_path, cpa_model_params(model), meta));
    CPA_TRY(write_config(o, meta, config_path));
cleanup:
    cpa_model_destroy(&model);
    cpa_pert_table_destroy(&vectors);
    meta->vectors = NULL;
    if (be) {
        cpa_backend_destroy(&be);
    }
    return st;
}

cpa_status cpa_cmd_import(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_model_meta meta = {0};
    cpa_rundir *dir = NULL;
    bool done = false;
    CPA_TRY(cpa_comm_agree(comm, cpa_modelfile_import_meta(o->path, &meta)));
    CPA_TRY(cpa_comm_agree(comm, settle(o, &meta)));
    CPA_TRY(cpa_rundir_create(comm, o->out, false, &dir));
    CPA_TRY(cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? write_run(o, &meta, dir) : CPA_OK));
    done = true;
    cpa_info("%s: %lld genes, %lld perturbations, %lld covariates, latent %d, from '%s'", o->out,
             (long long)meta.gene.n, (long long)meta.pert.n - 1, (long long)meta.cov_name.n, meta.config.n_latent,
             o->path);
cleanup:
    cpa_rundir_close(&dir, done);
    cpa_model_meta_fini(&meta);
    return st;
}
