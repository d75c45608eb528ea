// Owns: what the files of the AnnData reader share. Never included outside src/data/h5ad*.c.
#ifndef CPA_DATA_H5AD_IMPL_H
#define CPA_DATA_H5AD_IMPL_H

#include "cpa/base/text.h"
#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"

struct cpa_h5ad {
    cpa_h5 *h5;
    int64_t n_cells, n_genes; // of what is selected
    const char *x, *var;      // where the counts and their genes are: "X" and "var", or those of `raw`
    int64_t n_stored;         // genes of the counts as they are stored
    int32_t *chosen;          // [n_genes] which of them are selected, or NULL: all in their order
    int32_t *place;           // [n_stored] where each is in `chosen`, -1: nowhere; NULL with it
};

/** As cpa_h5ad_select, whatever the layers are called. */
cpa_status cpa_h5ad_use(cpa_h5ad *f, bool raw);

/** Selects all genes again. */
void cpa_h5ad_choose_all(cpa_h5ad *f);

/** Name of a frame's index: a member of a group, the first field of a table. `frame` is a path. */
cpa_status cpa_h5ad_index_name(const cpa_h5 *h5, const char *frame, char **out);

/** Path and, in a table, field of a member of a frame; `field` is `name` or NULL. */
cpa_status cpa_h5ad_locate(const cpa_h5 *h5, const char *frame, const char *name, char **path, const char **field);

/** Where the categories of a column outside today's groups are; *out NULL when it has none. */
cpa_status cpa_h5ad_old_categories(const cpa_h5 *h5, const char *frame, const char *column, const char *path,
                                   const char *field, char **out);

/** Number of rows of "obs" or "var", from its index. */
cpa_status cpa_h5ad_frame_length(const cpa_h5 *h5, const char *frame, int64_t *n);

/** Reads any one-dimensional array (strings, numbers, booleans, categorical, nullable without gaps; `field` of a
 *  compound or NULL) as strings. BAD_DATA: another encoding, missing values, no valid UTF-8. `out` must be empty. */
cpa_status cpa_h5ad_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_strings *out);

/** The `encoding-type` of an object in a fresh string; "" when there is none. */
cpa_status cpa_h5ad_encoding(const cpa_h5 *h5, const char *path, char **out);

/** BAD_DATA when an object is written in a newer version of its encoding than is known here. */
cpa_status cpa_h5ad_check_version(const cpa_h5 *h5, const char *path);

/** Appends the quoted names, the nearest to `wanted` first (NULL: as they are), "none" when there are none. */
cpa_status cpa_h5ad_add_names(cpa_text *text, const cpa_strings *names, const char *wanted);

// ---- Writing

/** The smallest type that holds the codes of so many levels, as pandas stores them. */
cpa_h5_type cpa_h5ad_code_type(int64_t n_levels);

/** `n` codes as elements of that type. */
void cpa_h5ad_narrow(cpa_h5_type type, int64_t n, const int32_t *code, void *out);

/** The group of a categorical column and its categories; the codes are missing. */
cpa_status cpa_h5ad_begin_factor(cpa_h5 *f, const char *path, const cpa_strings *level);

#endif
