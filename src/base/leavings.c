// Owns: the list of what is in the making. Adding and dropping is for one thread, removing for a handler that interrupts it.
// Never allocates.
#include "cpa/base/leavings.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATHS = 16 };

static struct {
    atomic_bool used, made;
    dev_t device; // of what was made
    ino_t inode;
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
        atomic_store(&leavings[at].made, false);
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

void cpa_leavings_made(const char *path, int fd)
{
    struct stat info;
    for (int i = 0; i < MAX_PATHS; i++) {
        if (atomic_load(&leavings[i].used) && strcmp(leavings[i].path, path) == 0 && fstat(fd, &info) == 0) {
            leavings[i].device = info.st_dev;
            leavings[i].inode = info.st_ino;
            atomic_store(&leavings[i].made, true);
        }
    }
}

// Of one that is in the list.
static bool is_ours(int i)
{
    struct stat info;
    return !atomic_load(&leavings[i].made) || (stat(leavings[i].path, &info) == 0 &&
                                               info.st_dev == leavings[i].device && info.st_ino == leavings[i].inode);
}

bool cpa_leavings_are_ours(const char *path)
{
    bool ours = true;
    for (int i = 0; i < MAX_PATHS; i++) {
        ours = ours && (!atomic_load(&leavings[i].used) || strcmp(leavings[i].path, path) != 0 || is_ours(i));
    }
    return ours;
}

void cpa_leavings_remove(void)
{
    for (int i = MAX_PATHS - 1; i >= 0; i--) {
        if (atomic_load(&leavings[i].used) && is_ours(i) && unlink(leavings[i].path) != 0) {
            rmdir(leavings[i].path);
        }
    }
}
