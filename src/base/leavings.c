// Owns: the list of what is in the making. Adding and dropping is for one thread, removing for a handler that interrupts it.
// Never allocates.
#include "cpa/base/leavings.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PATHS = 16 };

static struct {
    atomic_bool used;
    char path[PATH_MAX];
} leavings[MAX_PATHS];

void cpa_leavings_add(const char *path)
{
    int at = MAX_PATHS; // behind the last in use, so that what a folder holds comes after it
    while (at > 0 && !atomic_load(&leavings[at - 1].used)) {
        at--;
    }
    if (at < MAX_PATHS && strlen(path) < sizeof leavings[at].path) {
        strcpy(leavings[at].path, path);
        atomic_store(&leavings[at].used, true);
    }
}

void cpa_leavings_drop(const char *path)
{
    size_t n = strlen(path);
    for (int i = 0; i < MAX_PATHS; i++) {
        const char *p = leavings[i].path;
        if (atomic_load(&leavings[i].used) && strncmp(p, path, n) == 0 && (p[n] == '\0' || p[n] == '/')) {
            atomic_store(&leavings[i].used, false);
        }
    }
}

void cpa_leavings_remove(void)
{
    for (int i = MAX_PATHS - 1; i >= 0; i--) {
        if (atomic_load(&leavings[i].used) && unlink(leavings[i].path) != 0) {
            rmdir(leavings[i].path);
        }
    }
}
