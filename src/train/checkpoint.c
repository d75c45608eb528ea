// Owns: the layout of a checkpoint and how a state is copied into it. HDF5 lays the file out once; from then on states are copied
// to their places in it. Never reads a file (checkpoint_read.c).
#include "cpa/train/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint_impl.h"
#include "cpa/base/hash.h"
#include "cpa/base/log.h"

enum {
    CSV_ROOM = 1 << 20, // bytes, at least
    TOUCHED_AT_ONCE = 4 << 20,
};

struct cpa_checkpoint {
    cpa_h5 *file;     // while it is being laid out
    char *bytes;      // then, and already while they are made ready
    size_t n, n_used; // without the seal; of them touched
    size_t csv_room;
    int n_items, n_laid;
    struct place {
        size_t at, bytes;
    } * place; // [n_items]
};

static const char *const ARENA[] = {"", "adam_m/", "adam_v/", "best/"}; // what the names of their tensors begin with
enum { VALUE, MOMENT, SQUARE, BEST, N_ARENAS };

static cpa_dev_real *arena_of(const cpa_train_state *s, int arena)
{
    cpa_dev_real *const arenas[N_ARENAS] = {s->params->value, s->params->m, s->params->v, NULL};
    return arenas[arena];
}

int cpa_checkpoint_items(const cpa_train_state *s)
{
    return CPA_CHECKPOINT_FIELDS + N_ARENAS * s->params->n;
}

// The numbers beside the tensors.
static void field_item(const cpa_train_state *s, int i, cpa_checkpoint_item *item)
{
    double *sum;
    int64_t *n;
    int columns = cpa_history_sums(s->history, &sum, &n);
    const cpa_train_position *at = &s->at;
    const struct {
        const char *path;
        cpa_h5_type type;
        int64_t n;
        const void *from;
    } fields[CPA_CHECKPOINT_FIELDS] = {
        {"state/epoch", CPA_H5_I64, 1, &at->epoch},
        {"state/step", CPA_H5_I64, 1, &at->step},
        {"state/best_epoch", CPA_H5_I64, 1, &at->best_epoch},
        {"state/validations_since_best", CPA_H5_I64, 1, &at->waited},
        {"state/best_metric", CPA_H5_F64, 1, &at->best_metric},
        {"state/cells", CPA_H5_I64, 1, &at->cells},
        {"state/seconds", CPA_H5_F64, 1, &at->seconds},
        {"state/updates", CPA_H5_I64, CPA_N_OPTIMIZERS, s->optimizer->taken},
        {"state/optimizer_steps", CPA_H5_I64, 1, &s->optimizer->steps},
        {"state/history_sum", CPA_H5_F64, columns, sum},
        {"state/history_n", CPA_H5_I64, columns, n},
        {CPA_CHECKPOINT_CSV, CPA_H5_U8, 0, NULL},
    };
    *item = (cpa_checkpoint_item){.type = fields[i].type, .n = fields[i].n, .from = (void *)(uintptr_t)fields[i].from};
    snprintf(item->path, sizeof item->path, "%s", fields[i].path);
}

bool cpa_checkpoint_item_of(const cpa_train_state *s, int i, cpa_checkpoint_item *item)
{
    if (i < CPA_CHECKPOINT_FIELDS) {
        field_item(s, i, item);
        return true;
    }
    int arena = (i - CPA_CHECKPOINT_FIELDS) / s->params->n, id = (i - CPA_CHECKPOINT_FIELDS) % s->params->n;
    const cpa_param *p = &s->params->p[id];
    *item = (cpa_checkpoint_item){.type = (cpa_h5_type)CPA_H5_REAL, .n = cpa_param_size(p), .param = p, .id = id};
    item->arena = arena_of(s, arena);
    item->copy = arena == BEST ? s->best : NULL;
    snprintf(item->path, sizeof item->path, "%s%s", ARENA[arena], p->name);
    bool has_moments = p->at < s->params->n_trained;
    return item->n > 0 && (has_moments || (arena != MOMENT && arena != SQUARE));
}

