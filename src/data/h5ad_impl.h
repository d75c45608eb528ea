// Owns: what the files of the AnnData reader share. Never included outside src/data/h5ad*.c.
#ifndef CPA_DATA_H5AD_IMPL_H
#define CPA_DATA_H5AD_IMPL_H

#include <sys/types.h>

#include "cpa/base/text.h"
#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"

// Which genes of a file are used. Files that keep theirs alike share it.
typedef struct cpa_gene_map {
    int n_users;
    int64_t n_genes;
    int32_t *chosen; // [n_genes] which of the stored genes each is
    int32_t *place;  // [n_stored] where each stored gene is in `chosen`, -1: nowhere
} cpa_gene_map;

// One file of a data set.
typedef struct cpa_part {
    char *path;
    cpa_h5 *h5;             // NULL while it is closed
    int64_t first, n_cells; // its first cell among those of the data set
    int64_t n_genes;        // of what is selected
    const char *x, *var;    // where the counts and their genes are: "X" and "var", or those of `raw`
    int64_t n_var;          // genes of "var"
    int64_t n_stored;       // genes of the counts as they are stored
    cpa_gene_map *genes;    // which of them are selected, or NULL: all in their order
    int64_t last_use;
    dev_t device; // which file it is, whatever it is called
    ino_t inode;
} cpa_part;

struct cpa_h5ad {
    char *path; // of the file, or of the list of files
    bool is_list;
    int n_parts, n_open;
    cpa_part *part; // [n_parts]
    int64_t n_cells, n_genes;
    int64_t clock; // counts uses
    char *fault;   // why no counts can be read: the genes of several files have not been brought together; or NULL
};

// ---- One file

/** Opens one file, as cpa_h5ad_open. Also after a failure it is to be finished. */
cpa_status cpa_part_open(const char *path, cpa_part *out);

/** Closes it and frees what it holds. */
void cpa_part_fini(cpa_part *f);

/** X and the layers with the genes of var (the file may be closed), or raw/X with those of raw/var. All genes. */
cpa_status cpa_part_use(cpa_part *f, bool raw);

/** Selects all genes again. */
void cpa_part_choose_all(cpa_part *f);

/** Selects these of the stored genes, in this order; takes over `chosen`. BAD_DATA: one comes twice. */
cpa_status cpa_part_choose(cpa_part *f, int32_t **chosen, int64_t n, const char *whose);

/** Selects genes as cpa_h5ad_select, of what is in use. */
cpa_status cpa_part_select(cpa_part *f, const char *genes);

/** Selects genes by name, in this order. */
cpa_status cpa_part_select_names(cpa_part *f, const cpa_strings *names, const char *whose);

/** Selects what another file, whose genes have the same names in the same order, has selected. */
void cpa_part_select_as(cpa_part *f, const cpa_part *other);

/** As the functions of the data set with these names; cells are counted within the file, but in blocks within the data set. */
cpa_status cpa_part_columns(cpa_part *f, const char *frame, cpa_strings *out);
cpa_status cpa_part_index(cpa_part *f, const char *frame, cpa_strings *out);
cpa_status cpa_part_factor(cpa_part *f, const char *frame, const char *column, cpa_factor *out);
bool cpa_part_has_column(cpa_part *f, const char *frame, const char *column);
cpa_status cpa_part_layers(cpa_part *f, cpa_strings *out);
cpa_status cpa_part_uns_keys(cpa_part *f, const char *key, cpa_strings *out);
cpa_status cpa_part_uns_list(cpa_part *f, const char *key, const char *name, cpa_strings *out);
cpa_status cpa_part_matrix_info(cpa_part *f, const char *layer, cpa_matrix_info *out);
cpa_status cpa_part_matrix_path(const cpa_part *f, const char *layer, char **out);
cpa_status cpa_part_scan(cpa_part *f, const char *layer, int64_t first, int64_t last, cpa_use_block use, void *ctx);
cpa_status cpa_part_count(cpa_part *f, const char *layer, int64_t first, int64_t last, int64_t *count);
cpa_status cpa_part_count_stored(cpa_part *f, const char *layer, int64_t first, int64_t last, int64_t *count);

