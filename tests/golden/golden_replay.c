// Owns: replaying a fixture's steps with the recorded draws injected. Must never read an expected value.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpa/data/mixup.h"
#include "cpa/model/model.h"
#include "cpa/train/optimizer.h"
#include "cpa/train/purity.h"
#include "golden.h"

typedef struct replay {
    const fixture *f;
    store *out;
    cpa_backend *be;
    cpa_model *m;
    cpa_batch *own, *mixed, *batch; // batch: the one of the two that the step uses
    int32_t *partner;
    float *features;
    cpa_real *noise; // [n_cells, n_latent]
    cpa_real *host;  // scratch, the largest tensor
    double sums[CPA_SUM_COVS + 16 * CPA_SUMS_PER_COV];
    int step;       // whose masks are injected
    cpa_real *mask; // [n_cells, widest hidden layer]
    double *label_weight;
} replay;

static cpa_status put(replay *r, int rank, int64_t d0, int64_t d1, const cpa_real *v, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

static cpa_status put(replay *r, int rank, int64_t d0, int64_t d1, const cpa_real *v, const char *fmt, ...)
{
    char path[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    return store_put_real(r->out, path, rank, (int64_t[]){rank == 1 ? d1 : d0, d1}, v);
}

static cpa_status scalar(replay *r, double v, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static cpa_status scalar(replay *r, double v, const char *fmt, ...)
{
    char path[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    return store_put_scalar(r->out, path, v);
}

// The recorded mask of this run of a classifier's layer: the pass-th mask of its module in the order of use.
static const cpa_real *recorded_mask(void *ctx, int part, int layer, int pass)
{
    replay *r = ctx;
    char name[300];
    if (part == CPA_PART_ENCODER) {
        snprintf(name, sizeof name, "module.encoder.%s.fc_layers.Layer %d.",
                 r->f->model.variational ? "encoder" : "network", layer);
    } else if (part == CPA_PART_DECODER) {
        snprintf(name, sizeof name, "module.decoder.encoder.fc_layers.Layer %d.", layer);
    } else if (part == 0) {
        snprintf(name, sizeof name, "perturbation_classifier.classifier.0.fc_layers.Layer %d.", layer);
    } else {
        snprintf(name, sizeof name, "covars_classifiers.%s.classifier.0.fc_layers.Layer %d.", r->f->cov_name[part - 1],
                 layer);
    }
    for (int i = 0;; i++) {
        const tensor *t = store_find(&r->f->s, "step_%02d/draws/dropout_%02d", r->step, i);
        if (!t) {
            return NULL;
        }
        if (strncmp(t->module, name, strlen(name)) == 0 && pass-- == 0) {
            for (int64_t e = 0; e < t->n; e++) {
                r->mask[e] = (cpa_real)t->v[e];
            }
            return r->mask;
        }
    }
}

// The noise of a variational encoder is the first that a step draws.
static const cpa_real *recorded_noise(void *ctx)
{
    replay *r = ctx;
    const tensor *t = store_find(&r->f->s, "step_%02d/draws/noise_0", r->step);
    for (int64_t e = 0; t && e < t->n; e++) {
        r->noise[e] = (cpa_real)t->v[e];
    }
    return t ? r->noise : NULL;
}

// Fills the batch from step's stored tensors.
static cpa_status load_batch(replay *r, int step)
{
    cpa_status st = CPA_OK;
    const fixture *f = r->f;
    cpa_batch *b = r->batch = r->own;
    const tensor *x = store_find(&f->s, "step_%02d/batch/x", step),
                 *pert = store_find(&f->s, "step_%02d/batch/perts", step);
    const tensor *dose = store_find(&f->s, "step_%02d/batch/doses", step),
                 *label = store_find(&f->s, "step_%02d/batch/pert_label", step);
    const tensor *category = store_find(&f->s, "step_%02d/batch/category", step);
    CPA_REQUIRE(x && pert && dose && label && category, CPA_BAD_DATA,
                "step_%02d/batch lacks x, perts, doses, pert_label or category", step);
    b->n_cells = (int)x->dim[0];
    b->nnz = 0;
    for (int i = 0; i < b->n_cells; i++) {
        double library = 0;
        for (int g = 0; g < f->n_genes; g++) {
            double v = x->v[(int64_t)i * f->n_genes + g];
            if (v != 0) {
                b->gene[b->nnz] = g;
                b->count[b->nnz] = (cpa_real)v;
                b->log1p[b->nnz++] = (cpa_real)log1p(v);
                library += v;
            }
        }
        b->indptr[i + 1] = (int32_t)b->nnz;
        b->library[i] = (cpa_real)library;
        b->label[i] = (int32_t)label->v[i];
        b->category[i] = (int32_t)category->v[i];
        b->cell[i] = i;
        for (int k = 0; k < f->max_comb_len; k++) {
            b->pert[i * f->max_comb_len + k] = (int32_t)pert->v[i * f->max_comb_len + k];
            b->dose[i * f->max_comb_len + k] = (cpa_real)dose->v[i * f->max_comb_len + k];
        }
    }
    for (int c = 0; c < f->n_covs; c++) {
        const tensor *t = store_find(&f->s, "step_%02d/batch/cov_%s", step, f->cov_name[c]);
        CPA_REQUIRE(t, CPA_BAD_DATA, "step_%02d/batch lacks cov_%s", step, f->cov_name[c]);
        for (int i = 0; i < b->n_cells; i++) {
            b->cov[c * b->max_cells + i] = (int32_t)t->v[i];
        }
    }
cleanup:
    return st;
}

// Mixes the batch with the recorded partners, if the step did.
static cpa_status mix_batch(replay *r, int step)
{
    cpa_status st = CPA_OK;
    const tensor *lambda = store_find(&r->f->s, "step_%02d/draws/mixup_lambda", step);
    const tensor *partner = store_find(&r->f->s, "step_%02d/draws/mixup_partner", step);
    CPA_REQUIRE(lambda && partner, CPA_BAD_DATA, "step_%02d/draws lacks mixup_lambda or mixup_partner", step);
    if (lambda->v[0] < 1) {
        for (int64_t i = 0; i < partner->n; i++) {
            r->partner[i] = (int32_t)partner->v[i];
        }
        CPA_TRY(cpa_mixup_apply(r->own, lambda->v[0], r->partner, r->mixed));
        r->batch = r->mixed;
    }
cleanup:
    return st;
}

// Parameters and running statistics from "initial" or "step_TT/after".
static cpa_status load_parameters(replay *r, const char *from)
{
    cpa_status st = CPA_OK;
    cpa_params *t = cpa_model_params(r->m);
    for (int i = 0; i < t->n; i++) {
        const tensor *x = store_find(&r->f->s, "%s/%s", from, t->p[i].name);
        CPA_REQUIRE(x && x->n == cpa_param_size(&t->p[i]), CPA_BAD_DATA,
                    "the fixture lacks %s/%s, or its shape is another", from, t->p[i].name);
        for (int64_t e = 0; e < x->n; e++) {
            r->host[e] = (cpa_real)x->v[e];
        }
        CPA_TRY(cpa_params_set(t, i, r->host));
    }
cleanup:
    return st;
}

static cpa_phase phase_of(const replay *r, int step, int64_t optimizer_steps)
{
    return cpa_schedule(&r->f->train, step / r->f->steps_per_epoch, optimizer_steps, step % r->f->steps_per_epoch);
}

// Optimizer steps taken before `step`.
static int64_t optimizer_steps_before(const replay *r, int step)
{
    int64_t taken = 0;
    for (int i = 0; i < step; i++) {
        cpa_phase p = phase_of(r, i, taken);
        taken += 2 * p.update_autoencoder + p.update_adversary;
    }
    return taken;
}

static bool is_focal(const replay *r)
{
    return strcmp(r->f->train.adv_loss, "focal") == 0;
}

// Sum of the class weights of the batch.
static double weight_of(const replay *r)
{
    double weight = 0;
    for (int i = 0; i < r->batch->n_cells; i++) {
        weight += r->label_weight[r->batch->label[i]];
    }
    return weight;
}

// Gradients and sums of a step from the parameters that are loaded.
static cpa_status run_step(replay *r, int step, const cpa_phase *phase)
{
    cpa_status st = CPA_OK;
    cpa_draws draws = {recorded_mask, recorded_noise, r};
    cpa_lane_plan plan = {.update_autoencoder = phase->update_autoencoder,
                          .update_adversary = phase->update_adversary,
                          .adversary_in_loss = phase->adversary_in_loss,
                          .want_metrics = true,
                          .adv_lambda = phase->adv_lambda,
                          .pen_adv = r->f->train.pen_adv,
                          .kl_weight = phase->kl_weight,
                          .focal_gamma = is_focal(r) ? 2 : 0,
                          .draws = &draws};
    CPA_TRY(load_batch(r, step));
    CPA_TRY(mix_batch(r, step));
    r->step = step;
    plan.n_cells = r->batch->n_cells;
    plan.label_weight = weight_of(r);
    CPA_TRY(cpa_model_lane(r->m, r->batch, &plan, r->sums));
cleanup:
    return st;
}

static cpa_status put_latents(replay *r, const char *prefix, bool training)
{
    static const struct {
        const char *name;
        int parts;
    } latent[] = {{"z", CPA_LATENT_ALL},
                  {"z_corrected", CPA_LATENT_ALL & ~CPA_LATENT_BATCH},
                  {"z_no_pert", CPA_LATENT_ALL & ~CPA_LATENT_PERT},
                  {"z_no_pert_corrected", CPA_LATENT_BASAL | CPA_LATENT_COVS},
                  {"z_basal", CPA_LATENT_BASAL},
                  {"z_covs", CPA_LATENT_COVS | CPA_LATENT_BATCH}};
    cpa_status st = CPA_OK;
    for (size_t i = 0; i < sizeof latent / sizeof *latent - !training; i++) {
        CPA_TRY(cpa_model_latent(r->m, latent[i].parts, r->host));
        CPA_TRY(put(r, 2, r->batch->n_cells, r->f->model.n_latent, r->host, "%s/%s", prefix, latent[i].name));
    }
    bool counts = strcmp(r->f->model.recon_loss, "gauss") != 0;
    for (int i = 0; training && counts && i < r->batch->n_cells; i++) {
        r->host[i] = (cpa_real)log((double)r->batch->library[i]);
    }
    if (training && counts) {
        CPA_TRY(put(r, 2, r->batch->n_cells, 1, r->host, "%s/library", prefix));
    }
cleanup:
    return st;
}

static cpa_status put_covariate_results(replay *r, int step, const cpa_phase *phase, double *adv, double *penalty)
{
    cpa_status st = CPA_OK;
    double n = r->batch->n_cells;
    for (int c = 0; c < r->f->n_covs; c++) {
        const double *s = r->sums + CPA_SUM_COVS + CPA_SUMS_PER_COV * c;
        double p = phase->update_adversary ? s[CPA_SUM_COV_PENALTY] / n : 0;
        CPA_TRY(scalar(r, s[CPA_SUM_COV_ADV] / n, "step_%02d/result/adv_%s", step, r->f->cov_name[c]));
        CPA_TRY(scalar(r, p, "step_%02d/result/penalty_%s", step, r->f->cov_name[c]));
        CPA_TRY(scalar(r, s[CPA_SUM_COV_ACC], "step_%02d/result/acc_%s", step, r->f->cov_name[c]));
        *adv += s[CPA_SUM_COV_ADV] / n;
        *penalty += p;
    }
cleanup:
    return st;
}

static cpa_status put_results(replay *r, int step, const cpa_phase *phase)
{
    cpa_status st = CPA_OK;
    double n = r->batch->n_cells, adv, penalty;
    adv = r->sums[CPA_SUM_ADV_PERT] / (is_focal(r) ? n : weight_of(r));
    penalty = phase->update_adversary ? r->sums[CPA_SUM_PENALTY_PERT] / n : 0;
    CPA_TRY(scalar(r, adv, "step_%02d/result/adv_perts", step));
    CPA_TRY(scalar(r, penalty, "step_%02d/result/penalty_perts", step));
    CPA_TRY(scalar(r, r->sums[CPA_SUM_ACC_PERT], "step_%02d/result/acc_perts", step));
    CPA_TRY(put_covariate_results(r, step, phase, &adv, &penalty));
    CPA_TRY(scalar(r, adv, "step_%02d/result/adv_loss", step));
    CPA_TRY(scalar(r, penalty, "step_%02d/result/penalty_adv", step));
    CPA_TRY(scalar(r, r->sums[CPA_SUM_RECON] / n, "step_%02d/result/recon_loss", step));
    CPA_TRY(scalar(r, r->sums[CPA_SUM_R2_MEAN], "step_%02d/result/r2_mean", step));
    CPA_TRY(scalar(r, r->sums[CPA_SUM_R2_VAR], "step_%02d/result/r2_var", step));
    CPA_TRY(scalar(r, r->sums[CPA_SUM_KL] / n, "step_%02d/result/KL", step));
    // What upstream reports as 0 on training batches.
    static const char *const zero[] = {"r2_mean_lfc", "r2_var_lfc", "cpa_metric", "disnt_basal", "disnt_after"};
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) {
        CPA_TRY(scalar(r, 0, "step_%02d/result/%s", step, zero[i]));
    }
cleanup:
    return st;
}

static cpa_status put_tensor(replay *r, const cpa_dev_real *arena, int id, const char *prefix)
{
    cpa_status st = CPA_OK;
    const cpa_param *p = &cpa_model_params(r->m)->p[id];
    CPA_TRY(cpa_params_get(cpa_model_params(r->m), arena, id, r->host));
    CPA_TRY(put(r, p->rank, p->rows, p->cols, r->host, "%s/%s", prefix, p->name));
cleanup:
    return st;
}

// The gradients that each optimizer of this step applies, in their order.
static cpa_status put_gradients(replay *r, int step, const cpa_phase *phase)
{
    cpa_status st = CPA_OK;
    const cpa_params *t = cpa_model_params(r->m);
    int update = 0;
    for (int g = 0; g < CPA_N_OPTIMIZERS; g++) {
        if (!(g == CPA_GROUP_ADVERSARY ? phase->update_adversary : phase->update_autoencoder)) {
            continue;
        }
        char prefix[64];
        snprintf(prefix, sizeof prefix, "step_%02d/update_%d/grad", step, update++);
        int64_t at = t->begin[g], n = t->begin[g + 1] - at;
        if (r->f->train.do_clip_grad && n) {
            CPA_TRY(cpa_op_clip(r->be, t->norm, cpa_mat_of(cpa_real_at(t->grad, at), 1, (int)n),
                                r->f->train.gradient_clip_value));
        }
        for (int i = 0; i < t->n; i++) {
            if (t->p[i].group == (cpa_group)g) {
                CPA_TRY(put_tensor(r, t->grad, i, prefix));
            }
        }
    }
cleanup:
    return st;
}

// Steps that start from stored parameters, so that rounding does not pile up.
static cpa_status replay_stored_steps(replay *r)
{
    static const int steps[] = {0, 1, 3, 6};
    cpa_status st = CPA_OK;
    for (int i = 0; i < 4 && steps[i] < r->f->n_steps; i++) {
        char from[64] = "initial", prefix[64];
        if (steps[i] > 0) {
            snprintf(from, sizeof from, "step_%02d/after", steps[i] - 1);
        }
        cpa_phase phase = phase_of(r, steps[i], optimizer_steps_before(r, steps[i]));
        CPA_TRY(load_parameters(r, from));
        CPA_TRY(run_step(r, steps[i], &phase));
        snprintf(prefix, sizeof prefix, "step_%02d/inference", steps[i]);
        CPA_TRY(put_results(r, steps[i], &phase));
        CPA_TRY(put_gradients(r, steps[i], &phase));
        CPA_TRY(put_latents(r, prefix, true));
    }
cleanup:
    return st;
}

// Tensors that no optimizer of this model moves (decoder heads without effect) stay as they began.
static cpa_status put_unused(replay *r, const char *after)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < r->f->s.n; i++) {
        const tensor *x = &r->f->s.t[i];
        bool unused = strncmp(x->path, "initial/module/decoder.px_r_decoder", 35) == 0 ||
                      strncmp(x->path, "initial/module/decoder.px_dropout_decoder", 41) == 0;
        if (unused && cpa_params_find(cpa_model_params(r->m), x->path + 8) < 0) {
            for (int64_t e = 0; e < x->n; e++) {
                r->host[e] = (cpa_real)x->v[e];
            }
            CPA_TRY(put(r, x->rank, x->dim[0], x->dim[x->rank - 1], r->host, "%s/%s", after, x->path + 8));
        }
    }
cleanup:
    return st;
}

static cpa_status replay_all_steps(replay *r)
{
    cpa_status st = CPA_OK;
    cpa_optimizer optimizer = {0};
    cpa_params *t = cpa_model_params(r->m);
    char after[64];
    CPA_TRY(load_parameters(r, "initial"));
    for (int step = 0; step < r->f->n_steps; step++) {
        cpa_phase phase = phase_of(r, step, optimizer.steps);
        CPA_TRY(run_step(r, step, &phase));
        CPA_TRY(cpa_optimizer_step(&optimizer, t, &r->f->train, &phase, 1));
    }
    snprintf(after, sizeof after, "step_%02d/after", r->f->n_steps - 1);
    for (int i = 0; i < t->n; i++) {
        CPA_TRY(put_tensor(r, t->value, i, after));
    }
    CPA_TRY(put_unused(r, after));
cleanup:
    return st;
}

// Purity of a latent, summed over perturbations and covariates with more than one value.
static cpa_status purity(replay *r, int parts, double *sum)
{
    cpa_status st = CPA_OK;
    const int32_t *label[17] = {r->batch->label};
    double each[17];
    int n = 1, k = r->batch->n_cells - 1 < 30 ? r->batch->n_cells - 1 : 30;
    for (int c = 0; c < r->f->n_covs; c++) {
        if (r->f->cov_size[c] > 1) {
            label[n++] = r->batch->cov + c * r->batch->max_cells;
        }
    }
    CPA_TRY(cpa_model_latent(r->m, parts, r->host));
    CPA_TRY(cpa_knn_purity(r->host, r->batch->n_cells, r->f->model.n_latent, k, label, n, each));
    *sum = 0;
    for (int i = 0; i < n; i++) {
        *sum += each[i];
    }
cleanup:
    return st;
}

static cpa_status put_validation(replay *r)
{
    cpa_status st = CPA_OK;
    cpa_scores s;
    double basal, after;
    CPA_TRY(cpa_model_validate(r->m, r->batch, &s));
    CPA_TRY(purity(r, CPA_LATENT_BASAL, &basal));
    CPA_TRY(purity(r, CPA_LATENT_ALL, &after));
    CPA_TRY(scalar(r, s.recon_loss, "evaluation/validation/recon_loss"));
    CPA_TRY(scalar(r, s.r2_mean, "evaluation/validation/r2_mean"));
    CPA_TRY(scalar(r, s.r2_var, "evaluation/validation/r2_var"));
    CPA_TRY(scalar(r, basal, "evaluation/validation/disnt_basal"));
    CPA_TRY(scalar(r, after, "evaluation/validation/disnt_after"));
    CPA_TRY(scalar(r, s.r2_mean + 0.5 * s.r2_var + exp(after - basal), "evaluation/validation/cpa_metric"));
    CPA_TRY(scalar(r, s.kl, "evaluation/validation/KL"));
    static const char *const zero[] = {"adv_loss",  "cycle_loss", "penalty_adv",
                                       "adv_perts", "acc_perts",  "penalty_perts"};
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) {
        CPA_TRY(scalar(r, 0, "evaluation/validation/%s", zero[i]));
    }
    for (int c = 0; c < r->f->n_covs; c++) {
        CPA_TRY(scalar(r, 0, "evaluation/validation/adv_%s", r->f->cov_name[c]));
        CPA_TRY(scalar(r, 0, "evaluation/validation/acc_%s", r->f->cov_name[c]));
        CPA_TRY(scalar(r, 0, "evaluation/validation/penalty_%s", r->f->cov_name[c]));
    }
cleanup:
    return st;
}

