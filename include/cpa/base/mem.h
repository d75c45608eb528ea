// Owns: counted host allocation, small string helpers.
// Never hands out device memory.
#ifndef CPA_BASE_MEM_H
#define CPA_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "cpa/base/status.h"
#include "cpa/base/types.h"

/** Zeroed array of `n` elements of `size` bytes in *out (never NULL on success, also for n = 0). INTERNAL when memory
 *  is short, naming the size. The caller frees it with cpa_free. */
cpa_status cpa_alloc(size_t n, size_t size, void *out);

/** Resizes an array from cpa_alloc to `n` elements; *inout is updated only on success. New bytes are not zeroed. */
cpa_status cpa_realloc(size_t n, size_t size, void *inout);

/** Frees memory from this header and sets the pointer that `ptr` points to to NULL. NULL-safe: `cpa_free(&p)`. */
void cpa_free(void *ptr);

/** Copy of a string in *out (NULL gives NULL). */
cpa_status cpa_strdup(const char *s, char **out);

/** printf into a fresh string. */
cpa_status cpa_sprintf(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Appends a copy of `s`. */
cpa_status cpa_strings_add(cpa_strings *list, const char *s);

/** Appends the pieces of `s` cut at every `sep`, without surrounding blanks; empty pieces are kept unless s is "". */
cpa_status cpa_strings_split(cpa_strings *list, const char *s, char sep);

/** Position of `s` in the list, -1 if it is not there. Linear. */
int64_t cpa_strings_find(const cpa_strings *list, const char *s);

/** Whether two lists have the same strings in the same order. */
bool cpa_strings_equal(const cpa_strings *a, const cpa_strings *b);

/** Deep copy; `out` must be empty. */
cpa_status cpa_strings_copy(const cpa_strings *list, cpa_strings *out);

/** Frees strings and array, leaves an empty list. */
void cpa_strings_fini(cpa_strings *list);

/** Number of allocations made since start and not yet freed. */
long cpa_alloc_balance(void);

/** Number of allocations made since start; a step must not raise it. */
long cpa_alloc_count(void);

/** Bytes of all that live, as the C library rounds them up. */
long cpa_alloc_bytes(void);

// Where memory is that this process has taken.
typedef enum cpa_memory {
    CPA_MEMORY_HOST,   // its own
    CPA_MEMORY_NODE,   // one copy for the ranks of a node; counts whole in each
    CPA_MEMORY_DEVICE, // of its GPU
    CPA_N_MEMORY
} cpa_memory;

/** Counts bytes that were taken, or (negative) given back, in another way than by cpa_alloc, which counts as HOST. */
void cpa_memory_note(cpa_memory where, long bytes);

/** Bytes that live there. */
long cpa_memory_bytes(cpa_memory where);

/** Resident set now, and its high-water mark, in bytes, from /proc/self/status (0 where there is none). */
void cpa_rss(size_t *now, size_t *high);

/** Memory that can still be taken on this node, in bytes: what the kernel calls available, or less where the control group of the
 *  process has a limit. 0 when neither is known. */
size_t cpa_memory_available(void);

#endif
