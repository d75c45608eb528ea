// Owns: growing text buffers, lines of text files, fields of CSV records and lists of problems. Never writes them anywhere.
#include "cpa/base/text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpa/base/mem.h"

static cpa_status add_list(cpa_text *t, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    cpa_status st;
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    CPA_REQUIRE(n >= 0, CPA_INTERNAL, "bad format '%s'", fmt);
    size_t need = t->n + (size_t)n + 1;
    if (need > t->cap) {
        size_t cap = need > 2 * t->cap ? need : 2 * t->cap;
        CPA_TRY(cpa_realloc(cap, 1, &t->s));
        t->cap = cap;
    }
    vsnprintf(t->s + t->n, (size_t)n + 1, fmt, args);
    t->n += (size_t)n;
    st = CPA_OK;
cleanup:
    return st;
}

cpa_status cpa_text_add(cpa_text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    cpa_status st = add_list(t, fmt, args);
    va_end(args);
    return st;
}

const char *cpa_text_str(const cpa_text *t)
{
    return t->s != NULL ? t->s : "";
}

cpa_status cpa_text_add_names(cpa_text *t, const cpa_strings *some, int64_t n)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < some->n; i++) {
        CPA_TRY(cpa_text_add(t, "%s'%s'", i > 0 ? ", " : "", some->s[i]));
    }
    if (n > some->n) {
        CPA_TRY(cpa_text_add(t, ", ..."));
    }
cleanup:
    return st;
}

void cpa_text_fini(cpa_text *t)
{
    cpa_free(&t->s);
    t->n = 0;
    t->cap = 0;
}

cpa_status cpa_csv_field(const char **at, cpa_text *field)
{
    cpa_status st = CPA_OK;
    const char *p = *at + strspn(*at, " \t");
    if (*p == '"') {
        for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
            p += *p == '"';
            CPA_TRY(cpa_text_add(field, "%c", *p));
        }
        CPA_REQUIRE(*p == '"', CPA_BAD_DATA, "a quote is not closed");
        p++;
        p += strspn(p, " \t");
        CPA_REQUIRE(*p == ',' || *p == '\0', CPA_BAD_DATA, "text after a closing quote");
    } else {
        size_t n = strcspn(p, ","), used = n;
        while (used > 0 && (p[used - 1] == ' ' || p[used - 1] == '\t')) {
            used--;
        }
        CPA_TRY(cpa_text_add(field, "%.*s", (int)used, p));
        p += n;
    }
    *at = *p == ',' ? p + 1 : NULL;
cleanup:
    return st;
}

bool cpa_text_line(FILE *file, char **line, size_t *room, int64_t *number)
{
    static const char mark[] = "\xEF\xBB\xBF";
    if (getline(line, room, file) < 0) {
        return false;
    }
    if (++*number == 1 && strncmp(*line, mark, sizeof mark - 1) == 0) {
        memmove(*line, *line + sizeof mark - 1, strlen(*line) - sizeof mark + 2);
    }
    return true;
}

cpa_status cpa_problems_add(cpa_problems *p, const char *fmt, ...)
{
    cpa_status st = CPA_OK;
    va_list args;
    va_start(args, fmt);
    if (p->n > 0) {
        CPA_TRY(cpa_text_add(&p->text, "\n"));
    }
    CPA_TRY(add_list(&p->text, fmt, args));
    p->n++;
cleanup:
    va_end(args);
    return st;
}

cpa_status cpa_problems_status(const cpa_problems *p, cpa_status code)
{
    return p->n == 0 ? CPA_OK : cpa_fail(code, "%s", cpa_text_str(&p->text));
}

void cpa_problems_fini(cpa_problems *p)
{
    cpa_text_fini(&p->text);
    p->n = 0;
}

// How a letter counts for nearness.
static int folded(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

int cpa_text_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    int row[MAX + 1];
    int na = (int)strnlen(a, MAX), nb = (int)strnlen(b, MAX);
    for (int j = 0; j <= nb; j++) {
        row[j] = j;
    }
    for (int i = 1; i <= na; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int replaced = corner + (folded(a[i - 1]) != folded(b[j - 1]));
            int moved = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            corner = row[j];
            row[j] = replaced < moved ? replaced : moved;
        }
    }
    return row[nb];
}