static size_t element_bytes(cpa_h5_type type)
{
    return type == CPA_H5_U8 ? 1 : type == CPA_H5_F32 ? 4 : 8;
}

static cpa_status write_facts(cpa_h5 *f, const cpa_checkpoint_facts *facts)
{
    cpa_status st = CPA_OK;
    int version = CPA_CHECKPOINT_VERSION;
    CPA_TRY(cpa_h5_write_attr_string(f, "/", "format", CPA_CHECKPOINT_FORMAT));
    CPA_TRY(cpa_h5_write_attr_numbers(f, "/", "version", CPA_H5_I32, -1, &version));
    CPA_TRY(cpa_h5_write_attr_string(f, "/", "isa", facts->isa));
    CPA_TRY(cpa_h5_write_strings(f, "options/names", &facts->option));
    CPA_TRY(cpa_h5_write_strings(f, "options/values", &facts->option_value));
    CPA_TRY(cpa_h5_write_strings(f, "data/names", &facts->data));
    CPA_TRY(cpa_h5_write_strings(f, "data/values", &facts->data_value));
cleanup:
    return st;
}

cpa_status cpa_checkpoint_create(const cpa_train_state *s, const cpa_checkpoint_facts *facts, cpa_checkpoint **out)
{
    cpa_status st;
    cpa_checkpoint *c = NULL;
    size_t csv = strlen(cpa_history_csv(s->history));
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    c->csv_room = 2 * csv + 2 > CSV_ROOM ? 2 * csv + 2 : CSV_ROOM;
    c->n_items = cpa_checkpoint_items(s);
    CPA_TRY(cpa_alloc((size_t)c->n_items, sizeof *c->place, &c->place));
    CPA_TRY(cpa_h5_image_create("the checkpoint", true, &c->file));
    CPA_TRY(write_facts(c->file, facts));
    *out = c;
    c = NULL;
cleanup:
    cpa_checkpoint_destroy(&c);
    return st;
}

void cpa_checkpoint_destroy(cpa_checkpoint **c)
{
    if (*c != NULL) {
        cpa_h5_close(&(*c)->file);
        cpa_free(&(*c)->bytes);
        cpa_free(&(*c)->place);
        cpa_free(c);
    }
}

bool cpa_checkpoint_is_small(const cpa_checkpoint *c, const cpa_train_state *s)
{
    return strlen(cpa_history_csv(s->history)) >= c->csv_room;
}

static cpa_status lay_item(cpa_checkpoint *c, const cpa_train_state *s, int i)
{
    cpa_status st = CPA_OK;
    cpa_checkpoint_item item;
    if (!cpa_checkpoint_item_of(s, i, &item)) {
        return CPA_OK;
    }
    int64_t n = strcmp(item.path, CPA_CHECKPOINT_CSV) == 0 ? (int64_t)c->csv_room : item.n;
    int64_t matrix[2] = {item.param != NULL ? item.param->rows : 0, item.param != NULL ? item.param->cols : 0};
    bool is_matrix = item.param != NULL && item.param->rank == 2;
    CPA_TRY(cpa_h5_write(c->file, item.path, item.type, is_matrix ? 2 : 1, is_matrix ? matrix : &n, NULL, 0));
    CPA_TRY(cpa_h5_image_place(c->file, item.path, &c->place[i].at));
    c->place[i].bytes = (size_t)n * element_bytes(item.type);
cleanup:
    return st;
}

// Has memory for the file at hand, a little at a time: the first touch of a page takes longer than copying it.
static cpa_status make_room(cpa_checkpoint *c)
{
    cpa_status st = CPA_OK;
    if (c->bytes == NULL) {
        CPA_TRY(cpa_h5_image_size(c->file, &c->n));
        CPA_TRY(cpa_alloc(c->n + CPA_CHECKPOINT_SEAL, 1, &c->bytes));
    }
    size_t piece = c->n - c->n_used < TOUCHED_AT_ONCE ? c->n - c->n_used : TOUCHED_AT_ONCE;
    memset(c->bytes + c->n_used, 0, piece);
    c->n_used += piece;
cleanup:
    return st;
}

