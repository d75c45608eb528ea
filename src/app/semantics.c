// Owns: for every row of docs/semantics.md that is an option, whether it matters in a training run and what upstream does.
// Never changes an option, and never trains.
#include "cpa/app/semantics.h"

#include <string.h>

#include "cpa/base/log.h"
#include "cpa/train/schedule.h"

// A training run as far as the rows depend on it.
typedef struct run {
    const cpa_train_config *train;
    const cpa_model_config *model;
    const cpa_registry *registry;
    int64_t n_epochs;
    bool has_vectors;
} run;

// A phase of the run's epoch under another schedule.
static cpa_phase phase_of(const run *r, int64_t epoch, const char *mixup_warmup, const char *lr_schedule)
{
    cpa_train_config c = *r->train;
    c.mixup_warmup = (char *)(uintptr_t)mixup_warmup;
    c.lr_schedule = (char *)(uintptr_t)lr_schedule;
    return cpa_schedule(&c, epoch, 0, 0);
}

static bool mixup_differs(const run *r)
{
    for (int64_t e = 0; e < r->n_epochs; e++) {
        if (phase_of(r, e, "upstream", "every").mixup_alpha != phase_of(r, e, "linear", "every").mixup_alpha) {
            return true;
        }
    }
    return false;
}

static bool lr_differs(const run *r)
{
    for (int64_t e = 0; e < r->n_epochs; e++) {
        if (phase_of(r, e, "linear", "upstream").lr_factor != phase_of(r, e, "linear", "every").lr_factor) {
            return true;
        }
    }
    return false;
}

static bool mixes_covariates(const run *r)
{
    bool mixes = false, covariates = false;
    for (int64_t e = 0; e < r->n_epochs && !mixes; e++) {
        mixes = cpa_schedule(r->train, e, 0, 0).mixup_alpha > 0;
    }
    for (int c = 0; c < r->registry->n_covs; c++) {
        covariates = covariates || r->registry->cov[c].value.n > 1;
    }
    return mixes && covariates;
}

static bool counts_steps(const run *r)
{
    const cpa_train_config *c = r->train;
    bool kl = r->model->variational && c->n_steps_kl_warmup && !c->n_epochs_kl_warmup;
    return c->n_steps_pretrain_ae || c->n_steps_adv_warmup || kl;
}

// Whether a class that trains has another weight when only cells that train are counted.
static bool weights_differ(const run *r)
{
    const cpa_registry *reg = r->registry;
    double *all = NULL, *train = NULL;
    bool differ = false;
    if (cpa_alloc((size_t)reg->label.n, sizeof *all, &all) == CPA_OK &&
        cpa_alloc((size_t)reg->label.n, sizeof *train, &train) == CPA_OK &&
        cpa_registry_class_weights(reg, false, all) == CPA_OK &&
        cpa_registry_class_weights(reg, true, train) == CPA_OK) {
        for (int64_t i = 0; i < reg->n_cells && !differ; i++) {
            int label = reg->condition[reg->condition_of[i]].label;
            differ = reg->split[i] == CPA_SPLIT_TRAIN && all[label] != train[label];
        }
    }
    cpa_free(&all);
    cpa_free(&train);
    return differ;
}

static bool drops_out_counts(const run *r)
{
    return r->model->dropout_rate_decoder > 0 && strcmp(r->model->recon_loss, "gauss") != 0;
}

static bool reorders_doses(const run *r)
{
    return r->registry->n_reordered > 0;
}

static bool projects_vectors(const run *r)
{
    return r->has_vectors;
}

static bool always(const run *r)
{
    (void)r;
    return true;
}

// Upstream hands back its initial weights when no validation came after the first epoch.
static bool upstream_never_validates(const run *r)
{
    int64_t last = r->n_epochs / r->train->check_val_every_n_epoch * r->train->check_val_every_n_epoch;
    return r->registry->n_valid == 0 || last <= 1;
}

