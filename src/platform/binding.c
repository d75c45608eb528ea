// Owns: asking the system where this rank may run, and putting the answers of all ranks side by side. Never changes an affinity.
#define _GNU_SOURCE
#include "cpa/platform/binding.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cpa/base/mem.h"

enum { MAX_NUMA = 64 };

// What a rank says of itself; sent as bytes, so zeroed first.
typedef struct place {
    char host[256];
    cpu_set_t cores;
    uint64_t numa; // bit i: some core of NUMA node i
    int threads;
} place;

// Sets the cores that a list such as "0-3,8" names.
static void parse_cores(const char *list, cpu_set_t *set)
{
    int first, last, used;
    CPU_ZERO(set);
    while (sscanf(list, "%d%n", &first, &used) == 1) {
        list += used;
        last = first;
        if (sscanf(list, "-%d%n", &last, &used) == 1) {
            list += used;
        }
        for (int core = first; core <= last && core < CPU_SETSIZE; core++) {
            CPU_SET(core, set);
        }
        list += *list == ',';
    }
}

// Which NUMA nodes a set of cores touches; 0 where the system does not say.
static uint64_t numa_of(const cpu_set_t *cores)
{
    uint64_t numa = 0;
    for (int node = 0; node < MAX_NUMA; node++) {
        char path[64], list[4096] = "";
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
        FILE *f = fopen(path, "r");
        if (f == NULL) {
            continue;
        }
        cpu_set_t of_node, both;
        parse_cores(fgets(list, sizeof list, f) != NULL ? list : "", &of_node);
        fclose(f);
        CPU_AND(&both, cores, &of_node);
        numa |= CPU_COUNT(&both) > 0 ? (uint64_t)1 << node : 0;
    }
    return numa;
}

static void ask_system(place *p)
{
    memset(p, 0, sizeof *p);
    if (gethostname(p->host, sizeof p->host - 1) != 0) {
        strcpy(p->host, "?");
    }
    if (sched_getaffinity(0, sizeof p->cores, &p->cores) != 0) {
        CPU_ZERO(&p->cores);
    }
    p->numa = numa_of(&p->cores);
    p->threads = omp_get_max_threads();
}

// Appends a set as a list such as "0-3,8".
static cpa_status add_cores(cpa_text *t, const cpu_set_t *set)
{
    cpa_status st = CPA_OK;
    const char *comma = "";
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, set)) {
            continue;
        }
        int last = core;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set)) {
            last++;
        }
        CPA_TRY(last > core ? cpa_text_add(t, "%s%d-%d", comma, core, last) : cpa_text_add(t, "%s%d", comma, core));
        comma = ",";
        core = last;
    }
cleanup:
    return st;
}

static cpa_status add_rank(cpa_text *t, const place *p, int rank)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_text_add(t, "rank %d on %s: cores ", rank, p->host));
    CPA_TRY(add_cores(t, &p->cores));
    for (int node = 0; node < MAX_NUMA; node++) {
        if (p->numa >> node & 1) {
            CPA_TRY(cpa_text_add(t, " (NUMA %d)", node));
        }
    }
    CPA_TRY(cpa_text_add(t, ", %d thread%s\n", p->threads, p->threads == 1 ? "" : "s"));
cleanup:
    return st;
}

// Problems of a rank by itself, and, once for each host, of its ranks together.
static cpa_status add_problems(cpa_text *t, const place *p, int n, int rank)
{
    cpa_status st = CPA_OK;
    const char *host = p[rank].host;
    int cores = CPU_COUNT(&p[rank].cores), ranks = 0, threads = 0;
    cpu_set_t all;
    if (cores > 0 && p[rank].threads > cores) {
        CPA_TRY(cpa_text_add(
            t,
            "rank %d on %s has %d threads on %d core%s; give it more cores (--cpus-per-task, --bind-to) or "
            "fewer threads (--threads)\n",
            rank, host, p[rank].threads, cores, cores == 1 ? "" : "s"));
    }
    CPU_ZERO(&all);
    for (int r = 0; r < n; r++) {
        if (strcmp(p[r].host, host) != 0) {
            continue;
        }
        if (r < rank) {
            return st; // said already
        }
        CPU_OR(&all, &all, &p[r].cores);
        threads += p[r].threads;
        ranks++;
    }
    if (ranks > 1 && CPU_COUNT(&all) > 0 && threads > CPU_COUNT(&all)) {
        CPA_TRY(cpa_text_add(t, "%s: %d ranks have %d threads on %d core%s between them and will wait for each other\n",
                             host, ranks, threads, CPU_COUNT(&all), CPU_COUNT(&all) == 1 ? "" : "s"));
    }
cleanup:
    return st;
}

cpa_status cpa_binding_describe(cpa_comm *comm, cpa_text *table, cpa_text *problems)
{
    cpa_status st;
    int n = cpa_comm_size(comm);
    place mine, *all = NULL;
    CPA_TRY(cpa_comm_agree(comm, cpa_alloc((size_t)n, sizeof *all, &all)));
    ask_system(&mine);
    CPA_TRY(cpa_comm_allgather(comm, &mine, all, sizeof mine));
    for (int r = 0; r < n; r++) {
        CPA_TRY(add_rank(table, &all[r], r));
        CPA_TRY(add_problems(problems, all, n, r));
    }
cleanup:
    cpa_free(&all);
    return st;
}
