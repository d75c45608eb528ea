// Owns: the presets: the hyper-parameters of upstream's tutorials as one table, and how they are applied and shown.
// Never overrides what the command line or a configuration says.
#include <string.h>

#include "options_impl.h"

// The tutorials of cpa-tools 0.8.8. What they set and is not here: use_gpu and save_path (--backend and --out say
// that), is_count_data (follows from recon_loss), and what describes their files: columns, control, names of splits.
// Their n_epochs_kl_warmup is none, as by default. The last one is the tutorial with RDKit's embeddings; its fingerprints come from a file.
enum { N_PRESETS = 4 };
static const char *const names[N_PRESETS] = {"kang", "norman", "combosciplex", "combosciplex-rdkit"};

static const struct {
    const char *option, *text[N_PRESETS]; // as typed; NULL: the tutorial leaves it at the default
} rows[] = {
    {"n_latent", {"64", "32", "128", "64"}},
    {"recon_loss", {"nb", "nb", "nb", "nb"}},
    {"doser_type", {"linear", "linear", "logsigm", "linear"}},
    {"n_hidden_encoder", {"128", "256", "512", "256"}},
    {"n_layers_encoder", {"2", "4", "3", "3"}},
    {"n_hidden_decoder", {"512", "256", "512", "512"}},
    {"n_layers_decoder", {"2", "2", "3", "2"}},
    {"use_batch_norm_encoder", {"true", "true", "true", "true"}},
    {"use_layer_norm_encoder", {"false", "false", "false", "false"}},
    {"use_batch_norm_decoder", {"false", "false", "true", "true"}},
    {"use_layer_norm_decoder", {"true", "false", "false", "false"}},
    {"dropout_rate_encoder", {"0", "0.2", "0.1", "0.25"}},
    {"dropout_rate_decoder", {"0.1", "0", "0.1", "0.25"}},
    {"variational", {"false", "false", "false", "false"}},
    {"seed", {"6977", "8206", "434", "6478"}},
    {"n_hidden_adv", {"64", "128", "64", "128"}},
    {"n_layers_adv", {"3", "2", "2", "3"}},
    {"use_batch_norm_adv", {"true", "true", "true", "false"}},
    {"use_layer_norm_adv", {"false", "false", "false", "false"}},
    {"dropout_rate_adv", {"0.3", "0.3", "0.3", "0.2"}},
    {"max_epochs", {"2000", "2000", "2000", "2000"}},
    {"batch_size", {"512", "2048", "128", "512"}},
    {"lr", {"3e-4", "1e-4", "3e-4", "3e-4"}},
    {"wd", {"4e-7", "3.2170178270865573e-06", "4e-7", "4e-7"}},
    {"doser_lr", {"3e-4", NULL, "3e-4", "3e-4"}},
    {"doser_wd", {"4e-7", NULL, "4e-7", "4e-7"}},
    {"adv_lr", {"3e-4", "1e-4", "3e-4", "3e-4"}},
    {"adv_wd", {"4e-7", "7.051355554517135e-06", "4e-7", "4e-7"}},
    {"n_epochs_pretrain_ae", {"30", "10", "30", "50"}},
    {"n_epochs_adv_warmup", {"50", "50", "50", "100"}},
    {"mixup_alpha", {"0", "0.1", "0.1", "0.1"}},
    {"n_epochs_mixup_warmup", {"0", "10", "3", "10"}},
    {"adv_steps", {"none", "3", "2", "none"}},
    {"reg_adv", {"20", "10", "20", "10"}},
    {"pen_adv", {"5", "20", "20", "0.1"}},
    {"adv_loss", {"cce", "cce", "cce", "cce"}},
    {"do_clip_grad", {"true", "false", "false", "false"}},
    {"gradient_clip_value", {"1", "5", "1", "1"}},
    {"step_size_lr", {"10", "25", "45", "10"}},
    {"check_val_every_n_epoch", {"5", "5", "5", "5"}},
    {"early_stopping_patience", {"5", "5", "10", "10"}},
};

enum { N_ROWS = sizeof rows / sizeof *rows };

cpa_status cpa_preset_apply(cpa_options *o)
{
    cpa_status st = CPA_OK;
    int k = 0;
    if (o->preset == NULL) {
        goto cleanup;
    }
    while (k < N_PRESETS && strcmp(names[k], o->preset) != 0) {
        k++;
    }
    CPA_REQUIRE(k < N_PRESETS, CPA_INTERNAL, "the preset '%s' has no column in the table of presets", o->preset);
    for (int r = 0; r < N_ROWS; r++) {
        int i = cpa_option_find(rows[r].option);
        CPA_REQUIRE(i >= 0, CPA_INTERNAL, "the presets set '%s', which is no option", rows[r].option);
        if (o->source[i] == CPA_SOURCE_DEFAULT && rows[r].text[k] != NULL) {
            CPA_TRY(cpa_option_assign(o, i, rows[r].text[k], CPA_SOURCE_PRESET));
        }
    }
cleanup:
    return st;
}

// The text of a row for a preset: the option's default where the tutorial leaves it alone.
static const char *text_of(int row, int preset)
{
    const char *text = rows[row].text[preset];
    return text != NULL ? text : cpa_option_table()[cpa_option_find(rows[row].option)].def;
}

cpa_status cpa_presets_help(cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(t, "\nPresets (what the command line and --config leave open):\n  %-26s", ""));
    for (int k = 0; k < N_PRESETS; k++) {
        CPA_TRY(cpa_text_add(t, k + 1 < N_PRESETS ? "%-24s" : "%s\n", names[k]));
    }
    for (int r = 0; r < N_ROWS; r++) {
        CPA_TRY(cpa_text_add(t, "  "));
        CPA_TRY(cpa_option_flag(rows[r].option, t));
        CPA_TRY(cpa_text_add(t, "%*s", 24 - (int)strlen(rows[r].option), ""));
        for (int k = 0; k < N_PRESETS; k++) {
            CPA_TRY(cpa_text_add(t, k + 1 < N_PRESETS ? "%-24s" : "%s\n", text_of(r, k)));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_presets_page(cpa_text *t)
{
    cpa_status st;
    CPA_TRY(cpa_text_add(
        t, "\n## Presets\n\nThe hyper-parameters of upstream's tutorials. `--preset` sets what the command "
           "line and `--config` leave open;\n`config.yaml` remembers each option as it was resolved. "
           "`combosciplex-rdkit` needs `--pert-embeddings`\n([embeddings.md](embeddings.md)).\n\n"
           "| option | kang | norman | combosciplex | combosciplex-rdkit |\n|---|---|---|---|---|\n"));
    for (int r = 0; r < N_ROWS; r++) {
        CPA_TRY(cpa_text_add(t, "| `"));
        CPA_TRY(cpa_option_flag(rows[r].option, t));
        CPA_TRY(cpa_text_add(t, "` |"));
        for (int k = 0; k < N_PRESETS; k++) {
            CPA_TRY(cpa_text_add(t, " %s |", text_of(r, k)));
        }
        CPA_TRY(cpa_text_add(t, "\n"));
    }
cleanup:
    return st;
}
