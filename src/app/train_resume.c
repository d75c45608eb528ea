// Owns: going on with a run: what it was made of, whether this run is made of the same, and its state. Never writes a
// checkpoint.
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cpa/base/hash.h"
#include "cpa/base/log.h"
#include "digests_impl.h"
#include "train_impl.h"

// ---- Facts

enum { RAW_FACTS = 3 }; // of the data; the others follow from the options, too

static cpa_status add_number(cpa_checkpoint_facts *facts, const char *name, int64_t x)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)x);
    return cpa_checkpoint_fact(&facts->data, &facts->data_value, name, text);
}

static cpa_status add_digest(cpa_checkpoint_facts *facts, const char *name, uint64_t digest)
{
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
    return cpa_checkpoint_fact(&facts->data, &facts->data_value, name, text);
}

static uint64_t hash_gene_lists(const cpa_registry *r)
{
    uint64_t hash = CPA_HASH_START;
    for (int c = 0; c < r->n_categories; c++) {
        const cpa_gene_list *list = &r->deg_list[c];
        hash = cpa_hash(hash, &list->n, sizeof list->n);
        hash = cpa_hash(hash, list->gene, (size_t)list->n * sizeof *list->gene);
    }
    return hash;
}

static cpa_status describe_data(const cpa_train_run *t, cpa_checkpoint_facts *facts)
{
    cpa_status st;
    const cpa_registry *r = t->registry;
    CPA_TRY(add_number(facts, "the number of cells", r->n_cells));
    CPA_TRY(add_number(facts, "the number of genes", r->n_genes));
    CPA_TRY(add_digest(facts, "the digest of the genes' names", cpa_digest_strings(CPA_HASH_START, &t->gene)));
    CPA_TRY(add_number(facts, "the number of stored values", cpa_feed_nnz(t->feed)));
    CPA_TRY(add_digest(facts, "the digest of the counts", cpa_feed_totals(t->feed)));
    CPA_TRY(add_digest(facts, "the digest of the perturbations", cpa_digest_strings(CPA_HASH_START, &r->pert)));
    CPA_TRY(add_digest(facts, "the digest of the cells' conditions", cpa_digest_conditions(r)));
    CPA_TRY(add_digest(facts, "the digest of the cells' covariates", cpa_digest_covariates(r)));
    CPA_TRY(add_number(facts, "the number of training cells", r->n_train));
    CPA_TRY(add_digest(facts, "the digest of the cells' splits",
                       cpa_hash(CPA_HASH_START, r->split, (size_t)r->n_cells * sizeof *r->split)));
    CPA_TRY(add_digest(facts, "the digest of the lists of genes", hash_gene_lists(r)));
    if (t->vectors) {
        CPA_TRY(add_digest(facts, "the digest of the perturbations' vectors", cpa_digest_vectors(t->vectors)));
    }
cleanup:
    return st;
}

// max_epochs is left out: nothing that was done before the last epoch depends on it.
static cpa_status describe_options(const cpa_options *o, cpa_checkpoint_facts *facts)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < CPA_N_OPTIONS && st == CPA_OK; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        cpa_text text = {0};
        if (cpa_option_is_remembered(p) && strcmp(p->name, "max_epochs") != 0) {
            st = cpa_option_show(o, i, &text);
            st = st == CPA_OK ? cpa_checkpoint_fact(&facts->option, &facts->option_value, p->name, cpa_text_str(&text))
                              : st;
        }
        cpa_text_fini(&text);
    }
    return st;
}

static cpa_status describe(cpa_train_run *t)
{
    cpa_status st;
    cpa_checkpoint_facts *facts = &t->facts;
    CPA_TRY(describe_options(&t->options, facts));
    CPA_TRY(describe_data(t, facts));
    st = cpa_sprintf(&facts->isa, "%s %s", sizeof(cpa_real) == sizeof(float) ? "float" : "double",
                     cpa_backend_isa(t->be));
cleanup:
    return st;
}

// ---- Comparison

// The first name whose value is another, from `from` on; -1: none. *old is the value that it had, NULL: none.
static int64_t first_change(const cpa_strings *name, const cpa_strings *value, const cpa_strings *old_name,
                            const cpa_strings *old_value, int64_t from, const char **old)
{
    for (int64_t i = from; i < name->n; i++) {
        int64_t k = cpa_strings_find(old_name, name->s[i]);
        *old = k >= 0 ? old_value->s[k] : NULL;
        if (k < 0 || strcmp(*old, value->s[i]) != 0) {
            return i;
        }
    }
    return -1;
}

// An option as it is typed: with dashes.
static void spell(const char *option, char out[64])
{
    snprintf(out, 64, "--%s", option);
    for (char *c = out; *c != '\0'; c++) {
        *c = *c == '_' ? '-' : *c;
    }
}

static cpa_status refuse_option(const char *run, const char *option, const char *old, const char *value)
{
    char flag[64];
    spell(option, flag);
    return cpa_fail(CPA_CONFIG,
                    "'%s' was begun with %s '%s', not '%s', and this changes the model; give the old value, or name "
                    "another folder with --out",
                    run, flag, old != NULL ? old : "", value);
}

static cpa_status compare_data(const cpa_train_run *t, const cpa_checkpoint_facts *old, int64_t from, int64_t to)
{
    const cpa_checkpoint_facts *now = &t->facts;
    const char *was;
    int64_t i = first_change(&now->data, &now->data_value, &old->data, &old->data_value, from, &was);
    if (i < 0 || i >= to) {
        return CPA_OK;
    }
    return cpa_fail(CPA_BAD_DATA, "%s: not the data that '%s' was begun with: %s was %s, now it is %s",
                    cpa_h5ad_path(t->file), cpa_rundir_path(t->dir), now->data.s[i], was != NULL ? was : "not known",
                    now->data_value.s[i]);
}

