// Owns: what an AnnData file holds: its names, columns, lists and the description of its matrices. No training policy. Several
// files that a list names are one data set, their cells one after another.
// Every rank opens the files by itself; nothing here is collective. HDF5 is reached through platform/h5 alone.
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

typedef enum cpa_layout {
    CPA_LAYOUT_CSR,
    CPA_LAYOUT_CSC,
    CPA_LAYOUT_DENSE,
    CPA_LAYOUT_MIXED
} cpa_layout; // MIXED: by file

// What a matrix looks like on disk. Of several files: all values, the most elements of a chunk, "mixed" where they differ.
typedef struct cpa_matrix_info {
    cpa_layout layout;
    int64_t n_cells, n_genes, nnz; // nnz: stored values (n_cells * n_genes when dense)
    char dtype[16];                // "float32", "int64", ...
    char filters[64];              // "gzip", "lzf", "shuffle+gzip", "none"
    int64_t chunk;                 // elements of a chunk of `data`, 0 when contiguous
} cpa_matrix_info;

/** Opens a file for reading, or all files that a list (a path that ends with ".txt") names, a path relative to it on each line.
 *  NO_INPUT: no such path. BAD_DATA: not HDF5, truncated, a Git LFS pointer, another format (10x, loom, MuData), no obs or var; a
 *  list that names no file, one twice, or a list; each said with the path. */
cpa_status cpa_h5ad_open(const char *path, cpa_h5ad **out);

/** Whether a path means a list of files. */
bool cpa_h5ad_is_list(const char *path);

/** Says which counts are meant: X or a layer with the genes of var or, when `layer` is "raw" and no layer has that name, raw/X
 *  with the genes of raw/var. Of these genes `genes` names some: a boolean column of var (of the first file), or a file with a name
 *  on each line; NULL is all. They keep the order of the file. From then on index, number of genes and matrices are those of the
 *  selection. Of several files the genes are those that all of them have, by name and in the order of the first, which is said.
 *  BAD_DATA: there is no raw/X; no such column and no such file; a name that is not there, or twice; no gene is
 *  left, or of several files fewer than half of those of the smallest. Without this call, X and the layers with all genes of one
 *  file; several files need it. */
cpa_status cpa_h5ad_select(cpa_h5ad *f, const char *layer, const char *genes);

/** The same with the genes named, in this order. `whose` says in messages where the names come from. */
cpa_status cpa_h5ad_select_names(cpa_h5ad *f, const char *layer, const cpa_strings *names, const char *whose);

/** Closes it and sets *f to NULL; NULL-safe. */
void cpa_h5ad_close(cpa_h5ad **f);

/** The path of the file, or of the list. */
const char *cpa_h5ad_path(const cpa_h5ad *f);

/** How many files there are; the path of file k. */
int cpa_h5ad_n_files(const cpa_h5ad *f);
const char *cpa_h5ad_file(const cpa_h5ad *f, int k);

/** The path of the file that a cell is in; in *row its row there. */
const char *cpa_h5ad_cell(const cpa_h5ad *f, int64_t cell, int64_t *row);

int64_t cpa_h5ad_n_cells(const cpa_h5ad *f);
int64_t cpa_h5ad_n_genes(const cpa_h5ad *f);

/** Names of the columns of "obs" or "var", in column order, without the index. Of obs those that any file has, of var those of the
 *  first. */
cpa_status cpa_h5ad_columns(cpa_h5ad *f, const char *frame, cpa_strings *out);

/** The names of the cells ("obs") or genes ("var"). */
cpa_status cpa_h5ad_index(cpa_h5ad *f, const char *frame, cpa_strings *out);

/** Warns when several cells have the same name, with the first of these. Reads all names, which in files of many cells takes a while
 *  (they lie scattered), and takes 8 bytes a cell. */
cpa_status cpa_h5ad_warn_of_names(cpa_h5ad *f);

/** Reads a column as a factor; values of several files that are the same text are one level. BAD_DATA when it is missing, also in
 *  one of the files (lists the columns there are, nearest name first), of the
 *  wrong length, has a code out of range or no valid UTF-8. The caller frees it with cpa_factor_fini. */
cpa_status cpa_h5ad_factor(cpa_h5ad *f, const char *frame, const char *column, cpa_factor *out);

