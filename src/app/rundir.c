// Owns: run folders and output files, made so that failures leave nothing behind. Never removes what it did not make.
#include "cpa/app/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpa/base/leavings.h"
#include "cpa/base/log.h"

struct cpa_rundir {
    cpa_comm *comm; // borrowed
    char *path;
    bool is_new;       // on rank 0
    cpa_strings files; // full paths of those handed out
    int64_t n_settled; // the first so many of them stay
};

// Whether a folder that is there is a run's, or empty: what a run that was killed early has left.
static bool is_run(const char *path)
{
    static const char *const names[] = {".", "..", "checkpoints", "config.yaml", "config.yaml.part", "log.jsonl"};
    bool is_empty = true, is_known = false;
    DIR *folder = opendir(path);
    for (const struct dirent *e = NULL; folder != NULL && (e = readdir(folder)) != NULL;) {
        size_t i = 0;
        while (i < sizeof names / sizeof names[0] && strcmp(e->d_name, names[i]) != 0) {
            i++;
        }
        is_empty = is_empty && i < 2;
        is_known = is_known || (i >= 2 && i < sizeof names / sizeof names[0]);
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return folder != NULL && (is_empty || is_known);
}

cpa_status cpa_output_folder(const char *path)
{
    if (mkdir(path, 0777) == 0) {
        return CPA_OK;
    }
    int why = errno;
    if (why == EEXIST) {
        return cpa_fail(CPA_CONFIG, "'%s' exists already and is not overwritten; name another folder with --out", path);
    }
    return cpa_fail(why == ENOENT || why == ENOTDIR ? CPA_NO_INPUT : CPA_IO, "cannot make the folder '%s': %s%s", path,
                    strerror(why), why == ENOENT ? " (its parent must exist)" : "");
}

static cpa_status make_folders(const char *path, bool resume, bool *is_new)
{
    cpa_status st = CPA_OK;
    char *checkpoints = NULL;
    struct stat info;
    *is_new = !resume || stat(path, &info) != 0;
    if (*is_new) {
        CPA_TRY(cpa_output_folder(path));
    } else {
        CPA_REQUIRE(is_run(path), CPA_CONFIG, "'%s' is there but is not a run folder, so nothing can be resumed", path);
    }
    CPA_TRY(cpa_sprintf(&checkpoints, "%s/checkpoints", path));
    if (*is_new) {
        cpa_leavings_add(path);
        cpa_leavings_add(checkpoints);
    }
    if (mkdir(checkpoints, 0777) != 0 && (*is_new || errno != EEXIST)) {
        st = cpa_fail(CPA_IO, "cannot make the folder '%s': %s", checkpoints, strerror(errno));
        if (*is_new) {
            rmdir(path);
        }
    }
cleanup:
    cpa_free(&checkpoints);
    return st;
}

cpa_status cpa_rundir_create(cpa_comm *comm, const char *path, bool resume, cpa_rundir **out)
{
    cpa_status st;
    cpa_rundir *dir = NULL;
    *out = NULL;
    st = cpa_alloc(1, sizeof *dir, &dir);
    if (st == CPA_OK) {
        dir->comm = comm;
        st = cpa_strdup(path, &dir->path);
    }
    CPA_TRY(cpa_comm_agree(comm, st));
    CPA_TRY(cpa_comm_agree(comm, cpa_comm_rank(comm) == 0 ? make_folders(path, resume, &dir->is_new) : CPA_OK));
    *out = dir;
    dir = NULL;
cleanup:
    if (dir != NULL) {
        cpa_free(&dir->path);
        cpa_free(&dir);
    }
    return st;
}

const char *cpa_rundir_path(const cpa_rundir *dir)
{
    return dir->path;
}

cpa_status cpa_rundir_file(cpa_rundir *dir, const char *name, const char **path)
{
    cpa_status st;
    char *full = NULL;
    CPA_TRY(cpa_sprintf(&full, "%s/%s", dir->path, name));
    int64_t at = cpa_strings_find(&dir->files, full);
    if (at < 0) {
        at = dir->files.n;
        CPA_TRY(cpa_strings_add(&dir->files, full));
        if (cpa_comm_rank(dir->comm) == 0) {
            cpa_leavings_add(full);
        }
    }
    *path = dir->files.s[at];
cleanup:
    cpa_free(&full);
    return st;
}

bool cpa_rundir_is_new(const cpa_rundir *dir)
{
    return dir->is_new;
}

void cpa_rundir_settle(cpa_rundir *dir)
{
    dir->n_settled = dir->files.n;
    cpa_leavings_drop(dir->path);
}

// What is written in the place of a file.
static cpa_status temporary_of(const char *path, char **out)
{
    return cpa_sprintf(out, "%s.part", path);
}

// Removes a file and what was being written to it.
static void remove_file(const char *path)
{
    char *temporary = NULL;
    unlink(path);
    if (temporary_of(path, &temporary) == CPA_OK) {
        unlink(temporary);
    }
    cpa_free(&temporary);
}

void cpa_rundir_close(cpa_rundir **dir, bool keep)
{
    cpa_rundir *d = *dir;
    if (d == NULL) {
        return;
    }
    cpa_leavings_drop(d->path);
    bool removes = !keep && cpa_comm_rank(d->comm) == 0;
    for (int64_t i = d->n_settled; removes && i < d->files.n; i++) {
        remove_file(d->files.s[i]);
    }
    if (removes && d->is_new && d->n_settled == 0) {
        char *checkpoints = NULL;
        if (cpa_sprintf(&checkpoints, "%s/checkpoints", d->path) == CPA_OK) {
            rmdir(checkpoints);
        }
        cpa_free(&checkpoints);
        rmdir(d->path);
    }
    cpa_strings_fini(&d->files);
    cpa_free(&d->path);
    cpa_free(dir);
}

cpa_status cpa_rundir_model(const char *run, char **path)
{
    cpa_status st;
    struct stat info;
    char *best = NULL;
    CPA_TRY(cpa_sprintf(path, "%s/model.h5", run));
    CPA_TRY(cpa_sprintf(&best, "%s/checkpoints/best.h5", run));
    if (stat(*path, &info) != 0 && stat(best, &info) == 0) {
        cpa_info("'%s' is not finished; this is the best model so far, '%s'", run, best);
        cpa_free(path);
        *path = best;
        best = NULL;
    }
cleanup:
    cpa_free(&best);
    return st;
}

cpa_status cpa_rundir_trained(const char *run, char **path)
{
    cpa_status st;
    struct stat info;
    char *checkpoints = NULL;
    CPA_TRY(cpa_rundir_model(run, path));
    CPA_TRY(cpa_sprintf(&checkpoints, "%s/checkpoints", run));
    CPA_REQUIRE(
        stat(*path, &info) == 0 || stat(checkpoints, &info) != 0, CPA_NO_INPUT,
        "'%s' has no model yet: its training is not finished and there was no validation so far; 'cpa-hpc train "
        "DATA.h5ad --out %s --resume' goes on with it",
        run, run);
cleanup:
    cpa_free(&checkpoints);
    return st;
}

// The folder that holds a path.
static cpa_status folder_of(const char *path, char **out)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return cpa_strdup(".", out);
    }
    return slash == path ? cpa_strdup("/", out) : cpa_sprintf(out, "%.*s", (int)(slash - path), path);
}

