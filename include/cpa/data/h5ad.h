// Owns: what an AnnData file holds: its names, columns, lists and the description of its matrices. No training policy.
// Every rank opens the file by itself; nothing here is collective. HDF5 is reached through platform/h5 alone.
#ifndef CPA_DATA_H5AD_H
#define CPA_DATA_H5AD_H

#include <stdbool.h>

#include "cpa/base/mem.h"
#include "cpa/platform/chunks.h"

typedef struct cpa_h5ad cpa_h5ad;

// A column of obs or var as integers: code[i] is the position of cell i's value in `level`, -1 where it is missing.
// Levels of a categorical column keep the file's order, unused ones included; those of other columns are sorted
// (numbers by value). Booleans are "True"/"False", integers decimal, floats the shortest text that reads back as the
// same number ("0.2", "1").
typedef struct cpa_factor {
    int64_t n;
    int32_t *code;
    cpa_strings level;
} cpa_factor;

typedef enum cpa_layout { CPA_LAYOUT_CSR, CPA_LAYOUT_CSC, CPA_LAYOUT_DENSE } cpa_layout;

// What a matrix looks like on disk.
typedef struct cpa_matrix_info {
    cpa_layout layout;
    int64_t n_cells, n_genes, nnz; // nnz: stored values (n_cells * n_genes when dense)
    char dtype[16];                // "float32", "int64", ...
    char filters[64];              // "gzip", "lzf", "shuffle+gzip", "none"
    int64_t chunk;                 // elements of a chunk of `data`, 0 when contiguous
} cpa_matrix_info;

/** Opens a file for reading. NO_INPUT: no such path. BAD_DATA: not HDF5, truncated, a Git LFS pointer, another format
 *  (10x, loom, MuData), no obs or var; each said with the path. */
cpa_status cpa_h5ad_open(const char *path, cpa_h5ad **out);

/** Says which counts are meant: X or a layer with the genes of var or, when `layer` is "raw" and no layer has that name, raw/X
 *  with the genes of raw/var. Of these genes `genes` names some: a boolean column of var, or a file with a name on each line;
 *  NULL is all. They keep the order of the file. From then on index, number of genes and matrices are those of the
 *  selection. BAD_DATA: there is no raw/X; no such column and no such file; a name that is not there, or twice; no gene is
 *  left. Without this call, X and the layers with all genes. */
cpa_status cpa_h5ad_select(cpa_h5ad *f, const char *layer, const char *genes);

/** The same with the genes named, in this order. `whose` says in messages where the names come from. */
cpa_status cpa_h5ad_select_names(cpa_h5ad *f, const char *layer, const cpa_strings *names, const char *whose);

/** Closes it and sets *f to NULL; NULL-safe. */
void cpa_h5ad_close(cpa_h5ad **f);

const char *cpa_h5ad_path(const cpa_h5ad *f);
int64_t cpa_h5ad_n_cells(const cpa_h5ad *f);
int64_t cpa_h5ad_n_genes(const cpa_h5ad *f);

/** Names of the columns of "obs" or "var", in column order, without the index. */
cpa_status cpa_h5ad_columns(cpa_h5ad *f, const char *frame, cpa_strings *out);

/** The names of the cells ("obs") or genes ("var"). */
cpa_status cpa_h5ad_index(cpa_h5ad *f, const char *frame, cpa_strings *out);

/** Reads a column as a factor. BAD_DATA when it is missing (lists the columns there are, nearest name first), of the
 *  wrong length, has a code out of range or no valid UTF-8. The caller frees it with cpa_factor_fini. */
cpa_status cpa_h5ad_factor(cpa_h5ad *f, const char *frame, const char *column, cpa_factor *out);

/** Frees a factor. */
void cpa_factor_fini(cpa_factor *factor);

/** Whether obs has this column. */
bool cpa_h5ad_has_column(cpa_h5ad *f, const char *frame, const char *column);

/** Names of the layers. */
cpa_status cpa_h5ad_layers(cpa_h5ad *f, cpa_strings *out);

/** Names of the members of `uns`, or of the dictionary uns/<key> when key is not NULL (empty when there is none). */
cpa_status cpa_h5ad_uns_keys(cpa_h5ad *f, const char *key, cpa_strings *out);

/** The list of strings uns/<key>/<name>; empty and CPA_OK when it is missing. Names may contain any character but '/',
 *  and a name with '/' is looked up as nested groups. */
cpa_status cpa_h5ad_uns_list(cpa_h5ad *f, const char *key, const char *name, cpa_strings *out);

/** Describes X (layer NULL) or a layer; "raw" is raw/X where it was selected. BAD_DATA when it is missing (lists the layers), has an unknown encoding, a
 *  shape other than obs x var, or parts of unequal length. */
cpa_status cpa_h5ad_matrix_info(cpa_h5ad *f, const char *layer, cpa_matrix_info *out);

/** Where X (layer NULL) or a layer is in the file, in a fresh string: "X", "layers/counts", "raw/X". */
cpa_status cpa_h5ad_matrix_path(const cpa_h5ad *f, const char *layer, char **out);

// A matrix by its stored chunks, to be read without HDF5.
typedef struct cpa_h5ad_raw {
    cpa_matrix_info info;
    char *path;                 // "X" or "layers/counts"
    cpa_chunks *data, *indices; // owned; dense: data alone
    int64_t n_stored;           // genes as they are stored, and
    const int32_t *place;       // [n_stored] which of info.n_genes each is, -1: none; NULL: all in their order. Borrowed
} cpa_h5ad_raw;

/** Finds the chunks of X (layer NULL) or a layer. *out stays NULL, with the reason in *why (a static string), for CSC and for
 *  what only HDF5 can read. Otherwise as cpa_h5ad_matrix_info. */
cpa_status cpa_h5ad_raw_open(cpa_h5ad *f, const char *layer, cpa_h5ad_raw **out, const char **why);

/** Frees it and sets *raw to NULL; NULL-safe. */
void cpa_h5ad_raw_close(cpa_h5ad_raw **raw);

// One block of stored values, in file order. For CSR and dense `major` is the cell, `minor` the gene; for CSC the other
// way round.
typedef struct cpa_h5ad_block {
    int64_t n;
    const int64_t *major;
    const int64_t *minor;
    const double *value;
} cpa_h5ad_block;

/** Calls `use` on blocks that together hold every stored value of cells [first, last), each once, reading only what is
 *  needed (for CSC: everything, filtered). Dense zeros are skipped. BAD_DATA: index or indptr out of range, not
 *  monotone, unreadable chunk; `use` may fail, which ends the scan. Memory: a few MB. */
cpa_status cpa_h5ad_scan(cpa_h5ad *f, const char *layer, int64_t first, int64_t last,
                         cpa_status (*use)(void *ctx, const cpa_h5ad_block *block), void *ctx);

/** Number of stored values of each of the cells [first, last), as cpa_h5ad_scan gives them: from indptr for CSR, else
 *  by a scan. Checks indptr. */
cpa_status cpa_h5ad_count(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count);

/** The same of a CSR matrix as it is stored, with all genes. */
cpa_status cpa_h5ad_count_stored(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count);

#endif
