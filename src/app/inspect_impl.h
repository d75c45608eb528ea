// Owns: what the files of the command `inspect` share: one JSON document, made by inspect_h5.c and inspect_h5ad.c and
// shown by cmd_inspect.c as text or JSON. Never used outside these files.
#ifndef CPA_APP_INSPECT_IMPL_H
#define CPA_APP_INSPECT_IMPL_H

#include <cjson/cJSON.h>

#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"

enum { CPA_INSPECT_FIRST = 8 }; // values shown of a column or a list

/** Adds what an AnnData file holds to `doc`: shapes, matrices, columns, uns. */
cpa_status cpa_inspect_h5ad(const char *path, cJSON *doc);

/** Adds what any other HDF5 file holds to `doc`: root attributes, arrays with shapes, digest. */
cpa_status cpa_inspect_h5(const cpa_h5 *f, cJSON *doc);

/** A new array of the first few strings, with "..." behind them when there are more. NULL when memory is short. */
cJSON *cpa_inspect_strings(const cpa_strings *list);

#endif
