// Owns: counted host allocation and lists of strings. Never touches device memory; every byte it hands out goes back
// through cpa_free.
#include "cpa/base/mem.h"

#include <ctype.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 }; // bytes, of the usual machines

static atomic_long allocations;         // ever made
static atomic_long live;                // not yet freed
static atomic_long taken[CPA_N_MEMORY]; // bytes that live; HOST: of those, and what was noted besides

// Asks for huge pages where an array covers some, before it is touched: rows all over it are then found without walking page tables.
// Refused requests cost nothing but that.
static void ask_for_huge_pages(void *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t begin = ((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1), end = (uintptr_t)p + bytes;
    if (end > begin + 2 * (uintptr_t)HUGE_PAGE) {
        (void)madvise((void *)begin, (end - begin) & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
    }
#else
    (void)p;
    (void)bytes;
#endif
}

cpa_status cpa_alloc(size_t n, size_t size, void *out)
{
    void *p = NULL;
    size_t bytes;
    if (!__builtin_mul_overflow(n, size, &bytes)) {
        p = calloc(bytes > 0 ? bytes : 1, 1);
    }
    if (p == NULL) {
        return cpa_fail(CPA_INTERNAL, "out of memory: %zu elements of %zu bytes could not be allocated", n, size);
    }
    ask_for_huge_pages(p, bytes);
    atomic_fetch_add(&allocations, 1);
    atomic_fetch_add(&live, 1);
    cpa_memory_note(CPA_MEMORY_HOST, (long)malloc_usable_size(p));
    memcpy(out, &p, sizeof p);
    return CPA_OK;
}

cpa_status cpa_realloc(size_t n, size_t size, void *inout)
{
    void *old, *p = NULL;
    memcpy(&old, inout, sizeof old);
    size_t bytes;
    size_t before = malloc_usable_size(old);
    if (!__builtin_mul_overflow(n, size, &bytes)) {
        p = realloc(old, bytes > 0 ? bytes : 1);
    }
    if (p == NULL) {
        return cpa_fail(CPA_INTERNAL, "out of memory: %zu elements of %zu bytes could not be allocated", n, size);
    }
    atomic_fetch_add(&allocations, 1);
    cpa_memory_note(CPA_MEMORY_HOST, (long)malloc_usable_size(p) - (long)before);
    if (old == NULL) {
        atomic_fetch_add(&live, 1);
    }
    memcpy(inout, &p, sizeof p);
    return CPA_OK;
}

void cpa_free(void *ptr)
{
    void *p, *none = NULL;
    memcpy(&p, ptr, sizeof p);
    if (p != NULL) {
        cpa_memory_note(CPA_MEMORY_HOST, -(long)malloc_usable_size(p));
        free(p);
        atomic_fetch_sub(&live, 1);
        memcpy(ptr, &none, sizeof none);
    }
}

static cpa_status copy_bytes(const char *s, size_t n, char **out)
{
    cpa_status st = cpa_alloc(n + 1, 1, out);
    if (st == CPA_OK) {
        memcpy(*out, s, n);
    }
    return st;
}

cpa_status cpa_strdup(const char *s, char **out)
{
    if (s == NULL) {
        *out = NULL;
        return CPA_OK;
    }
    return copy_bytes(s, strlen(s), out);
}

cpa_status cpa_sprintf(char **out, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    cpa_status st = n < 0 ? cpa_fail(CPA_INTERNAL, "bad format '%s'", fmt) : cpa_alloc((size_t)n + 1, 1, out);
    if (st == CPA_OK) {
        vsnprintf(*out, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return st;
}

// Appends `n` bytes as a string; room doubles at powers of two, so the list needs no capacity of its own.
static cpa_status add_bytes(cpa_strings *list, const char *s, size_t n)
{
    cpa_status st;
    char *copy = NULL;
    if ((list->n & (list->n - 1)) == 0) {
        CPA_TRY(cpa_realloc(list->n > 0 ? 2 * (size_t)list->n : 1, sizeof *list->s, &list->s));
    }
    CPA_TRY(copy_bytes(s, n, &copy));
    list->s[list->n++] = copy;
cleanup:
    return st;
}

cpa_status cpa_strings_add(cpa_strings *list, const char *s)
{
    return add_bytes(list, s, strlen(s));
}

cpa_status cpa_strings_split(cpa_strings *list, const char *s, char sep)
{
    cpa_status st = CPA_OK;
    while (*s != '\0') {
        const char *end = strchr(s, sep);
        const char *last = end != NULL ? end : s + strlen(s);
        const char *from = s, *to = last;
        while (from < to && isspace((unsigned char)*from)) {
            from++;
        }
        while (to > from && isspace((unsigned char)to[-1])) {
            to--;
        }
        CPA_TRY(add_bytes(list, from, (size_t)(to - from)));
        if (end == NULL) {
            break;
        }
        s = end + 1;
        if (*s == '\0') { // a separator at the end closes one more, empty piece
            CPA_TRY(cpa_strings_add(list, ""));
        }
    }
cleanup:
    return st;
}

int64_t cpa_strings_find(const cpa_strings *list, const char *s)
{
    for (int64_t i = 0; i < list->n; i++) {
        if (strcmp(list->s[i], s) == 0) {
            return i;
        }
    }
    return -1;
}

bool cpa_strings_equal(const cpa_strings *a, const cpa_strings *b)
{
    bool same = a->n == b->n;
    for (int64_t i = 0; same && i < a->n; i++) {
        same = strcmp(a->s[i], b->s[i]) == 0;
    }
    return same;
}

cpa_status cpa_strings_copy(const cpa_strings *list, cpa_strings *out)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < list->n; i++) {
        CPA_TRY(cpa_strings_add(out, list->s[i]));
    }
cleanup:
    if (st != CPA_OK) {
        cpa_strings_fini(out);
    }
    return st;
}

void cpa_strings_fini(cpa_strings *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        cpa_free(&list->s[i]);
    }
    cpa_free(&list->s);
    list->n = 0;
}

long cpa_alloc_balance(void)
{
    return atomic_load(&live);
}

long cpa_alloc_bytes(void)
{
    return cpa_memory_bytes(CPA_MEMORY_HOST);
}

void cpa_memory_note(cpa_memory where, long bytes)
{
    atomic_fetch_add(&taken[where], bytes);
}

long cpa_memory_bytes(cpa_memory where)
{
    return atomic_load(&taken[where]);
}

long cpa_alloc_count(void)
{
    return atomic_load(&allocations);
}

void cpa_rss(size_t *now, size_t *high)
{
    *now = 0;
    *high = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (f == NULL) {
        return;
    }
    char line[256];
    while (fgets(line, sizeof line, f) != NULL) {
        size_t kb;
        if (sscanf(line, "VmRSS: %zu kB", &kb) == 1) {
            *now = kb * 1024;
        } else if (sscanf(line, "VmHWM: %zu kB", &kb) == 1) {
            *high = kb * 1024;
        }
    }
    fclose(f);
}

// A number from a small file of the kernel, `other` when there is none ("max" too).
static size_t number_in(const char *path, size_t other)
{
    size_t n = other;
    FILE *f = fopen(path, "r");
    if (f != NULL) {
        if (fscanf(f, "%zu", &n) != 1) {
            n = other;
        }
        fclose(f);
    }
    return n;
}

size_t cpa_memory_available(void)
{
    size_t available = 0, kb, limit = number_in("/sys/fs/cgroup/memory.max", SIZE_MAX),
           used = number_in("/sys/fs/cgroup/memory.current", 0);
    char line[256];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f != NULL && available == 0 && fgets(line, sizeof line, f) != NULL) {
        available = sscanf(line, "MemAvailable: %zu kB", &kb) == 1 ? kb * 1024 : 0;
    }
    if (f != NULL) {
        fclose(f);
    }
    size_t left = limit == SIZE_MAX ? SIZE_MAX : limit > used ? limit - used : 0;
    return left < available ? left : available;
}
