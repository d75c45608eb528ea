// Owns: bringing a model file and a data file together, and running cells through the model. Never decides which cells.
#include "cpa/app/trained.h"

#include <stddef.h>
#include <string.h>

#include "cpa/app/rundir.h"
#include "cpa/base/hash.h"
#include "cpa/base/log.h"
#include "cpa/train/unseen.h"
#include "digests_impl.h"

// What describes the data has its member in cpa_options.data, at the same place as in a spec.
cpa_status cpa_spec_override(const cpa_options *o, cpa_data_spec *spec)
{
    cpa_status st = CPA_OK;
    const cpa_option *table = cpa_option_table();
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        size_t at = table[i].offset - offsetof(cpa_options, data);
        if (o->source[i] < CPA_SOURCE_CONFIG || at >= sizeof *spec) {
            continue;
        }
        const void *from = (const char *)&o->data + at;
        void *to = (char *)spec + at;
        if (table[i].type == CPA_OPTION_STRING) {
            cpa_free(to);
            CPA_TRY(cpa_strdup(*(char *const *)from, to));
        } else if (table[i].type == CPA_OPTION_STRINGS) {
            cpa_strings_fini(to);
            CPA_TRY(cpa_strings_copy(from, to));
        } else if (table[i].type == CPA_OPTION_INT) {
            memcpy(to, from, sizeof(int));
        } else if (table[i].type == CPA_OPTION_BOOL) {
            memcpy(to, from, sizeof(bool));
        } else { // INT64 and REAL
            memcpy(to, from, 8);
        }
    }
cleanup:
    return st;
}

static cpa_status replace(char **s, const char *text)
{
    cpa_free(s);
    return cpa_strdup(text, s);
}

// The model's genes among the file's: as they are where the two agree, else by name.
static cpa_status find_genes(cpa_trained *t, const char *layer)
{
    cpa_status st;
    cpa_strings gene = {0};
    const cpa_strings *want = &t->meta.gene;
    CPA_TRY(cpa_h5ad_select(t->file, layer, NULL));
    CPA_TRY(cpa_h5ad_index(t->file, "var", &gene));
    t->genes = cpa_digest_strings(CPA_HASH_START, &gene);
    bool same = gene.n == want->n;
    for (int64_t g = 0; same && g < gene.n; g++) {
        same = strcmp(gene.s[g], want->s[g]) == 0;
    }
    if (!same) {
        CPA_TRY(cpa_h5ad_select_names(t->file, layer, want, t->model_path));
        cpa_info("%s: %lld of the %lld genes are those of the model '%s'; they are found by name",
                 cpa_h5ad_path(t->file), (long long)want->n, (long long)gene.n, t->model_path);
    }
cleanup:
    cpa_strings_fini(&gene);
    return st;
}

static cpa_status read_registry(cpa_trained *t, const cpa_options *o, cpa_trained_needs needs)
{
    cpa_status st = CPA_OK;
    cpa_data_spec spec = {0};
    CPA_TRY(cpa_data_spec_copy(&t->meta.spec, &spec));
    spec.max_comb_len = 0; // cells that the model cannot express may lie in the file as long as they are not predicted
    CPA_TRY(cpa_spec_override(o, &spec));
    if (!needs.splits) {
        CPA_TRY(replace(&spec.split_key, ""));
        cpa_strings_fini(&spec.holdout);
    }
    if (!needs.degs) {
        CPA_TRY(replace(&spec.deg_uns_key, ""));
        CPA_TRY(replace(&spec.deg_uns_cat_key, ""));
    }
    CPA_TRY(find_genes(t, spec.layer));
    CPA_TRY(cpa_registry_create(t->file, &spec, false, &t->registry));
cleanup:
    cpa_data_spec_fini(&spec);
    return st;
}

