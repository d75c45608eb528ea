// Owns: what the files of the options share: finding an option, setting it from text, saying what it wants.
// Never used outside src/app/options*.c.
#ifndef CPA_APP_OPTIONS_IMPL_H
#define CPA_APP_OPTIONS_IMPL_H

#include "cpa/app/options.h"

/** The name nearest to a mistyped one among the options of `commands`, NULL when none is near. Static. */
const char *cpa_option_nearest(const char *name, unsigned commands);

/** Sets an option from a text as it is typed and notes the source. An empty text means none, or for options that
 *  cannot be none the default. A list that repeats grows when it is set from the same source again. USAGE with
 *  "wants ..., not '...'" as the message. */
cpa_status cpa_option_assign(cpa_options *o, int i, const char *text, cpa_source source);

/** Whether a text is true, yes, 1, false, no or 0, in any case, and which into *value (untouched otherwise). */
bool cpa_option_is_truth(const char *text, bool *value);

/** Sets a list from its items, else the same. */
cpa_status cpa_option_assign_list(cpa_options *o, int i, const cpa_strings *items, cpa_source source);

/** Appends what values the option takes: "an integer, 1 or more". */
cpa_status cpa_option_wants(const cpa_option *option, cpa_text *t);

/** Appends a number as the shortest text that reads back as the same. */
cpa_status cpa_option_number(double x, cpa_text *t);

/** Copies one option's value from `from` to `to`, freeing what was there. */
cpa_status cpa_option_copy(const cpa_options *from, cpa_options *to, int i);

/** Sets what the preset says of the options that nothing else has set; nothing without a preset. */
cpa_status cpa_preset_apply(cpa_options *o);

/** Sets the defaults that the chosen semantics has, where nothing else has set the option. */
cpa_status cpa_semantics_apply(cpa_options *o);

/** Appends the presets as `train --help` shows them. */
cpa_status cpa_presets_help(cpa_text *t);

/** Appends the presets as a section of docs/options.md. */
cpa_status cpa_presets_page(cpa_text *t);

/** Appends an option's name as it is typed: "--n-latent". */
cpa_status cpa_option_flag(const char *name, cpa_text *t);

/** Frees one option's value. */
void cpa_option_fini(cpa_options *o, int i);

// The member of an option.
#define CPA_MEMBER(o, option, type) ((type *)(void *)((char *)(o) + (option)->offset))
#define CPA_MEMBER_CONST(o, option, type) ((const type *)(const void *)((const char *)(o) + (option)->offset))

#endif
