// Owns: the command `simulate`: how large an atlas is asked for, and where it goes. Never draws anything itself.
#include <errno.h>
#include <stdlib.h>

#include "cpa/app/commands.h"
#include "cpa/app/rundir.h"
#include "cpa/base/log.h"
#include "cpa/data/simulate.h"

// A size from an option whose value is a text for other commands.
static cpa_status read_size(const char *option, const char *text, int64_t most, int64_t *out)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    if (!digits || n < 1 || n > most) {
        return cpa_fail(CPA_USAGE, "--%s: wants an integer, 1 to %lld, not '%s'", option, (long long)most, text);
    }
    *out = n;
    return CPA_OK;
}

// Rank 0's work.
static cpa_status simulate(const cpa_options *o, const cpa_simulate_config *config)
{
    cpa_status st;
    char *temporary = NULL;
    double started = cpa_seconds();
    CPA_TRY(cpa_output_begin_new(o->path, &temporary));
    CPA_TRY(cpa_simulate(config, temporary));
    CPA_TRY(cpa_output_commit(temporary, o->path));
    cpa_info("%s: %lld cells x %d genes in %.1f s", o->path, (long long)config->n_cells, config->n_genes,
             cpa_seconds() - started);
cleanup:
    if (st != CPA_OK) {
        cpa_output_discard(temporary);
    }
    cpa_free(&temporary);
    return st;
}

cpa_status cpa_cmd_simulate(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    cpa_simulate_config config = o->simulate; // borrows the texts
    int64_t n_genes = 0;
    CPA_TRY(read_size("cells", o->cells, UINT32_MAX, &config.n_cells));
    CPA_TRY(read_size("genes", o->data.genes, 1 << 20, &n_genes));
    config.n_genes = (int32_t)n_genes;
    config.gzip = o->gzip;
    config.seed = (uint64_t)o->data.seed;
    cpa_comm_phase("simulating");
    CPA_TRY(cpa_comm_agree_rested(comm, cpa_comm_alone(comm) ? simulate(o, &config) : CPA_OK));
cleanup:
    return st;
}
