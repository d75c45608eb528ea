// Owns: where ranks run: host, cores, NUMA nodes and threads of each, and what is wrong with that.
// Never binds anything: the launcher does.
#ifndef CPA_PLATFORM_BINDING_H
#define CPA_PLATFORM_BINDING_H

#include "cpa/base/text.h"
#include "cpa/platform/comm.h"

/** Writes a line per rank into `table` ("rank 1 on cn2: cores 4-7 (NUMA 0), 4 threads") and a line per problem into `problems`: more
 *  threads than cores in a rank, or in all ranks of a host together.
 *
 *  Ranks:   collective; every rank gets the same text.
 *  Source:  sched_getaffinity, /sys/devices/system/node, the OpenMP thread limit of the caller. */
cpa_status cpa_binding_describe(cpa_comm *comm, cpa_text *table, cpa_text *problems);

#endif
