// Owns: what the writers of .h5ad results share: rows that all ranks write, and the notes that say how a file was made.
// Never included outside src/app.
#ifndef CPA_APP_OUTPUT_IMPL_H
#define CPA_APP_OUTPUT_IMPL_H

#include "cpa/platform/comm.h"
#include "cpa/platform/h5.h"
#include "cpa/train/modelfile.h"

enum { CPA_MOST_MATRICES = 8 };

// A file of matrices of equal shape, whose rows are written in blocks. What is borrowed must outlive the file's making.
typedef struct cpa_row_plan {
    cpa_comm *comm;  // borrowed
    const char *out; // its final name, borrowed
    uint64_t inputs; // a digest of all that the numbers depend on; the same on all ranks
    int64_t n_rows, n_cols;
    int block;      // rows that are made together, whatever the number of ranks
    int n_matrices; // at most CPA_MOST_MATRICES
    /** Writes everything but the numbers, always the same bytes: the whole file but for what its matrices hold, and where in it each
     *  matrix begins. On rank 0. */
    cpa_status (*write_skeleton)(const void *ctx, const char *path, int64_t *offset);
    const void *ctx; // borrowed
} cpa_row_plan;

// The numbers of such a file: every rank writes blocks of rows where they belong, around HDF5, so that the bytes do not depend on
// the number of ranks. A record beside the file holds a digest of each block that is written, so that after a kill the same command
// goes on from there. Zero it first.
typedef struct cpa_row_file {
    cpa_row_plan plan;
    char *temporary, *fresh, *record; // owned: what is written until it is complete, its new skeleton, its digests
    int fd, record_fd;
    int64_t offset[CPA_MOST_MATRICES];
    uint64_t identity; // of all that the bytes depend on
    int64_t n_blocks;
    int64_t *there; // owned [n_blocks] 1: found when it was opened
    int64_t *mine;  // owned [n_mine] blocks that this rank is to write, unless another order is wanted
    int64_t n_mine;
    float *row;            // owned [block, n_cols], on its way to the file or back
    uint64_t digest;       // of the block that is being written
    bool begun, committed; // on rank 0: what was there before is this file's now; it has its final name
} cpa_row_file;

/** Makes the file under its temporary name, or takes the one that a killed command left if it is of the same inputs and its skeleton
 *  is what would be written now; finds the blocks in it that are whole, and says how many rows they have. NO_INPUT, IO. The same on all
 *  ranks. Collective. */
cpa_status cpa_row_file_open(const cpa_row_plan *plan, cpa_row_file *f);

/** Rows of a block. */
int cpa_row_file_rows(const cpa_row_file *f, int64_t block);

/** Writes block `block` of a matrix, `value` [rows of the block, n_cols]. The matrices of a block come in ascending order and with no
 *  other block between; the last one puts the block on record. IO. Rank-local. */
cpa_status cpa_row_file_write(cpa_row_file *f, int matrix, int64_t block, const cpa_real *value);

/** Forces the rows to disk and puts the complete file in its place. IO, the same on all ranks. Collective. */
cpa_status cpa_row_file_commit(cpa_row_file *f);

/** Frees everything; rank 0 removes what was begun and not committed. Safe on a zeroed one. */
void cpa_row_file_fini(cpa_row_file *f);

// A text that uns/cpa_hpc holds; NULL is written as "".
typedef struct cpa_note {
    const char *name, *text;
} cpa_note;

/** Writes uns/cpa_hpc: the notes, the model's digest and covariates, the program's version and, from `spec` (NULL:
 *  without), how the data were read. Nothing that depends on when, where or on how many ranks. */
cpa_status cpa_notes_write(cpa_h5 *f, const cpa_model_meta *meta, const cpa_data_spec *spec, const cpa_note *note,
                           int n_notes);

/** Writes the frame "var" of latent vectors: latent_0, latent_1, ... */
cpa_status cpa_latent_write_var(cpa_h5 *f, int64_t n_latent);

#endif
