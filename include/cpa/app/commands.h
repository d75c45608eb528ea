// Owns: the entry points of the commands. A new command is a row of CPA_COMMAND_LIST in options.h and its function.
// A command never exits and never prints its own failure; it returns the same status on all ranks.
#ifndef CPA_APP_COMMANDS_H
#define CPA_APP_COMMANDS_H

#include "cpa/app/options.h"
#include "cpa/platform/comm.h"

#define CPA_VERSION "0.1.0"

/** cpa_cmd_inspect, cpa_cmd_check, ...: does what `o` asks for. Results go to files or standard output (from rank 0),
 *  everything else to standard error. On failure no file that it began is left. Collective. */
#define X(name, NAME, usage, summary) cpa_status cpa_cmd_##name(cpa_comm *comm, const cpa_options *o);
CPA_COMMAND_LIST(X)
#undef X

#endif
