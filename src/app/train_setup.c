// Owns: putting a training run together and taking it down. Never trains.
#include <string.h>

#include "cpa/app/semantics.h"
#include "cpa/base/log.h"
#include "cpa/base/signals.h"
#include "cpa/platform/binding.h"
#include "cpa/train/unseen.h"
#include "train_impl.h"

// Reads metadata and counts; what is wrong is wrong on all ranks.
static cpa_status read_data(cpa_train_run *t, const char *path)
{
    cpa_status st = CPA_OK;
    cpa_comm_phase("reading the data");
    CPA_TRY(cpa_comm_agree(t->comm, cpa_h5ad_open(path, &t->file)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_h5ad_select(t->file, t->options.data.layer, t->options.data.genes)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_registry_create(t->file, &t->options.data, true, &t->registry)));
    if (strcmp(t->options.train.class_weights, "train") == 0) {
        CPA_TRY(cpa_comm_agree(t->comm, cpa_registry_class_weights(t->registry, true, t->registry->label_weight)));
    }
    CPA_TRY(cpa_comm_agree(t->comm, cpa_h5ad_index(t->file, "var", &t->gene)));
cleanup:
    return st;
}

// The external vectors of perturbations, where the options name some.
static cpa_status read_vectors(cpa_train_run *t)
{
    cpa_status st = CPA_OK;
    if (t->options.pert_embeddings) {
        CPA_TRY(cpa_pert_table_read(t->comm, t->options.pert_embeddings, NULL, &t->vectors));
        cpa_info("%s: vectors of %d numbers for %lld perturbations, %.1f MB", t->vectors->path, t->vectors->n_features,
                 (long long)t->vectors->name.n, (double)t->vectors->bytes / 1e6);
    }
cleanup:
    return st;
}

cpa_status cpa_train_read(cpa_train_run *t)
{
    cpa_status st;
    CPA_TRY(read_vectors(t));
    CPA_TRY(read_data(t, t->options.path));
cleanup:
    return st;
}

cpa_status cpa_train_make_sampler(cpa_train_run *t)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    const cpa_train_config *c = &t->options.train;
    int64_t *cell = NULL, n = 0;
    bool full = strcmp(c->shuffle, "full") == 0 || (strcmp(c->shuffle, "auto") == 0 && cpa_sampler_is_full(r->n_train));
    t->block = full ? 1 : c->shuffle_block;
    t->window = full ? 0 : (c->shuffle_window + t->block - 1) / t->block;
    CPA_TRY(cpa_alloc((size_t)r->n_train, sizeof *cell, &cell));
    for (int64_t i = 0; i < r->n_cells; i++) {
        if (r->split[i] == CPA_SPLIT_TRAIN) {
            cell[n++] = i;
        }
    }
    st = cpa_sampler_create(cell, n, c->lanes, c->batch_size, t->block, t->window, (uint64_t)t->options.model.seed,
                            &t->sampler);
    CPA_REQUIRE(st == CPA_OK, st, "%s: %s", cpa_h5ad_path(t->file), cpa_message());
cleanup:
    cpa_free(&cell);
    return st;
}

cpa_status cpa_train_open_feed(cpa_train_run *t)
{
    const cpa_train_config *c = &t->options.train;
    const cpa_feed_plan plan = {.comm = t->comm,
                                .file = t->file,
                                .layer = t->registry->spec.layer,
                                .sampler = t->sampler,
                                .in_blocks = t->window > 0,
                                .n_lanes = c->lanes,
                                .batch_size = c->batch_size,
                                .n_epochs = cpa_schedule_epochs(c, t->registry->n_cells),
                                .memory = t->options.memory};
    return t->imagined ? cpa_feed_imagine(&plan, t->imagined, &t->feed) : cpa_feed_open(&plan, &t->feed);
}

