// Owns: the table of options as an array, the life of cpa_options, and the command line. Never reads data or acts.
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cpa/nn/mlp.h" // CPA_MAX_LAYERS
#include "options_impl.h"

// The type of an option follows from its member, so the two cannot disagree.
#define TYPE_OF(member)                                                                                                \
    _Generic(((cpa_options *)0)->member, int: CPA_OPTION_INT, int64_t: CPA_OPTION_INT64, double: CPA_OPTION_REAL,      \
             bool: CPA_OPTION_BOOL, char *: CPA_OPTION_STRING, cpa_strings: CPA_OPTION_STRINGS)

static const cpa_option table[CPA_N_OPTIONS] = {
#define CPA_OPTION(option_name, member, option_section, option_commands, option_help, ...)                             \
    {.name = #option_name,                                                                                             \
     .help = option_help,                                                                                              \
     .section = CPA_SECTION_##option_section,                                                                          \
     .commands = option_commands,                                                                                      \
     .type = TYPE_OF(member),                                                                                          \
     .offset = offsetof(cpa_options, member),                                                                          \
     __VA_ARGS__},
#include "cpa/app/options.def"
#undef CPA_OPTION
};

static const struct {
    cpa_command command;
    const char *name, *usage;
} commands[] = {
#define X(name, NAME, usage, summary) {CPA_COMMAND_##NAME, #name, usage},
    CPA_COMMAND_LIST(X)
#undef X
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0], NAME_BYTES = 64 };

const cpa_option *cpa_option_table(void)
{
    return table;
}

bool cpa_option_is_remembered(const cpa_option *option)
{
    return option->section == CPA_SECTION_DATA || option->section == CPA_SECTION_MODEL ||
           option->section == CPA_SECTION_TRAINING;
}

const char *cpa_command_name(cpa_command command)
{
    return command == CPA_COMMAND_NONE ? "" : commands[command - 1].name;
}

// Equal but for dashes and underscores.
static bool same_name(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b)) {
            return false;
        }
    }
    return *a == *b;
}

int cpa_option_find(const char *name)
{
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        if (same_name(table[i].name, name)) {
            return i;
        }
    }
    return -1;
}

// The limit of what counts as near: a third of the letters.
static int near(const char *name)
{
    return (int)strlen(name) / 3 + 1;
}

const char *cpa_option_nearest(const char *name, unsigned mask)
{
    const char *best = NULL;
    int least = near(name);
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        int d = (table[i].commands & mask) != 0 ? cpa_text_distance(name, table[i].name) : NAME_BYTES;
        if (d <= least && (best == NULL || d < least)) {
            least = d;
            best = table[i].name;
        }
    }
    return best;
}

