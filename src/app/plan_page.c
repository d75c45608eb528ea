// Owns: the plan in words: as a page for people and as JSON. Never finds a figure out.
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "plan_impl.h"

enum { WIDTH = 68 };

static double mib(double bytes)
{
    return bytes / (1 << 20);
}

static cpa_status add_row(cpa_text *t, const char *what, const double *bytes, int n)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t, "  %-*s", WIDTH, what));
    for (int i = 0; i < n; i++) {
        CPA_TRY(cpa_text_add(t, " %10.1f", mib(bytes[i])));
    }
    CPA_TRY(cpa_text_add(t, "\n"));
cleanup:
    return st;
}

// ---- The page

static cpa_status add_heading(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    const cpa_registry *r = p->data.registry;
    const cpa_train_config *c = &p->o->train;
    CPA_TRY(cpa_text_add(t, "%s: %lld cells x %d genes, %lld values%s; %lld cells train, %lld validate\n", p->o->path,
                         (long long)r->n_cells, r->n_genes, (long long)p->matrix->nnz,
                         p->matrix->stats.wide ? " that need 32 bits" : "", (long long)r->n_train,
                         (long long)r->n_valid));
    CPA_TRY(cpa_text_add(t, "%d rank%s on %d node%s; --lanes %d, --batch-size %d; a rank has %d thread%s (%s)\n",
                         p->n_ranks, p->n_ranks == 1 ? "" : "s", p->n_nodes, p->n_nodes == 1 ? "" : "s", c->lanes,
                         c->batch_size, p->threads, p->threads == 1 ? "" : "s", p->threads_from));
cleanup:
    return st;
}

// What a rank takes on the host: one column, or of several ranks those of the first and the last.
static cpa_status add_host(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    int n = p->n_ranks > 1 ? 2 : 1;
    const cpa_need *need = p->host;
    double bytes[2];
    char what[WIDTH + 32];
    bool on_gpus = strcmp(p->o->train.reduce, "nccl") == 0;
    CPA_TRY(cpa_text_add(t, "\n  %-*s %10s", WIDTH,
                         on_gpus ? "MiB that a rank takes (--backend cpu, so with --reduce tree)"
                                 : "MiB that a rank takes (--backend cpu)",
                         "rank 0"));
    snprintf(what, sizeof what, "rank %d", need[1].rank);
    CPA_TRY(n > 1 ? cpa_text_add(t, " %10s\n", what) : cpa_text_add(t, "\n"));
    for (int i = 0; i < CPA_N_ITEMS; i++) {
        for (int k = 0; k < n; k++) {
            bytes[k] = (double)cpa_ledger_item(&need[k].items, (cpa_item)i);
        }
        snprintf(what, sizeof what, "%s%s", cpa_item_text((cpa_item)i),
                 i != CPA_ITEM_CELLS ? ""
                 : need->streamed    ? " (streamed: windows of them)"
                                     : " (resident: one copy on a node)");
        CPA_TRY(add_row(t, what, bytes, n));
    }
    for (int k = 0; k < n; k++) {
        bytes[k] = (double)need[k].writing;
    }
    CPA_TRY(add_row(t, "for a moment, while a checkpoint or best.h5 is made", bytes, n));
    bytes[0] = bytes[1] = (double)need->libraries;
    CPA_TRY(add_row(t, "HDF5, oneDNN and the threads at work (as measured once)", bytes, n));
    bytes[0] = bytes[1] = (double)p->start;
    CPA_TRY(add_row(t, "the program itself at its start, as this one", bytes, n));
    for (int k = 0; k < n; k++) {
        bytes[k] = (double)cpa_need_host(&need[k]);
    }
    CPA_TRY(add_row(t, "together", bytes, n));
    bytes[0] = (double)cpa_outlook_node(p);
    CPA_TRY(add_row(t, "a node, what its ranks share counted once", bytes, 1));
    CPA_TRY(cpa_text_add(
        t, "  (the backend's scratch: %.1f MiB for a step of the adversaries, %.1f for the autoencoder's)\n",
        mib((double)need->scratch[0]), mib((double)need->scratch[1])));
cleanup:
    return st;
}

static cpa_status add_device(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t, "\n  %-*s %10s\n", WIDTH, "MiB of its GPU (--backend cuda)",
                         "rank 0"));
    for (int i = 0; i < CPA_N_ITEMS; i++) {
        double bytes = (double)p->device.items.bytes[i][CPA_MEMORY_DEVICE];
        if (bytes > 0) {
            CPA_TRY(add_row(t, cpa_item_text((cpa_item)i), &bytes, 1));
        }
    }
    double bytes = (double)cpa_need_device(&p->device);
    CPA_TRY(add_row(t, "together, beside the context of CUDA and its libraries", &bytes, 1));
    bytes = (double)cpa_need_host(&p->device);
    CPA_TRY(add_row(t, "and on the host", &bytes, 1));
