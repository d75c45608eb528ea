// Owns: options in YAML files, read and written through libyaml. Never knows what an option means.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "cpa/app/rundir.h"
#include "options_impl.h"

// Where reading stands.
typedef struct reader {
    cpa_options *o;
    const char *path;
    cpa_source source;
    yaml_document_t *doc;
    bool seen[CPA_N_OPTIONS];
} reader;

static const char *scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static long line_of(const yaml_node_t *node)
{
    return (long)node->start_mark.line + 1;
}

// Whether a scalar is YAML's null.
static bool is_null(const yaml_node_t *node)
{
    static const char *const texts[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(scalar(node), texts[i]) == 0) {
            return true;
        }
    }
    return false;
}

// Which option a key names, refusing what is unknown, said twice, or not to be said in this file.
static cpa_status find_key(reader *r, const yaml_node_t *key, int *out)
{
    if (key->type != YAML_SCALAR_NODE) {
        return cpa_fail(CPA_CONFIG, "%s:%ld: expected the name of an option", r->path, line_of(key));
    }
    const char *name = scalar(key);
    int i = cpa_option_find(name);
    bool is_exact = i >= 0 && strcmp(cpa_option_table()[i].name, name) == 0;
    const cpa_option *p = &cpa_option_table()[i >= 0 ? i : 0];
    if (!is_exact || (r->source == CPA_SOURCE_RUN && !cpa_option_is_remembered(p))) {
        const char *near = i >= 0 && !is_exact ? p->name : cpa_option_nearest(name, ~0u);
        bool has_hint = near != NULL && strcmp(near, name) != 0;
        return cpa_fail(CPA_CONFIG, "%s:%ld: unknown option '%s'%s%s%s (cpa-hpc help options lists them)", r->path,
                        line_of(key), name, has_hint ? "; did you mean " : "", has_hint ? near : "",
                        has_hint ? "?" : "");
    }
    if (strcmp(name, "config") == 0) {
        return cpa_fail(CPA_CONFIG, "%s:%ld: a configuration cannot name another one", r->path, line_of(key));
    }
    if (r->seen[i]) {
        return cpa_fail(CPA_CONFIG, "%s:%ld: '%s' is set a second time", r->path, line_of(key), name);
    }
    r->seen[i] = true;
    *out = i;
    return CPA_OK;
}

// The items of a list, each a scalar.
static cpa_status read_items(const reader *r, const yaml_node_t *node, cpa_strings *items)
{
    cpa_status st = CPA_OK;
    for (const yaml_node_item_t *k = node->data.sequence.items.start; k < node->data.sequence.items.top; k++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, *k);
        CPA_REQUIRE(item->type == YAML_SCALAR_NODE, CPA_USAGE, "wants texts, one is a list or a mapping");
        CPA_TRY(cpa_strings_add(items, scalar(item)));
    }
cleanup:
    return st;
}

