// Owns: one option's value: from and to text, its range, copying and freeing it. Never knows where the text came from.
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "options_impl.h"

static const double LARGEST_INTEGER = 9007199254740991.0; // that a double holds exactly

cpa_status cpa_option_number(double x, cpa_text *t)
{
    char s[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) {
            break;
        }
    }
    return cpa_text_add(t, "%s", s);
}

// "one of a, b, c", or "a" when there is no choice.
static cpa_status wants_choice(const char *choices, cpa_text *t)
{
    cpa_status st = CPA_OK;
    if (strchr(choices, '|') != NULL) {
        CPA_TRY(cpa_text_add(t, "one of "));
    }
    for (const char *c = choices; *c != '\0'; c++) {
        CPA_TRY(*c == '|' ? cpa_text_add(t, ", ") : cpa_text_add(t, "%c", *c));
    }
cleanup:
    return st;
}

static cpa_status wants_number(const cpa_option *p, cpa_text *t)
{
    cpa_status st;
    bool is_real = p->type == CPA_OPTION_REAL;
    if (p->size) {
        return cpa_text_add(t, "a size such as 512MiB or 2GiB");
    }
    bool bounded = is_real ? isfinite(p->max) : p->max != INT_MAX;
    CPA_TRY(cpa_text_add(t, "%s, ", p->power_of_two ? "a power of two" : is_real ? "a number" : "an integer"));
    if (p->min_open) {
        CPA_TRY(cpa_text_add(t, "above "));
    }
    CPA_TRY(is_real ? cpa_option_number(p->min, t) : cpa_text_add(t, "%.0f", p->min));
    CPA_TRY(cpa_text_add(t, bounded ? p->max_open ? " to below " : " to " : " or more"));
    if (bounded) {
        CPA_TRY(is_real ? cpa_option_number(p->max, t) : cpa_text_add(t, "%.0f", p->max));
    }
cleanup:
    return st;
}

cpa_status cpa_option_wants(const cpa_option *p, cpa_text *t)
{
    switch (p->type) {
    case CPA_OPTION_INT:
    case CPA_OPTION_INT64:
    case CPA_OPTION_REAL:
        return wants_number(p, t);
    case CPA_OPTION_BOOL:
        return cpa_text_add(t, "true or false");
    case CPA_OPTION_STRING:
        return p->choices != NULL ? wants_choice(p->choices, t) : cpa_text_add(t, "a text");
    case CPA_OPTION_STRINGS:
        return cpa_text_add(t, p->repeat ? "a text" : "texts separated by commas");
    }
    return CPA_OK;
}

// The failure of a value: what the option wants, and what it got.
static cpa_status refuse(const cpa_option *p, const char *text)
{
    cpa_status st;
    cpa_text wants = {0};
    CPA_TRY(cpa_option_wants(p, &wants));
    st = cpa_fail(CPA_USAGE, "wants %s, not '%s'", cpa_text_str(&wants), text);
cleanup:
    cpa_text_fini(&wants);
    return st;
}

// Whether a text is "none" for a number whose 0 means none.
static bool is_none(const cpa_option *p, const char *text)
{
    return p->absent != NULL && (strcasecmp(text, "none") == 0 || strcasecmp(text, "null") == 0);
}

// "512MiB", "1.5 GiB" in bytes.
static cpa_status set_size(cpa_options *o, const cpa_option *p, const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    size_t digits = strspn(text, "0123456789.");
    const char *unit = text + digits + strspn(text + digits, " ");
    char *end = NULL;
    double number = digits > 0 ? strtod(text, &end) : -1, bytes = is_none(p, text) || strcmp(text, "0") == 0 ? 0 : -1;
    for (size_t i = 0; end == text + digits && i < sizeof units / sizeof *units; i++) {
        bytes = strcasecmp(unit, units[i].name) == 0 ? number * units[i].bytes : bytes;
    }
    if (!(bytes >= p->min && bytes <= p->max)) {
        return refuse(p, text);
    }
    *CPA_MEMBER(o, p, int64_t) = (int64_t)bytes;
    return CPA_OK;
}