// In the order of the table of options, and one without an option.
static const struct {
    const char *option;
    bool (*matters)(const run *r);
    const char *upstream; // what upstream does
    const char *row;      // of a row without an option
} ROWS[] = {
    {"compat_dose_order", reorders_doses, "doses go to the sorted components, whichever they belong to", NULL},
    {"control_zero", always, "the control has an embedding and a dose response of its own", NULL},
    {"nb_decoder_dropout", drops_out_counts, "dropout_rate_decoder does nothing", NULL},
    {"freeze_pert_projection", projects_vectors, "the projection of vectors is never trained", NULL},
    {"step_unit", counts_steps, "n_steps count updates of single optimizers, up to 3 a batch", NULL},
    {"mixup_warmup", mixup_differs, "mixup never happens", NULL},
    {"adv_cov_mixup", mixes_covariates, "the adversaries of covariates are asked for one of two mixed cells", NULL},
    {"class_weights", weights_differ, "class weights count cells that do not train", NULL},
    {"lr_schedule", lr_differs, "learning rates fall every S x S epochs", NULL},
    {"epoch_means", always, "the history's means leave out zeros", NULL},
    {NULL, upstream_never_validates, "hands back the initial weights", "E6"},
};

enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

// Appends a piece behind a comma.
static cpa_status add_piece(cpa_text *t, const char *row, const char *piece)
{
    return cpa_text_add(t, "%s%s %s", t->n > 0 ? ", " : "", row, piece);
}

static cpa_status add_row(const cpa_options *o, int k, cpa_text *different, cpa_text *upstream)
{
    cpa_status st = CPA_OK;
    if (ROWS[k].option == NULL) {
        CPA_TRY(add_piece(different, ROWS[k].row, "the trained model is the result"));
        CPA_TRY(cpa_text_add(different, " (upstream: %s)", ROWS[k].upstream));
        goto cleanup;
    }
    int i = cpa_option_find(ROWS[k].option);
    CPA_REQUIRE(i >= 0 && cpa_option_table()[i].row != NULL, CPA_INTERNAL, "'%s' is no option with a row",
                ROWS[k].option);
    const cpa_option *p = &cpa_option_table()[i];
    if (cpa_option_is(o, i, p->upstream != NULL ? p->upstream : p->def)) {
        CPA_TRY(add_piece(upstream, p->row, ROWS[k].upstream));
    } else {
        CPA_TRY(add_piece(different, p->row, p->name));
        CPA_TRY(cpa_text_add(different, " "));
        CPA_TRY(cpa_option_show(o, i, different));
        CPA_TRY(cpa_text_add(different, " (upstream: %s)", ROWS[k].upstream));
    }
cleanup:
    return st;
}

cpa_status cpa_semantics_rows(const cpa_options *o, const cpa_registry *r, cpa_text *different, cpa_text *upstream)
{
    cpa_status st = CPA_OK;
    const run here = {&o->train, &o->model, r, cpa_schedule_epochs(&o->train, r->n_cells), o->pert_embeddings != NULL};
    for (int k = 0; k < N_ROWS; k++) {
        if (ROWS[k].matters(&here)) {
            CPA_TRY(add_row(o, k, different, upstream));
        }
    }
cleanup:
    return st;
}

// The mean class weight of the cells that train.
static double mean_weight(const cpa_registry *r)
{
    double sum = 0;
    for (int64_t i = 0; i < r->n_cells; i++) {
        if (r->split[i] == CPA_SPLIT_TRAIN) {
            sum += r->label_weight[r->condition[r->condition_of[i]].label];
        }
    }
    return sum / (double)r->n_train;
}

void cpa_semantics_warn(const cpa_options *o, const cpa_registry *r)
{
    if (o->train.adv_steps == 1) {
        cpa_warn("--adv-steps 1: T12, every batch trains the autoencoder, so that %s the adversaries never learn; 2 or "
                 "more shares the batches, none trains both on each",
                 o->train.n_epochs_pretrain_ae || o->train.n_steps_pretrain_ae ? "after pretraining" : "here");
    }
    if (strcmp(o->train.adv_loss, "focal") == 0) {
        cpa_warn("--adv-loss focal: T18, the class weights (here %.3g on average) are not divided out as cce's are; a "
                 "smaller --reg-adv and --pen-adv may be needed",
                 mean_weight(r));
    }
}
