// Owns: what the files of the AnnData reader share. Never included outside src/data/h5ad*.c.
#ifndef CPA_DATA_H5AD_IMPL_H
#define CPA_DATA_H5AD_IMPL_H

#include "cpa/base/text.h"
#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"

struct cpa_h5ad {
    cpa_h5 *h5;
    int64_t n_cells, n_genes;
};

/** Number of rows of "obs" or "var", from its index. */
cpa_status cpa_h5ad_frame_length(const cpa_h5 *h5, const char *frame, int64_t *n);

/** Reads any one-dimensional array (strings, numbers, booleans, categorical, nullable without gaps; `field` of a
 *  compound or NULL) as strings. BAD_DATA: another encoding, missing values, no valid UTF-8. `out` must be empty. */
cpa_status cpa_h5ad_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_strings *out);

/** The `encoding-type` of an object in a fresh string; "" when there is none. */
cpa_status cpa_h5ad_encoding(const cpa_h5 *h5, const char *path, char **out);

/** Appends the quoted names, the nearest to `wanted` first (NULL: as they are), "none" when there are none. */
cpa_status cpa_h5ad_add_names(cpa_text *text, const cpa_strings *names, const char *wanted);

#endif