static cpa_status set_number(cpa_options *o, const cpa_option *p, const char *text)
{
    if (p->size) {
        return set_size(o, p, text);
    }
    bool is_real = p->type == CPA_OPTION_REAL;
    const char *s = is_none(p, text) ? "0" : text;
    char *end = NULL;
    // Only plain decimal texts: strtod would also take hexadecimal numbers, "inf" and "nan".
    bool ok = *s != '\0' && strspn(s, is_real ? "0123456789+-.eE" : "0123456789+-") == strlen(s);
    errno = 0;
    double real = is_real && ok ? strtod(s, &end) : 0;
    long long integer = !is_real && ok ? strtoll(s, &end, 10) : 0;
    ok = ok && *end == '\0' && (is_real ? isfinite(real) : errno == 0 && fabs((double)integer) <= LARGEST_INTEGER);
    double x = is_real ? real : (double)integer;
    ok = ok && (p->min_open ? x > p->min : x >= p->min) && (p->max_open ? x < p->max : x <= p->max);
    if (!ok || (p->power_of_two && (integer & (integer - 1)) != 0)) {
        return refuse(p, text);
    }
    if (p->type == CPA_OPTION_REAL) {
        *CPA_MEMBER(o, p, double) = real;
    } else if (p->type == CPA_OPTION_INT64) {
        *CPA_MEMBER(o, p, int64_t) = integer;
    } else {
        *CPA_MEMBER(o, p, int) = (int)integer;
    }
    return CPA_OK;
}

bool cpa_option_is_truth(const char *text, bool *value)
{
    static const char *const texts[] = {"false", "true", "no", "yes", "0", "1"}; // by turns
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcasecmp(text, texts[i]) == 0) {
            *value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

bool cpa_option_is(const cpa_options *o, int i, const char *text)
{
    const cpa_option *p = &cpa_option_table()[i];
    bool truth = false;
    if (p->type == CPA_OPTION_BOOL) {
        return cpa_option_is_truth(text, &truth) && *CPA_MEMBER_CONST(o, p, bool) == truth;
    }
    return strcmp(*CPA_MEMBER_CONST(o, p, char *), text) == 0;
}

static cpa_status set_bool(cpa_options *o, const cpa_option *p, const char *text)
{
    return cpa_option_is_truth(text, CPA_MEMBER(o, p, bool)) ? CPA_OK : refuse(p, text);
}

// Whether `text` is one of "a|b|c".
static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *c = choices; c != NULL; c = strchr(c, '|') != NULL ? strchr(c, '|') + 1 : NULL) {
        if (n > 0 && strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == '\0')) {
            return true;
        }
    }
    return false;
}

// An empty text means the default; where it would then be other cells that are predicted, it is more likely a variable without a value.
static cpa_status set_string(cpa_options *o, const cpa_option *p, const char *text, cpa_source source)
{
    const bool is_meant = *text != '\0' || p->section != CPA_SECTION_PREDICTION || source != CPA_SOURCE_COMMAND_LINE;
    if (!is_meant || (p->choices != NULL && !is_choice(p->choices, text))) {
        return refuse(p, text);
    }
    char *copy = NULL;
    cpa_status st = cpa_strdup(*text != '\0' || p->can_be_none ? text : NULL, &copy);
    if (st == CPA_OK) {
        cpa_free(CPA_MEMBER(o, p, char *));
        *CPA_MEMBER(o, p, char *) = copy;
    }
    return st;
}

cpa_status cpa_option_assign_list(cpa_options *o, int i, const cpa_strings *items, cpa_source source)
{
    const cpa_option *p = &cpa_option_table()[i];
    cpa_strings *list = CPA_MEMBER(o, p, cpa_strings);
    cpa_status st = CPA_OK;
    bool is_none = p->can_be_none && items->n == 1;
    CPA_REQUIRE(is_none || cpa_strings_find(items, "") < 0, CPA_USAGE, "wants texts, one is empty");
    if (!p->repeat || o->source[i] != source) {
        cpa_strings_fini(list);
    }
    for (int64_t k = 0; k < items->n; k++) {
        CPA_TRY(cpa_strings_add(list, items->s[k]));
    }
    o->source[i] = (unsigned char)source;
cleanup:
    return st;
}

// A list as typed: one item of a list that repeats, else items separated by commas.
static cpa_status set_strings(cpa_options *o, int i, const char *text, cpa_source source)
{
    cpa_status st;
    cpa_strings items = {0};
    bool is_one = cpa_option_table()[i].repeat || *text == '\0';
    CPA_TRY(is_one ? cpa_strings_add(&items, text) : cpa_strings_split(&items, text, ','));
    st = cpa_option_assign_list(o, i, &items, source);
cleanup:
    cpa_strings_fini(&items);
    return st;
}

cpa_status cpa_option_assign(cpa_options *o, int i, const char *text, cpa_source source)
{
    const cpa_option *p = &cpa_option_table()[i];
    cpa_status st = CPA_OK;
    switch (p->type) {
    case CPA_OPTION_INT:
    case CPA_OPTION_INT64:
    case CPA_OPTION_REAL:
        st = set_number(o, p, text);
        break;
    case CPA_OPTION_BOOL:
        st = set_bool(o, p, text);
        break;
    case CPA_OPTION_STRING:
        st = set_string(o, p, text, source);
        break;
    case CPA_OPTION_STRINGS:
        return set_strings(o, i, text, source);
    }
    if (st == CPA_OK) {
        o->source[i] = (unsigned char)source;
    }
    return st;
}

