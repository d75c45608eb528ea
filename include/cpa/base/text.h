// Owns: growing text buffers (messages, CSV, JSON lines), the lines of text files.
// Never prints.
#ifndef CPA_BASE_TEXT_H
#define CPA_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "cpa/base/status.h"
#include "cpa/base/types.h"

// A growing, NUL-terminated text. Zero-initialise; cpa_text_fini frees it.
typedef struct cpa_text {
    char *s;
    size_t n, cap;
} cpa_text;

/** Appends, printf style. */
cpa_status cpa_text_add(cpa_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** The text, "" when nothing was added. Borrowed. */
const char *cpa_text_str(const cpa_text *t);

/** Appends names in quotes, separated by commas, and that there are more when `n` is more than those. */
cpa_status cpa_text_add_names(cpa_text *t, const cpa_strings *some, int64_t n);

/** Frees it and leaves it empty. */
void cpa_text_fini(cpa_text *t);

/** Reads one field of a CSV record at *p into the empty `field` and moves *p behind the comma that follows it, NULL after the last field.
 *  Fields stand in double quotes where they hold commas, quotes (doubled) or blanks that matter. BAD_DATA: an open quote, text behind
 *  a closing one. */
cpa_status cpa_csv_field(const char **p, cpa_text *field);

/** Reads the next line as getline does, without the byte order mark that a first line may begin with (spreadsheets write one before
 *  UTF-8), and counts it in *number (0 before the first). False behind the last, or where the file cannot be read. The caller frees
 *  *line. */
bool cpa_text_line(FILE *file, char **line, size_t *room, int64_t *number);

/** Letters to insert, delete or replace to make one name of the other. Case does not count, '-' is '_', and of long names only the
 *  first 64 bytes are compared. */
int cpa_text_distance(const char *a, const char *b);

// Everything that is wrong with an input, reported at once.
typedef struct cpa_problems {
    cpa_text text;
    int n;
} cpa_problems;

/** Adds one problem (one line, no newline at its end). */
cpa_status cpa_problems_add(cpa_problems *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** CPA_OK when there are none, otherwise `code` with all of them as the message, a line each. */
cpa_status cpa_problems_status(const cpa_problems *p, cpa_status code);

/** Frees it. */
void cpa_problems_fini(cpa_problems *p);

#endif