static cpa_status set_value(const reader *r, cpa_options *o, int i, const yaml_node_t *value)
{
    const cpa_option *p = &cpa_option_table()[i];
    cpa_status st = CPA_OK;
    cpa_strings items = {0};
    bool is_text = p->type == CPA_OPTION_STRING || p->type == CPA_OPTION_STRINGS;
    if (value->type == YAML_SEQUENCE_NODE && p->type == CPA_OPTION_STRINGS) {
        CPA_TRY(read_items(r, value, &items));
        CPA_TRY(cpa_option_assign_list(o, i, &items, r->source));
    } else if (value->type != YAML_SCALAR_NODE) {
        st = cpa_fail(CPA_USAGE, "wants a single value, not a %s",
                      value->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
    } else if (is_null(value) && is_text && p->choices == NULL) {
        cpa_option_fini(o, i); // no value: inferred
        o->source[i] = (unsigned char)r->source;
    } else {
        CPA_TRY(cpa_option_assign(o, i, scalar(value), r->source));
    }
cleanup:
    cpa_strings_fini(&items);
    return st;
}

// Checks one key and its value, and keeps it where it is wanted and nothing better is there.
static cpa_status read_pair(reader *r, const yaml_node_pair_t *pair)
{
    cpa_status st;
    int i = -1;
    cpa_options ignored = {0};
    const yaml_node_t *key = yaml_document_get_node(r->doc, pair->key);
    const yaml_node_t *value = yaml_document_get_node(r->doc, pair->value);
    CPA_TRY(find_key(r, key, &i));
    bool is_taken = (cpa_option_table()[i].commands & 1u << r->o->command) != 0;
    bool is_wanted = r->o->source[i] < r->source && (is_taken || r->source == CPA_SOURCE_RUN);
    st = set_value(r, is_wanted ? r->o : &ignored, i, value);
    if (st == CPA_USAGE) {
        st = cpa_fail(CPA_CONFIG, "%s:%ld: %s: %s", r->path, line_of(value), scalar(key), cpa_message());
    }
cleanup:
    if (i >= 0) {
        cpa_option_fini(&ignored, i);
    }
    return st;
}

static cpa_status read_document(reader *r)
{
    cpa_status st = CPA_OK;
    const yaml_node_t *root = yaml_document_get_root_node(r->doc);
    if (root == NULL || (root->type == YAML_SCALAR_NODE && is_null(root))) {
        return CPA_OK; // nothing but comments
    }
    CPA_REQUIRE(root->type == YAML_MAPPING_NODE, CPA_CONFIG, "%s:%ld: expected lines of the form 'option: value'",
                r->path, line_of(root));
    const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
    for (; pair < root->data.mapping.pairs.top; pair++) {
        CPA_TRY(read_pair(r, pair));
    }
cleanup:
    return st;
}

// The next document of a file, which has no root behind the last one.
static cpa_status load(yaml_parser_t *parser, const char *path, yaml_document_t *doc, bool *has_doc)
{
    cpa_status st = CPA_OK;
    *has_doc = yaml_parser_load(parser, doc) != 0;
    CPA_REQUIRE(*has_doc, CPA_CONFIG, "%s:%ld: not YAML: %s", path, (long)parser->problem_mark.line + 1,
                parser->problem != NULL ? parser->problem : "unreadable");
cleanup:
    return st;
}

cpa_status cpa_options_read(cpa_options *o, const char *path, cpa_source source)
{
    cpa_status st = CPA_OK;
    yaml_parser_t parser;
    yaml_document_t doc, next;
    bool has_parser = false, has_doc = false, has_next = false;
    FILE *f = fopen(path, "rb");
    CPA_REQUIRE(f != NULL, CPA_NO_INPUT, "cannot read the configuration '%s': %s", path, strerror(errno));
    has_parser = yaml_parser_initialize(&parser) != 0;
    CPA_REQUIRE(has_parser, CPA_INTERNAL, "out of memory reading '%s'", path);
    yaml_parser_set_input_file(&parser, f);
    CPA_TRY(load(&parser, path, &doc, &has_doc));
    CPA_TRY(read_document(&(reader){.o = o, .path = path, .source = source, .doc = &doc}));
    if (yaml_document_get_root_node(&doc) != NULL) {
        CPA_TRY(load(&parser, path, &next, &has_next));
        CPA_REQUIRE(yaml_document_get_root_node(&next) == NULL, CPA_CONFIG,
                    "%s:%ld: a second document begins here; a configuration is a single one", path,
                    (long)next.start_mark.line + 1);
    }
cleanup:
    if (has_next) {
        yaml_document_delete(&next);
    }
    if (has_doc) {
        yaml_document_delete(&doc);
    }
    if (has_parser) {
        yaml_parser_delete(&parser);
    }
    if (f != NULL) {
        fclose(f);
    }
    return st;
}

// libyaml's output goes to a text.
static int append(void *text, unsigned char *bytes, size_t n)
{
    return cpa_text_add(text, "%.*s", (int)n, (const char *)bytes) == CPA_OK;
}

// Emits a scalar, in quotes where the option is a text, so that a column called "null" or "1" stays a text.
static int emit_scalar(yaml_emitter_t *emitter, const char *text, bool quoted)
{
    yaml_event_t event;
    yaml_scalar_style_t style = quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), !quoted,
                                        quoted, style) &&
           yaml_emitter_emit(emitter, &event);
}

