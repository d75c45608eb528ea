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

/** A number in a dictionary. */
cpa_status cpa_h5ad_write_number(cpa_h5 *f, const char *path, double value);

/** An array of float, compressed unless `gzip` is 0: [n] when n_cols is 0, else [n, n_cols]. */
cpa_status cpa_h5ad_write_floats(cpa_h5 *f, const char *path, int64_t n, int64_t n_cols, const float *value, int gzip);

/** Marks an object as an element of AnnData, which dispatches on these two attributes. */
cpa_status cpa_h5ad_encode(cpa_h5 *f, const char *object, const char *type, const char *version);

// ---- Elements of any length, piece by piece: each is opened, filled, and finished or closed. Finishing sets the pointer
// to NULL also on failure; closing gives up and is NULL-safe. All of `gzip` 0: plain, 1 to 9: compressed.

/** The group of a frame, its index in the member "_index", and the names of its columns, all of which the caller writes
 *  next. */
cpa_status cpa_h5ad_begin_frame(cpa_h5 *f, const char *frame, const cpa_strings *columns);

typedef struct cpa_h5ad_codes cpa_h5ad_codes; // a categorical column in the making

/** A categorical column with these levels (borrowed for the call) and no rows yet. */
cpa_status cpa_h5ad_codes_open(cpa_h5 *f, const char *path, const cpa_strings *level, int gzip, cpa_h5ad_codes **out);

/** Appends the codes of `n` rows, -1 where a value is missing. */
cpa_status cpa_h5ad_codes_add(cpa_h5ad_codes *c, int64_t n, const int32_t *code);

cpa_status cpa_h5ad_codes_finish(cpa_h5ad_codes **c);
void cpa_h5ad_codes_close(cpa_h5ad_codes **c);

typedef struct cpa_h5ad_sparse cpa_h5ad_sparse; // a sparse matrix in the making

/** A CSR or CSC matrix of n_cells x n_genes, with 32-bit indices and 64-bit pointers. `value` is F32 or F64, `chunk` the
 *  number of values in a chunk. */
cpa_status cpa_h5ad_sparse_open(cpa_h5 *f, const char *path, cpa_layout layout, int64_t n_cells, int64_t n_genes,
                                cpa_h5_type value, int64_t chunk, int gzip, cpa_h5ad_sparse **out);

/** Appends `n` rows (CSR) or columns (CSC), the k-th with the next count[k] of the indices and values. */
cpa_status cpa_h5ad_sparse_add(cpa_h5ad_sparse *m, int64_t n, const int64_t *count, const int32_t *index,
                               const void *value);

cpa_status cpa_h5ad_sparse_finish(cpa_h5ad_sparse **m);
void cpa_h5ad_sparse_close(cpa_h5ad_sparse **m);

/** The chunk that suits reading blocks of 64 neighbouring rows of `mean` values each: a block then begins and ends in
 *  chunks that it mostly uses. */
int64_t cpa_h5ad_sparse_chunk(double mean);

#endif