// Where a result goes: to where a link points.
static cpa_status target_of(const char *path, char **out)
{
    struct stat info;
    if (lstat(path, &info) != 0 || !S_ISLNK(info.st_mode)) {
        return cpa_strdup(path, out);
    }
    char *real = realpath(path, NULL);
    cpa_status st = real != NULL      ? cpa_strdup(real, out)
                    : errno == ENOENT ? cpa_fail(CPA_IO, "cannot write '%s': it is a link to what is not there", path)
                                      : cpa_fail(CPA_IO, "cannot write '%s': %s", path, strerror(errno));
    free(real);
    return st;
}

cpa_status cpa_output_check(const char *path)
{
    cpa_status st;
    char *folder = NULL, *target = NULL;
    struct stat info;
    CPA_TRY(folder_of(path, &folder));
    CPA_REQUIRE(stat(folder, &info) == 0 && S_ISDIR(info.st_mode), CPA_NO_INPUT,
                "cannot write '%s': there is no folder '%s'", path, folder);
    bool is_there = stat(path, &info) == 0;
    CPA_REQUIRE(!is_there || !S_ISDIR(info.st_mode), CPA_IO, "cannot write '%s': it is a folder", path);
    CPA_REQUIRE(!is_there || S_ISREG(info.st_mode), CPA_IO, "cannot write '%s': it is not a file", path);
    CPA_TRY(target_of(path, &target));
cleanup:
    cpa_free(&folder);
    cpa_free(&target);
    return st;
}

