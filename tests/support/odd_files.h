// Owns: the folder of odd AnnData files that the tests of the readers share the making of, and the place of the sample.
// Must never leave the folder behind.
#ifndef CPA_TESTS_ODD_FILES_H
#define CPA_TESTS_ODD_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The cells and genes of the odd files, and the count of a cell and gene; the same formula is in make_odd_files.py.
enum { ODD_CELLS = 12, ODD_GENES = 9 };

static inline int odd_count(int64_t cell, int64_t gene)
{
    int k = (int)((31 * cell + 17 * gene + cell * gene) % 7);
    return cell == 4 || k < 3 ? 0 : k + 3 * (int)cell;
}

static char odd_folder[] = "/tmp/cpa-odd-XXXXXX";

// The project's tests folder.
static inline const char *tests_folder(void)
{
    static char folder[1024];
    if (getenv("CPA_TESTS") != NULL) {
        return getenv("CPA_TESTS");
    }
    snprintf(folder, sizeof folder, "%s", __FILE__); // tests/support/odd_files.h
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(folder, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
    }
    return folder;
}

// A file of the folder; static.
static inline const char *odd(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", odd_folder, name);
    return path;
}

static inline const char *sample_file(void)
{
    static char path[1200];
    snprintf(path, sizeof path, "%s/data/glioblastoma_panobinostat.h5ad", tests_folder());
    return path;
}

// Needs Debian's python3-h5py. 0 when the files are there.
static inline int make_odd_files(void **state)
{
    (void)state;
    char command[2048];
    if (mkdtemp(odd_folder) == NULL) {
        return 1;
    }
    snprintf(command, sizeof command, "/usr/bin/python3 '%s/data/make_odd_files.py' '%s'", tests_folder(), odd_folder);
    int rc = system(command);
    if (rc != 0) {
        fprintf(stderr, "the files to test with could not be made (python3-h5py is needed): %s\n", command);
    }
    return rc;
}

static inline int remove_odd_files(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", odd_folder);
    return system(command);
}

#endif
