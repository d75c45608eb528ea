// Owns: the main of a harness without libFuzzer: every file of the folders that are named, once.
// Never changes an input.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

enum { MAX_BYTES = 1 << 20, PATH_BYTES = 1024 };

static uint8_t input[MAX_BYTES];

static int replay_folder(const char *folder)
{
    int n = 0;
    char path[PATH_BYTES];
    DIR *d = opendir(folder);
    for (const struct dirent *e = NULL; d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "rb") : NULL;
        if (f != NULL) {
            size_t size = fread(input, 1, sizeof input, f);
            fclose(f);
            printf("%s\n", path);
            fflush(stdout);
            LLVMFuzzerTestOneInput(input, size);
            n++;
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    return n;
}

int main(int argc, char **argv)
{
    int n = 0;
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        n += replay_folder(argv[i]);
    }
    printf("%d inputs\n", n);
    return n > 0 ? 0 : 1;
}