// In the largest unit that says it exactly without a fraction, else in KiB with one.
static cpa_status show_size(int64_t bytes, cpa_text *t)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    int unit = 3;
    if (bytes == 0) {
        return cpa_text_add(t, "0");
    }
    while (unit > 0 && bytes % ((int64_t)1024 << 10 * unit) != 0) {
        unit--;
    }
    return cpa_text_add(t, "%.*f%s", bytes % 1024 != 0 ? 10 : 0, (double)bytes / (double)((int64_t)1024 << 10 * unit),
                        units[unit]);
}

cpa_status cpa_option_show(const cpa_options *o, int i, cpa_text *t)
{
    const cpa_option *p = &cpa_option_table()[i];
    switch (p->type) {
    case CPA_OPTION_INT:
        return cpa_text_add(t, "%d", *CPA_MEMBER_CONST(o, p, int));
    case CPA_OPTION_INT64:
        return p->size ? show_size(*CPA_MEMBER_CONST(o, p, int64_t), t)
                       : cpa_text_add(t, "%lld", (long long)*CPA_MEMBER_CONST(o, p, int64_t));
    case CPA_OPTION_REAL:
        return cpa_option_number(*CPA_MEMBER_CONST(o, p, double), t);
    case CPA_OPTION_BOOL:
        return cpa_text_add(t, "%s", *CPA_MEMBER_CONST(o, p, bool) ? "true" : "false");
    case CPA_OPTION_STRING: {
        const char *text = *CPA_MEMBER_CONST(o, p, char *);
        return cpa_text_add(t, "%s", text != NULL ? text : "");
    }
    case CPA_OPTION_STRINGS: {
        const cpa_strings *list = CPA_MEMBER_CONST(o, p, cpa_strings);
        cpa_status st = CPA_OK;
        for (int64_t k = 0; k < list->n && st == CPA_OK; k++) {
            st = cpa_text_add(t, "%s%s", k > 0 ? (p->repeat ? " " : ",") : "", list->s[k]);
        }
        return st;
    }
    }
    return CPA_OK;
}

cpa_status cpa_option_values(const cpa_options *o, int i, cpa_strings *out)
{
    const cpa_option *p = &cpa_option_table()[i];
    cpa_status st = CPA_OK;
    cpa_text one = {0};
    if (p->repeat) {
        const cpa_strings *list = CPA_MEMBER_CONST(o, p, cpa_strings);
        for (int64_t k = 0; k < list->n; k++) {
            CPA_TRY(cpa_strings_add(out, list->s[k]));
        }
    } else {
        CPA_TRY(cpa_option_show(o, i, &one));
        CPA_TRY(cpa_strings_add(out, cpa_text_str(&one)));
    }
cleanup:
    cpa_text_fini(&one);
    return st;
}

cpa_status cpa_option_copy(const cpa_options *from, cpa_options *to, int i)
{
    const cpa_option *p = &cpa_option_table()[i];
    cpa_status st = CPA_OK;
    cpa_option_fini(to, i);
    switch (p->type) {
    case CPA_OPTION_INT:
        *CPA_MEMBER(to, p, int) = *CPA_MEMBER_CONST(from, p, int);
        break;
    case CPA_OPTION_INT64:
        *CPA_MEMBER(to, p, int64_t) = *CPA_MEMBER_CONST(from, p, int64_t);
        break;
    case CPA_OPTION_REAL:
        *CPA_MEMBER(to, p, double) = *CPA_MEMBER_CONST(from, p, double);
        break;
    case CPA_OPTION_BOOL:
        *CPA_MEMBER(to, p, bool) = *CPA_MEMBER_CONST(from, p, bool);
        break;
    case CPA_OPTION_STRING:
        st = cpa_strdup(*CPA_MEMBER_CONST(from, p, char *), CPA_MEMBER(to, p, char *));
        break;
    case CPA_OPTION_STRINGS:
        st = cpa_strings_copy(CPA_MEMBER_CONST(from, p, cpa_strings), CPA_MEMBER(to, p, cpa_strings));
        break;
    }
    to->source[i] = from->source[i];
    return st;
}

void cpa_option_fini(cpa_options *o, int i)
{
    const cpa_option *p = &cpa_option_table()[i];
    if (p->type == CPA_OPTION_STRING) {
        cpa_free(CPA_MEMBER(o, p, char *));
    } else if (p->type == CPA_OPTION_STRINGS) {
        cpa_strings_fini(CPA_MEMBER(o, p, cpa_strings));
    }
}
