// Owns: the lines on standard error. Every line goes out in one write, so that ranks do not mix within a line. Never
// decides what a failure means.
#include "cpa/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 4096,
    FIRST_RANK_S = 5, // launchers end the other ranks when one has ended, which takes a moment
};

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_rank;
static bool log_quiet;
static bool progress_open; // the cursor stands behind a progress line

void cpa_log_init(int rank, bool quiet)
{
    log_rank = rank;
    log_quiet = quiet;
}

// One line: `prefix`, the text, a newline; a progress line that stands there is closed first. Longer lines are cut.
static void put_line(const char *prefix, const char *fmt, va_list args)
{
    char line[LINE_MAX_BYTES];
    pthread_mutex_lock(&log_lock);
    int n = snprintf(line, sizeof line, "%s%s", progress_open ? "\n" : "", prefix);
    progress_open = false;
    vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, args);
    strcat(line, "\n");
    fputs(line, stderr);
    fflush(stderr);
    pthread_mutex_unlock(&log_lock);
}

void cpa_info(const char *fmt, ...)
{
    if (log_rank != 0 || log_quiet) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    put_line("", fmt, args);
    va_end(args);
}

void cpa_warn(const char *fmt, ...)
{
    if (log_rank != 0) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    put_line("warning: ", fmt, args);
    va_end(args);
}

static void put_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void put_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    put_line("cpa-hpc: error: ", fmt, args);
    va_end(args);
}

void cpa_error(const char *message)
{
    while (*message != '\0') {
        size_t n = strcspn(message, "\n");
        put_error("%.*s", (int)n, message);
        message += n;
        message += *message == '\n';
    }
}

void cpa_last_words(const char *const *piece, int n)
{
    enum { MAX_PIECES = 8 };
    static const char prefix[] = "cpa-hpc: error: ";
    struct iovec line[MAX_PIECES + 2] = {{(void *)(uintptr_t)prefix, sizeof prefix - 1}};
    for (int i = 0; i < n && i < MAX_PIECES; i++) {
        line[i + 1] = (struct iovec){(void *)(uintptr_t)piece[i], strlen(piece[i])};
    }
    line[n + 1] = (struct iovec){(void *)(uintptr_t) "\n", 1};
    if (log_rank != 0) {
        nanosleep(&(struct timespec){.tv_sec = FIRST_RANK_S}, NULL);
    }
    ssize_t written = writev(STDERR_FILENO, line, n + 2);
    (void)written; // there is nobody left to tell
}

void cpa_progress(bool keep, const char *fmt, ...)
{
    if (log_rank != 0 || log_quiet) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    if (isatty(STDERR_FILENO)) {
        char line[LINE_MAX_BYTES];
        vsnprintf(line, sizeof line, fmt, args);
        pthread_mutex_lock(&log_lock);
        fprintf(stderr, "\r%s\033[K", line);
        fflush(stderr);
        progress_open = true;
        pthread_mutex_unlock(&log_lock);
    } else if (keep) {
        put_line("", fmt, args);
    }
    va_end(args);
}

double cpa_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
