// Owns: what a result says of itself: how it was made, what its columns are. Never anything that depends on when,
// where or on how many ranks.
#include "cpa/app/commands.h"
#include "cpa/data/h5ad_write.h"
#include "output_impl.h"

static cpa_status write_text(cpa_h5 *f, const char *name, const char *text)
{
    cpa_status st = CPA_OK;
    char *path = NULL;
    CPA_TRY(cpa_sprintf(&path, "uns/cpa_hpc/%s", name));
    CPA_TRY(cpa_h5ad_write_text(f, path, text ? text : ""));
cleanup:
    cpa_free(&path);
    return st;
}

cpa_status cpa_notes_write(cpa_h5 *f, const cpa_model_meta *meta, const cpa_data_spec *spec, const cpa_note *note,
                           int n_notes)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5ad_write_dict(f, "uns"));
    CPA_TRY(cpa_h5ad_write_dict(f, "uns/cpa_hpc"));
    for (int i = 0; i < n_notes; i++) {
        CPA_TRY(write_text(f, note[i].name, note[i].text));
    }
    CPA_TRY(write_text(f, "model_digest", meta->digest));
    CPA_TRY(write_text(f, "program_version", CPA_VERSION));
    if (spec) {
        CPA_TRY(write_text(f, "perturbation_key", spec->perturbation_key));
        CPA_TRY(write_text(f, "control_group", spec->control_group));
        CPA_TRY(write_text(f, "dosage_key", spec->dosage_key));
        CPA_TRY(write_text(f, "layer", spec->layer));
    }
    CPA_TRY(cpa_h5ad_write_list(f, "uns/cpa_hpc/covariates", &meta->cov_name));
cleanup:
    return st;
}

cpa_status cpa_latent_write_var(cpa_h5 *f, int64_t n_latent)
{
    cpa_status st = CPA_OK;
    cpa_strings index = {0};
    char *name = NULL;
    for (int64_t i = 0; i < n_latent; i++) {
        CPA_TRY(cpa_sprintf(&name, "latent_%lld", (long long)i));
        CPA_TRY(cpa_strings_add(&index, name));
        cpa_free(&name);
    }
    CPA_TRY(cpa_h5ad_write_frame(f, "var", &index, NULL, 0));
cleanup:
    cpa_free(&name);
    cpa_strings_fini(&index);
    return st;
}
