// Owns: what is known of a matrix before its values are kept: where each cell begins, and what judging every count showed.
// Never keeps a value.
#ifndef CPA_DATA_MATRIX_H
#define CPA_DATA_MATRIX_H

#include "cpa/data/decoder.h"
#include "cpa/platform/comm.h"

typedef struct cpa_matrix {
    cpa_comm *comm;    // borrowed
    cpa_h5ad *file;    // borrowed
    const char *layer; // borrowed; NULL: X
    const char *name;  // of the layer, "X" for X
    char *path;        // in the file, of several in the first
    cpa_matrix_info info;
    cpa_h5ad_raw *raw;   // NULL: only HDF5 itself can read it, because
    const char *why;     // of this
    const char *which;   // in this file; borrowed
    bool is_first_node;  // rank 0 runs here
    int64_t first, last; // cells that this rank reads of those that its node reads
    int64_t *indptr;     // [n_cells+1] where each cell begins, one copy per node
    int64_t *
        stored; // the same of what is read, when not all genes that are stored as CSR are used; NULL when that is indptr
    int64_t nnz,
        longest; // stored values altogether (dense: other than 0; of used genes) and of the largest cell (of all genes)
    int64_t n_read;      // bytes that this rank has read of it so far
    bool judged;         // every count has been looked at, and
    cpa_row_stats stats; // this was met, over all cells
    uint8_t *counted;    // [n_genes] 1: some cell that has been looked at has a count of it
} cpa_matrix;

/** Where the cells begin in what threads read: as they are stored, of a dense matrix as what becomes of it. */
static inline const int64_t *cpa_matrix_extent(const cpa_matrix *m)
{
    return m->stored != NULL ? m->stored : m->indptr;
}

/** Whether genes fit into 16 bits, with one number to spare where some are not used. */
static inline bool cpa_matrix_is_narrow(const cpa_matrix *m)
{
    return m->info.n_genes <= (m->stored != NULL ? UINT16_MAX : UINT16_MAX + 1);
}

/** Opens X (layer NULL) or a layer and finds where its cells begin; each rank of a node reads its share of indptr (of the
 *  whole matrix where there is none). BAD_DATA as cpa_h5ad_matrix_info and cpa_h5ad_count. The same on all ranks.
 *  Collective. */
cpa_status cpa_matrix_open(cpa_comm *comm, cpa_h5ad *f, const char *layer, cpa_matrix **out);

/** Frees it and sets *m to NULL; NULL-safe. Collective over the node. */
void cpa_matrix_close(cpa_matrix **m);

/** Looks at every count in bounded memory (some 30 MB and the chunks of each thread), each rank at its share; nothing when
 *  that was done already. Needs m->raw. BAD_DATA names the first cell and gene that is NaN, infinite, negative or out of
 *  range. The same on all ranks. Collective. */
cpa_status cpa_matrix_judge(cpa_matrix *m);

/** Looks at the first cells alone (some four million values) and takes them for all: m->stats then says whether counts are wide and how
 *  large, which is all that a plan needs, and m->counted marks the genes of these cells. Nothing where that is known, or (no m->raw)
 *  cannot be found out. Rank-local. */
cpa_status cpa_matrix_sample(cpa_matrix *m);

/** Adds up the figures of the ranks that say so (each cell must have been looked at by one of them), and keeps them. Collective. */
cpa_status cpa_matrix_take_stats(cpa_matrix *m, const cpa_row_stats *mine, bool counts);

/** Warns of what was met: values that are no integers, duplicates, cells and genes without counts, counts above 2^24. Fails where the
 *  names of genes cannot be read. Collective. */
cpa_status cpa_matrix_warn(const cpa_matrix *m);

#endif
