// Owns: what the writers of .h5ad results share: rows that all ranks write, and the notes that say how a file was made.
// Never included outside src/app.
#ifndef CPA_APP_OUTPUT_IMPL_H
#define CPA_APP_OUTPUT_IMPL_H

#include "cpa/platform/h5.h"
#include "cpa/train/modelfile.h"

// The numbers of a file whose skeleton one rank has finished: every rank writes its own rows where they belong, around
// HDF5, so that the bytes do not depend on the number of ranks. Begin with {.fd = -1}.
typedef struct cpa_row_file {
    char *temporary; // owned: what is written until it is complete
    int fd;
    float *row; // owned, on its way to the file
    int64_t room;
} cpa_row_file;

/** Opens f->temporary for at most `room` values at a time. IO. */
cpa_status cpa_row_file_open(cpa_row_file *f, int64_t room);

/** Writes rows [first, first + n) of the float matrix [.., n_cols] that begins at `offset`. IO. */
cpa_status cpa_row_file_write(const cpa_row_file *f, int64_t offset, int64_t first, int64_t n, int64_t n_cols,
                              const cpa_real *value);

/** Forces the rows to disk and closes the file. IO. */
cpa_status cpa_row_file_close(cpa_row_file *f);

/** Frees everything, the file as it is; safe on one that was never opened. */
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
