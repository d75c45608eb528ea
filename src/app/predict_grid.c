// Owns: reading a table of conditions (CSV) into targets. Never chooses cells.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/text.h"
#include "predict_impl.h"

static cpa_status split_record(const char *line, const char *path, int64_t number, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    cpa_text field = {0};
    for (const char *p = line; p;) {
        cpa_text_fini(&field);
        st = cpa_csv_field(&p, &field);
        CPA_REQUIRE(st == CPA_OK, st, "%s, line %lld: %s", path, (long long)number, cpa_message());
        CPA_TRY(cpa_strings_add(out, cpa_text_str(&field)));
    }
cleanup:
    cpa_text_fini(&field);
    return st;
}

// Adds the target of one record.
static cpa_status add_record(const cpa_trained *t, const cpa_strings *header, const cpa_strings *record, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_target target = {0};
    int64_t pert = cpa_strings_find(header, "perturbation"), dose = cpa_strings_find(header, "dose");
    const char *dose_text = dose >= 0 && record->s[dose][0] ? record->s[dose] : NULL;
    CPA_TRY(cpa_target_init(t, record->s[pert], dose_text, &target));
    for (int64_t c = 0; c < header->n; c++) {
        if (c != pert && c != dose && record->s[c][0]) {
            CPA_TRY(cpa_target_set(t, &target, header->s[c], record->s[c]));
        }
    }
    CPA_TRY(cpa_plan_add(plan, &target));
cleanup:
    cpa_target_fini(&target);
    return st;
}

static cpa_status check_header(const cpa_trained *t, const char *path, const cpa_strings *header)
{
    cpa_status st = CPA_OK;
    CPA_REQUIRE(
        cpa_strings_find(header, "perturbation") >= 0, CPA_BAD_DATA,
        "%s: its first line names no column 'perturbation'; it needs perturbation, and may have dose and covariates",
        path);
    for (int64_t c = 0; c < header->n; c++) {
        bool known = strcmp(header->s[c], "perturbation") == 0 || strcmp(header->s[c], "dose") == 0 ||
                     cpa_strings_find(&t->meta.cov_name, header->s[c]) >= 0;
        CPA_REQUIRE(known, CPA_BAD_DATA, "%s: column '%s' is neither perturbation, dose nor a covariate of the model",
                    path, header->s[c]);
        CPA_REQUIRE(cpa_strings_find(header, header->s[c]) == c, CPA_BAD_DATA, "%s: two columns are called '%s'", path,
                    header->s[c]);
    }
cleanup:
    return st;
}

cpa_status cpa_plan_add_grid(const cpa_trained *t, const char *path, cpa_plan *plan)
{
    cpa_status st = CPA_OK;
    cpa_strings header = {0}, record = {0};
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen(path, "r");
    CPA_REQUIRE(file, CPA_NO_INPUT, "cannot read '%s' (--grid): %s", path, strerror(errno));
    for (int64_t number = 0; cpa_text_line(file, &line, &room, &number);) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[strspn(line, " \t")] == '\0') {
            continue;
        }
        cpa_strings *fields = header.n == 0 ? &header : &record;
        CPA_TRY(split_record(line, path, number, fields));
        if (fields == &header) {
            CPA_TRY(check_header(t, path, &header));
            continue;
        }
        CPA_REQUIRE(record.n == header.n, CPA_BAD_DATA, "%s, line %lld: %lld fields under %lld columns", path,
                    (long long)number, (long long)record.n, (long long)header.n);
        st = add_record(t, &header, &record, plan);
        CPA_REQUIRE(st == CPA_OK, st, "%s, line %lld: %s", path, (long long)number, cpa_message());
        cpa_strings_fini(&record);
    }
    CPA_REQUIRE(plan->n > 0, CPA_BAD_DATA, "%s holds no condition", path);
cleanup:
    if (file) {
        fclose(file);
    }
    free(line);
    cpa_strings_fini(&header);
    cpa_strings_fini(&record);
    return st;
}
