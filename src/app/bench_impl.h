// Owns: what the files of the command `bench` share. Never used outside them.
#ifndef CPA_APP_BENCH_IMPL_H
#define CPA_APP_BENCH_IMPL_H

#include "cpa/app/options.h"
#include "cpa/platform/comm.h"

/** The command `bench step`: what a step of training takes, and its operations. On one rank. Collective. */
cpa_status cpa_bench_step(cpa_comm *comm, const cpa_options *o);

#endif
