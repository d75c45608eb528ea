// Owns: the thread that puts checkpoints on disk: written beside, synced, read back, renamed; then the old ones go. Calls nothing
// but POSIX: no HDF5, no MPI, no message but its result.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints_impl.h"
#include "cpa/base/hash.h"
#include "cpa/base/log.h"

enum { PIECE = 1 << 20 };

typedef enum writer_state { IDLE, BUSY, DONE, QUIT } writer_state;

struct cpa_writer {
    char *path; // of the folder
    int keep;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    writer_state state;
    cpa_write_result result; // the job, and what became of it
    char piece[PIECE];       // of a file that is read back
};

void cpa_checkpoint_name(int64_t epoch, int64_t step, char name[CPA_CHECKPOINT_NAME])
{
    snprintf(name, CPA_CHECKPOINT_NAME, "epoch-%06lld-step-%08lld.h5", (long long)epoch, (long long)step);
}

bool cpa_checkpoint_parse(const char *name, int64_t *epoch, int64_t *step)
{
    long long e = 0, s = 0;
    char again[CPA_CHECKPOINT_NAME];
    if (sscanf(name, "epoch-%lld-step-%lld.h5", &e, &s) != 2) {
        return false;
    }
    *epoch = e;
    *step = s;
    cpa_checkpoint_name(*epoch, *step, again);
    return strcmp(again, name) == 0;
}

bool cpa_checkpoint_link_last(int folder, const char *name)
{
    unlinkat(folder, "last.h5.part", 0);
    bool linked = linkat(folder, name, folder, "last.h5.part", 0) == 0 || symlinkat(name, folder, "last.h5.part") == 0;
    bool renamed = linked && renameat(folder, "last.h5.part", folder, "last.h5") == 0;
    unlinkat(folder, "last.h5.part", 0); // a rename onto another name of the same file leaves it
    return renamed;
}

// Notes the first failure.
static bool failed(cpa_writer *w, const char *what, const char *name)
{
    if (w->result.error[0] == '\0') {
        snprintf(w->result.error, sizeof w->result.error, "%s '%s/%s': %s", what, w->path, name, strerror(errno));
    }
    return false;
}

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, bytes, n < PIECE ? n : PIECE);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            errno = k == 0 ? EIO : errno;
            return false;
        }
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

// Whether the file holds these bytes.
static bool holds(cpa_writer *w, int folder, const char *name, uint64_t digest, size_t n)
{
    uint64_t found = CPA_HASH_START;
    size_t total = 0;
    ssize_t k = -1;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (k = read(fd, w->piece, PIECE)) > 0) {
        found = cpa_hash(found, w->piece, (size_t)k);
        total += (size_t)k;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (k == 0 && (total != n || found != digest)) {
        errno = EIO; // the disk took other bytes than it gives back
        k = -1;
    }
    return k == 0;
}

// Writes a file under a temporary name and renames it once it is known to be on disk.
static bool write_file(cpa_writer *w, int folder, const char *name, const void *bytes, size_t n)
{
    char part[CPA_CHECKPOINT_NAME + 32];
    snprintf(part, sizeof part, "%s.%ld.part", name, (long)getpid()); // not that of a process that should be gone
    int fd = openat(folder, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0 && write_all(fd, bytes, n) && (fsync(fd) == 0 || errno == EINVAL);
    good = good || failed(w, "cannot write", name);
    if (fd >= 0 && close(fd) != 0 && good) {
        good = failed(w, "cannot write", name);
    }
    good =
        good && (holds(w, folder, part, cpa_hash(CPA_HASH_START, bytes, n), n) || failed(w, "cannot read back", name));
    good = good && (renameat(folder, part, folder, name) == 0 || failed(w, "cannot rename", name));
    if (!good) {
        unlinkat(folder, part, 0);
    }
    return good;
}

typedef struct entry {
    int64_t epoch, step;
} entry;

static int newest_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return x->epoch != y->epoch ? (x->epoch < y->epoch) - (x->epoch > y->epoch)
                                : (x->step < y->step) - (x->step > y->step);
}

