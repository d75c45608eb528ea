// Owns: the command line of the golden replay: golden FIXTURE.h5 ... [--write REPLAY.h5] [--backend NAME]
// [--precision fp32|tf32|bf16].
// Exits 0 when every replay is within its bounds.
// Must never judge one fixture by another's replay.
#include <stdio.h>
#include <string.h>

#include "golden.h"

#ifdef CPA_DOUBLE
static const bool TIGHT = true;
#else
static const bool TIGHT = false;
#endif

static cpa_status run(const char *path, const char *backend, cpa_precision precision, const char *write, bool *ok)
{
    cpa_status st = CPA_OK;
    fixture f;
    store replay = {0};
    printf("%s%s\n", path, TIGHT ? " (double, tight)" : "");
    CPA_TRY(fixture_read(path, &f));
    CPA_TRY(golden_replay(&f, backend, precision, &replay));
    if (write) {
        CPA_TRY(store_write(write, &replay));
    }
    *ok = golden_judge(&f, &replay, TIGHT, precision != CPA_FP32) && *ok;
cleanup:
    store_fini(&replay);
    fixture_fini(&f);
    return st;
}

int main(int argc, char **argv)
{
    const char *write = NULL, *backend = "cpu";
    cpa_precision precision = CPA_FP32;
    int fixtures = 0;
    bool ok = true, known = true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--write") == 0 && i + 1 < argc) {
            write = argv[++i];
        } else if (strcmp(argv[i], "--backend") == 0 && i + 1 < argc) {
            backend = argv[++i];
        } else if (strcmp(argv[i], "--precision") == 0 && i + 1 < argc) {
            known = cpa_precision_of(argv[++i], &precision) == CPA_OK;
        } else {
            argv[1 + fixtures++] = argv[i];
        }
    }
    if (!known || fixtures == 0 || (write && fixtures > 1)) {
        fprintf(stderr, "usage: golden FIXTURE.h5 ... [--write REPLAY.h5 (with one fixture)] [--backend NAME] "
                        "[--precision fp32|tf32|bf16]\n");
        return CPA_USAGE;
    }
    for (int i = 1; i <= fixtures; i++) {
        cpa_status st = run(argv[i], backend, precision, write, &ok);
        if (st != CPA_OK) {
            fprintf(stderr, "golden: error: %s\n", cpa_message());
            return st;
        }
    }
    return ok ? 0 : 1;
}
