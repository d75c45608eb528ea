// Owns: which rows of docs/semantics.md a training run meets: where it computes something else than upstream, and where
// upstream's habits shape it. Never changes an option.
#ifndef CPA_APP_SEMANTICS_H
#define CPA_APP_SEMANTICS_H

#include "cpa/app/options.h"
#include "cpa/base/text.h"

/** Appends the rows that change numbers of this run, separated by ", ", each in one of two texts: what differs from
 *  upstream ("T15 lr_schedule every (upstream: ...)"), and what is as upstream has it ("T11 mixup never happens").
 *  A row without effect here is in neither. */
cpa_status cpa_semantics_rows(const cpa_options *o, const cpa_registry *r, cpa_text *different, cpa_text *upstream);

/** Warns of options that do what upstream's do, but not what they seem to. */
void cpa_semantics_warn(const cpa_options *o, const cpa_registry *r);

#endif