// The file's numbers of perturbations and covariate values as the model's.
static cpa_status match_names(cpa_trained *t)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    int n_covs = cpa_trained_n_covs(t);
    CPA_TRY(cpa_alloc((size_t)r->pert.n, sizeof *t->pert_of, &t->pert_of));
    for (int64_t p = CPA_CONTROL; p < r->pert.n; p++) {
        t->pert_of[p] = (int)cpa_strings_find(&t->meta.pert, r->pert.s[p]);
    }
    t->pert_of[CPA_CONTROL] = CPA_CONTROL; // whatever the file calls it
    CPA_REQUIRE(
        r->n_covs >= n_covs && (r->n_covs == n_covs || n_covs == 0), CPA_BAD_DATA,
        "%s: %d covariates are named for it, the model '%s' has %d; name their columns in the model's order with "
        "--categorical-covariate-keys and --batch-key",
        cpa_h5ad_path(t->file), r->n_covs, t->model_path, n_covs);
    CPA_TRY(cpa_alloc((size_t)n_covs, sizeof *t->cov_of, &t->cov_of));
    for (int c = 0; c < n_covs; c++) {
        CPA_TRY(cpa_alloc((size_t)r->cov[c].value.n, sizeof **t->cov_of, &t->cov_of[c]));
        for (int64_t v = 0; v < r->cov[c].value.n; v++) {
            t->cov_of[c][v] = (int)cpa_strings_find(&t->meta.cov_value[c], r->cov[c].value.s[v]);
        }
    }
cleanup:
    return st;
}

static cpa_status make_model(cpa_trained *t, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    int64_t most;
    CPA_TRY(t->feed ? cpa_feed_max_nnz(t->feed, 1, &most) : cpa_loader_max_nnz(t->cells, 1, &most));
    int64_t nnz = most * CPA_BLOCK; // one cell may come many times
    t->batch_covs = r->n_covs;
    t->batch_comb = r->max_comb_len;
    int comb = t->batch_comb > t->meta.max_comb_len ? t->batch_comb : t->meta.max_comb_len;
    CPA_TRY(cpa_batch_create(CPA_BLOCK, nnz, (int)t->meta.gene.n, r->n_covs, comb, &t->batch));
    CPA_TRY(cpa_backend_create(o->backend, &t->be));
    CPA_TRY(cpa_modelfile_load(t->model_path, &t->meta, t->be, CPA_BLOCK, nnz, &t->model));
    CPA_TRY(cpa_trained_decoding(t, o));
cleanup:
    return st;
}

static cpa_status open_model(cpa_trained *t, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_rundir_trained(o->path, &t->model_path));
    CPA_TRY(cpa_modelfile_meta(t->model_path, &t->meta));
cleanup:
    return st;
}

static cpa_status open_files(cpa_trained *t, const cpa_options *o, cpa_trained_needs needs)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_unseen_add(&t->meta, t->more));
    CPA_TRY(cpa_h5ad_open(o->data_path, &t->file));
    CPA_TRY(read_registry(t, o, needs));
    CPA_TRY(match_names(t));
cleanup:
    return st;
}

static cpa_status open_cells(cpa_trained *t, const cpa_options *o, cpa_trained_needs needs)
{
    cpa_status st;
    const char *layer = t->registry->spec.layer;
    if (needs.listed) {
        CPA_TRY(cpa_feed_open(
            &(cpa_feed_plan){
                .comm = t->comm, .file = t->file, .layer = layer, .batch_size = CPA_BLOCK, .memory = o->memory},
            &t->feed));
        t->cells = cpa_feed_cells(t->feed);
    } else {
        CPA_TRY(cpa_cells_load(t->comm, t->file, layer, &t->loaded));
        t->cells = t->loaded;
    }
cleanup:
    return st;
}

cpa_status cpa_trained_open(cpa_comm *comm, const cpa_options *o, cpa_trained_needs needs, cpa_trained *t)
{
    cpa_status st = CPA_OK;
    *t = (cpa_trained){.comm = comm};
    cpa_comm_phase("reading the data");
    CPA_TRY(cpa_comm_agree(comm, open_model(t, o)));
    CPA_TRY(cpa_modelfile_vectors(comm, t->model_path, &t->vectors));
    t->meta.vectors = t->vectors;
    if (o->pert_embeddings) {
        CPA_TRY(cpa_pert_table_read(comm, o->pert_embeddings, NULL, &t->more));
    }
    CPA_TRY(cpa_comm_agree(comm, open_files(t, o, needs)));
    CPA_TRY(open_cells(t, o, needs));
    CPA_TRY(cpa_comm_agree(comm, make_model(t, o)));
cleanup:
    return st;
}

cpa_status cpa_trained_list(cpa_trained *t, const int64_t *cell, int64_t n)
{
    t->n_listed = n;
    t->at = 0;
    return cpa_feed_list(t->feed, cell, n);
}

