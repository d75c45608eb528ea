// Owns: the texts about options: --help and docs/options.md, both from the table. Never reads a value.
#include <string.h>

#include "options_impl.h"

enum { HELP_COLUMN = 34 };

static const char *const headings[] = {
#define X(NAME, heading) heading,
    CPA_SECTION_LIST(X)
#undef X
};

static const struct {
    const char *name, *usage, *summary;
} commands[] = {
#define X(name, NAME, usage, summary) {#name, usage, summary},
    CPA_COMMAND_LIST(X)
#undef X
};

enum { N_SECTIONS = sizeof headings / sizeof headings[0], N_COMMANDS = sizeof commands / sizeof commands[0] };

cpa_status cpa_option_flag(const char *name, cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t, "--"));
    for (const char *c = name; *c != '\0'; c++) {
        CPA_TRY(cpa_text_add(t, "%c", *c == '_' ? '-' : *c));
    }
cleanup:
    return st;
}

// What the value is called: "N", "COLUMN"; "" for flags.
static const char *value_name(const cpa_option *p)
{
    static const char *const names[] = {
        [CPA_OPTION_INT] = "N", [CPA_OPTION_INT64] = "N",     [CPA_OPTION_REAL] = "X",
        [CPA_OPTION_BOOL] = "", [CPA_OPTION_STRING] = "TEXT", [CPA_OPTION_STRINGS] = "TEXT",
    };
    return p->value != NULL ? p->value : p->choices != NULL ? p->choices : names[p->type];
}

// Whether the default is 0 and 0 stands for something else.
static bool default_is_absent(const cpa_option *p)
{
    return p->absent != NULL && (p->def == NULL || strcmp(p->def, "0") == 0);
}

// "default 128; an integer, 1 to 65536".
static cpa_status add_details(const cpa_option *p, cpa_text *t)
{
    cpa_status st;
    size_t before = t->n;
    bool has_range = p->type != CPA_OPTION_STRING && p->type != CPA_OPTION_STRINGS && p->type != CPA_OPTION_BOOL;
    if (p->required != 0 && p->required == p->commands) {
        CPA_TRY(cpa_text_add(t, "required"));
    } else if (default_is_absent(p)) {
        CPA_TRY(cpa_text_add(t, "default%s%s: %s", p->def != NULL ? " " : "", p->def != NULL ? p->def : "", p->absent));
    } else if (p->def != NULL && p->type != CPA_OPTION_BOOL) {
        CPA_TRY(cpa_text_add(t, "default %s", p->def));
    }
    if (has_range) {
        CPA_TRY(cpa_text_add(t, "; "));
        CPA_TRY(cpa_option_wants(p, t));
    }
    if (has_range && p->absent != NULL && !default_is_absent(p)) {
        CPA_TRY(cpa_text_add(t, "; 0 or none: %s", p->absent));
    }
    if (p->can_be_none) {
        CPA_TRY(cpa_text_add(t, "; '' for none"));
    }
    if (p->row != NULL) {
        CPA_TRY(cpa_text_add(t, "%s%s", t->n > before ? "; " : "", p->row));
    }
    if (p->fixed != NULL) {
        CPA_TRY(cpa_text_add(t, ": %s under --semantics fixed", p->fixed));
    }
cleanup:
    return st;
}

static cpa_status add_option(const cpa_option *p, cpa_text *t)
{
    cpa_status st;
    cpa_text left = {0}, details = {0};
    CPA_TRY(cpa_text_add(&left, "  "));
    CPA_TRY(cpa_option_flag(p->name, &left));
    CPA_TRY(cpa_text_add(&left, " %s", value_name(p)));
    CPA_TRY(add_details(p, &details));
    // A long left column gets a line of its own.
    bool breaks = left.n + 1 > HELP_COLUMN;
    CPA_TRY(cpa_text_add(t, "%-*s%s%*s%s\n", HELP_COLUMN, cpa_text_str(&left), breaks ? "\n" : "",
                         breaks ? HELP_COLUMN : 0, "", p->help));
    if (details.n > 0) {
        CPA_TRY(cpa_text_add(t, "%*s(%s)\n", HELP_COLUMN, "", cpa_text_str(&details)));
    }
cleanup:
    cpa_text_fini(&left);
    cpa_text_fini(&details);
    return st;
}