cpa_status cpa_train_make_model(cpa_train_run *t)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    const char **name = NULL;
    int *size = NULL;
    float *features = NULL;
    cpa_precision precision;
    cpa_shape s = {.n_genes = r->n_genes,
                   .n_perts = (int)r->pert.n,
                   .n_labels = (int)r->label.n,
                   .n_covs = r->n_covs,
                   .max_comb_len = r->max_comb_len,
                   .batch_cov = r->spec.batch_key && r->spec.batch_key[0] ? r->n_covs - 1 : -1,
                   .max_cells = t->options.train.batch_size + 2,
                   .mixup = t->options.train.mixup_alpha > 0,
                   .checkpointing = t->options.gradient_checkpointing};
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *name, &name));
    CPA_TRY(cpa_alloc((size_t)r->n_covs, sizeof *size, &size));
    for (int c = 0; c < r->n_covs; c++) {
        name[c] = r->cov[c].name;
        size[c] = (int)r->cov[c].value.n;
    }
    s.cov_name = name;
    s.cov_size = size;
    if (t->vectors) {
        CPA_TRY(cpa_alloc((size_t)r->pert.n * (size_t)t->vectors->n_features, sizeof *features, &features));
        CPA_TRY(cpa_pert_table_expand(t->vectors, &r->pert, features));
        s.n_pert_features = t->vectors->n_features;
        s.pert_features = features;
    }
    CPA_TRY(cpa_feed_max_nnz(t->feed, s.max_cells, &s.max_nnz));
    CPA_TRY(t->imagined ? cpa_backend_create_counting(t->options.backend, &t->be)
                        : cpa_backend_create(t->options.backend, &t->be));
    CPA_TRY(cpa_precision_of(t->options.precision, &precision));
    CPA_TRY(cpa_backend_set_precision(t->be, precision));
    CPA_TRY(cpa_model_create(t->be, &t->options.model, &s, true, r->label_weight, r->deg, &t->model));
    if (!t->imagined) {
        CPA_TRY(cpa_params_init(cpa_model_params(t->model), (uint64_t)t->options.model.seed));
    }
cleanup:
    cpa_free(&name);
    cpa_free(&size);
    cpa_free(&features);
    return st;
}

cpa_status cpa_train_connect(cpa_train_run *t)
{
    bool wanted = strcmp(t->options.train.reduce, "nccl") == 0 && t->options.train.lanes > 1 && !t->imagined;
    return wanted ? cpa_device_sum_create(t->comm, t->be, &t->device_sum) : CPA_OK;
}

static void describe(const cpa_train_run *t)
{
    const cpa_registry *r = t->registry;
    cpa_info("%lld cells x %d genes, %lld values; %lld train, %lld validate, %lld held out", (long long)r->n_cells,
             r->n_genes, (long long)cpa_feed_nnz(t->feed), (long long)r->n_train, (long long)r->n_valid,
             (long long)r->n_test);
    cpa_info("%d perturbations, %d conditions, %d covariates, %d categories; %lld steps an epoch; %d rank%s (%s), %d "
             "lane%s of %d cells",
             (int)r->pert.n - 2, r->n_conditions, r->n_covs, r->n_categories, (long long)cpa_sampler_steps(t->sampler),
             cpa_comm_size(t->comm), cpa_comm_size(t->comm) == 1 ? "" : "s", cpa_comm_name(t->comm),
             t->options.train.lanes, t->options.train.lanes == 1 ? "" : "s", t->options.train.batch_size);
    if (strcmp(t->options.train.batch_norm, "sync") == 0 && cpa_model_n_pooled(t->model) == 0) {
        cpa_info("--batch-norm sync changes nothing: no part of this model has a batch norm");
    } else if (strcmp(t->options.train.batch_norm, "sync") == 0 && t->options.train.lanes == 1) {
        cpa_info("--batch-norm sync changes nothing: one lane is the whole batch");
    }
}

