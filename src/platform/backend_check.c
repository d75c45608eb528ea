// Owns: the check backend: the arithmetic of `cpu` behind the manners of a device, to find without one what would go
// wrong there. Device memory cannot be read or written outside operations. Never used for real runs.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend_cpu_impl.h"
#include "cpa/base/mem.h"

enum { ZONE = 64, ZONE_BYTE = 0xA5, FRESH_BYTE = 0xFF }; // a float, a double of these bytes is NaN, an int32 -1

// One allocation: a mapping of its own, with a red zone before the block and one behind it, up to the mapping's end.
typedef struct region {
    unsigned char *base;
    size_t mapped, bytes;
} region;

typedef struct check {
    cpa_cpu cpu; // first: the cpu's operations take this backend as their own
    cpa_ops inner;
    region *regions;
    int n;
} check;

static cpa_status protect(cpa_backend *be, int access)
{
    const check *c = (const check *)be;
    for (int i = 0; i < c->n; i++) {
        if (mprotect(c->regions[i].base, c->regions[i].mapped, access) != 0) {
            return cpa_fail(CPA_INTERNAL, "backend check: the protection of %zu bytes could not be changed",
                            c->regions[i].mapped);
        }
    }
    return CPA_OK;
}

static bool zones_intact(const region *r)
{
    for (size_t i = 0; i < ZONE; i++) {
        if (r->base[i] != ZONE_BYTE) {
            return false;
        }
    }
    for (size_t i = ZONE + r->bytes; i < r->mapped; i++) {
        if (r->base[i] != ZONE_BYTE) {
            return false;
        }
    }
    return true;
}

static cpa_status region_alloc(cpa_backend *be, size_t bytes, void **out)
{
    cpa_status st;
    check *c = (check *)be;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (bytes + 2 * ZONE + page - 1) / page * page;
    CPA_TRY(cpa_realloc((size_t)c->n + 1, sizeof *c->regions, &c->regions));
    void *base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CPA_REQUIRE(base != MAP_FAILED, CPA_INTERNAL, "backend check: out of memory: %zu bytes could not be mapped",
                mapped);
    region r = {.base = base, .mapped = mapped, .bytes = bytes};
    cpa_memory_note(CPA_MEMORY_HOST, (long)mapped);
    memset(r.base, ZONE_BYTE, mapped);
    memset(r.base + ZONE, FRESH_BYTE, bytes);
    c->regions[c->n++] = r;
    *out = r.base + ZONE;
cleanup:
    return st;
}

static cpa_status region_release(cpa_backend *be, void *ptr)
{
    check *c = (check *)be;
    if (ptr == NULL) {
        return CPA_OK;
    }
    for (int i = 0; i < c->n; i++) {
        region r = c->regions[i];
        if (r.base + ZONE == (unsigned char *)ptr) {
            bool intact = zones_intact(&r);
            munmap(r.base, r.mapped);
            cpa_memory_note(CPA_MEMORY_HOST, -(long)r.mapped);
            c->regions[i] = c->regions[--c->n];
            if (!intact) {
                return cpa_fail(CPA_INTERNAL,
                                "backend check: a block of %zu bytes was written out of bounds; report this bug",
                                r.bytes);
            }
            return CPA_OK;
        }
    }
    return cpa_fail(CPA_INTERNAL, "backend check: %p is released, but is no block, or no more; report this bug", ptr);
}

// Every operation: open the memory, run the cpu's, close it again.
#define CPA_OP(name, params, args)                                                                                     \
    static cpa_status guarded_##name params                                                                            \
    {                                                                                                                  \
        cpa_status opened = protect(be, PROT_READ | PROT_WRITE);                                                       \
        cpa_status done = opened == CPA_OK ? ((check *)be)->inner.name args : opened;                                  \
        cpa_status closed = protect(be, PROT_NONE);                                                                    \
        return done != CPA_OK ? done : closed;                                                                         \
    }
#include "cpa/platform/ops.def"
#undef CPA_OP

static const cpa_ops guarded_ops = {
#define CPA_OP(name, params, args) .name = guarded_##name,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

static cpa_status destroy(cpa_backend *be)
{
    check *c = (check *)be;
    int leaked = c->n, broken = 0;
    cpa_status st = protect(be, PROT_READ | PROT_WRITE);
    for (int i = 0; i < c->n; i++) {
        broken += st == CPA_OK && !zones_intact(&c->regions[i]);
        munmap(c->regions[i].base, c->regions[i].mapped);
        cpa_memory_note(CPA_MEMORY_HOST, -(long)c->regions[i].mapped);
    }
    cpa_free(&c->regions);
    cpa_cpu_fini(&c->cpu);
    cpa_free(&c);
    if (leaked > 0) {
        return cpa_fail(CPA_INTERNAL,
                        "backend check: %d blocks of memory were never released, "
                        "%d of them were written out of bounds; report this bug",
                        leaked, broken);
    }
    return st;
}

cpa_status cpa_backend_create_check(cpa_backend **out)
{
    check *c = NULL;
    cpa_status st = cpa_alloc(1, sizeof *c, &c);
    if (st == CPA_OK) {
        cpa_cpu_init(&c->cpu, "check", &guarded_ops, destroy);
        c->inner = cpa_cpu_ops;
        c->inner.alloc = region_alloc;
        c->inner.release = region_release;
        *out = &c->cpu.base;
    }
    return st;
}