static cpa_status help_of_command(cpa_command command, cpa_text *t)
{
    cpa_status st;
    int k = (int)command - 1;
    CPA_TRY(cpa_text_add(t, "usage: cpa-hpc %s %s [options]\n\n%s %s\n", commands[k].name, commands[k].usage,
                         commands[k].name, commands[k].summary));
    for (int section = 0; section < N_SECTIONS; section++) {
        bool has_heading = false;
        for (int i = 0; i < CPA_N_OPTIONS; i++) {
            const cpa_option *p = &cpa_option_table()[i];
            if ((int)p->section != section || (p->commands & 1u << command) == 0) {
                continue;
            }
            if (!has_heading) {
                CPA_TRY(cpa_text_add(t, "\n%s:\n", headings[section]));
                has_heading = true;
            }
            CPA_TRY(add_option(p, t));
        }
    }
    if ((cpa_option_table()[cpa_option_find("preset")].commands & 1u << command) != 0) {
        CPA_TRY(cpa_presets_help(t));
    }
cleanup:
    return st;
}

static cpa_status help_of_program(cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t,
                         "usage: cpa-hpc COMMAND ... [options]\n"
                         "       mpirun -n RANKS cpa-hpc COMMAND ... [options]\n\n"
                         "Trains the Compositional Perturbation Autoencoder on AnnData files (.h5ad).\n\nCommands:\n"));
    for (int k = 0; k < N_COMMANDS; k++) {
        CPA_TRY(cpa_text_add(t, "  %-10s %s\n", commands[k].name, commands[k].summary));
    }
    CPA_TRY(cpa_text_add(t, "\ncpa-hpc COMMAND --help  lists the options of a command\n"
                            "cpa-hpc help options    prints all options as a page\n"
                            "cpa-hpc --version       prints the version\n\nExit codes:\n"));
#define X(name, code, sentence) CPA_TRY(cpa_text_add(t, "  %-3d %s\n", code, sentence));
    CPA_STATUS_LIST(X)
#undef X
cleanup:
    return st;
}

cpa_status cpa_options_help(cpa_command command, cpa_text *t)
{
    return command == CPA_COMMAND_NONE ? help_of_program(t) : help_of_command(command, t);
}

// Appends a text with the bars of a table cell escaped.
static cpa_status add_cell(const char *s, cpa_text *t)
{
    cpa_status st = CPA_OK;
    for (; *s != '\0'; s++) {
        CPA_TRY(cpa_text_add(t, *s == '|' ? "\\%c" : "%c", *s));
    }
cleanup:
    return st;
}

static cpa_status add_commands(const cpa_option *p, cpa_text *t)
{
    cpa_status st = CPA_OK;
    const char *separator = "";
    for (int k = 0; k < N_COMMANDS; k++) {
        if ((p->commands & 1u << (k + 1)) != 0) {
            CPA_TRY(cpa_text_add(t, "%s%s", separator, commands[k].name));
            separator = ", ";
        }
    }
cleanup:
    return st;
}

static cpa_status add_row(const cpa_option *p, cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t, "| `"));
    CPA_TRY(cpa_option_flag(p->name, t));
    CPA_TRY(cpa_text_add(t, "%s", *value_name(p) != '\0' ? " " : ""));
    CPA_TRY(add_cell(value_name(p), t));
    CPA_TRY(cpa_text_add(t, "` | %s | ", p->help));
    CPA_TRY(add_details(p, t));
    CPA_TRY(cpa_text_add(t, " | "));
    CPA_TRY(add_commands(p, t));
    CPA_TRY(cpa_text_add(t, " |\n"));
cleanup:
    return st;
}

cpa_status cpa_options_page(cpa_text *t)
{
    cpa_status st;
    CPA_TRY(
        cpa_text_add(t, "# Options\n\n"
                        "Written by `cpa-hpc help options`; do not edit. A YAML file (`--config run.yaml`) takes the "
                        "same names with\nunderscores; the command line wins. A run remembers what describes the data, "
                        "the model and the training.\n"));
    for (int section = 0; section < N_SECTIONS; section++) {
        CPA_TRY(cpa_text_add(t, "\n## %s\n\n| option | meaning | default and range | commands |\n|---|---|---|---|\n",
                             headings[section]));
        for (int i = 0; i < CPA_N_OPTIONS; i++) {
            if ((int)cpa_option_table()[i].section == section) {
                CPA_TRY(add_row(&cpa_option_table()[i], t));
            }
        }
    }
    CPA_TRY(cpa_presets_page(t));
cleanup:
    return st;
}