cpa_status cpa_train_describe_binding(cpa_comm *comm)
{
    cpa_status st = CPA_OK;
    cpa_text table = {0}, problems = {0};
    char *line, *rest = NULL;
    CPA_TRY(cpa_binding_describe(comm, &table, &problems));
    if (cpa_comm_size(comm) > 1) {
        for (line = strtok_r(table.s, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
            cpa_info("%s", line);
        }
    }
    for (line = problems.s ? strtok_r(problems.s, "\n", &rest) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        cpa_warn("%s", line);
    }
cleanup:
    cpa_text_fini(&table);
    cpa_text_fini(&problems);
    return st;
}

// What only makes sense with external vectors.
static cpa_status check_vectors(const cpa_options *o)
{
    cpa_status st = CPA_OK;
    bool preset = o->preset && strcmp(o->preset, "combosciplex-rdkit") == 0;
    CPA_REQUIRE(o->pert_embeddings || !preset, CPA_CONFIG,
                "--preset combosciplex-rdkit needs the fingerprints of the drugs: name their file with "
                "--pert-embeddings (docs/embeddings.md says how to make one)");
    CPA_REQUIRE(!o->pert_embeddings || strcmp(o->model.doser_type, "mlp") != 0, CPA_CONFIG,
                "--doser-type mlp learns a network from the cells of each perturbation, and --pert-embeddings is for "
                "perturbations without any; choose logsigm, sigm or linear");
    CPA_REQUIRE(o->pert_embeddings || !o->model.freeze_pert_projection, CPA_CONFIG,
                "--freeze-pert-projection freezes what projects external vectors, but there are none; name their file "
                "with --pert-embeddings");
cleanup:
    return st;
}

// What only GPUs can do; `check` does it without one, to find mistakes.
static cpa_status check_reduce(const cpa_options *o)
{
    bool on_gpus = strcmp(o->train.reduce, "nccl") == 0, can = strcmp(o->backend, "cpu") != 0;
    return !on_gpus || can ? CPA_OK
                           : cpa_fail(CPA_CONFIG, "--reduce nccl adds up on GPUs and needs --backend cuda (of a build "
                                                  "with cmake --preset cuda); --reduce mpi is its like without them");
}

static cpa_status check_precision(const cpa_options *o)
{
    return strcmp(o->precision, "fp32") == 0 || strcmp(o->backend, "cuda") == 0
               ? CPA_OK
               : cpa_fail(CPA_CONFIG, "--precision %s needs --backend cuda (of a build with cmake --preset cuda)",
                          o->precision);
}

cpa_status cpa_train_take_options(cpa_train_run *t, const cpa_options *o)
{
    cpa_status st;
    CPA_TRY(cpa_comm_agree(t->comm, check_vectors(o)));
    CPA_TRY(cpa_comm_agree(t->comm, check_reduce(o)));
    CPA_TRY(cpa_comm_agree(t->comm, check_precision(o)));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_options_copy(o, &t->options)));
cleanup:
    return st;
}

cpa_step_parts cpa_train_parts(cpa_train_run *t)
{
    return (cpa_step_parts){.comm = t->comm,
                            .be = t->be,
                            .model = t->model,
                            .feed = t->feed,
                            .registry = t->registry,
                            .sampler = t->sampler,
                            .config = &t->options.train,
                            .seed = (uint64_t)t->options.model.seed,
                            .gene = &t->gene,
                            .block = t->block,
                            .window = t->window,
                            .device_sum = t->device_sum,
                            .ledger = &t->ledger};
}

// What the model file will say beside its tensors.
static cpa_status make_meta(cpa_train_run *t)
{
    cpa_status st;
    CPA_TRY(cpa_model_meta_of(t->registry, &t->gene, &t->options.model, &t->meta));
    t->meta.vectors = t->vectors;
    CPA_TRY(t->vectors ? cpa_unseen_mark(&t->meta, t->registry) : CPA_OK);
cleanup:
    return st;
}

// Says which rows of docs/semantics.md this run meets.
static cpa_status describe_semantics(cpa_train_run *t)
{
    cpa_status st = CPA_OK;
    const char *semantics = t->options.semantics;
    cpa_text different = {0}, upstream = {0};
    CPA_TRY(cpa_semantics_rows(&t->options, t->registry, &different, &upstream));
    const cpa_runlog_field fields[] = {{.name = "semantics", .text = semantics},
                                       {.name = "different", .text = cpa_text_str(&different)},
                                       {.name = "upstream", .text = cpa_text_str(&upstream)}};
    cpa_runlog_note(t->log, "semantics", fields, 3);
    cpa_info("semantics: %s; different from cpa-0.8.8 here: %s", semantics,
             different.n > 0 ? cpa_text_str(&different) : "nothing");
    if (upstream.n > 0) {
        cpa_info("cpa-0.8.8 behaviours that matter here: %s", cpa_text_str(&upstream));
    }
    cpa_semantics_warn(&t->options, t->registry);
cleanup:
    cpa_text_fini(&different);
    cpa_text_fini(&upstream);
    return st;
}

// Nothing is left to infer in the options.
static cpa_status resolve(cpa_train_run *t)
{
    cpa_data_spec_fini(&t->options.data);
    t->options.train.max_epochs = cpa_schedule_epochs(&t->options.train, t->registry->n_cells);
    return cpa_data_spec_copy(&t->registry->spec, &t->options.data);
}