cleanup:
    return st;
}

static cpa_status add_fit(const cpa_need *n, const char *where, const char *option, int64_t limit, size_t takes,
                          cpa_text *t)
{
    if (limit == 0) {
        return CPA_OK;
    }
    if (n->batch == 0) {
        return cpa_text_add(t, "\nNo batch fits %.0f MiB of the %s (--%s)\n", mib((double)limit), where, option);
    }
    return cpa_text_add(
        t, "\nThe largest batch that fits %.0f MiB of the %s: --batch-size %d (%.1f MiB). It is part of the model.\n",
        mib((double)limit), where, n->batch, mib((double)takes));
}

// ---- The job

// Appends a word, quoted where a shell would need it.
static cpa_status add_word(cpa_text *t, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
    cpa_status st;
    if (*word != '\0' && strspn(word, plain) == strlen(word)) {
        return cpa_text_add(t, " %s", word);
    }
    CPA_TRY(cpa_text_add(t, " '"));
    for (const char *c = word; *c != '\0'; c++) {
        CPA_TRY(*c == '\'' ? cpa_text_add(t, "'\\''") : cpa_text_add(t, "%c", *c)); // no quote can stand in quotes
    }
    CPA_TRY(cpa_text_add(t, "'"));
cleanup:
    return st;
}

// One option with its value; with each of them, where it repeats.
static cpa_status add_option(const cpa_options *o, int i, cpa_text *t)
{
    cpa_status st;
    cpa_text flag = {0};
    cpa_strings values = {0};
    CPA_TRY(cpa_text_add(&flag, "--%s", cpa_option_table()[i].name));
    for (char *c = flag.s; *c != '\0'; c++) {
        *c = *c == '_' ? '-' : *c;
    }
    CPA_TRY(cpa_option_values(o, i, &values));
    for (int64_t k = 0; k < values.n; k++) {
        CPA_TRY(cpa_text_add(t, " %s", cpa_text_str(&flag)));
        CPA_TRY(add_word(t, values.s[k]));
    }
cleanup:
    cpa_text_fini(&flag);
    cpa_strings_fini(&values);
    return st;
}

// The options of training that were typed, but for those that the job's script has its own way to say; and the memory for cells, which
// decides whether they are streamed.
static cpa_status add_options(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < CPA_N_OPTIONS && st == CPA_OK; i++) {
        const cpa_option *option = &cpa_option_table()[i];
        bool is_said = p->o->source[i] == CPA_SOURCE_COMMAND_LINE && (option->commands & CPA_FOR_TRAIN) &&
                       strcmp(option->name, "lanes") != 0 && strcmp(option->name, "threads") != 0 &&
                       strcmp(option->name, "quiet") != 0;
        is_said = is_said || strcmp(option->name, "memory") == 0;
        st = is_said ? add_option(&p->data.options, i, t) : CPA_OK;
    }
    return st;
}

// Memory to ask for: a tenth more than a node takes, in whole units of 256 MiB.
static long long mem_to_ask(const cpa_outlook *p)
{
    return (long long)(1.1 * mib((double)cpa_outlook_node(p)) / 256 + 1) * 256;
}

static cpa_status add_job(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t,
                         "CPA_LANES=%d sbatch --nodes=%d --ntasks=%d --ntasks-per-node=%d --cpus-per-task=%d "
                         "--mem=%lldM jobs/%s.sbatch",
                         p->o->train.lanes, p->n_nodes, p->n_ranks, p->per_node, p->threads, mem_to_ask(p),
                         p->n_nodes > 1 ? "several_nodes" : "one_node"));
    CPA_TRY(add_word(t, p->o->path));
    CPA_TRY(cpa_text_add(t, " RUN"));
    CPA_TRY(add_options(p, t));
cleanup:
    return st;
}

cpa_status cpa_outlook_page(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    CPA_TRY(add_heading(p, t));
    CPA_TRY(add_host(p, t));
    CPA_TRY(add_device(p, t));
    CPA_TRY(add_fit(&p->fit, "host", "fit", p->o->plan.fit, cpa_need_host(&p->fit), t));
    CPA_TRY(add_fit(&p->fit_device, "GPU", "fit-device", p->o->plan.fit_device, cpa_need_device(&p->fit_device), t));
    CPA_TRY(cpa_text_add(t, "\nOn SLURM, with a tenth to spare:\n\n  "));
    CPA_TRY(add_job(p, t));
    CPA_TRY(cpa_text_add(t, "\n\nTime is not estimated: cpa-hpc scale measures it on the machine that will train.\n"));
cleanup:
    return st;
}