// Removes all but the newest checkpoints.
static void prune(const cpa_writer *w)
{
    entry *list = NULL, e;
    int64_t n = 0;
    DIR *dir = opendir(w->path);
    for (const struct dirent *d = NULL; dir != NULL && (d = readdir(dir)) != NULL;) {
        if (cpa_checkpoint_parse(d->d_name, &e.epoch, &e.step) &&
            cpa_realloc((size_t)n + 1, sizeof *list, &list) == CPA_OK) {
            list[n++] = e;
        }
    }
    qsort(list, (size_t)n, n > 0 ? sizeof *list : 1, newest_first);
    for (int64_t i = w->keep; i < n; i++) {
        char name[CPA_CHECKPOINT_NAME];
        cpa_checkpoint_name(list[i].epoch, list[i].step, name);
        unlinkat(dirfd(dir), name, 0);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    cpa_free(&list);
}

static void work(cpa_writer *w)
{
    double start = cpa_seconds();
    cpa_write_job *job = &w->result.job;
    const void *bytes;
    cpa_checkpoint_seal(job->file, &bytes, &w->result.n);
    w->result.error[0] = '\0';
    int folder = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = folder >= 0 || failed(w, "cannot open", "");
    good = good && write_file(w, folder, job->name, bytes, w->result.n);
    good = good && (cpa_checkpoint_link_last(folder, job->name) || failed(w, "cannot rename", "last.h5"));
    good = good && (job->best == NULL || write_file(w, folder, "best.h5", job->best, job->n_best));
    good = good && (fsync(folder) == 0 || errno == EINVAL || failed(w, "cannot write", ""));
    if (good) {
        prune(w);
    }
    if (folder >= 0) {
        close(folder);
    }
    cpa_free(&job->best);
    w->result.seconds = cpa_seconds() - start;
}

static void *run(void *arg)
{
    cpa_writer *w = arg;
    pthread_mutex_lock(&w->lock);
    while (w->state != QUIT) {
        if (w->state == BUSY) {
            pthread_mutex_unlock(&w->lock);
            work(w);
            pthread_mutex_lock(&w->lock);
            w->state = DONE;
            pthread_cond_broadcast(&w->change);
        } else {
            pthread_cond_wait(&w->change, &w->lock);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

cpa_status cpa_writer_start(const char *folder, int keep, cpa_writer **out)
{
    cpa_status st;
    cpa_writer *w = NULL;
    sigset_t all, before;
    CPA_TRY(cpa_alloc(1, sizeof *w, &w));
    w->keep = keep;
    CPA_TRY(cpa_strdup(folder, &w->path));
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    // Signals are the main thread's; a file that may not grow is then a failed write here.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CPA_REQUIRE(why == 0, CPA_INTERNAL, "the thread that writes checkpoints cannot be started: %s", strerror(why));
    *out = w;
    w = NULL;
cleanup:
    if (w != NULL) {
        cpa_free(&w->path);
        cpa_free(&w);
    }
    return st;
}

bool cpa_writer_is_idle(cpa_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool idle = w->state == IDLE;
    pthread_mutex_unlock(&w->lock);
    return idle;
}

void cpa_writer_submit(cpa_writer *w, const cpa_write_job *job)
{
    pthread_mutex_lock(&w->lock);
    w->result.job = *job;
    w->state = BUSY;
    pthread_cond_broadcast(&w->change);
    pthread_mutex_unlock(&w->lock);
}

bool cpa_writer_take(cpa_writer *w, bool wait, cpa_write_result *result)
{
    pthread_mutex_lock(&w->lock);
    while (wait && w->state == BUSY) {
        pthread_cond_wait(&w->change, &w->lock);
    }
    bool done = w->state == DONE;
    if (done) {
        *result = w->result;
        w->state = IDLE;
    }
    pthread_mutex_unlock(&w->lock);
    return done;
}

void cpa_writer_stop(cpa_writer **out)
{
    cpa_writer *w = *out;
    cpa_write_result ignored;
    if (w == NULL) {
        return;
    }
    cpa_writer_take(w, true, &ignored);
    pthread_mutex_lock(&w->lock);
    w->state = QUIT;
    pthread_cond_broadcast(&w->change);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->change);
    cpa_free(&w->path);
    cpa_free(out);
}
