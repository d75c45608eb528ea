// Owns: the descriptors of files that threads read. Must never close one that is held.
#include "cpa/platform/source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "cpa/base/mem.h"

enum { MAX_OPEN = 64 }; // more only while more are held

struct cpa_source {
    char *path;
    int fd; // -1: closed until it is read again
    int n_users;
    long last_use;
    dev_t device;
    ino_t inode;
    cpa_source *next; // of those that are open
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cpa_source *first_open;
static int n_open;
static long n_uses;

static void close_now(cpa_source *s)
{
    cpa_source **link = &first_open;
    while (*link != s) {
        link = &(*link)->next;
    }
    *link = s->next;
    close(s->fd);
    s->fd = -1;
    n_open--;
}

// Closes what nobody has held for the longest time, when there are too many.
static void make_room(void)
{
    cpa_source *oldest = NULL;
    for (cpa_source *s = first_open; n_open >= MAX_OPEN && s != NULL; s = s->next) {
        oldest = s->n_users == 0 && (oldest == NULL || s->last_use < oldest->last_use) ? s : oldest;
    }
    if (oldest != NULL) {
        close_now(oldest);
    }
}

// Opens it; -1 with errno.
static int open_now(cpa_source *s, struct stat *info)
{
    make_room();
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        return -1;
    }
    s->next = first_open;
    first_open = s;
    n_open++;
    if (fstat(s->fd, info) != 0) {
        int why = errno;
        close_now(s);
        errno = why;
    }
    return s->fd;
}

cpa_status cpa_source_open(const char *path, cpa_source **out, struct stat *was)
{
    cpa_status st;
    cpa_source *s = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *s, &s));
    s->fd = -1;
    CPA_TRY(cpa_strdup(path, &s->path));
    pthread_mutex_lock(&lock);
    int fd = open_now(s, was), why = errno;
    pthread_mutex_unlock(&lock);
    CPA_REQUIRE(fd >= 0, CPA_IO, "%s: cannot be read: %s", path, strerror(why));
    s->device = was->st_dev;
    s->inode = was->st_ino;
    *out = s;
    s = NULL;
cleanup:
    cpa_source_close(&s);
    return st;
}

void cpa_source_close(cpa_source **s)
{
    if (*s == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    if ((*s)->fd >= 0) {
        close_now(*s);
    }
    pthread_mutex_unlock(&lock);
    cpa_free(&(*s)->path);
    cpa_free(s);
}

int cpa_source_hold(cpa_source *s)
{
    struct stat info;
    pthread_mutex_lock(&lock);
    if (s->fd < 0 && open_now(s, &info) >= 0 && (info.st_dev != s->device || info.st_ino != s->inode)) {
        close_now(s);
        errno = ESTALE;
    }
    int fd = s->fd, why = errno;
    s->n_users += fd >= 0;
    s->last_use = ++n_uses;
    pthread_mutex_unlock(&lock);
    errno = why;
    return fd;
}

void cpa_source_let_go(cpa_source *s)
{
    pthread_mutex_lock(&lock);
    if (--s->n_users == 0 && n_open > MAX_OPEN) {
        close_now(s);
    }
    pthread_mutex_unlock(&lock);
}

int cpa_source_n_open(void)
{
    pthread_mutex_lock(&lock);
    int n = n_open;
    pthread_mutex_unlock(&lock);
    return n;
}
