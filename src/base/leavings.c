// Owns: the list of what is in the making. Adding and dropping is for one thread, removing for a handler that interrupts it.
// Never allocates.
#include "cpa/base/leavings.h"

#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATHS = 16 };

static struct {
    atomic_bool used, expected, made;
    int fd; // of what was made, kept open: else its number could be given to another file
    char path[PATH_MAX];
} leavings[MAX_PATHS];

static void add(const char *path, bool expected)
{
    int at = MAX_PATHS; // behind the last in use, so that what a folder holds comes after it
    while (at > 0 && !atomic_load(&leavings[at - 1].used)) {
        at--;
    }
    if (at < MAX_PATHS && strlen(path) < sizeof leavings[at].path) {
        strcpy(leavings[at].path, path);
        atomic_store(&leavings[at].expected, expected);
        atomic_store(&leavings[at].made, false);
        atomic_store(&leavings[at].used, true);
    }
}

void cpa_leavings_add(const char *path)
{
    add(path, false);
}

void cpa_leavings_expect(const char *path)
{
    add(path, true);
}

static bool is_of(int i, const char *path)
{
    return atomic_load(&leavings[i].used) && strcmp(leavings[i].path, path) == 0;
}

static void let_go(int i)
{
    if (atomic_exchange(&leavings[i].made, false)) {
        close(leavings[i].fd);
    }
}

void cpa_leavings_drop(const char *path)
{
    size_t n = strlen(path);
    for (int i = 0; i < MAX_PATHS; i++) {
        const char *p = leavings[i].path;
        if (atomic_load(&leavings[i].used) && strncmp(p, path, n) == 0 && (p[n] == '\0' || p[n] == '/')) {
            let_go(i);
            atomic_store(&leavings[i].used, false);
        }
    }
}

void cpa_leavings_made(const char *path, int fd)
{
    for (int i = 0; i < MAX_PATHS; i++) {
        int own = is_of(i, path) ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
        if (own >= 0) {
            let_go(i);
            leavings[i].fd = own;
            atomic_store(&leavings[i].made, true);
        }
    }
}

void cpa_leavings_moved(const char *from, const char *to)
{
    for (int i = 0; i < MAX_PATHS; i++) {
        if (is_of(i, from) && atomic_load(&leavings[i].made)) {
            cpa_leavings_made(to, leavings[i].fd);
        }
    }
    cpa_leavings_drop(from);
}

// Of one that is in the list.
static bool is_ours(int i)
{
    struct stat own, there;
    if (!atomic_load(&leavings[i].made)) {
        return !atomic_load(&leavings[i].expected);
    }
    return fstat(leavings[i].fd, &own) == 0 && stat(leavings[i].path, &there) == 0 && own.st_dev == there.st_dev &&
           own.st_ino == there.st_ino;
}

bool cpa_leavings_are_ours(const char *path)
{
    bool ours = true;
    for (int i = 0; i < MAX_PATHS; i++) {
        ours = ours && (!is_of(i, path) || is_ours(i));
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