void cpa_trained_close(cpa_trained *t)
{
    cpa_batch_destroy(&t->batch);
    cpa_model_destroy(&t->model);
    if (t->be) {
        cpa_backend_destroy(&t->be);
    }
    cpa_feed_close(&t->feed);
    cpa_cells_destroy(&t->loaded);
    for (int c = 0; t->cov_of && c < cpa_trained_n_covs(t); c++) {
        cpa_free(&t->cov_of[c]);
    }
    cpa_free(&t->cov_of);
    cpa_free(&t->pert_of);
    cpa_free(&t->add);
    cpa_free(&t->means);
    cpa_free(&t->spread);
    cpa_free(&t->drawn);
    cpa_registry_destroy(&t->registry);
    cpa_h5ad_close(&t->file);
    cpa_model_meta_fini(&t->meta);
    cpa_pert_table_destroy(&t->vectors);
    cpa_pert_table_destroy(&t->more);
    cpa_free(&t->model_path);
}

// Cells per value of covariate c that the model does not know, as problems.
static cpa_status check_covariate(const cpa_trained *t, const cpa_target *target, int c, cpa_problems *problems)
{
    cpa_status st = CPA_OK;
    const cpa_covariate *cov = &t->registry->cov[c];
    int64_t *n = NULL;
    CPA_TRY(cpa_alloc((size_t)cov->value.n, sizeof *n, &n));
    for (int64_t i = 0; i < target->n_cells; i++) {
        n[cov->code[target->cell[i]]]++;
    }
    for (int64_t v = 0; v < cov->value.n; v++) {
        if (n[v] > 0 && t->cov_of[c][v] < 0) {
            CPA_TRY(cpa_problems_add(problems,
                                     "%s: %lld cells have the value '%s' of '%s', which the model does not know; name "
                                     "a known one with --set "
                                     "%s=VALUE or leave these cells out",
                                     cpa_h5ad_path(t->file), (long long)n[v], cov->value.s[v], cov->name, cov->name));
        }
    }
cleanup:
    cpa_free(&n);
    return st;
}

// The condition of cells that are predicted as what they are.
static cpa_status check_own_conditions(const cpa_trained *t, const cpa_target *target, cpa_problems *problems)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = t->registry;
    int64_t *n = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_conditions, sizeof *n, &n));
    for (int64_t i = 0; i < target->n_cells; i++) {
        n[r->condition_of[target->cell[i]]]++;
    }
    for (int k = 0; k < r->n_conditions; k++) {
        const cpa_condition *c = &r->condition[k];
        if (n[k] > 0 && c->n > t->meta.max_comb_len) {
            CPA_TRY(cpa_problems_add(problems,
                                     "%s: %lld cells are '%s', of %d components; the model combines at most %d",
                                     cpa_h5ad_path(t->file), (long long)n[k], c->name, c->n, t->meta.max_comb_len));
        }
        for (int i = 0; n[k] > 0 && i < c->n; i++) {
            if (t->pert_of[c->pert[i]] < 0) {
                CPA_TRY(cpa_problems_add(
                    problems,
                    "%s: %lld cells are '%s', but the model does not know '%s'; choose cells with --split or --cells",
                    cpa_h5ad_path(t->file), (long long)n[k], c->name, r->pert.s[c->pert[i]]));
            }
        }
    }
cleanup:
    cpa_free(&n);
    return st;
}

cpa_status cpa_trained_check(const cpa_trained *t, const cpa_target *target)
{
    cpa_status st = CPA_OK;
    cpa_problems problems = {0};
    for (int c = 0; c < cpa_trained_n_covs(t); c++) {
        if (cpa_trained_adds(t, c) && (target->own || target->cov[c] < 0)) {
            CPA_TRY(check_covariate(t, target, c, &problems));
        }
    }
    if (target->own && (t->parts & CPA_LATENT_PERT)) {
        CPA_TRY(check_own_conditions(t, target, &problems));
    }
    st = cpa_problems_status(&problems, CPA_BAD_DATA);
cleanup:
    cpa_problems_fini(&problems);
    return st;
}