static bool is_ready(const cpa_checkpoint *c)
{
    return c->bytes != NULL && c->n_used == c->n;
}

cpa_status cpa_checkpoint_lay(cpa_checkpoint *c, const cpa_train_state *s, double seconds, bool *done)
{
    cpa_status st = CPA_OK;
    double start = cpa_seconds();
    bool was_ready = is_ready(c);
    while (!is_ready(c)) {
        CPA_TRY(c->n_laid < c->n_items ? lay_item(c, s, c->n_laid++) : make_room(c));
        if (cpa_seconds() - start >= seconds) {
            break;
        }
    }
    // Copying all of it takes as long as several items: not in the pause of the last ones, if they took theirs.
    if (is_ready(c) && c->file != NULL && (was_ready || cpa_seconds() - start < seconds)) {
        CPA_TRY(cpa_h5_image_take(&c->file, c->bytes, c->n));
    }
    *done = c->file == NULL;
cleanup:
    return st;
}

cpa_status cpa_checkpoint_take(cpa_checkpoint *c, const cpa_train_state *s)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < c->n_items; i++) {
        cpa_checkpoint_item item;
        char *to = c->bytes + c->place[i].at;
        if (!cpa_checkpoint_item_of(s, i, &item)) {
            continue;
        }
        if (item.param != NULL && item.copy != NULL) {
            cpa_params_unpack(s->params, item.copy, item.id, (cpa_real *)(void *)to);
        } else if (item.param != NULL) {
            CPA_TRY(cpa_params_get(s->params, item.arena, item.id, (cpa_real *)(void *)to));
        } else if (item.from != NULL) {
            memcpy(to, item.from, c->place[i].bytes);
        } else {
            strncpy(to, cpa_history_csv(s->history), c->place[i].bytes); // zeros behind it
        }
    }
cleanup:
    return st;
}

// The seal: a word that names it, the length of the file, the digest of all before.
static void put_u64(char *to, uint64_t x)
{
    for (int k = 0; k < 8; k++) {
        to[k] = (char)(x >> (8 * k));
    }
}

static uint64_t get_u64(const char *from)
{
    uint64_t x = 0;
    for (int k = 0; k < 8; k++) {
        x |= (uint64_t)(unsigned char)from[k] << (8 * k);
    }
    return x;
}

static const char SEAL_WORD[8] = {'C', 'P', 'A', 'S', 'E', 'A', 'L', '1'};

void cpa_checkpoint_seal(cpa_checkpoint *c, const void **bytes, size_t *n)
{
    for (int i = 0; i < c->n_items; i++) {
        if (c->place[i].bytes > 0) {
            cpa_h5_image_check(c->bytes, c->place[i].at, c->place[i].bytes);
        }
    }
    memcpy(c->bytes + c->n, SEAL_WORD, sizeof SEAL_WORD);
    put_u64(c->bytes + c->n + 8, c->n + CPA_CHECKPOINT_SEAL);
    put_u64(c->bytes + c->n + 16, cpa_hash(CPA_HASH_START, c->bytes, c->n + 16));
    *bytes = c->bytes;
    *n = c->n + CPA_CHECKPOINT_SEAL;
}

bool cpa_checkpoint_is_whole(const void *bytes, size_t n, const char **why)
{
    const char *b = bytes;
    const char *seal = n >= CPA_CHECKPOINT_SEAL ? b + n - CPA_CHECKPOINT_SEAL : NULL;
    if (seal == NULL || memcmp(seal, SEAL_WORD, sizeof SEAL_WORD) != 0) {
        *why = "its end is missing";
    } else if (get_u64(seal + 8) != n) {
        *why = "a part of it is missing";
    } else if (get_u64(seal + 16) != cpa_hash(CPA_HASH_START, b, n - 8)) {
        *why = "its bytes are not those that were written";
    } else {
        return true;
    }
    return false;
}