cpa_status cpa_output_begin(const char *path, char **temporary)
{
    cpa_status st;
    char *target = NULL;
    CPA_TRY(cpa_output_check(path));
    CPA_TRY(target_of(path, &target));
    CPA_TRY(temporary_of(target, temporary));
    cpa_leavings_expect(*temporary);
cleanup:
    cpa_free(&target);
    return st;
}

cpa_status cpa_output_begin_new(const char *path, char **temporary)
{
    struct stat info;
    cpa_status st = cpa_output_begin(path, temporary);
    if (st == CPA_OK && stat(path, &info) == 0) {
        st = cpa_fail(CPA_CONFIG, "'%s' exists already and is not overwritten; name another file or remove it", path);
        cpa_leavings_drop(*temporary);
        cpa_free(temporary);
    }
    return st;
}

// Forces a file or folder to disk. File systems that cannot sync a folder say EINVAL; the rename stands all the same.
static cpa_status sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | flags);
    int bad = fd < 0 || (fsync(fd) != 0 && errno != EINVAL);
    int why = errno;
    if (fd >= 0) {
        close(fd);
    }
    return bad ? cpa_fail(CPA_IO, "cannot write '%s' to disk: %s", path, strerror(why)) : CPA_OK;
}

static cpa_status check_ours(const char *temporary, const char *path)
{
    return cpa_leavings_are_ours(temporary)
               ? CPA_OK
               : cpa_fail(CPA_IO, "'%s' is not the file that was written any more: another command writes '%s', too",
                          temporary, path);
}

cpa_status cpa_output_commit(const char *temporary, const char *path)
{
    cpa_status st;
    char *folder = NULL, *target = NULL;
    CPA_TRY(target_of(path, &target));
    CPA_TRY(folder_of(target, &folder));
    CPA_TRY(check_ours(temporary, path));
    CPA_TRY(sync_path(temporary, 0));
    CPA_TRY(check_ours(temporary, path)); // again: that took its time
    CPA_REQUIRE(rename(temporary, target) == 0, CPA_IO, "cannot rename '%s' to '%s': %s", temporary, target,
                strerror(errno));
    cpa_leavings_drop(temporary);
    st = sync_path(folder, O_DIRECTORY);
    if (st != CPA_OK) {
        unlink(target); // a command that fails leaves no result
    }
cleanup:
    cpa_free(&folder);
    cpa_free(&target);
    return st;
}

void cpa_output_discard(const char *temporary)
{
    if (temporary != NULL && cpa_leavings_are_ours(temporary)) {
        cpa_leavings_drop(temporary);
        unlink(temporary);
    }
}

cpa_status cpa_output_write(const char *path, const void *bytes, size_t n)
{
    cpa_status st;
    char *temporary = NULL;
    CPA_TRY(cpa_output_begin(path, &temporary));
    unlink(temporary); // what was left there; and never a file that another process writes
    FILE *f = fopen(temporary, "wbx");
    CPA_REQUIRE(f != NULL, CPA_IO, "cannot write '%s': %s", temporary, strerror(errno));
    cpa_leavings_made(temporary, fileno(f));
    bool ok = fwrite(bytes, 1, n, f) == n;
    ok = fclose(f) == 0 && ok;
    CPA_REQUIRE(ok, CPA_IO, "cannot write '%s': %s", temporary, strerror(errno));
    st = cpa_output_commit(temporary, path);
cleanup:
    if (st != CPA_OK) {
        cpa_output_discard(temporary);
    }
    cpa_free(&temporary);
    return st;
}