// Replaces what the loader filled in, in the file's numbers, by what the cells are predicted as, in the model's.
static void set_meaning(cpa_trained *t, const int64_t *cell, const cpa_target *const *as, int n)
{
    const cpa_registry *r = t->registry;
    cpa_batch *b = t->batch;
    b->n_covs = cpa_trained_n_covs(t);
    b->max_comb_len = t->meta.max_comb_len;
    for (int i = 0; i < n; i++) {
        const cpa_target *a = as[i];
        const cpa_condition *own = &r->condition[r->condition_of[cell[i]]];
        int components = !(t->parts & CPA_LATENT_PERT) ? 0 : a->own ? own->n : a->n;
        if (a->library > 0) {
            b->library[i] = (cpa_real)a->library;
        }
        for (int k = 0; k < b->max_comb_len; k++) {
            int at = i * b->max_comb_len + k;
            b->pert[at] = k >= components ? CPA_PAD : a->own ? t->pert_of[own->pert[k]] : a->pert[k];
            b->dose[at] = k >= components ? 0 : (cpa_real)(a->own ? own->dose[k] : a->dose_of[k]);
        }
        for (int c = 0; c < b->n_covs; c++) {
            int value = !a->own && a->cov[c] >= 0 ? a->cov[c] : t->cov_of[c][r->cov[c].code[cell[i]]];
            b->cov[c * b->max_cells + i] = cpa_trained_adds(t, c) ? value : -1;
        }
    }
}

cpa_status cpa_trained_encode(cpa_trained *t, const int64_t *cell, const cpa_target *const *as, int n)
{
    cpa_status st = CPA_OK;
    t->batch->n_covs = t->batch_covs;
    t->batch->max_comb_len = t->batch_comb;
    if (t->feed) {
        CPA_REQUIRE(t->at + n <= t->n_listed, CPA_INTERNAL, "cells %lld to %lld of a list of %lld", (long long)t->at,
                    (long long)(t->at + n), (long long)t->n_listed);
        CPA_TRY(cpa_feed_fill_listed(t->feed, t->registry, t->at, n, t->batch));
        t->at += n;
    } else {
        CPA_TRY(cpa_loader_fill(t->cells, t->registry, cell, n, t->batch));
    }
    set_meaning(t, cell, as, n);
    CPA_TRY(cpa_model_infer(t->model, t->batch));
cleanup:
    return st;
}

// Predicts block `b` of a target and leaves its profile in `part`; nothing for a block that does not exist.
static cpa_status profile_block(cpa_trained *t, const cpa_target *target, int64_t b, cpa_scale scale, cpa_profile *part)
{
    cpa_status st = CPA_OK;
    const cpa_target *as[CPA_BLOCK];
    int64_t left = target->n_cells - b * CPA_BLOCK;
    int n = (int)(left < CPA_BLOCK ? left : CPA_BLOCK);
    cpa_profile_clear(part);
    if (n > 0) {
        for (int i = 0; i < n; i++) {
            as[i] = target;
        }
        CPA_TRY(cpa_trained_predict(t, target->cell + b * CPA_BLOCK, as, n));
        CPA_TRY(cpa_profile_of_rows(part, t->means, n, scale));
    }
cleanup:
    return st;
}

cpa_status cpa_trained_profile(cpa_trained *t, const cpa_target *target, cpa_scale scale, cpa_profile *out)
{
    cpa_status st = CPA_OK;
    int n_genes = out->n_genes, length = cpa_profile_length(n_genes), ranks = cpa_comm_size(t->comm);
    int64_t n_blocks = (target->n_cells + CPA_BLOCK - 1) / CPA_BLOCK;
    cpa_profile part = {0};
    double *all = NULL;
    st = cpa_profile_init(&part, n_genes);
    if (st == CPA_OK) {
        st = cpa_alloc((size_t)length * (size_t)ranks, sizeof *all, &all);
    }
    CPA_TRY(cpa_comm_agree(t->comm, st));
    cpa_profile_clear(out);
    for (int64_t first = 0; first < n_blocks; first += ranks) {
        CPA_TRY(cpa_comm_agree(t->comm, profile_block(t, target, first + cpa_comm_rank(t->comm), scale, &part)));
        CPA_TRY(cpa_comm_allgather(t->comm, part.v, all, (size_t)length * sizeof *all));
        for (int r = 0; r < ranks; r++) {
            cpa_profile_merge(out, all + (int64_t)r * length);
        }
    }
cleanup:
    cpa_profile_fini(&part);
    cpa_free(&all);
    return st;
}

cpa_scale cpa_trained_scale(const cpa_trained *t)
{
    return strcmp(t->meta.config.recon_loss, "gauss") == 0 ? CPA_SCALE_GIVEN : CPA_SCALE_LOG;
}
