// Owns: the cpu backend as an object: table, memory, scratch. Computes nothing; the operations live in backend_cpu_*.c.
#include "backend_cpu_impl.h"

#include <string.h>
#include <sys/mman.h>

#include "cpa/base/mem.h"

const cpa_ops cpa_cpu_ops = {
#define CPA_OP(name, params, args) .name = cpa_cpu_##name,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

// Blocks above one huge page begin at one: arenas walked from end to end then cost few address translations.
enum { LINE = 64, HUGE_PAGE = 1 << 21 };

void cpa_cpu_init(cpa_cpu *cpu, const char *name, const cpa_ops *ops, cpa_status (*destroy)(cpa_backend *be))
{
    cpu->base = (cpa_backend){.ops = ops, .name = name, .isa = cpa_cpu_isa(), .destroy = destroy};
}

void cpa_cpu_fini(cpa_cpu *cpu)
{
    cpa_free(&cpu->scratch);
}

static cpa_status destroy(cpa_backend *be)
{
    cpa_cpu *cpu = (cpa_cpu *)be;
    long live = cpu->live;
    cpa_cpu_fini(cpu);
    cpa_free(&cpu);
    if (live != 0) {
        return cpa_fail(CPA_INTERNAL, "backend cpu: %ld blocks of memory were never released; report this bug", live);
    }
    return CPA_OK;
}

cpa_status cpa_backend_create_cpu(cpa_backend **out)
{
    cpa_cpu *cpu = NULL;
    cpa_status st = cpa_alloc(1, sizeof *cpu, &cpu);
    if (st == CPA_OK) {
        cpa_cpu_init(cpu, "cpu", &cpa_cpu_ops, destroy);
        cpu->base.is_host = true;
        *out = &cpu->base;
    }
    return st;
}

static void *align_up(void *p, size_t to)
{
    return (void *)(((uintptr_t)p + to - 1) / to * to);
}

cpa_status cpa_cpu_scratch(cpa_backend *be, size_t bytes, void *out)
{
    cpa_status st = CPA_OK;
    cpa_cpu *cpu = (cpa_cpu *)be;
    if (bytes > cpu->scratch_bytes || cpu->scratch == NULL) {
        cpa_free(&cpu->scratch); // its content is not wanted any more
        cpu->scratch_bytes = 0;
        CPA_TRY(cpa_alloc(bytes + LINE, 1, &cpu->scratch));
        cpu->scratch_bytes = bytes;
    }
    void *p = align_up(cpu->scratch, LINE);
    memcpy(out, &p, sizeof p);
cleanup:
    return st;
}

// What stands in the line in front of every block.
typedef struct head {
    void *raw;      // for cpa_free
    size_t aligned; // to which it is
} head;

static size_t alignment(size_t bytes)
{
    return bytes >= HUGE_PAGE ? HUGE_PAGE : LINE;
}

// Counts what is left of a huge page on both sides of a block as not taken, times `sign`: nobody touches it.
static void count_gap(size_t aligned, int sign)
{
    cpa_memory_note(CPA_MEMORY_HOST, -sign * (long)(aligned - LINE));
}

size_t cpa_cpu_block_bytes(size_t bytes)
{
    return bytes + 2 * LINE;
}

cpa_status cpa_cpu_alloc(cpa_backend *be, size_t bytes, void **out)
{
    cpa_status st;
    cpa_cpu *cpu = (cpa_cpu *)be;
    head h = {.aligned = alignment(bytes)};
    CPA_TRY(cpa_alloc(bytes + h.aligned + LINE, 1, &h.raw));
    void *block = align_up((char *)h.raw + LINE, h.aligned);
    memcpy((char *)block - LINE, &h, sizeof h);
    count_gap(h.aligned, 1);
    if (h.aligned == HUGE_PAGE) {
        madvise(block, bytes, MADV_HUGEPAGE); // a wish: without it the block is as good, only slower
    }
    cpu->live++;
    *out = block;
cleanup:
    return st;
}

cpa_status cpa_cpu_release(cpa_backend *be, void *ptr)
{
    if (ptr != NULL) {
        cpa_cpu *cpu = (cpa_cpu *)be;
        head h;
        memcpy(&h, (char *)ptr - LINE, sizeof h);
        count_gap(h.aligned, -1);
        cpa_free(&h.raw);
        cpu->live--;
    }
    return CPA_OK;
}

cpa_status cpa_cpu_upload(cpa_backend *be, void *dev, const void *host, size_t bytes)
{
    (void)be;
    if (bytes > 0) {
        memcpy(dev, host, bytes);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_download(cpa_backend *be, void *host, const void *dev, size_t bytes)
{
    (void)be;
    if (bytes > 0) {
        memcpy(host, dev, bytes);
    }
    return CPA_OK;
}

cpa_status cpa_cpu_zero(cpa_backend *be, void *dev, size_t bytes)
{
    (void)be;
    if (bytes > 0) {
        memset(dev, 0, bytes);
    }
    return CPA_OK;
}
