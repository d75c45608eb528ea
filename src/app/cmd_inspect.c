// Owns: the command `inspect`: which kind of thing a path is, and its description as text or JSON on standard output.
// Never changes anything.
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "inspect_impl.h"

static cJSON *option_value(const cpa_options *o, const cpa_option *p)
{
    const void *member = (const char *)o + p->offset;
    switch (p->type) {
    case CPA_OPTION_INT:
        return cJSON_CreateNumber(*(const int *)member);
    case CPA_OPTION_INT64:
        return cJSON_CreateNumber((double)*(const int64_t *)member);
    case CPA_OPTION_REAL:
        return cJSON_CreateNumber(*(const double *)member);
    case CPA_OPTION_BOOL:
        return cJSON_CreateBool(*(const bool *)member);
    case CPA_OPTION_STRING: {
        const char *text = *(char *const *)member;
        return text != NULL ? cJSON_CreateString(text) : cJSON_CreateNull();
    }
    case CPA_OPTION_STRINGS:
        return cpa_inspect_strings(member);
    }
    return NULL;
}

static bool has_path(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

// A run folder: the options it remembers, and the model when there is one.
static cpa_status add_run(const cpa_options *o, cJSON *doc)
{
    cpa_status st;
    cpa_options run = {0};
    cpa_h5 *f = NULL;
    char *model = NULL;
    CPA_TRY(cpa_options_of_run(o, o->path, &run));
    cJSON_AddStringToObject(doc, "path", o->path);
    cJSON_AddStringToObject(doc, "kind", "run");
    cJSON *options = cJSON_AddObjectToObject(doc, "options");
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        if (cpa_option_is_remembered(p)) {
            cJSON_AddItemToObject(options, p->name, option_value(&run, p));
        }
    }
    CPA_TRY(cpa_rundir_model(o->path, &model));
    if (has_path(model)) {
        CPA_TRY(cpa_h5_open(model, &f));
        CPA_TRY(cpa_inspect_h5(f, cJSON_AddObjectToObject(doc, "model")));
    } else {
        cJSON_AddNullToObject(doc, "model");
    }
cleanup:
    cpa_h5_close(&f);
    cpa_free(&model);
    cpa_options_fini(&run);
    return st;
}

static cpa_status describe(const cpa_options *o, cJSON *doc)
{
    cpa_status st;
    cpa_h5 *f = NULL;
    struct stat info;
    CPA_REQUIRE(stat(o->path, &info) == 0, CPA_NO_INPUT, "no such file or folder: '%s'", o->path);
    if (S_ISDIR(info.st_mode)) {
        return add_run(o, doc);
    }
    if (cpa_h5ad_is_list(o->path)) {
        return cpa_inspect_h5ad(o->path, doc);
    }
    CPA_TRY(cpa_h5_open(o->path, &f));
    bool is_anndata = cpa_h5_kind_of(f, "obs") != CPA_H5_NOTHING && cpa_h5_kind_of(f, "var") != CPA_H5_NOTHING;
    if (is_anndata) {
        cpa_h5_close(&f);
        st = cpa_inspect_h5ad(o->path, doc);
    } else {
        st = cpa_inspect_h5(f, doc);
    }
cleanup:
    cpa_h5_close(&f);
    return st;
}

static void print_scalar(const cJSON *node)
{
    if (cJSON_IsString(node)) {
        fputs(node->valuestring, stdout);
    } else if (cJSON_IsNumber(node)) {
        double x = node->valuedouble;
        printf(x == floor(x) && fabs(x) < 1e15 ? "%.0f" : "%.6g", x);
    } else {
        fputs(cJSON_IsNull(node) ? "none" : cJSON_IsTrue(node) ? "true" : "false", stdout);
    }
}

static void print_array(const cJSON *array)
{
    const cJSON *item;
    if (array->child == NULL) {
        fputs("none", stdout);
    }
    cJSON_ArrayForEach(item, array)
    {
        print_scalar(item);
        fputs(item->next != NULL ? ", " : "", stdout);
    }
}

// Whether an object fits on a line: it holds nothing but scalars and arrays, and few of them.
static bool is_short(const cJSON *object)
{
    const cJSON *member;
    int n = 0;
    cJSON_ArrayForEach(member, object)
    {
        if (cJSON_IsObject(member)) {
            return false;
        }
        n++;
    }
    return n > 0 && n <= 6;
}

// The document as indented lines, small objects on one.
static void print_text(const cJSON *object, int depth)
{
    const cJSON *member, *part;
    cJSON_ArrayForEach(member, object)
    {
        printf("%*s%s:", 2 * depth, "", member->string);
        if (cJSON_IsArray(member)) {
            putchar(' ');
            print_array(member);
        } else if (!cJSON_IsObject(member)) {
            putchar(' ');
            print_scalar(member);
        } else if (member->child == NULL) {
            fputs(" none", stdout);
        } else if (depth > 0 && is_short(member)) {
            cJSON_ArrayForEach(part, member)
            {
                printf(" %s ", part->string);
                cJSON_IsArray(part) ? print_array(part) : print_scalar(part);
                fputs(part->next != NULL ? ";" : "", stdout);
            }
        } else {
            putchar('\n');
            print_text(member, depth + 1);
            continue;
        }
        putchar('\n');
    }
}

// Rank 0's work.
static cpa_status inspect(const cpa_options *o)
{
    cpa_status st;
    char *json = NULL;
    cJSON *doc = cJSON_CreateObject();
    CPA_TRY(describe(o, doc));
    if (o->json) {
        json = cJSON_Print(doc);
        CPA_REQUIRE(json != NULL, CPA_INTERNAL, "out of memory describing '%s'", o->path);
        puts(json);
    } else {
        print_text(doc, 0);
    }
cleanup:
    cJSON_free(json);
    cJSON_Delete(doc);
    return st;
}

cpa_status cpa_cmd_inspect(cpa_comm *comm, const cpa_options *o)
{
    return cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? inspect(o) : CPA_OK);
}
