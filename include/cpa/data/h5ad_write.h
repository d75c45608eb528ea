// Owns: the parts of an AnnData file that this program writes: frames, matrices, dictionaries. Their bytes depend on
// their content alone; files open in anndata 0.8 and later, in memory and backed. The caller opens and finishes the
// file.
#ifndef CPA_DATA_H5AD_WRITE_H
#define CPA_DATA_H5AD_WRITE_H

#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"

// A column of a frame: exactly one of the arrays is set. Borrowed.
typedef struct cpa_h5ad_column {
    const char *name;
    const cpa_factor *factor; // a categorical; every level is written
    const cpa_strings *strings;
    const int64_t *integer; // [length of the index]
} cpa_h5ad_column;

/** Marks the root of a fresh file as AnnData. */
cpa_status cpa_h5ad_write_root(cpa_h5 *f);

/** Writes the frame "obs" or "var" with its index and columns, in the order given. INTERNAL when a length differs. */
cpa_status cpa_h5ad_write_frame(cpa_h5 *f, const char *frame, const cpa_strings *index, const cpa_h5ad_column *column,
                                int n_columns);

/** Makes room for a dense matrix of float, contiguous, at "X" or "layers/NAME"; *offset is where its first byte
 *  will be. */
cpa_status cpa_h5ad_write_matrix(cpa_h5 *f, const char *path, int64_t n_rows, int64_t n_cols, int64_t *offset);

/** A dictionary, such as "uns" or "layers", and scalars in it. */
cpa_status cpa_h5ad_write_dict(cpa_h5 *f, const char *path);
cpa_status cpa_h5ad_write_text(cpa_h5 *f, const char *path, const char *text);
cpa_status cpa_h5ad_write_list(cpa_h5 *f, const char *path, const cpa_strings *list);

#endif