// Embedding of every perturbation at one dose, read off as the perturbation part of the latent of cells without counts.
static cpa_status put_pert_embeddings(replay *r, double dose, const char *path)
{
    cpa_status st = CPA_OK;
    cpa_batch *b = r->batch = r->own;
    b->n_cells = r->f->n_perts;
    b->nnz = 0;
    for (int i = 0; i < b->n_cells; i++) {
        b->indptr[i + 1] = 0;
        b->library[i] = 0;
        b->label[i] = 0;
        for (int k = 0; k < b->max_comb_len; k++) {
            b->pert[i * b->max_comb_len + k] = k ? 0 : i;
            b->dose[i * b->max_comb_len + k] = k ? 0 : (cpa_real)dose;
        }
        for (int c = 0; c < b->n_covs; c++) {
            b->cov[c * b->max_cells + i] = 0;
        }
    }
    CPA_TRY(cpa_model_infer(r->m, b));
    CPA_TRY(cpa_model_latent(r->m, CPA_LATENT_PERT, r->host));
    CPA_TRY(put(r, 2, b->n_cells, r->f->model.n_latent, r->host, "%s", path));
cleanup:
    return st;
}

static cpa_status replay_evaluation(replay *r)
{
    cpa_status st = CPA_OK;
    char from[64];
    snprintf(from, sizeof from, "step_%02d/after", r->f->n_steps - 1);
    CPA_TRY(load_parameters(r, from));
    CPA_TRY(load_batch(r, r->f->n_steps - 1));
    CPA_TRY(cpa_model_infer(r->m, r->batch));
    CPA_TRY(cpa_model_decode(r->m, &(cpa_decoding){.parts = CPA_LATENT_ALL}));
    CPA_TRY(cpa_model_means(r->m, r->host));
    CPA_TRY(put(r, 2, r->batch->n_cells, r->f->n_genes, r->host, "evaluation/px"));
    CPA_TRY(put_latents(r, "evaluation", false));
    CPA_TRY(put_validation(r));
    for (int c = 0; c < r->f->n_covs; c++) {
        char name[200];
        snprintf(name, sizeof name, "module/covars_embeddings.%s.weight", r->f->cov_name[c]);
        int id = cpa_params_find(cpa_model_params(r->m), name);
        CPA_TRY(cpa_params_get(cpa_model_params(r->m), cpa_model_params(r->m)->value, id, r->host));
        CPA_TRY(put(r, 2, r->f->cov_size[c], r->f->model.n_latent, r->host, "evaluation/covar_embedding_%s",
                    r->f->cov_name[c]));
    }
    CPA_TRY(put_pert_embeddings(r, 0.1, "evaluation/pert_embedding_dose_0.1"));
    CPA_TRY(put_pert_embeddings(r, 1.0, "evaluation/pert_embedding_dose_1.0"));
    CPA_TRY(put_pert_embeddings(r, 3.0, "evaluation/pert_embedding_dose_3.0"));
cleanup:
    return st;
}