/** Describes its matrix and finds the chunks; out->data stays NULL, with the reason in *why, where only HDF5 can read it. To be
 *  finished also after a failure. */
cpa_status cpa_part_raw_open(cpa_part *f, const char *layer, cpa_matrix_info *info, cpa_h5ad_raw_part *out,
                             const char **why);

/** Frees what it holds. */
void cpa_part_raw_fini(cpa_h5ad_raw_part *raw);

typedef cpa_status (*cpa_use_texts)(void *ctx, const cpa_strings *texts);

/** Calls `use` on the names of its cells, as cpa_h5ad_scan_texts. */
cpa_status cpa_part_scan_names(cpa_part *f, cpa_use_texts use, void *ctx);

// ---- Several files

/** File k, open: of the others a bounded number stays so. */
cpa_status cpa_h5ad_part(cpa_h5ad *f, int k, cpa_part **out);

/** The paths of the files that a list names, one a line, each relative to the list. NO_INPUT, IO: it cannot be read. BAD_DATA: none,
 *  another list. */
cpa_status cpa_h5ad_read_list(const char *path, cpa_strings *out);

/** Appends the lines of a text file without surrounding blanks; empty ones do not count. */
cpa_status cpa_h5ad_read_lines(const char *path, cpa_strings *out);

/** Selects in all files the genes that are selected in the first one; unless `all` is needed, those of them that all files have. Says
 *  what there is. */
cpa_status cpa_h5ad_join_genes(cpa_h5ad *f, bool all);

/** Keeps one copy of the selection of file k and of an earlier file with the same. */
void cpa_h5ad_share_genes(cpa_h5ad *f, int k);

// Values that are collected from several files, each once.
typedef struct cpa_union {
    cpa_strings value; // in the order in which they came
    int64_t n_slots;
    int32_t *slot; // [n_slots] positions in `value`, -1: free
} cpa_union;

/** The position of a value, which is added unless it is there. */
cpa_status cpa_union_add(cpa_union *u, const char *value, int32_t *at);

/** Frees it. */
void cpa_union_fini(cpa_union *u);

// ---- Elements of a file

/** Name of a frame's index: a member of a group, the first field of a table. `frame` is a path. */
cpa_status cpa_h5ad_index_name(const cpa_h5 *h5, const char *frame, char **out);

/** Path and, in a table, field of a member of a frame; `field` is `name` or NULL. */
cpa_status cpa_h5ad_locate(const cpa_h5 *h5, const char *frame, const char *name, char **path, const char **field);

/** Where the categories of a column outside today's groups are; *out NULL when it has none. */
cpa_status cpa_h5ad_old_categories(const cpa_h5 *h5, const char *frame, const char *column, const char *path,
                                   const char *field, char **out);

/** BAD_DATA when a column has not as many rows as its frame. */
cpa_status cpa_part_check_rows(const cpa_part *f, const char *frame, const char *column, int64_t rows);

/** BAD_DATA when what is described cannot be the codes of a categorical column. */
cpa_status cpa_h5ad_check_codes(const cpa_h5 *h5, const char *path, const cpa_h5_info *info);

/** The codes of a categorical column, which are open as `d` and checked to be such, to `out` [rows] or, NULL, only looked at. BAD_DATA
 *  where one is of none of `n_levels` categories. */
cpa_status cpa_h5ad_read_codes(const cpa_h5 *h5, const char *path, const char *field, const char *labels,
                               int64_t n_levels, cpa_h5_data *d, int32_t *out);

/** Number of rows of "obs" or "var", from its index. */
cpa_status cpa_h5ad_frame_length(const cpa_h5 *h5, const char *frame, int64_t *n);

/** Reads any one-dimensional array (strings, numbers, booleans, categorical, nullable without gaps; `field` of a
 *  compound or NULL) as strings. BAD_DATA: another encoding, missing values, no valid UTF-8. `out` must be empty. */
cpa_status cpa_h5ad_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_strings *out);

/** Calls `use` on the same strings in their order, some thousands at a time where they are stored as text. */
cpa_status cpa_h5ad_scan_texts(const cpa_h5 *h5, const char *path, const char *field, cpa_use_texts use, void *ctx);

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
