// Owns: which checkpoint a run goes on from. Never trusts one whose bytes are not those that were written, and removes none
// that is whole.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints_impl.h"
#include "cpa/app/checkpoints.h"
#include "cpa/base/log.h"

typedef struct candidate {
    int64_t epoch, step;
    char name[CPA_CHECKPOINT_NAME];
} candidate;

void cpa_found_fini(cpa_found *found)
{
    cpa_free(&found->path);
    cpa_free(&found->bytes);
    *found = (cpa_found){0};
}

static int newest_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->epoch != y->epoch ? (x->epoch < y->epoch) - (x->epoch > y->epoch)
                                : (x->step < y->step) - (x->step > y->step);
}

// Those that there are, the newest first; last.h5, which is one of them unless they were removed, at the end.
static cpa_status list_candidates(const char *folder, candidate **out, int *n)
{
    cpa_status st = CPA_OK;
    DIR *dir = opendir(folder);
    for (const struct dirent *e = NULL; dir != NULL && (e = readdir(dir)) != NULL;) {
        candidate c = {.epoch = -1};
        if (cpa_checkpoint_parse(e->d_name, &c.epoch, &c.step) || strcmp(e->d_name, "last.h5") == 0) {
            snprintf(c.name, sizeof c.name, "%.*s", CPA_CHECKPOINT_NAME - 1, e->d_name);
            CPA_TRY(cpa_realloc((size_t)*n + 1, sizeof **out, out));
            (*out)[(*n)++] = c;
        }
    }
    if (*n > 1) {
        qsort(*out, (size_t)*n, sizeof **out, newest_first);
    }
cleanup:
    if (dir != NULL) {
        closedir(dir);
    }
    return st;
}

// The bytes of a file; the reason when it cannot be read.
static cpa_status read_bytes(const char *path, void **bytes, size_t *n, const char **why)
{
    cpa_status st = CPA_OK;
    struct stat info;
    char *to = NULL;
    size_t done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && fstat(fd, &info) == 0;
    if (good) {
        CPA_TRY(cpa_alloc((size_t)info.st_size, 1, &to));
        ssize_t k = 1;
        while (k > 0 && done < (size_t)info.st_size) {
            k = read(fd, to + done, (size_t)info.st_size - done);
            done += k > 0 ? (size_t)k : 0;
        }
        good = k >= 0;
    }
    *why = good ? NULL : strerror(errno);
    *bytes = to;
    *n = done;
    to = NULL;
cleanup:
    cpa_free(&to);
    if (fd >= 0) {
        close(fd);
    }
    return st;
}

// Rank 0's work.
static cpa_status find(const char *run, cpa_found *found)
{
    cpa_status st;
    char *folder = NULL;
    candidate *list = NULL;
    int n = 0;
    CPA_TRY(cpa_sprintf(&folder, "%s/checkpoints", run));
    CPA_TRY(list_candidates(folder, &list, &n));
    for (int i = 0; i < n && found->bytes == NULL; i++) {
        const char *why;
        cpa_free(&found->path);
        CPA_TRY(cpa_sprintf(&found->path, "%s/%s", folder, list[i].name));
        CPA_TRY(read_bytes(found->path, &found->bytes, &found->n, &why));
        if (why != NULL || !cpa_checkpoint_is_whole(found->bytes, found->n, &why)) {
            cpa_warn("the checkpoint '%s' cannot be used: %s; %s", found->path, why,
                     i + 1 < n ? "taking the next older one" : "there is no older one");
            cpa_free(&found->bytes);
            found->n_damaged++;
        }
    }
cleanup:
    cpa_free(&list);
    cpa_free(&folder);
    return st;
}

cpa_status cpa_checkpoints_find(cpa_comm *comm, const char *run, cpa_found *out)
{
    cpa_status st;
    bool is_first = cpa_comm_rank(comm) == 0;
    *out = (cpa_found){0};
    cpa_comm_phase("reading the checkpoint");
    CPA_TRY(cpa_comm_agree(comm, is_first ? find(run, out) : CPA_OK));
    int64_t head[2] = {out->bytes != NULL ? (int64_t)out->n : -1, out->path != NULL ? (int64_t)strlen(out->path) : 0};
    CPA_TRY(cpa_comm_bcast(comm, head, sizeof head, 0));
    if (head[0] < 0) {
        return CPA_OK;
    }
    if (!is_first) {
        out->n = (size_t)head[0];
        st = cpa_alloc(out->n, 1, &out->bytes);
        st = st == CPA_OK ? cpa_alloc((size_t)head[1] + 1, 1, &out->path) : st;
    }
    CPA_TRY(cpa_comm_agree(comm, st));
    CPA_TRY(cpa_comm_bcast(comm, out->path, (size_t)head[1], 0));
    CPA_TRY(cpa_comm_bcast(comm, out->bytes, out->n, 0));
cleanup:
    return st;
}

// Removes or renames what must not be taken for a checkpoint of this run any more.
static void clear_away(int folder, const char *name, bool is_newer)
{
    size_t length = strlen(name);
    char damaged[CPA_CHECKPOINT_NAME];
    if (length > 5 && strcmp(name + length - 5, ".part") == 0) {
        unlinkat(folder, name, 0);
    } else if (is_newer && snprintf(damaged, sizeof damaged, "%s.damaged", name) < CPA_CHECKPOINT_NAME) {
        renameat(folder, name, folder, damaged);
    }
}

cpa_status cpa_checkpoints_tidy(const char *run, const cpa_found *found)
{
    cpa_status st;
    char *path = NULL;
    int64_t epoch, step, at_epoch = -1, at_step = 0;
    const char *slash = found->path != NULL ? strrchr(found->path, '/') : NULL, *name = slash != NULL ? slash + 1 : "";
    bool is_numbered = found->bytes != NULL && cpa_checkpoint_parse(name, &at_epoch, &at_step);
    CPA_TRY(cpa_sprintf(&path, "%s/checkpoints", run));
    DIR *dir = opendir(path);
    CPA_REQUIRE(dir != NULL, CPA_IO, "cannot read the folder '%s': %s", path, strerror(errno));
    for (const struct dirent *e = NULL; (e = readdir(dir)) != NULL;) {
        bool is_newer = cpa_checkpoint_parse(e->d_name, &epoch, &step) &&
                        (epoch > at_epoch || (epoch == at_epoch && step > at_step));
        clear_away(dirfd(dir), e->d_name, is_newer);
    }
    if (is_numbered && !cpa_checkpoint_link_last(dirfd(dir), name)) {
        cpa_warn("'%s/last.h5' cannot be made: %s", path, strerror(errno));
    }
    closedir(dir);
cleanup:
    cpa_free(&path);
    return st;
}