static int emit_list(yaml_emitter_t *emitter, const cpa_strings *list)
{
    yaml_event_t event;
    int ok = yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE) &&
             yaml_emitter_emit(emitter, &event);
    for (int64_t i = 0; ok && i < list->n; i++) {
        ok = emit_scalar(emitter, list->s[i], true);
    }
    return ok && yaml_sequence_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

// Emits a number; "4e-07" becomes "4.0e-07", because YAML 1.1 readers take the former for a text.
static int emit_number(yaml_emitter_t *emitter, double x, bool is_real)
{
    cpa_text t = {0}, dotted = {0};
    cpa_status st = is_real ? cpa_option_number(x, &t) : cpa_text_add(&t, "%.0f", x);
    const char *text = cpa_text_str(&t), *exponent = strchr(text, 'e');
    if (st == CPA_OK && exponent != NULL && strchr(text, '.') == NULL) {
        st = cpa_text_add(&dotted, "%.*s.0%s", (int)(exponent - text), text, exponent);
        text = cpa_text_str(&dotted);
    }
    int ok = st == CPA_OK && emit_scalar(emitter, text, false);
    if (st != CPA_OK) {
        emitter->error = YAML_MEMORY_ERROR;
    }
    cpa_text_fini(&t);
    cpa_text_fini(&dotted);
    return ok;
}

static int emit_value(yaml_emitter_t *emitter, const cpa_options *o, const cpa_option *p)
{
    switch (p->type) {
    case CPA_OPTION_INT:
        return emit_number(emitter, *CPA_MEMBER_CONST(o, p, int), false);
    case CPA_OPTION_INT64:
        return emit_number(emitter, (double)*CPA_MEMBER_CONST(o, p, int64_t), false);
    case CPA_OPTION_REAL:
        return emit_number(emitter, *CPA_MEMBER_CONST(o, p, double), true);
    case CPA_OPTION_BOOL:
        return emit_scalar(emitter, *CPA_MEMBER_CONST(o, p, bool) ? "true" : "false", false);
    case CPA_OPTION_STRING: {
        const char *text = *CPA_MEMBER_CONST(o, p, char *);
        return emit_scalar(emitter, text != NULL ? text : "null", text != NULL && p->choices == NULL);
    }
    case CPA_OPTION_STRINGS:
        return emit_list(emitter, CPA_MEMBER_CONST(o, p, cpa_strings));
    }
    return 0;
}

// The document: one mapping of every option that a run remembers.
static int emit_document(yaml_emitter_t *emitter, const cpa_options *o)
{
    yaml_event_t event;
    int ok = yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) && yaml_emitter_emit(emitter, &event) &&
             yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) && yaml_emitter_emit(emitter, &event) &&
             yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE) &&
             yaml_emitter_emit(emitter, &event);
    for (int i = 0; ok && i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        if (cpa_option_is_remembered(p)) {
            ok = emit_scalar(emitter, p->name, false) && emit_value(emitter, o, p);
        }
    }
    return ok && yaml_mapping_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event) &&
           yaml_document_end_event_initialize(&event, 1) && yaml_emitter_emit(emitter, &event) &&
           yaml_stream_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

cpa_status cpa_options_write(const cpa_options *o, const char *path)
{
    cpa_status st;
    cpa_text text = {0};
    yaml_emitter_t emitter;
    bool has_emitter = yaml_emitter_initialize(&emitter) != 0;
    CPA_REQUIRE(has_emitter, CPA_INTERNAL, "out of memory writing '%s'", path);
    yaml_emitter_set_output(&emitter, append, &text);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    bool is_emitted = emit_document(&emitter, o) && yaml_emitter_flush(&emitter);
    // What `append` takes it also keeps in memory.
    bool is_short = emitter.error == YAML_MEMORY_ERROR || emitter.error == YAML_WRITER_ERROR;
    CPA_REQUIRE(is_emitted || !is_short, CPA_INTERNAL, "out of memory writing '%s'", path);
    CPA_REQUIRE(is_emitted, CPA_CONFIG, "the options cannot be written to '%s': %s", path,
                emitter.problem != NULL ? emitter.problem : "a value is not valid UTF-8");
    CPA_TRY(cpa_output_write(path, cpa_text_str(&text), text.n));
cleanup:
    if (has_emitter) {
        yaml_emitter_delete(&emitter);
    }
    cpa_text_fini(&text);
    return st;
}