// The run folder with its log; in one that was there before, what it held stays.
static cpa_status open_run(cpa_train_run *t)
{
    cpa_status st;
    CPA_TRY(cpa_rundir_create(t->comm, t->options.out, t->options.resume, &t->dir));
    CPA_TRY(cpa_runlog_open(t->comm, t->dir, &t->log));
    CPA_TRY(cpa_comm_agree(t->comm, cpa_rundir_file(t->dir, "config.yaml", &t->config)));
    if (!cpa_rundir_is_new(t->dir)) {
        cpa_rundir_settle(t->dir);
    }
cleanup:
    return st;
}

// Whether some rank was asked to stop already.
static cpa_status check_stop(cpa_train_run *t)
{
    return cpa_comm_agree(
        t->comm, cpa_stop_wanted() ? cpa_fail(CPA_AGAIN, "stopped by %s before training; run the same command again",
                                              cpa_stop_reason())
                                   : CPA_OK);
}

cpa_runlog_work cpa_train_work(const cpa_train_run *t)
{
    cpa_feed_report r = cpa_feed_reported(t->feed);
    return (cpa_runlog_work){
        .read = (double)r.read, .cells = (double)r.filled, .seconds = cpa_seconds() - t->begun, .waited = r.waited};
}

cpa_status cpa_train_prepare(cpa_train_run *t)
{
    cpa_status st;
    bool exact = strcmp(t->options.train.epoch_means, "exact") == 0;
    CPA_TRY(cpa_comm_agree(t->comm, cpa_train_make_sampler(t)));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_ORDER);
    CPA_TRY(cpa_train_open_feed(t));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_CELLS);
    CPA_TRY(check_stop(t));
    cpa_comm_phase("setting up");
    CPA_TRY(cpa_comm_agree(t->comm, cpa_train_make_model(t)));
    cpa_ledger_enter_model(&t->ledger, cpa_model_params(t->model));
    CPA_TRY(cpa_train_connect(t));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_LANES);
    CPA_TRY(cpa_comm_agree(t->comm, cpa_history_create(t->registry, exact, &t->history)));
    CPA_TRY(cpa_comm_agree(t->comm, resolve(t)));
    CPA_TRY(cpa_comm_agree(t->comm, make_meta(t)));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_HISTORY);
cleanup:
    return st;
}

cpa_status cpa_train_set_up(cpa_train_run *t, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    bool is_first = cpa_comm_rank(t->comm) == 0;
    CPA_TRY(cpa_train_take_options(t, o));
    CPA_TRY(open_run(t));
    t->begun = cpa_seconds();
    CPA_TRY(cpa_runlog_stage(t->log, t->comm, "start", &(cpa_runlog_work){0}));
    cpa_ledger_begin(&t->ledger);
    CPA_TRY(cpa_train_read(t));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_COLUMNS);
    CPA_TRY(cpa_train_prepare(t));
    CPA_TRY(cpa_train_find(t));
    cpa_ledger_enter(&t->ledger, CPA_ITEM_STEPS); // a checkpoint that was found, given back before the first step
    CPA_TRY(cpa_comm_agree(t->comm, is_first ? cpa_options_write(&t->options, t->config) : CPA_OK));
    t->set_up = cpa_train_work(t);
    CPA_TRY(cpa_runlog_stage(t->log, t->comm, "setup", &t->set_up));
    describe(t);
    CPA_TRY(cpa_train_describe_binding(t->comm));
    CPA_TRY(cpa_comm_agree(t->comm, describe_semantics(t)));
    CPA_TRY(check_stop(t));
cleanup:
    return st;
}

void cpa_train_tear_down(cpa_train_run *t, bool keep)
{
    cpa_checkpoints_close(&t->checkpoints);
    cpa_runlog_close(&t->log);
    cpa_rundir_close(&t->dir, keep);
    cpa_history_destroy(&t->history);
    cpa_device_sum_destroy(&t->device_sum);
    cpa_model_destroy(&t->model);
    cpa_backend_destroy(&t->be);
    cpa_feed_close(&t->feed);
    cpa_sampler_destroy(&t->sampler);
    cpa_registry_destroy(&t->registry);
    cpa_strings_fini(&t->gene);
    cpa_model_meta_fini(&t->meta);
    cpa_pert_table_destroy(&t->vectors);
    cpa_checkpoint_facts_fini(&t->facts);
    cpa_found_fini(&t->found);
    cpa_h5ad_close(&t->file);
    cpa_options_fini(&t->options);
}