static cpa_status compare(const cpa_train_run *t, const cpa_checkpoint_facts *old)
{
    cpa_status st;
    const cpa_checkpoint_facts *now = &t->facts;
    const char *was;
    CPA_TRY(compare_data(t, old, 0, RAW_FACTS)); // other data can also mean other options, where these are inferred
    int64_t i = first_change(&now->option, &now->option_value, &old->option, &old->option_value, 0, &was);
    if (i >= 0) {
        return refuse_option(cpa_rundir_path(t->dir), now->option.s[i], was, now->option_value.s[i]);
    }
    CPA_TRY(compare_data(t, old, RAW_FACTS, now->data.n));
    CPA_REQUIRE(
        old->epochs < t->options.train.max_epochs, CPA_CONFIG,
        "'%s' has %lld epochs already, --max-epochs is %d; give a larger one, or name another folder with --out",
        cpa_rundir_path(t->dir), (long long)old->epochs, t->options.train.max_epochs);
    if (strcmp(old->isa, now->isa) != 0) {
        cpa_warn("'%s' was begun with the arithmetic '%s', this is '%s': the model will not be bit for bit that of one "
                 "sitting",
                 cpa_rundir_path(t->dir), old->isa, now->isa);
    }
cleanup:
    return st;
}

cpa_status cpa_train_find(cpa_train_run *t)
{
    cpa_status st;
    cpa_checkpoint_facts old = {0};
    const char *run = cpa_rundir_path(t->dir);
    CPA_TRY(cpa_comm_agree(t->comm, describe(t)));
    if (!t->options.resume) {
        return CPA_OK;
    }
    CPA_TRY(cpa_checkpoints_find(t->comm, run, &t->found));
    if (t->found.bytes != NULL) {
        st = cpa_checkpoint_read_facts(t->found.path, t->found.bytes, t->found.n, &old);
        CPA_TRY(cpa_comm_agree(t->comm, st == CPA_OK ? compare(t, &old) : st));
    }
    CPA_TRY(cpa_comm_agree(t->comm, cpa_comm_rank(t->comm) == 0 ? cpa_checkpoints_tidy(run, &t->found) : CPA_OK));
cleanup:
    cpa_checkpoint_facts_fini(&old);
    return st;
}

cpa_status cpa_train_go_on(cpa_train_run *t, cpa_train_state *state)
{
    cpa_status st;
    const cpa_found *found = &t->found;
    if (found->bytes == NULL) {
        return CPA_OK;
    }
    CPA_TRY(cpa_comm_agree(t->comm, cpa_checkpoint_restore(found->path, found->bytes, found->n, state)));
    cpa_info("going on after %lld epochs and %lld steps, from '%s'", (long long)state->at.epoch,
             (long long)state->at.step, found->path);
    cpa_found_fini(&t->found);
cleanup:
    return st;
}

// ---- Finished runs

// Whether an option was given a value now, rather than left to be inferred.
static bool is_given(const cpa_options *o, int i)
{
    cpa_text text = {0};
    bool given = o->source[i] > CPA_SOURCE_DEFAULT && cpa_option_show(o, i, &text) == CPA_OK;
    const cpa_option *p = &cpa_option_table()[i];
    given = given && text.n > 0 && !(p->absent != NULL && strcmp(text.s, "0") == 0);
    cpa_text_fini(&text);
    return given;
}

// The options that were given against those that a finished run remembers.
static cpa_status compare_given(const cpa_options *o, const cpa_options *saved)
{
    cpa_status st = CPA_OK;
    cpa_text now = {0}, was = {0};
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        if (!cpa_option_is_remembered(p) || !is_given(o, i)) {
            continue;
        }
        CPA_TRY(cpa_option_show(o, i, &now));
        CPA_TRY(cpa_option_show(saved, i, &was));
        if (strcmp(cpa_text_str(&now), cpa_text_str(&was)) != 0) {
            st = refuse_option(o->out, p->name, cpa_text_str(&was), cpa_text_str(&now));
            goto cleanup;
        }
        cpa_text_fini(&now);
        cpa_text_fini(&was);
    }
cleanup:
    cpa_text_fini(&now);
    cpa_text_fini(&was);
    return st;
}

// Rank 0's work.
static cpa_status look_at_run(const cpa_options *o, bool *finished)
{
    cpa_status st = CPA_OK;
    cpa_options saved = {0};
    struct stat info;
    char *model = NULL, *config = NULL;
    CPA_TRY(cpa_sprintf(&model, "%s/model.h5", o->out));
    CPA_TRY(cpa_sprintf(&config, "%s/config.yaml", o->out));
    *finished = stat(model, &info) == 0;
    if (*finished) {
        CPA_TRY(cpa_options_init(&saved));
        saved.command = CPA_COMMAND_TRAIN;
        CPA_TRY(cpa_options_read(&saved, config, CPA_SOURCE_RUN));
        CPA_TRY(compare_given(o, &saved));
    }
cleanup:
    cpa_options_fini(&saved);
    cpa_free(&model);
    cpa_free(&config);
    return st;
}

cpa_status cpa_train_is_finished(cpa_comm *comm, const cpa_options *o, bool *finished)
{
    cpa_status st = CPA_OK;
    if (!o->resume) {
        return CPA_OK;
    }
    CPA_TRY(cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? look_at_run(o, finished) : CPA_OK));
    CPA_TRY(cpa_comm_bcast(comm, finished, sizeof *finished, 0));
cleanup:
    return st;
}