cpa_status cpa_options_init(cpa_options *o)
{
    cpa_status st = CPA_OK;
    *o = (cpa_options){0};
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        if (table[i].def != NULL) {
            CPA_TRY(cpa_option_assign(o, i, table[i].def, CPA_SOURCE_DEFAULT));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_semantics_apply(cpa_options *o)
{
    cpa_status st = CPA_OK;
    bool fixed = strcmp(o->semantics, "fixed") == 0;
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        if (table[i].fixed != NULL && o->source[i] <= CPA_SOURCE_SEMANTICS) {
            CPA_TRY(cpa_option_assign(o, i, fixed ? table[i].fixed : table[i].def,
                                      fixed ? CPA_SOURCE_SEMANTICS : CPA_SOURCE_DEFAULT));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_options_copy(const cpa_options *o, cpa_options *out)
{
    cpa_status st;
    out->command = o->command;
    out->request = o->request;
    out->model.seed = o->model.seed;
    CPA_TRY(cpa_strdup(o->subject, &out->subject));
    CPA_TRY(cpa_strdup(o->path, &out->path));
    CPA_TRY(cpa_strdup(o->path_b, &out->path_b));
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        CPA_TRY(cpa_option_copy(o, out, i));
    }
cleanup:
    return st;
}

void cpa_options_fini(cpa_options *o)
{
    cpa_free(&o->subject);
    cpa_free(&o->path);
    cpa_free(&o->path_b);
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        cpa_option_fini(o, i);
    }
}

cpa_status cpa_options_of_run(const cpa_options *o, const char *run, cpa_options *out)
{
    cpa_status st;
    char *path = NULL;
    struct stat info;
    CPA_REQUIRE(stat(run, &info) == 0, CPA_NO_INPUT, "no such run folder: '%s'", run);
    CPA_REQUIRE(S_ISDIR(info.st_mode), CPA_NO_INPUT, "'%s' is not a run folder (train and import make one)", run);
    CPA_TRY(cpa_sprintf(&path, "%s/config.yaml", run));
    CPA_REQUIRE(stat(path, &info) == 0, CPA_NO_INPUT,
                "'%s' is not a run folder, or not a finished one: it has no config.yaml", run);
    CPA_TRY(cpa_options_copy(o, out));
    CPA_TRY(cpa_options_read(out, path, CPA_SOURCE_RUN));
    CPA_TRY(cpa_semantics_apply(out));
    out->model.seed = out->data.seed;
cleanup:
    cpa_free(&path);
    return st;
}

// An option that is not there, or not for this command: says which one may have been meant.
static cpa_status unknown_option(const cpa_options *o, const char *name)
{
    const char *command = cpa_command_name(o->command);
    int i = cpa_option_find(name);
    if (i >= 0) {
        return cpa_fail(CPA_USAGE, "%s takes no --%s (cpa-hpc %s --help lists what it takes)", command, name, command);
    }
    char nearest[NAME_BYTES] = "";
    const char *found = cpa_option_nearest(name, 1u << o->command);
    for (size_t k = 0; found != NULL && found[k] != '\0' && k + 1 < sizeof nearest; k++) {
        nearest[k] = found[k] == '_' ? '-' : found[k];
    }
    return cpa_fail(CPA_USAGE, "unknown option --%s%s%s%s (cpa-hpc %s --help lists what it takes)", name,
                    found != NULL ? "; did you mean --" : "", nearest, found != NULL ? "?" : "", command);
}

// Reads the option at argv[*at] and, where it takes one, its value.
static cpa_status take_option(cpa_options *o, int argc, char **argv, int *at)
{
    cpa_status st;
    char *name = NULL;
    const char *arg = argv[*at], *text = strchr(arg, '=');
    CPA_REQUIRE(strncmp(arg, "--", 2) == 0, CPA_USAGE, "unknown option %s (options begin with two dashes)", arg);
    CPA_TRY(cpa_strdup(arg + 2, &name));
    if (text != NULL) {
        name[strcspn(name, "=")] = '\0';
        text++;
    }
    int i = cpa_option_find(name);
    if (i < 0 || (table[i].commands & 1u << o->command) == 0) {
        st = unknown_option(o, name);
        goto cleanup;
    }
    if (text == NULL && table[i].type == CPA_OPTION_BOOL) {
        // The next word is the value when it can be nothing else; a path of that name goes behind --.
        bool value, has_value = *at + 1 < argc && cpa_option_is_truth(argv[*at + 1], &value);
        text = has_value ? argv[++*at] : "true";
    } else if (text == NULL) {
        bool is_there = *at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0;
        CPA_REQUIRE(is_there, CPA_USAGE, "--%s needs a value", name);
        text = argv[++*at];
    }
    st = cpa_option_assign(o, i, text, CPA_SOURCE_COMMAND_LINE);
    if (st != CPA_OK && st != CPA_INTERNAL) {
        st = cpa_fail(CPA_USAGE, "--%s: %s", name, cpa_message());
    }
cleanup:
    cpa_free(&name);
    return st;
}

// compare is about two things, convert goes from one to the other.
static bool takes_two(const cpa_options *o)
{
    return o->command == CPA_COMMAND_COMPARE || o->command == CPA_COMMAND_CONVERT;
}

static cpa_status take_path(cpa_options *o, const char *path)
{
    const char *command = cpa_command_name(o->command), *usage = commands[o->command - 1].usage;
    if (o->command == CPA_COMMAND_BENCH && o->subject == NULL) {
        return strcmp(path, "loader") == 0 || strcmp(path, "step") == 0
                   ? cpa_strdup(path, &o->subject)
                   : cpa_fail(CPA_USAGE, "bench knows 'loader' and 'step', not '%s'; usage: cpa-hpc %s %s [options]",
                              path, command, usage);
    }
    if (o->path != NULL && o->path_b == NULL && takes_two(o)) {
        return cpa_strdup(path, &o->path_b);
    }
    if (o->path != NULL) {
        return cpa_fail(CPA_USAGE, "'%s' is one path too many after '%s'; usage: cpa-hpc %s %s [options]", path,
                        o->path_b != NULL ? o->path_b : o->path, command, usage);
    }
    return cpa_strdup(path, &o->path);
}

// The path and the options that the command cannot do without.
static cpa_status check_complete(const cpa_options *o)
{
    const char *command = cpa_command_name(o->command), *usage = commands[o->command - 1].usage;
    if (o->path == NULL || (takes_two(o) && o->path_b == NULL)) {
        return cpa_fail(CPA_USAGE, "%s needs %s; usage: cpa-hpc %s %s [options]", command,
                        takes_two(o) ? "two paths" : "a path", command, usage);
    }
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        bool is_missing =
            (table[i].required & 1u << o->command) != 0 && *CPA_MEMBER_CONST(o, &table[i], char *) == NULL;
        if (is_missing) {
            return cpa_fail(CPA_USAGE, "%s needs --%s %s; usage: cpa-hpc %s %s [options]", command, table[i].name,
                            table[i].value, command, usage);
        }
    }
    return CPA_OK;
}

static cpa_status find_command(const char *name, cpa_command *out)
{
    int best = -1;
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            *out = commands[i].command;
            return CPA_OK;
        }
        if (cpa_text_distance(name, commands[i].name) <= near(name)) {
            best = i;
        }
    }
    if (name[0] == '-') {
        return cpa_fail(CPA_USAGE, "the command comes first, then its options: cpa-hpc COMMAND %s (cpa-hpc --help)",
                        name);
    }
    return cpa_fail(CPA_USAGE, "unknown command '%s'%s%s%s (cpa-hpc --help lists the commands)", name,
                    best >= 0 ? "; did you mean " : "", best >= 0 ? commands[best].name : "", best >= 0 ? "?" : "");
}

