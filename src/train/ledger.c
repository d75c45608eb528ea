// Owns: adding up what items take. Never asks the system, only the program's own account.
#include "cpa/train/ledger.h"

static const char *const name[CPA_N_ITEMS] = {
#define X(name, NAME, what) #name,
    CPA_ITEM_LIST(X)
#undef X
};

static const char *const text[CPA_N_ITEMS] = {
#define X(name, NAME, what) what,
    CPA_ITEM_LIST(X)
#undef X
};

const char *cpa_item_name(cpa_item item)
{
    return name[item];
}

const char *cpa_item_text(cpa_item item)
{
    return text[item];
}

void cpa_ledger_begin(cpa_ledger *l)
{
    *l = (cpa_ledger){0};
    for (int k = 0; k < CPA_N_MEMORY; k++) {
        l->seen[k] = cpa_memory_bytes((cpa_memory)k);
    }
}

void cpa_ledger_enter(cpa_ledger *l, cpa_item item)
{
    for (int k = 0; l != NULL && k < CPA_N_MEMORY; k++) {
        long now = cpa_memory_bytes((cpa_memory)k);
        l->bytes[item][k] += now - l->seen[k];
        l->seen[k] = now;
    }
}

void cpa_ledger_enter_model(cpa_ledger *l, const cpa_params *t)
{
    cpa_memory where = cpa_backend_memory(t->be);
    const struct {
        cpa_item item;
        int64_t n;
    } arena[] = {{CPA_ITEM_VALUES, t->n_value}, {CPA_ITEM_GRADIENTS, t->n_grad}, {CPA_ITEM_MOMENTS, 2 * t->n_trained}};
    cpa_ledger_enter(l, CPA_ITEM_ACTIVATIONS);
    for (size_t i = 0; i < sizeof arena / sizeof *arena; i++) {
        long bytes = (long)arena[i].n * (long)sizeof(cpa_real);
        l->bytes[arena[i].item][where] += bytes;
        l->bytes[CPA_ITEM_ACTIVATIONS][where] -= bytes;
    }
}

long cpa_ledger_item(const cpa_ledger *l, cpa_item item)
{
    long sum = 0;
    for (int k = 0; k < CPA_N_MEMORY; k++) {
        sum += l->bytes[item][k];
    }
    return sum;
}

long cpa_ledger_total(const cpa_ledger *l, cpa_memory where)
{
    long sum = 0;
    for (int i = 0; i < CPA_N_ITEMS; i++) {
        sum += l->bytes[i][where];
    }
    return sum;
}
