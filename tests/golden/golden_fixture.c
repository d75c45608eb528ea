// Owns: reading a fixture's sizes and options. The model itself refuses choices that it does not have.
// Must never fill in an option that the fixture does not state.
#include <stdio.h>
#include <string.h>

#include "cpa/platform/h5.h"
#include "golden.h"

static double number(const cJSON *o, const char *key)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(o, key));
}

// An option that may be null: 0 then.
static int steps(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(item) ? (int)item->valuedouble : 0;
}

static bool is_true(const cJSON *o, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, key));
}

// The text of an option; "" when it is none.
static char *text(const cJSON *o, const char *key)
{
    char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    static char none[] = "";
    return s ? s : none;
}

static void read_options(fixture *f, const cJSON *model, const cJSON *plan)
{
    f->model = (cpa_model_config){.recon_loss = text(model, "recon_loss"),
                                  .doser_type = text(model, "doser_type"),
                                  .use_batch_norm_encoder = is_true(model, "use_batch_norm_encoder"),
                                  .use_layer_norm_encoder = is_true(model, "use_layer_norm_encoder"),
                                  .use_batch_norm_decoder = is_true(model, "use_batch_norm_decoder"),
                                  .use_layer_norm_decoder = is_true(model, "use_layer_norm_decoder"),
                                  .dropout_rate_encoder = number(model, "dropout_rate_encoder"),
                                  .dropout_rate_decoder = number(model, "dropout_rate_decoder"),
                                  .variational = is_true(model, "variational"),
                                  .freeze_pert_projection = true,
                                  .use_batch_norm_adv = is_true(plan, "use_batch_norm_adv"),
                                  .use_layer_norm_adv = is_true(plan, "use_layer_norm_adv"),
                                  .n_latent = (int)number(model, "n_latent"),
                                  .n_hidden_encoder = (int)number(model, "n_hidden_encoder"),
                                  .n_layers_encoder = (int)number(model, "n_layers_encoder"),
                                  .n_hidden_decoder = (int)number(model, "n_hidden_decoder"),
                                  .n_layers_decoder = (int)number(model, "n_layers_decoder"),
                                  .n_hidden_adv = (int)number(plan, "n_hidden_adv"),
                                  .n_layers_adv = (int)number(plan, "n_layers_adv"),
                                  .dropout_rate_adv = number(plan, "dropout_rate_adv")};
    static char upstream[] = "upstream";
    f->train = (cpa_train_config){.lanes = 1,
                                  .adv_loss = text(plan, "adv_loss"),
                                  .lr_schedule = upstream,
                                  .mixup_warmup = upstream,
                                  .step_size_lr = steps(plan, "step_size_lr"),
                                  .do_clip_grad = is_true(plan, "do_clip_grad"),
                                  .gradient_clip_value = number(plan, "gradient_clip_value"),
                                  .mixup_alpha = number(plan, "mixup_alpha"),
                                  .n_epochs_mixup_warmup = steps(plan, "n_epochs_mixup_warmup"),
                                  .n_epochs_kl_warmup = steps(plan, "n_epochs_kl_warmup"),
                                  .n_steps_kl_warmup = steps(plan, "n_steps_kl_warmup"),
                                  .lr = number(plan, "lr"),
                                  .wd = number(plan, "wd"),
                                  .doser_lr = number(plan, "doser_lr"),
                                  .doser_wd = number(plan, "doser_wd"),
                                  .adv_lr = number(plan, "adv_lr"),
                                  .adv_wd = number(plan, "adv_wd"),
                                  .n_epochs_pretrain_ae = steps(plan, "n_epochs_pretrain_ae"),
                                  .n_steps_pretrain_ae = steps(plan, "n_steps_pretrain_ae"),
                                  .n_epochs_adv_warmup = steps(plan, "n_epochs_adv_warmup"),
                                  .n_steps_adv_warmup = steps(plan, "n_steps_adv_warmup"),
                                  .adv_steps = steps(plan, "adv_steps"),
                                  .reg_adv = number(plan, "reg_adv"),
                                  .pen_adv = number(plan, "pen_adv")};
}

static cpa_status read_sizes(const char *path, fixture *f)
{
    cpa_status st = CPA_OK;
    const cJSON *sizes = cJSON_GetObjectItemCaseSensitive(f->config, "sizes"), *cov;
    const char *batch = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->config, "batch_key"));
    f->n_genes = (int)number(sizes, "G");
    f->n_perts = (int)number(sizes, "P");
    f->n_labels = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(f->config, "combos"));
    f->max_comb_len = (int)number(f->config, "max_comb_len");
    f->n_pert_features = steps(f->config, "embedding_dim");
    f->steps_per_epoch = (int)number(f->config, "steps_per_epoch");
    f->batch_cov = -1;
    cJSON_ArrayForEach(cov, cJSON_GetObjectItemCaseSensitive(f->config, "covariates"))
    {
        CPA_REQUIRE(f->n_covs < 16, CPA_BAD_DATA, "%s: more than 16 covariates", path);
        f->batch_cov = batch && strcmp(cov->string, batch) == 0 ? f->n_covs : f->batch_cov;
        f->cov_name[f->n_covs] = cov->string;
        f->cov_size[f->n_covs++] = (int)cov->valuedouble;
    }
    const tensor *x;
    while ((x = store_find(&f->s, "step_%02d/batch/x", f->n_steps))) {
        f->n_cells = (int)(x->dim[0] > f->n_cells ? x->dim[0] : f->n_cells);
        f->n_steps++;
    }
    CPA_REQUIRE(f->n_steps > 0, CPA_BAD_DATA, "%s: no step_00/batch/x", path);
cleanup:
    return st;
}

cpa_status fixture_read(const char *path, fixture *f)
{
    cpa_status st = CPA_OK;
    cpa_h5 *file = NULL;
    char *config = NULL;
    *f = (fixture){0};
    CPA_TRY(cpa_h5_open(path, &file));
    CPA_TRY(cpa_h5_attr_string(file, "/", "config", &config));
    f->config = cJSON_Parse(config);
    CPA_REQUIRE(f->config, CPA_BAD_DATA, "%s: its attribute config is not JSON", path);
    CPA_TRY(store_read(path, &f->s));
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(f->config, "model"),
                *plan = cJSON_GetObjectItemCaseSensitive(f->config, "plan");
    read_options(f, model, plan);
    CPA_TRY(read_sizes(path, f));
cleanup:
    cpa_free(&config);
    cpa_h5_close(&file);
    return st;
}

void fixture_fini(fixture *f)
{
    store_fini(&f->s);
    cJSON_Delete(f->config);
    *f = (fixture){0};
}