// `cpa-hpc help`, `help COMMAND`, `help options`.
static cpa_status parse_help(int argc, char **argv, cpa_options *o)
{
    o->request = CPA_REQUEST_HELP;
    if (argc > 3) {
        return cpa_fail(CPA_USAGE, "help takes one word; usage: cpa-hpc help [COMMAND | options]");
    }
    if (argc == 3 && strcmp(argv[2], "options") == 0) {
        o->request = CPA_REQUEST_OPTIONS;
        return CPA_OK;
    }
    return argc == 3 ? find_command(argv[2], &o->command) : CPA_OK;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

// Options and paths behind the command.
static cpa_status take_arguments(cpa_options *o, int argc, char **argv)
{
    cpa_status st = CPA_OK;
    bool only_paths = false;
    for (int i = 2; i < argc; i++) {
        if (!only_paths && strcmp(argv[i], "--") == 0) {
            only_paths = true;
        } else if (!only_paths && argv[i][0] == '-' && argv[i][1] != '\0') {
            CPA_TRY(take_option(o, argc, argv, &i));
        } else {
            CPA_TRY(take_path(o, argv[i]));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_options_parse(int argc, char **argv, cpa_options *o)
{
    cpa_status st;
    CPA_TRY(cpa_options_init(o));
    CPA_REQUIRE(argc >= 2, CPA_USAGE, "no command; usage: cpa-hpc COMMAND ... (cpa-hpc --help lists the commands)");
    if (strcmp(argv[1], "--version") == 0) {
        o->request = CPA_REQUEST_VERSION;
    } else if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        o->request = CPA_REQUEST_HELP;
    } else if (strcmp(argv[1], "help") == 0) {
        CPA_TRY(parse_help(argc, argv, o));
    } else {
        CPA_TRY(find_command(argv[1], &o->command));
        o->request = asks_for_help(argc, argv) ? CPA_REQUEST_HELP : CPA_REQUEST_RUN;
    }
    if (o->request == CPA_REQUEST_RUN) {
        CPA_TRY(take_arguments(o, argc, argv));
        if (o->config != NULL) {
            CPA_TRY(cpa_options_read(o, o->config, CPA_SOURCE_CONFIG));
        }
        CPA_TRY(cpa_preset_apply(o));
        CPA_TRY(cpa_semantics_apply(o));
        CPA_TRY(check_complete(o));
    }
    o->model.seed = o->data.seed;
cleanup:
    return st;
}
