// Owns: taking a state out of a checkpoint. Only ever given bytes whose seal is whole; never writes one (checkpoint.c).
#include <string.h>

#include "checkpoint_impl.h"

cpa_status cpa_checkpoint_fact(cpa_strings *name, cpa_strings *value, const char *n, const char *v)
{
    cpa_status st = cpa_strings_add(name, n);
    return st == CPA_OK ? cpa_strings_add(value, v) : st;
}

void cpa_checkpoint_facts_fini(cpa_checkpoint_facts *facts)
{
    cpa_strings_fini(&facts->option);
    cpa_strings_fini(&facts->option_value);
    cpa_strings_fini(&facts->data);
    cpa_strings_fini(&facts->data_value);
    cpa_free(&facts->isa);
}

static cpa_status check_format(const cpa_h5 *f)
{
    cpa_status st = CPA_OK;
    char *format = NULL;
    int64_t version;
    int n;
    CPA_TRY(cpa_h5_attr_string(f, "/", "format", &format));
    CPA_TRY(cpa_h5_attr_numbers(f, "/", "version", CPA_H5_I64, 1, &version, &n));
    CPA_REQUIRE(strcmp(format, CPA_CHECKPOINT_FORMAT) == 0 && n == 1 && version == CPA_CHECKPOINT_VERSION, CPA_BAD_DATA,
                "'%s' is of format '%s' version %lld; this program goes on from '%s' version %d", cpa_h5_path(f),
                format, (long long)version, CPA_CHECKPOINT_FORMAT, CPA_CHECKPOINT_VERSION);
cleanup:
    cpa_free(&format);
    return st;
}

cpa_status cpa_checkpoint_read_facts(const char *name, const void *bytes, size_t n, cpa_checkpoint_facts *facts)
{
    cpa_status st;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_image_open(name, bytes, n, &f));
    CPA_TRY(check_format(f));
    CPA_TRY(cpa_h5_attr_string(f, "/", "isa", &facts->isa));
    CPA_TRY(cpa_h5_read_into(f, "state/epoch", CPA_H5_I64, 1, &facts->epochs));
    CPA_TRY(cpa_h5_read_strings(f, "options/names", &facts->option));
    CPA_TRY(cpa_h5_read_strings(f, "options/values", &facts->option_value));
    CPA_TRY(cpa_h5_read_strings(f, "data/names", &facts->data));
    CPA_TRY(cpa_h5_read_strings(f, "data/values", &facts->data_value));
    CPA_REQUIRE(facts->option.n == facts->option_value.n && facts->data.n == facts->data_value.n, CPA_BAD_DATA,
                "'%s': names and values of its options or data do not pair up", name);
cleanup:
    cpa_h5_close(&f);
    return st;
}

// The history's text, stored as bytes with zeros behind it.
static cpa_status read_csv(const cpa_h5 *f, cpa_history *history)
{
    cpa_status st;
    cpa_h5_info info;
    int64_t *byte = NULL;
    char *csv = NULL;
    CPA_TRY(cpa_h5_read(f, CPA_CHECKPOINT_CSV, CPA_H5_I64, &byte, &info));
    CPA_TRY(cpa_alloc((size_t)info.n + 1, 1, &csv));
    for (int64_t i = 0; i < info.n; i++) {
        csv[i] = (char)byte[i];
    }
    CPA_TRY(cpa_history_restore(history, csv));
cleanup:
    cpa_free(&byte);
    cpa_free(&csv);
    return st;
}

static cpa_status read_tensor(const cpa_h5 *f, const cpa_train_state *s, const cpa_checkpoint_item *item)
{
    cpa_status st;
    cpa_real *host = NULL;
    CPA_TRY(cpa_alloc((size_t)item->n, sizeof *host, &host));
    CPA_TRY(cpa_h5_read_into(f, item->path, item->type, item->n, host));
    if (item->copy != NULL) {
        cpa_params_pack(s->params, item->copy, item->id, host);
    } else {
        CPA_TRY(cpa_params_put(s->params, item->arena, item->id, host));
    }
cleanup:
    cpa_free(&host);
    return st;
}

cpa_status cpa_checkpoint_restore(const char *name, const void *bytes, size_t n, cpa_train_state *s)
{
    cpa_status st;
    cpa_h5 *f = NULL;
    CPA_TRY(cpa_h5_image_open(name, bytes, n, &f));
    CPA_TRY(check_format(f));
    for (int i = 0; i < cpa_checkpoint_items(s); i++) {
        cpa_checkpoint_item item;
        if (!cpa_checkpoint_item_of(s, i, &item)) {
            continue;
        }
        if (item.param != NULL) {
            CPA_TRY(read_tensor(f, s, &item));
        } else if (item.from != NULL) {
            CPA_TRY(cpa_h5_read_into(f, item.path, item.type, item.n, item.from));
        } else {
            CPA_TRY(read_csv(f, s->history));
        }
    }
cleanup:
    cpa_h5_close(&f);
    return st;
}
