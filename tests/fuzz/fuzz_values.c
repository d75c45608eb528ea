// Owns: the harness of values: the input changes stored numbers and texts of a good file and leaves HDF5's structures alone, so that
// what follows HDF5 (unpacking, decoding, columns) meets the damage. The first byte chooses the file of the folder CPA_FUZZ_SEEDS; the
// others are XORed onto its values, as FILE.values places them.
// Never makes a file that HDF5 cannot follow.
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { MAX_SEEDS = 64, MAX_BYTES = 1 << 17, PATH_BYTES = 1024 };

static struct {
    uint8_t *bytes, *value[MAX_BYTES]; // the values, in the order of the list
    size_t n, n_values;
} seeds[MAX_SEEDS];
static size_t n_seeds;

static void load(const char *list, size_t i)
{
    char path[PATH_BYTES];
    size_t at, n;
    snprintf(path, sizeof path, "%.*s.h5ad", (int)(strlen(list) - strlen(".values")), list);
    FILE *file = fopen(path, "rb"), *places = fopen(list, "r");
    if (file == NULL || places == NULL || (seeds[i].bytes = malloc(MAX_BYTES)) == NULL) {
        perror(path);
        exit(1);
    }
    seeds[i].n = fread(seeds[i].bytes, 1, MAX_BYTES, file);
    while (fscanf(places, "%zu %zu", &at, &n) == 2) {
        for (size_t k = 0; k < n && at + k < seeds[i].n && seeds[i].n_values < MAX_BYTES; k++) {
            seeds[i].value[seeds[i].n_values++] = seeds[i].bytes + at + k;
        }
    }
    fclose(file);
    fclose(places);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    char pattern[PATH_BYTES];
    glob_t found;
    const char *folder = getenv("CPA_FUZZ_SEEDS");
    snprintf(pattern, sizeof pattern, "%s/*.values", folder != NULL ? folder : ".");
    if (glob(pattern, 0, NULL, &found) != 0) {
        fprintf(stderr, "there is no %s: set CPA_FUZZ_SEEDS\n", pattern);
        exit(1);
    }
    n_seeds = found.gl_pathc < MAX_SEEDS ? found.gl_pathc : MAX_SEEDS;
    for (size_t i = 0; i < n_seeds; i++) {
        load(found.gl_pathv[i], i);
    }
    globfree(&found);
    fuzz_begin();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) {
        return 0;
    }
    size_t s = data[0] % n_seeds, last = n - 1 < seeds[s].n_values ? n - 1 : seeds[s].n_values;
    for (size_t i = 0; i < last; i++) {
        *seeds[s].value[i] ^= data[i + 1];
    }
    fuzz_judge(seeds[s].bytes, seeds[s].n);
    for (size_t i = 0; i < last; i++) {
        *seeds[s].value[i] ^= data[i + 1];
    }
    return 0;
}