// ---- JSON

static const char *const MEMORY[CPA_N_MEMORY] = {"host", "node", "device"};

static bool add_need(cJSON *to, const cpa_need *n)
{
    cJSON *items = cJSON_AddObjectToObject(to, "items");
    bool ok = items != NULL && cJSON_AddNumberToObject(to, "rank", n->rank) != NULL;
    for (int i = 0; ok && i < CPA_N_ITEMS; i++) {
        cJSON *item = cJSON_AddObjectToObject(items, cpa_item_name((cpa_item)i));
        for (int k = 0; k < CPA_N_MEMORY && item != NULL; k++) {
            item = cJSON_AddNumberToObject(item, MEMORY[k], (double)n->items.bytes[i][k]) != NULL ? item : NULL;
        }
        ok = item != NULL;
    }
    const struct {
        const char *name;
        size_t bytes;
    } figures[] = {{"scratch_adversaries", n->scratch[0]},
                   {"scratch_autoencoder", n->scratch[1]},
                   {"checkpoint", n->image},
                   {"writing", n->writing},
                   {"start", n->start},
                   {"libraries", n->libraries},
                   {"host", cpa_need_host(n)},
                   {"device", cpa_need_device(n)}};
    for (size_t i = 0; ok && i < sizeof figures / sizeof *figures; i++) {
        ok = cJSON_AddNumberToObject(to, figures[i].name, (double)figures[i].bytes) != NULL;
    }
    return ok && cJSON_AddStringToObject(to, "cells", n->streamed ? "streamed" : "resident") != NULL;
}

static bool add_largest(cJSON *doc, const char *name, const cpa_need *n, int64_t limit, size_t takes)
{
    if (limit == 0) {
        return cJSON_AddNullToObject(doc, name) != NULL;
    }
    cJSON *fit = cJSON_AddObjectToObject(doc, name);
    return cJSON_AddNumberToObject(fit, "limit", (double)limit) != NULL &&
           cJSON_AddNumberToObject(fit, "batch_size", n->batch) != NULL &&
           cJSON_AddNumberToObject(fit, "takes", n->batch > 0 ? (double)takes : 0) != NULL;
}

static bool fill(const cpa_outlook *p, const char *job, cJSON *doc)
{
    const cpa_registry *r = p->data.registry;
    const struct {
        const char *name;
        double value;
    } figures[] = {{"cells", (double)r->n_cells},
                   {"genes", r->n_genes},
                   {"values", (double)p->matrix->nnz},
                   {"training_cells", (double)r->n_train},
                   {"lanes", p->o->train.lanes},
                   {"batch_size", p->o->train.batch_size},
                   {"ranks", p->n_ranks},
                   {"nodes", p->n_nodes},
                   {"threads", p->threads},
                   {"memory", (double)p->data.options.memory},
                   {"node_bytes", (double)cpa_outlook_node(p)}};
    bool ok = cJSON_AddStringToObject(doc, "data", p->o->path) != NULL;
    for (size_t i = 0; ok && i < sizeof figures / sizeof *figures; i++) {
        ok = cJSON_AddNumberToObject(doc, figures[i].name, figures[i].value) != NULL;
    }
    ok = ok && add_need(cJSON_AddObjectToObject(doc, "first_rank"), &p->host[0]);
    ok = ok && add_need(cJSON_AddObjectToObject(doc, "last_rank"), &p->host[1]);
    ok = ok && add_need(cJSON_AddObjectToObject(doc, "first_rank_with_gpu"), &p->device);
    ok = ok && cJSON_AddFalseToObject(doc, "gpu_confirmed") != NULL;
    ok = ok && add_largest(doc, "fit", &p->fit, p->o->plan.fit, cpa_need_host(&p->fit));
    ok = ok && add_largest(doc, "fit_device", &p->fit_device, p->o->plan.fit_device, cpa_need_device(&p->fit_device));
    return ok && cJSON_AddStringToObject(doc, "sbatch", job) != NULL;
}

cpa_status cpa_outlook_json(const cpa_outlook *p, cpa_text *t)
{
    cpa_status st;
    cpa_text job = {0};
    char *json = NULL;
    cJSON *doc = cJSON_CreateObject();
    CPA_TRY(add_job(p, &job));
    json = fill(p, cpa_text_str(&job), doc) ? cJSON_Print(doc) : NULL;
    CPA_REQUIRE(json != NULL, CPA_INTERNAL, "out of memory describing the plan");
    CPA_TRY(cpa_text_add(t, "%s\n", json));
cleanup:
    cJSON_free(json);
    cJSON_Delete(doc);
    cpa_text_fini(&job);
    return st;
}