/** Frees a factor. */
void cpa_factor_fini(cpa_factor *factor);

/** Whether a frame has this column, as cpa_h5ad_columns lists them. */
bool cpa_h5ad_has_column(cpa_h5ad *f, const char *frame, const char *column);

/** Names of the layers of the first file. */
cpa_status cpa_h5ad_layers(cpa_h5ad *f, cpa_strings *out);

/** Names of the members of `uns`, or of the dictionary uns/<key> when key is not NULL (empty when there is none), of all files. */
cpa_status cpa_h5ad_uns_keys(cpa_h5ad *f, const char *key, cpa_strings *out);

/** The list of strings uns/<key>/<name>, of the first file that has one; empty and CPA_OK when it is missing. Names may contain any character but '/',
 *  and a name with '/' is looked up as nested groups. */
cpa_status cpa_h5ad_uns_list(cpa_h5ad *f, const char *key, const char *name, cpa_strings *out);

/** Describes X (layer NULL) or a layer; "raw" is raw/X where it was selected. BAD_DATA when it is missing (lists the layers), has an unknown encoding, a
 *  shape other than obs x var, or parts of unequal length. */
cpa_status cpa_h5ad_matrix_info(cpa_h5ad *f, const char *layer, cpa_matrix_info *out);

/** Where X (layer NULL) or a layer is in the file, in a fresh string: "X", "layers/counts", "raw/X". */
cpa_status cpa_h5ad_matrix_path(const cpa_h5ad *f, const char *layer, char **out);

// A matrix of one file by its stored chunks, to be read without HDF5.
typedef struct cpa_h5ad_raw_part {
    const char *file;           // its path. Borrowed
    char *path;                 // "X" or "layers/counts"
    bool dense;                 // else CSR
    int64_t first, n_cells;     // its cells among those of the data set
    cpa_chunks *data, *indices; // owned; dense: data alone
    int64_t n_stored;           // genes as they are stored, and
    const int32_t *place; // [n_stored] which of the genes in use each is, -1: none; NULL: all in their order. Borrowed
} cpa_h5ad_raw_part;

// The same of all files.
typedef struct cpa_h5ad_raw {
    int n_parts;
    cpa_h5ad_raw_part *part; // [n_parts] owned
} cpa_h5ad_raw;

/** Describes X (layer NULL) or a layer as cpa_h5ad_matrix_info, and finds its chunks. *out stays NULL, with the reason in *why (a
 *  static string), for CSC and for what only HDF5 can read, in any file: *which (borrowed) is its path. */
cpa_status cpa_h5ad_raw_open(cpa_h5ad *f, const char *layer, cpa_matrix_info *info, cpa_h5ad_raw **out,
                             const char **why, const char **which);

/** Frees it and sets *raw to NULL; NULL-safe. */
void cpa_h5ad_raw_close(cpa_h5ad_raw **raw);

/** Bytes of the tables that say where its chunks are. */
size_t cpa_h5ad_raw_bytes(const cpa_h5ad_raw *raw);

/** The part of a matrix that a cell is in: a position in raw->part. */
int cpa_h5ad_raw_find(const cpa_h5ad_raw *raw, int64_t cell);

// One block of stored values, in the order of the file.
typedef struct cpa_h5ad_block {
    int64_t n;
    const int64_t *cell;
    const int64_t *gene;
    const double *value;
} cpa_h5ad_block;

typedef cpa_status (*cpa_use_block)(void *ctx, const cpa_h5ad_block *block);

/** Calls `use` on blocks that together hold every stored value of cells [first, last), each once, reading only what is
 *  needed (for CSC: everything, filtered). Dense zeros are skipped. BAD_DATA: index or indptr out of range, not
 *  monotone, unreadable chunk; `use` may fail, which ends the scan. Memory: a few MB. */
cpa_status cpa_h5ad_scan(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, cpa_use_block use, void *ctx);

/** Number of stored values of each of the cells [first, last), as cpa_h5ad_scan gives them: from indptr for CSR, else
 *  by a scan. Checks indptr. */
cpa_status cpa_h5ad_count(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count);

/** The same of cells that are stored as CSR, with all genes. */
cpa_status cpa_h5ad_count_stored(cpa_h5ad *f, const char *layer, int64_t first, int64_t last, int64_t *count);

#endif
