// Owns: faults on request: loaded before the program (LD_PRELOAD), it makes one chosen call of one chosen rank fail or slow, or stops or
// kills the rank there. Must never be part of the program, nor touch a call that was not chosen.
//
// CPA_FAULT="CALL WHERE RANK NTH ACT": CALL is one of the names below; WHERE a part of the file's path (with alloc: "-"); RANK
// -1 for every rank; NTH counts matching calls of a process from 1; ACT is the errno to fail with, "short" (half of the bytes), "slow" (a
// hundredth of a second more), with "+": from then on always; "stop", "kill", or "hang" (the call never returns, and the process sleeps). What
// happened is appended to the file CPA_FAULT_LOG.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    char call[16], where[256], act[16];
    long nth;
    bool armed;
    atomic_long seen;
    uintptr_t begin, end; // of the program's own code
} fault;

static int note_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0) {
            fault.begin = info->dlpi_addr + p->p_vaddr;
            fault.end = fault.begin + p->p_memsz;
        }
    }
    return 1; // the program comes first, and the rest is not wanted
}

__attribute__((constructor)) static void arm(void)
{
    const char *wish = getenv("CPA_FAULT"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    int of = -1;
    rank = rank != NULL ? rank : getenv("PMI_RANK");
    rank = rank != NULL ? rank : "0";
    dl_iterate_phdr(note_program, NULL);
    fault.armed = wish != NULL &&
                  sscanf(wish, "%15s %255s %d %ld %15s", fault.call, fault.where, &of, &fault.nth, fault.act) == 5 &&
                  (of < 0 || of == atoi(rank));
}

static void tell(const char *path)
{
    char line[512];
    const char *log = getenv("CPA_FAULT_LOG");
    int fd = log != NULL ? (int)open(log, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
    if (fd >= 0) {
        int n = snprintf(line, sizeof line, "%s %s\n", fault.call, path);
        if (write(fd, line, (size_t)n) != n) {
            abort();
        }
        close(fd);
    }
}

// What can be done without a failure: stops or kills the process, or lets the call take its time. False: it is to fail.
static bool act_here(void)
{
    if (strcmp(fault.act, "stop") == 0 || strcmp(fault.act, "kill") == 0) {
        kill(getpid(), fault.act[0] == 's' ? SIGSTOP : SIGKILL);
        return true;
    }
    while (strcmp(fault.act, "hang") == 0) {
        pause();
    }
    if (strncmp(fault.act, "slow", 4) == 0) {
        usleep(10000);
        return true;
    }
    return false;
}

// Whether this call is the chosen one and is to fail; `path` may be NULL.
static bool strikes(const char *call, const char *path)
{
    if (!fault.armed || strcmp(call, fault.call) != 0 || (path != NULL && strstr(path, fault.where) == NULL)) {
        return false;
    }
    long nth = atomic_fetch_add(&fault.seen, 1) + 1;
    if (nth != fault.nth && !(nth > fault.nth && strchr(fault.act, '+') != NULL)) {
        return false;
    }
    bool armed = fault.armed;
    fault.armed = false;
    if (nth == fault.nth) {
        tell(path != NULL ? path : "-");
    }
    fault.armed = armed;
    if (act_here()) {
        return false;
    }
    errno = atoi(fault.act);
    return true;
}

static bool strikes_fd(const char *call, int fd)
{
    char link[64], path[4096];
    if (!fault.armed || strcmp(call, fault.call) != 0) {
        return false;
    }
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    if (n < 0) {
        return false;
    }
    path[n] = '\0';
    return strikes(call, path);
}

#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;                                               \
        va_end(more);                                                                                                  \
        return strikes("open", path) ? -1 : NEXT(name)(path, flags, mode);                                             \
    }
OPENS(open)
OPENS(open64)

#define FOPENS(name)                                                                                                   \
    FILE *name(const char *path, const char *mode)                                                                     \
    {                                                                                                                  \
        return strikes("open", path) ? NULL : NEXT(name)(path, mode);                                                  \
    }
FOPENS(fopen)
FOPENS(fopen64)

// Half of what was asked for, at least a byte; or the failure.
#define MOVES(kind, name, params, args, fd, n)                                                                         \
    ssize_t name params                                                                                                \
    {                                                                                                                  \
        if (strikes_fd(kind, fd)) {                                                                                    \
            if (strcmp(fault.act, "short") != 0 || n < 2) {                                                            \
                return -1;                                                                                             \
            }                                                                                                          \
            n /= 2;                                                                                                    \
        }                                                                                                              \
        return NEXT(name) args;                                                                                        \
    }
MOVES("read", read, (int fd, void *to, size_t n), (fd, to, n), fd, n)
MOVES("read", pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), fd, n)
MOVES("read", pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at), fd, n)
MOVES("write", write, (int fd, const void *from, size_t n), (fd, from, n), fd, n)
MOVES("write", pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), fd, n)
MOVES("write", pwrite64, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at), fd, n)

// The C library's own writes cannot be caught, but they reach the disk here.
int fflush(FILE *f)
{
    bool bad = f != NULL && strikes_fd("write", fileno(f));
    int why = errno, rc = NEXT(fflush)(f);
    errno = bad ? why : errno;
    return bad ? EOF : rc;
}

int fclose(FILE *f)
{
    bool bad = strikes_fd("write", fileno(f));
    int why = errno, rc = NEXT(fclose)(f);
    errno = bad ? why : errno;
    return bad ? EOF : rc;
}

int fsync(int fd)
{
    return strikes_fd("fsync", fd) ? -1 : NEXT(fsync)(fd);
}

int rename(const char *from, const char *to)
{
    return strikes("rename", from) ? -1 : NEXT(rename)(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    return strikes("mkdir", path) ? -1 : NEXT(mkdir)(path, mode);
}

// Allocations of the program itself: those of MPI and HDF5 are theirs to survive.
static bool starves(const void *caller)
{
    return fault.armed && (uintptr_t)caller >= fault.begin && (uintptr_t)caller < fault.end && strikes("alloc", NULL);
}

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return starves(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return starves(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return starves(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
