// Owns: how cells are decoded: which parts of their latents, which covariates, how many draws of a variational latent, to
// which means. Never chooses cells or conditions.
#include <string.h>

#include "cpa/app/trained.h"
#include "cpa/base/log.h"
#include "cpa/base/text.h"

static const cpa_latent_kind KINDS[] = {
    {"basal", CPA_LATENT_BASAL},
    {"after", CPA_LATENT_ALL},
    {"corrected", CPA_LATENT_BASAL | CPA_LATENT_PERT | CPA_LATENT_COVS},
    {"no_pert", CPA_LATENT_BASAL | CPA_LATENT_COVS | CPA_LATENT_BATCH},
    {"no_pert_corrected", CPA_LATENT_BASAL | CPA_LATENT_COVS},
    {"covs", CPA_LATENT_COVS | CPA_LATENT_BATCH},
};

const cpa_latent_kind *cpa_latent_find(const char *name)
{
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        if (strcmp(KINDS[k].name, name) == 0) {
            return &KINDS[k];
        }
    }
    return NULL;
}

// Which covariates are added wherever a latent has covariates.
static cpa_status choose_covariates(cpa_trained *t, const cpa_strings *add)
{
    cpa_status st = CPA_OK;
    const cpa_strings *known = &t->meta.cov_name;
    bool all = add->n == 1 && strcmp(add->s[0], "all") == 0, none = add->n == 1 && strcmp(add->s[0], "none") == 0;
    cpa_text names = {0};
    CPA_TRY(cpa_alloc((size_t)known->n, sizeof *t->add, &t->add));
    for (int64_t c = 0; c < known->n; c++) {
        t->add[c] = all || (!none && cpa_strings_find(add, known->s[c]) >= 0);
        CPA_TRY(cpa_text_add(&names, "%s%s", c ? ", " : "", known->s[c]));
    }
    for (int64_t i = 0; i < add->n && !all && !none; i++) {
        CPA_REQUIRE(cpa_strings_find(known, add->s[i]) >= 0, CPA_BAD_DATA,
                    "--add: the model '%s' has no covariate '%s'; it has %s", t->model_path, add->s[i],
                    known->n ? cpa_text_str(&names) : "none");
    }
cleanup:
    cpa_text_fini(&names);
    return st;
}

cpa_status cpa_trained_decoding(cpa_trained *t, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    size_t values = (size_t)CPA_BLOCK * (size_t)t->meta.gene.n;
    bool zinb = strcmp(t->meta.config.recon_loss, "zinb") == 0;
    CPA_TRY(choose_covariates(t, &o->add));
    if (o->command == CPA_COMMAND_LATENT) {
        goto cleanup; // it decodes nothing
    }
    t->n_draws = t->meta.config.variational ? o->n_samples : 0;
    t->decoding =
        (cpa_decoding){.parts = CPA_LATENT_ALL, .seed = (uint64_t)t->registry->spec.seed, .thin = o->zinb_mean};
    if (o->command == CPA_COMMAND_PREDICT) {
        t->decoding.parts = cpa_latent_find(o->latent)->parts;
    }
    t->parts = t->decoding.parts;
    CPA_TRY(cpa_alloc(values, sizeof *t->means, &t->means));
    if (t->n_draws > 0) {
        CPA_TRY(cpa_alloc(values, sizeof *t->spread, &t->spread));
        CPA_TRY(cpa_alloc(values, sizeof *t->drawn, &t->drawn));
    }
    if (o->zinb_mean && !zinb && o->source[cpa_option_find("zinb_mean")] >= CPA_SOURCE_CONFIG) {
        cpa_warn("--zinb-mean changes nothing: the model '%s' is trained with recon_loss %s", t->model_path,
                 t->meta.config.recon_loss);
    }
cleanup:
    return st;
}

// Takes draw number k, from 1 on, into means and squared deviations (Welford 1962).
static void take_draw(cpa_trained *t, int64_t values, int k)
{
    cpa_real share = 1 / (cpa_real)k;
#pragma omp parallel for simd
    for (int64_t i = 0; i < values; i++) {
        cpa_real before = t->drawn[i] - t->means[i], mean = t->means[i] + before * share;
        t->spread[i] += before * (t->drawn[i] - mean);
        t->means[i] = mean;
    }
}

// Means and variances of the draws; of a single one the variances are 0.
static cpa_status decode_draws(cpa_trained *t, int64_t values)
{
    cpa_status st = CPA_OK;
    memset(t->means, 0, (size_t)values * sizeof *t->means);
    memset(t->spread, 0, (size_t)values * sizeof *t->spread);
    for (int k = 1; k <= t->n_draws; k++) {
        t->decoding.draw = k;
        CPA_TRY(cpa_model_decode(t->model, &t->decoding));
        CPA_TRY(cpa_model_means(t->model, t->drawn));
        take_draw(t, values, k);
    }
    for (int64_t i = 0; t->n_draws > 1 && i < values; i++) {
        t->spread[i] /= (cpa_real)(t->n_draws - 1);
    }
cleanup:
    return st;
}

cpa_status cpa_trained_predict(cpa_trained *t, const int64_t *cell, const cpa_target *const *as, int n)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_trained_encode(t, cell, as, n));
    if (t->n_draws > 0) {
        CPA_TRY(decode_draws(t, (int64_t)n * t->meta.gene.n));
        goto cleanup;
    }
    CPA_TRY(cpa_model_decode(t->model, &t->decoding));
    CPA_TRY(cpa_model_means(t->model, t->means));
cleanup:
    return st;
}