// External perturbation vectors, if the fixture has them.
static cpa_status read_features(replay *r)
{
    cpa_status st = CPA_OK;
    const tensor *t =
        r->f->n_pert_features ? store_find(&r->f->s, "initial/module/pert_network.pert_embedding.weight") : NULL;
    if (t) {
        CPA_TRY(cpa_alloc((size_t)t->n, sizeof *r->features, &r->features));
        for (int64_t i = 0; i < t->n; i++) {
            r->features[i] = (float)t->v[i];
        }
    }
cleanup:
    return st;
}

static cpa_status set_up(replay *r, const char *backend, cpa_precision precision)
{
    cpa_status st = CPA_OK;
    const fixture *f = r->f;
    int cells = f->n_cells > f->n_perts ? f->n_cells : f->n_perts;
    int64_t largest = (int64_t)cells * (f->n_genes > f->model.n_latent ? f->n_genes : f->model.n_latent);
    const tensor *w = store_find(&f->s, "drug_weights");
    CPA_REQUIRE(w && w->n == f->n_labels, CPA_BAD_DATA, "drug_weights is missing or not one per combination");
    r->label_weight = w->v;
    cpa_shape s = {.n_genes = f->n_genes,
                   .n_perts = f->n_perts,
                   .n_labels = f->n_labels,
                   .n_covs = f->n_covs,
                   .max_comb_len = f->max_comb_len,
                   .cov_name = f->cov_name,
                   .cov_size = f->cov_size,
                   .batch_cov = f->batch_cov,
                   .max_cells = cells,
                   .max_nnz = (int64_t)cells * f->n_genes,
                   .mixup = true,
                   .n_pert_features = f->n_pert_features};
    CPA_TRY(read_features(r));
    s.pert_features = r->features;
    CPA_TRY(cpa_batch_create(cells, s.max_nnz, f->n_genes, f->n_covs, f->max_comb_len, &r->own));
    CPA_TRY(cpa_batch_create_mixed(cells, s.max_nnz, f->n_genes, f->n_covs, f->max_comb_len, &r->mixed));
    CPA_TRY(cpa_alloc((size_t)cells, sizeof *r->partner, &r->partner));
    CPA_TRY(cpa_alloc((size_t)cells * (size_t)f->model.n_latent, sizeof *r->noise, &r->noise));
    CPA_TRY(cpa_backend_create(backend, &r->be));
    CPA_TRY(cpa_backend_set_precision(r->be, precision));
    CPA_TRY(cpa_model_create(r->be, &f->model, &s, true, w->v, NULL, &r->m));
    const cpa_params *t = cpa_model_params(r->m);
    for (int i = 0; i < t->n; i++) {
        largest = cpa_param_size(&t->p[i]) > largest ? cpa_param_size(&t->p[i]) : largest;
    }
    CPA_TRY(cpa_alloc((size_t)largest, sizeof *r->host, &r->host));
    int widest = f->model.n_hidden_adv;
    widest = f->model.n_hidden_encoder > widest ? f->model.n_hidden_encoder : widest;
    widest = f->model.n_hidden_decoder > widest ? f->model.n_hidden_decoder : widest;
    CPA_TRY(cpa_alloc((size_t)cells * (size_t)widest, sizeof *r->mask, &r->mask));
cleanup:
    return st;
}

cpa_status golden_replay(const fixture *f, const char *backend, cpa_precision precision, store *out)
{
    cpa_status st = CPA_OK;
    replay r = {.f = f, .out = out};
    CPA_TRY(set_up(&r, backend, precision));
    CPA_TRY(replay_stored_steps(&r));
    CPA_TRY(replay_all_steps(&r));
    CPA_TRY(replay_evaluation(&r));
cleanup:
    cpa_batch_destroy(&r.own);
    cpa_batch_destroy(&r.mixed);
    cpa_model_destroy(&r.m);
    if (r.be) {
        cpa_backend_destroy(&r.be);
    }
    cpa_free(&r.host);
    cpa_free(&r.mask);
    cpa_free(&r.noise);
    cpa_free(&r.partner);
    cpa_free(&r.features);
    return st;
}
